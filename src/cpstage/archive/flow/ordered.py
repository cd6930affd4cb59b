"""Work in threads whose results come in order, with a bounded number of units under way.

This module knows nothing of archive formats, nor of what the work is.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

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
