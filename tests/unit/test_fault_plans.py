"""The plans of the fault proxy: which request has which fault."""

from __future__ import annotations

import random

from fault_plans import KINDS, RandomFaults, Rule, Rules
from faults import Close, Drop, Fault, Request, Reset


def _request(operation: str, key: str = "key", query: str = "", span: str = "") -> Request:
    return Request("GET", f"/bucket/{key}", query, operation, key, span or None)


def test_rules_choose_by_what_is_given_and_by_turn() -> None:
    reset, close, drop = Reset(1), Close(1), Drop()
    plan = Rules(
        [
            Rule(reset, "GetObject", byte_range="bytes=0-9", first=2, times=2),
            Rule(close, "GetObject", path="*/key", query="version*", times=None),
            Rule(drop, method="GET", when=lambda request: request.key == "other"),
        ]
    )
    ranged = _request("GetObject", span="bytes=0-9")
    versioned = _request("GetObject", query="versionId=1")
    other = _request("HeadObject", key="other")

    assert [plan.choose(ranged) for _ in range(4)] == [None, reset, reset, None]
    assert [plan.choose(versioned) for _ in range(3)] == [close] * 3
    assert [plan.choose(other) for _ in range(2)] == [drop, None]


def test_dice_fall_the_same_way_in_any_order() -> None:
    requests = [
        *(_request("GetObject", span=f"bytes={start}-{start + 9}") for start in range(0, 200, 10)),
        *(_request("UploadPart", query=f"partNumber={number}") for number in range(20)),
    ] * 3
    shuffled = random.Random(2).sample(requests, len(requests))

    def throw(seed: int, requests: list[Request]) -> dict[Request, list[Fault | None]]:
        plan = RandomFaults(seed, 0.4, tuple(KINDS))
        fallen: dict[Request, list[Fault | None]] = {}
        for request in requests:
            fallen.setdefault(request, []).append(plan.choose(request))
        return fallen

    assert throw(7, requests) == throw(7, shuffled)
    assert throw(7, requests) != throw(8, requests)


def test_an_upload_id_does_not_change_the_dice() -> None:
    """S3 makes one up for every upload."""
    fallen = []
    for upload_id in ("one", "two"):
        request = _request("UploadPart", query=f"partNumber=1&uploadId={upload_id}")
        fallen.append([RandomFaults(seed, 0.5).choose(request) for seed in range(20)])

    assert fallen[0] == fallen[1]
    assert len({*fallen[0]}) > 2


def test_the_rate_and_the_most_of_random_faults() -> None:
    request = _request("GetObject")
    never, always, twice = RandomFaults(1, 0.0), RandomFaults(1, 1.0), RandomFaults(1, 1.0, most=2)

    assert [never.choose(request) for _ in range(20)] == [None] * 20
    assert None not in [always.choose(request) for _ in range(20)]
    assert [twice.choose(request) is None for _ in range(5)] == [False, False, True, True, True]
