"""An iterator that works in a thread of its own, a bounded number of items ahead of its consumer.

This module knows nothing of what the items are.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

Item = TypeVar("Item")


class _End:
    """Comes after the last item.

    Args:
        error: What the iterator raised, if it did not end by itself.
    """

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


@contextmanager
def ahead(items: Iterator[Item], most: int) -> Iterator[Iterator[Item]]:
    """Run an iterator in a thread until it ends, or until the context is left.

    Nobody waits for the thread: it may be in the middle of a read that takes its time. It goes no
    further than to the end of the item that it is at, and nothing takes that item. The queues are
    the ones that a signal handler may interrupt at any place by an exception.

    Args:
        items: What to run. What it raises is raised in its consumer.
        most: How many items may wait for their consumer.
    """
    ready: SimpleQueue[Item | _End] = SimpleQueue()
    room: SimpleQueue[None] = SimpleQueue()
    left = threading.Event()

    def work() -> None:
        end = _End()
        try:
            for item in items:
                room.get()
                if left.is_set():
                    return
                ready.put(item)
        except BaseException as error:
            end.error = error
        ready.put(end)

    def taken() -> Iterator[Item]:
        while not isinstance(item := ready.get(), _End):
            room.put(None)
            yield item
        if item.error is not None:
            raise item.error

    for _ in range(most):
        room.put(None)
    try:
        threading.Thread(target=work, name="cpstage-ahead", daemon=True).start()
        yield taken()
    finally:
        left.set()
        room.put(None)
