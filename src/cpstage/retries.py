"""Trying again: what botocore cannot retry, a body that was cut while it was read.

botocore tries a request again until its answer has begun; from then on it is ours to do. Delays
have full jitter (a random time up to a bound that doubles), so that many workers that were
interrupted together do not come back together. This module knows nothing of what is tried.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

DEFAULT_TIMEOUT = 300.0
"""Seconds for which failures are met with another try, from the start of the command."""

_LOGGER = logging.getLogger("cpstage")
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 10.0


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
        self,
        attempt: Callable[[], Result],
        on: type[Exception] | tuple[type[Exception], ...],
        what: str,
    ) -> Result:
        """Call a function until it does not fail that way, or time is over.

        Args:
            attempt: What to try; what else it raises goes through.
            on: The failures that may pass.
            what: What is tried, for the log.
        """
        try:
            return attempt()
        except on as error:
            return self._again(attempt, error, on, what)

    def attach(self, client: Any) -> None:
        """Count what a client of botocore tries again by itself."""
        for event in ("after-call", "after-call-error"):
            client.meta.events.register(event, self._note)

    def _again(
        self,
        attempt: Callable[[], Result],
        error: Exception,
        on: type[Exception] | tuple[type[Exception], ...],
        what: str,
    ) -> Result:
        import stamina

        logging.getLogger("stamina").addHandler(logging.NullHandler())
        failures = 0

        def delay(failure: Exception) -> float | bool:
            nonlocal failures
            if not isinstance(failure, on):
                return False
            failures += 1
            self._add(1)
            _LOGGER.info("%s: trying again: %s", what, failure)
            return random.uniform(0, min(_LONGEST_DELAY, _FIRST_DELAY * 2**failures))  # noqa: S311

        left = self._until - time.monotonic()
        if left <= 0:
            raise error
        pending: Exception | None = error
        for trial in stamina.retry_context(delay, attempts=None, timeout=left):
            with trial:
                if pending is not None:  # the first try has been made already
                    failed, pending = pending, None
                    raise failed
                return attempt()
        raise error

    def _note(self, http_response: Any = None, parsed: Any = None, **_: Any) -> None:
        del http_response
        again = (parsed or {}).get("ResponseMetadata", {}).get("RetryAttempts", 0)
        self._add(int(again))

    def _add(self, count: int) -> None:
        with self._lock:
            self.count += count
