"""Trying again what may pass, with growing delays, within the time that a command has for it.

Delays have full jitter (a random time up to a bound that doubles), so that many workers that were
interrupted together do not come back together. This module knows nothing of what is tried.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

DEFAULT_TIMEOUT = 300.0
"""Seconds for which failures are met with another try, from the start of the command."""

_LOGGER = logging.getLogger("cpstage")
_STAMINAS_LOGGER = logging.getLogger("stamina")
_FIRST_DELAY, _LONGEST_DELAY, _MOST_DOUBLINGS = 0.1, 10.0, 10


class Retries:
    """How long to go on, and how often it was necessary.

    Args:
        timeout: Seconds from now on after which nothing is tried again.
    """

    def __init__(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._until = time.monotonic() + timeout
        self._lock = threading.Lock()
        self.count = 0

    def __call__(
        self, attempt: Callable[[], Result], tries: Callable[[Exception], float], what: str
    ) -> Result:
        """Call a function until it does not fail, or not that way, or time is over.

        Args:
            attempt: What to try.
            tries: Tells how often it is tried that fails with an error: 0 where that is final.
            what: What is tried, for the log.
        """
        try:
            return attempt()
        except Exception as error:
            if tries(error) <= 1 or time.monotonic() >= self._until:
                raise
            return self._again(attempt, error, tries, what)

    @property
    def is_stopped(self) -> bool:
        """Whether nothing is to be tried any more."""
        return self._until == -math.inf

    def stop(self) -> None:
        """Try nothing again from now on."""
        self._until = -math.inf

    def _again(
        self,
        attempt: Callable[[], Result],
        error: Exception,
        tries: Callable[[Exception], float],
        what: str,
    ) -> Result:
        import stamina

        if not _STAMINAS_LOGGER.handlers:
            _STAMINAS_LOGGER.addHandler(logging.NullHandler())
        failures = 0

        def delay(failure: Exception) -> float | bool:
            nonlocal failures
            failures += 1
            if failures >= tries(failure) or time.monotonic() >= self._until:
                return False
            with self._lock:
                self.count += 1
            _LOGGER.info("%s: trying again: %s", what, failure)
            bound = _FIRST_DELAY * 2 ** min(failures, _MOST_DOUBLINGS)
            return random.uniform(0, min(_LONGEST_DELAY, bound))  # noqa: S311

        left = max(self._until - time.monotonic(), 0.001)
        pending: Exception | None = error
        for trial in stamina.retry_context(delay, attempts=None, timeout=left):
            with trial:
                if pending is not None:  # the first try has been made already
                    failed, pending = pending, None
                    raise failed
                if self.is_stopped:  # while it waited
                    raise error
                return attempt()
        raise error
