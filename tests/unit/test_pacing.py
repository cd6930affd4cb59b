"""The waits between polls: never nothing, never as long as those of other workers, and bounded."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING

import pytest

from cpstage.worker.claims import Pace

if TYPE_CHECKING:
    from collections.abc import Callable

MANY = 5000


def test_waits_after_nothing_have_a_long_tail_and_the_interval_as_their_mean() -> None:
    pace = Pace(10)

    waits = [pace.found_nothing() for _ in range(MANY)]

    assert min(waits) >= 2.5
    assert max(waits) <= 50
    assert max(waits) > 40
    assert 9 < mean(waits) < 11
    assert len(set(waits)) > MANY / 2


def test_waits_after_failures_grow_to_a_bound_and_are_never_nothing() -> None:
    rows = []
    for _ in range(500):
        pace = Pace(10)
        rows.append([pace.failed() for _ in range(40)])

    means = [mean(column) for column in zip(*rows, strict=True)]

    assert all(wait >= 0.1 for row in rows for wait in row)
    assert all(wait <= 60 for row in rows for wait in row)
    assert means[0] < means[1] < means[2]
    assert means[-1] > 20


@pytest.mark.parametrize("interval", [0.2, 10, 3600])
def test_the_end_of_a_long_outage_is_found_within_a_minute(interval: float) -> None:
    pace = Pace(interval)

    waits = [pace.failed() for _ in range(MANY)]

    assert max(waits) <= 60


@pytest.mark.parametrize("answer", [Pace.found_nothing, Pace.found_jobs])
def test_a_poll_that_is_answered_ends_a_row_of_failures(answer: Callable[[Pace], float]) -> None:
    pace = Pace(1)
    for _ in range(30):
        pace.failed()

    answer(pace)

    assert pace.failed() <= 2
