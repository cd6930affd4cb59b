"""How many ranges are read at once: as many as the network makes use of, within bounds."""

from __future__ import annotations

import pytest

from cpstage.archive.blob import READ_SIZE, InFlight


def _settled(bandwidth: float, round_trip: float, *, consumer: float = 1e12, most: int = 16) -> int:
    """Return how many are in flight after a large transfer.

    Args:
        bandwidth: Bytes per second of the network, shared by all ranges.
        round_trip: Seconds from the request for a range to its first byte.
        consumer: Bytes per second that are consumed.
        most: The bound.
    """
    flight, now = InFlight(0.0), 0.0
    flight.most = most
    for _ in range(200):
        by_the_network = flight.count * READ_SIZE / (round_trip + READ_SIZE / bandwidth)
        rate = min(bandwidth, by_the_network, consumer)
        now += READ_SIZE / rate
        flight.take(READ_SIZE, waited=rate < consumer, now=now)
    return flight.count


@pytest.mark.parametrize(
    ("bandwidth", "round_trip", "least", "most"),
    [
        pytest.param(125e6, 0.001, 4, 4, id="1 Gbit/s is used by four"),
        pytest.param(125e6, 0.080, 4, 4, id="1 Gbit/s, far away"),
        pytest.param(1.25e9, 0.020, 4, 6, id="10 Gbit/s, 25 MB on the way"),
        pytest.param(1.25e9, 0.080, 11, 16, id="10 Gbit/s, 100 MB on the way"),
    ],
)
def test_what_is_in_flight_follows_bandwidth_times_delay(
    bandwidth: float, round_trip: float, least: int, most: int
) -> None:
    assert least <= _settled(bandwidth, round_trip) <= most


def test_it_stays_within_the_bound() -> None:
    assert _settled(1.25e9, 1.0, most=8) == 8


def test_a_consumer_that_is_slower_than_the_network_needs_no_more() -> None:
    assert _settled(1.25e9, 0.080, consumer=100e6) == 4


@pytest.mark.parametrize(
    ("waited", "seconds", "is_far"), [(True, 0.1, True), (True, 0.003, False), (False, 0.1, False)]
)
def test_the_first_block_shows_whether_the_blob_is_far_away(
    waited: bool, seconds: float, is_far: bool
) -> None:
    flight = InFlight(10.0)

    flight.take(1 << 16, waited=waited, now=10.0 + seconds)
    flight.take(READ_SIZE, waited=not waited, now=11.0)

    assert flight.is_far == is_far
