"""When a failed request is sent again: how often, after which delay, and until when.

One :class:`Retries` serves all requests of a command. The time limit counts from the last progress,
which is any request that succeeded: a transfer does not fail because it is long. Delays have full
jitter (a random time up to a bound that doubles), so that many workers that were interrupted
together do not come back together.

A signal cannot wake botocore's own retries, which count attempts only and do not resume a body.
They are used where the caller has configured them (``AWS_MAX_ATTEMPTS``, ``AWS_RETRY_MODE``, the
profile, a session's default config).
"""

from __future__ import annotations

import math
import random
import threading
import time

from cpstage.aws.config import DEFAULT_TIMEOUT
from cpstage.aws.errors import NetworkError, ServiceError

_FIRST_DELAY, _LONGEST_DELAY, _MOST_DOUBLINGS = 0.1, 10.0, 10

_MOST_TRIES = 7
"""Of a request that fails before its answer begins: some six seconds, if the time allows."""


class Retries:
    """How long to go on after failures, and how often that was necessary.

    Args:
        timeout: Seconds since the last progress after which nothing is tried again.

    Attributes:
        count: How many requests were sent again.
    """

    def __init__(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._timeout = timeout
        self._progress = -math.inf
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self.count = 0

    @property
    def is_stopped(self) -> bool:
        """Whether no request is sent any more."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Send nothing again from now on, and wake all that wait."""
        self._stopped.set()

    def progressed(self) -> None:
        """Count the time anew: a request succeeded, or bytes arrived."""
        self._progress = time.monotonic()

    def wait(self, failures: int, began: float, most: float) -> bool:
        """Wait before a retry; return False if the request must not be retried.

        Args:
            failures: How often the request has failed.
            began: When it was first sent (``time.monotonic``).
            most: How often it may be sent.
        """
        left = max(self._progress, began) + self._timeout - time.monotonic()
        if failures >= most or left <= 0 or self.is_stopped:
            return False
        bound = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(failures, _MOST_DOUBLINGS))
        delay = random.uniform(0, bound)  # noqa: S311 (it hides nothing)
        if delay >= left or self._stopped.wait(delay):
            return False
        with self._lock:
            self.count += 1
        return True


def most_tries(error: Exception) -> float:
    """Return how often a request is sent that fails this way: infinity where only time counts."""
    if isinstance(error, NetworkError):
        return math.inf if error.began else _MOST_TRIES
    return _MOST_TRIES if isinstance(error, ServiceError) and error.may_pass else 0
