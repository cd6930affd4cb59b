"""Work that is begun before anybody asks for what comes of it, as much of it as there is room for.

This module knows nothing of archive formats, nor of what the work is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Unit = TypeVar("Unit", bound=Hashable)
Result = TypeVar("Result")


class Early(Generic[Unit, Result]):
    """Does work on units, on some of them in threads before they are asked for.

    Args:
        work: What to do.
        threads: How many may do it early at a time.
        ahead: How many units may be under way at once.
        most: How much may come of units before anybody asks for them.
        size: How much that is of one.
    """

    def __init__(
        self,
        work: Callable[[Unit], Result],
        *,
        threads: int,
        ahead: int,
        most: int,
        size: Callable[[Result], int],
    ) -> None:
        self._work = work
        self._ahead = ahead
        self._left = most
        self._size = size
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="cpstage-early")
        self._begun: dict[Unit, Future[Result]] = {}
        self._under_way: deque[Future[Result]] = deque()

    def begin(self, unit: Unit) -> None:
        """Begin to work on a unit, if there is room for what comes of it.

        Raises:
            Exception: What work raised that was begun before.
        """
        while self._under_way and self._under_way[0].done():
            self._left -= self._size(self._under_way.popleft().result())
        if len(self._under_way) < self._ahead and self._left > 0:
            begun = self._begun[unit] = self._threads.submit(self._work, unit)
            self._under_way.append(begun)

    def __call__(self, unit: Unit) -> Result:
        """Return what comes of a unit, which is worked on now if it was not begun."""
        begun = self._begun.pop(unit, None)
        return begun.result() if begun else self._work(unit)

    def close(self) -> None:
        """Drop what was not asked for; what is under way is waited for."""
        self._threads.shutdown(cancel_futures=True)
