"""Which requests have which faults: rules that a test writes down, or dice that it can throw again.

A plan knows requests and faults, and nothing of connections.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import KW_ONLY, dataclass
from fnmatch import fnmatchcase
from random import Random
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qs

from faults import INTERNAL_ERROR, SLOW_DOWN, Close, Drop, Fault, Flip, Request, Reset, Stall

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Plan(Protocol):
    """Decides what happens to each request; asked in the order in which their heads come."""

    def choose(self, request: Request) -> Fault | None: ...


@dataclass(frozen=True)
class Rule:
    """A fault for the requests that everything given here holds of.

    Attributes:
        fault: What happens to them.
        operation: The API's name.
        method: The HTTP method.
        path: A glob.
        query: A glob.
        byte_range: The whole ``Range`` header.
        when: Any other condition.
        first: With which of them it begins, from 1.
        times: How many of them have it, from there on; None for all.
    """

    fault: Fault
    operation: str | None = None
    _: KW_ONLY
    method: str | None = None
    path: str = "*"
    query: str = "*"
    byte_range: str | None = None
    when: Callable[[Request], bool] = lambda _: True
    first: int = 1
    times: int | None = 1

    def is_for(self, request: Request) -> bool:
        return (
            self.operation in (None, request.operation)
            and self.method in (None, request.method)
            and self.byte_range in (None, request.byte_range)
            and fnmatchcase(request.path, self.path)
            and fnmatchcase(request.query, self.query)
            and self.when(request)
        )

    def has_turn(self, ordinal: int) -> bool:
        return self.first <= ordinal and (self.times is None or ordinal < self.first + self.times)


class Rules:
    """A plan of rules: the first one whose turn it is applies; all of them count all requests."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self._counts = [0] * len(self._rules)
        self._lock = threading.Lock()

    def choose(self, request: Request) -> Fault | None:
        chosen = None
        with self._lock:
            for index, rule in enumerate(self._rules):
                if rule.is_for(request):
                    self._counts[index] += 1
                    if chosen is None and rule.has_turn(self._counts[index]):
                        chosen = rule.fault
        return chosen


KINDS: Mapping[str, Callable[[Random], Fault]] = {
    "reset": lambda random: Reset(random.random()),
    "close": lambda random: Close(random.random()),
    "stall": lambda random: Stall(random.random()),
    "flip": lambda random: Flip(random.random()),
    "reset upload": lambda random: Reset(random.random(), side="request"),
    "drop": lambda _: Drop(),
    "lose answer": lambda _: Close(None),
    "500": lambda _: INTERNAL_ERROR,
    "503": lambda _: SLOW_DOWN,
}
BENIGN = ("reset", "close", "reset upload", "drop", "lose answer", "500", "503")
"""What a client gets over by trying again, at once and without knowing more."""


class RandomFaults:
    """A plan by dice, which fall the same way for the same requests, whatever order they come in.

    A request is known by operation, key, part number and range, and by how many of its like came
    before; so a run is repeated by its seed, if it has the same keys.

    Args:
        seed: Another seed, other faults.
        rate: How likely each request is struck, from 0.0 to 1.0.
        kinds: Names out of `KINDS`.
        most: How often requests of one kind are struck; None for no end.
    """

    def __init__(
        self, seed: int, rate: float, kinds: Sequence[str] = BENIGN, *, most: int | None = None
    ) -> None:
        self._seed, self._rate, self._most = seed, rate, most
        self._kinds = tuple(kinds)
        self._seen: Counter[str] = Counter()
        self._struck: Counter[str] = Counter()
        self._lock = threading.Lock()

    def choose(self, request: Request) -> Fault | None:
        part = parse_qs(request.query).get("partNumber", [""])[0]
        like = "\0".join((request.operation, request.key, part, request.byte_range or ""))
        with self._lock:
            self._seen[like] += 1
            random = Random(f"{self._seed}\0{like}\0{self._seen[like]}")
            struck = random.random() < self._rate
            if not struck or self._struck[like] == self._most:
                return None
            self._struck[like] += 1
        return KINDS[random.choice(self._kinds)](random)
