"""How long a worker waits between two polls: never as long as its neighbours, and never not at all.

Workers that were started together must not poll together. A wait after an empty poll is a quarter
of the interval and a random time with a long tail; after a failure it has full jitter up to a
bound that doubles. This module knows nothing of what is polled.
"""

from __future__ import annotations

import random

DEFAULT_INTERVAL = 10.0
"""Seconds between two polls that find nothing, on average."""

_LEAST = 0.25
_LONGEST = 5.0
"""Both in intervals."""

_LONGEST_BACKOFF = 300.0
_LEAST_BACKOFF = 0.1


class Pace:
    """The waits of one worker.

    Args:
        interval: Seconds between two polls that find nothing, on average.
    """

    def __init__(self, interval: float = DEFAULT_INTERVAL) -> None:
        self._interval = interval
        self._failures = 0

    def found_nothing(self) -> float:
        """Return the seconds to wait after a poll that brought no job."""
        self._failures = 0
        tail = random.expovariate(1 / (1 - _LEAST))
        return self._interval * min(_LEAST + tail, _LONGEST)

    def failed(self) -> float:
        """Return the seconds to wait after a poll that failed: the more, the more there were."""
        self._failures = min(self._failures + 1, 32)
        bound = min(_LONGEST_BACKOFF, self._interval * 2**self._failures)
        return max(_LEAST_BACKOFF, random.uniform(0, bound))  # noqa: S311 (it hides nothing)
