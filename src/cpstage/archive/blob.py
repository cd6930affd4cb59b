"""Random access to immutable bytes (:class:`Blob`), and reading them ahead of their use.

Archive readers take an S3 object, a local file and a decrypted temporary file alike. A
:class:`ReadAhead` reads a blob once, from its start to its end, in blocks that several threads
fetch in parallel and within bounds; bytes are not copied as far as they lie in one block.
:func:`early_reads` reads several small blobs at once, so that a job of many small artifacts does
not wait for each. They are used one after the other: only the waiting overlaps.
"""

from __future__ import annotations

import io
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cpstage.archive.workers import Result, Unit, bounded, thread_count
from cpstage.errors import ArtifactRejected, LocalIOError, local_reason

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Blob(Protocol):
    """Random access to immutable bytes; ``read`` may be called from several threads at once."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly the bytes ``[offset, offset + length)``, which lie inside."""


class BytesBlob:
    """Bytes in memory as a :class:`Blob`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes ``[offset, offset + length)``."""
        return self._data[offset : offset + length]


class FileBlob:
    """A local file as a :class:`Blob`, by its path or, without a name, an open descriptor.

    Raises:
        LocalIOError: It cannot be read, or it became shorter meanwhile.
    """

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self._path = path
        try:
            self._descriptor = (
                os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                if descriptor is None
                else os.dup(descriptor)
            )
        except OSError as error:
            raise self._unreadable(local_reason(error)) from error
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes ``[offset, offset + length)``."""
        try:
            chunk = os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise self._unreadable(local_reason(error)) from error
        if len(chunk) != length:
            raise self._unreadable("it became shorter while it was read")
        return chunk

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _unreadable(self, why: str) -> LocalIOError:
        return LocalIOError(f"cannot read {self._path}: {why}")


READ_SIZE = 8 << 20
"""Bytes of one read of the blob: large enough that the time to its first byte does not matter."""

_FIRST = 64 << 10
"""Bytes of the first read, by which can be told what is in the archive: a new connection carries
them in three round trips, and 1 MiB in seven."""

_FAR_SECONDS = 0.02
"""A first read that takes longer is one from far away: the other connections, which take as long to
get going, are then opened at once."""

_FEWEST = 4
"""Blocks that are on their way or waiting, besides the one being consumed."""

_MORE_PER_THREAD = 2
"""More blocks for each thread that unpacks: a faster machine takes more bytes in a round trip, and
has more memory."""

_MORE = 2
_GAIN = 1.1
"""How many more are tried at once, and by what factor they have to raise the rate."""


class InFlight:
    """How many blocks are on their way or waiting: as many as the network makes use of.

    That is its bandwidth times its delay. While this process has to wait for the network, more are
    tried, up to a bound that bounds the memory too. They stay if more bytes are carried by them.

    Attributes:
        count: How many.
        most: The bound.
        is_far: Whether the first block was waited for long.
    """

    def __init__(self, now: float, more_per_thread: int = _MORE_PER_THREAD) -> None:
        self.count = self._useful = _FEWEST
        self.most = _FEWEST + more_per_thread * thread_count()
        self.is_far = False
        self._rate = 0.0
        self._blocks = self._bytes = 0
        self._waited = False
        self._began = now

    def take(self, length: int, *, waited: bool, now: float) -> None:
        """Count a block that came or was sent: its bytes, whether it was waited for, and when."""
        if not self._rate and not self._blocks:
            self.is_far = waited and now - self._began > _FAR_SECONDS
        self._blocks += 1
        self._bytes += length
        self._waited = self._waited or waited
        if self._blocks < self.count:
            return
        if self._waited and self.count < self.most:
            self._try_more(self._bytes / max(now - self._began, 1e-6))
        self._blocks = self._bytes = 0
        self._waited = False
        self._began = now

    def _try_more(self, rate: float) -> None:
        if rate > self._rate * _GAIN:
            self._rate, self._useful = rate, self.count
            self.count = min(self.count + _MORE, self.most)
        else:
            self.count = self.most = self._useful


class Digest(Protocol):
    """Something that is computed over a stream, and compared at its end."""

    def update(self, data: bytes) -> None:
        """Add the next bytes."""

    def verify(self) -> None:
        """Raise ArtifactRejected if the result is not the expected one."""


class ReadAhead(io.RawIOBase):
    """A file over a blob that is read forwards only; fetching of its start begins at once.

    Args:
        blob: What to read.
        consumed: Is called with the number of bytes of each block as it is reached.
        digest: Is given every byte, in order.

    Attributes:
        read_size: Bytes of one read of the blob, a divisor of :data:`READ_SIZE`.
    """

    def __init__(
        self,
        blob: Blob,
        consumed: Callable[[int], object] = lambda _: None,
        digest: Digest | None = None,
    ) -> None:
        if blob.size <= READ_SIZE:
            blob = BytesBlob(blob.read(0, blob.size))  # so that random access has it too
        self.blob = blob
        self.read_size = READ_SIZE
        self._consumed = consumed
        self._digest = digest
        self._block = memoryview(b"")
        self._left = blob.size
        self._wanted = 0
        self._coming: deque[Future[bytes]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        if blob.size > READ_SIZE:
            self._in_flight = InFlight(time.monotonic())
            self._pool = ThreadPoolExecutor(self._in_flight.most, thread_name_prefix="cpstage-read")
            self._fetch(self._pool, _FIRST)

    def is_far(self) -> bool:
        """Wait for the first block, and return whether it shows that the blob is far away."""
        self._reach()
        return self._pool is not None and self._in_flight.is_far

    @property
    def left(self) -> int:
        """How many bytes there are from here to the end of the blob."""
        return self._left

    def readable(self) -> bool:
        """A blob can be read."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer as far as the current block goes."""
        view = memoryview(buffer).cast("B")
        piece = self._some(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def peek(self, length: int) -> bytes:
        """Return bytes without moving on: fewer than asked for only at the end of the block."""
        self._reach()
        return bytes(self._block[:length])

    def take(self, length: int) -> memoryview:
        """Move on by a number of bytes, and return them.

        Raises:
            ArtifactRejected: There are fewer.
        """
        piece = self._some(length)
        if len(piece) == length:
            return piece
        return memoryview(b"".join([piece, *self.pieces(length - len(piece))]))

    def pieces(self, length: int) -> Iterator[memoryview]:
        """Move on by a number of bytes, and return them as they come.

        Raises:
            ArtifactRejected: There are fewer.
        """
        while length:
            piece = self._some(length)
            if not piece:
                raise ArtifactRejected("the archive ends in the middle of its data")
            length -= len(piece)
            yield piece

    def finish(self) -> None:
        """Read what is left, and compare all that was read with the digest, if there is one.

        Raises:
            ArtifactRejected: They differ.
        """
        for _ in self.pieces(self._left):
            pass
        if self._digest:
            self._digest.verify()

    def close(self) -> None:
        """Drop the buffers, and do not wait for reads in progress."""
        if not self.closed and self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._coming.clear()
        self._block = memoryview(b"")
        super().close()

    def fetch_ahead(self) -> None:
        """Fetch as much ahead as there is room for; reading does so by itself."""
        while (
            self._pool
            and len(self._coming) < self._in_flight.count
            and self._wanted < self.blob.size
        ):
            # Stores keep large objects in pieces of such sizes: reads across two cost them both.
            self._fetch(self._pool, self.read_size - self._wanted % self.read_size)

    def _some(self, length: int) -> memoryview:
        """Move on by as much as the current block has."""
        if length and self._left:
            self._reach()
            self.fetch_ahead()
        piece = self._block[:length]
        self._block = self._block[len(piece) :]
        self._left -= len(piece)
        return piece

    def _reach(self) -> None:
        """Make the next block the current one, if that is used up."""
        if self._block or not self._left:
            return
        block = self._come() if self._pool else self.blob.read(0, self.blob.size)
        self._block = memoryview(block)
        if self._digest:
            self._digest.update(block)
        self._consumed(len(block))

    def _come(self) -> bytes:
        """Return the next of the blocks that were asked for."""
        coming = self._coming.popleft()
        waited = not coming.done()
        block = coming.result()
        self._in_flight.take(len(block), waited=waited, now=time.monotonic())
        return block

    def _fetch(self, pool: ThreadPoolExecutor, most: int) -> None:
        length = min(most, self.blob.size - self._wanted)
        self._coming.append(pool.submit(self.blob.read, self._wanted, length))
        self._wanted += length


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
    """
    pool = ThreadPoolExecutor(_REQUESTS, thread_name_prefix="cpstage-request")
    begun = (pool.submit(request, unit) for unit in units)
    try:
        yield bounded(begun, lambda future: future, _REQUESTS)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def early_reads(blobs: Sequence[Blob]) -> Iterator[Iterator[Blob]]:
    """Read the small ones of some blobs before their turn; give all of them in their order."""
    small = [blob for blob in blobs if blob.size <= SMALL_BYTES]
    with at_once(lambda blob: blob.read(0, blob.size), small) as contents:
        yield (
            _EarlyBlob(blob.size, next(contents)) if blob.size <= SMALL_BYTES else blob
            for blob in blobs
        )


class _EarlyBlob(NamedTuple):
    """A small blob that is being read, or was."""

    size: int
    content: Future[bytes]

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes ``[offset, offset + length)``."""
        return self.content.result()[offset : offset + length]
