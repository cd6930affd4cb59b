"""Requests for several artifacts at once, so that a job of many small ones does not wait for each.

The answers are used one after the other, in the order of the job: only the waiting overlaps. What
is under way is bounded, in requests and in bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from cpstage.archive.blob import Blob
from cpstage.archive.workers import bounded

Unit = TypeVar("Unit")
Result = TypeVar("Result")

_REQUESTS = 6
"""Requests at the same time, each on a connection."""

SMALL_BYTES = 1 << 20
"""An artifact up to this size is read, or packed, before its turn: a larger one takes longer than
the wait for its first byte, and the memory of several."""


@contextmanager
def at_once(
    request: Callable[[Unit], Result], units: Iterable[Unit]
) -> Iterator[Iterator[Future[Result]]]:
    """Make requests in threads, a few at once; give their futures in the order of the units.

    The caller's thread iterates over the units. The context does not wait for its threads
    when it is left early: a caller who stops because of a failure interrupts the requests.

    Args:
        request: Makes the request for a unit.
        units: What to make requests for.
    """
    pool = ThreadPoolExecutor(_REQUESTS, thread_name_prefix="cpstage-request")

    begun = (pool.submit(request, unit) for unit in units)
    try:
        yield bounded(begun, lambda future: future, _REQUESTS)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def early_reads(blobs: Mapping[str, Blob]) -> Iterator[Callable[[str], Blob]]:
    """Read small blobs before their turn; give a function that returns a blob by its name.

    Args:
        blobs: The blobs by their names, in the order in which they are used; some may be skipped.
    """
    small = {name: blob for name, blob in blobs.items() if blob.size <= SMALL_BYTES}
    with at_once(_whole, small.values()) as coming:
        contents = zip(small, coming, strict=True)

        def take(name: str) -> Blob:
            if name not in small:
                return blobs[name]
            content = next(content for one, content in contents if one == name)
            return _EarlyBlob(small[name].size, content)

        yield take


class _EarlyBlob(NamedTuple):
    """A small blob that is being read, or was."""

    size: int
    content: Future[bytes]

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes ``[offset, offset + length)``."""
        return self.content.result()[offset : offset + length]


def _whole(blob: Blob) -> bytes:
    return blob.read(0, blob.size)
