"""Threads that unpack and pack, with a bounded number of units in progress."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

Unit = TypeVar("Unit")
Result = TypeVar("Result")

_MOST_THREADS = 8
"""Beyond that, threads wait for the interpreter's lock more than they work."""


def thread_count() -> int:
    """Return how many threads keep this process's processors busy; at least two."""
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        processors = os.cpu_count() or 1
    return min(max(processors, 2), _MOST_THREADS)


def in_order(
    work: Callable[[Unit], Result], units: Iterable[Unit], *, threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Do work on units in threads, and yield the results in the order of the units.

    The units are taken one by one by the caller's thread. When a unit fails, when taking one
    fails, or when the caller stops, what has not begun is dropped and what has is waited for, so
    that nothing is done after the iterator has ended.

    Args:
        work: What to do; it must come to an end by itself.
        units: What to do it on.
        threads: How many at a time.
        ahead: How many units may be under way or done before the first of them is taken.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="cpstage-work")
    under_way: deque[Future[Result]] = deque()
    try:
        for unit in units:
            under_way.append(pool.submit(work, unit))
            if len(under_way) >= ahead:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


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

    The context does not wait for the thread, which may be in a long read. The thread ends after its
    current item, which is dropped. The queues are
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
