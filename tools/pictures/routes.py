"""The way of an arrow from one box down to another, around all others."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from pictures.drawing import Box, Point

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Line = tuple[Point, ...]
_INSET, _APART = 14, 9


def route(start: Box, end: Box, boxes: Sequence[Box], others: Sequence[Line]) -> Line:
    """Return a line from a box to a lower one: straight down, or with one corner.

    Args:
        start: Where it begins.
        end: Where it ends.
        boxes: All boxes, which it does not cross.
        others: The lines that are there, which it does not run along.

    Raises:
        ValueError: There is no such line.
    """
    for line in _ways(start, end):
        through = [box for box in boxes if box not in (start, end) and _crosses(line, box)]
        if not through and not any(_runs_along(line, other) for other in others):
            return line
    raise ValueError(f"no way from {start.name} to {end.name}")


def _ways(start: Box, end: Box) -> Iterator[Line]:
    left, right = max(start.left, end.left), min(start.right, end.right)
    for x in _places(left, right):
        yield Point(x, start.bottom), Point(x, end.top)
    to_left = end.left < start.left
    side = Point(end.right if to_left else end.left, end.middle.y)
    for x in _places(start.left, start.right):
        yield Point(x, start.bottom), Point(x, side.y), side
    begin = Point(start.left if to_left else start.right, start.middle.y)
    for x in _places(end.left, end.right):
        yield begin, Point(x, begin.y), Point(x, end.top)


def _places(left: float, right: float) -> Iterator[float]:
    """Yield places on an edge, from its middle outwards."""
    middle = (left + right) / 2
    offset = 0.0
    while middle - offset >= left + _INSET:
        yield middle + offset
        yield middle - offset
        offset += 2 * _APART


def _crosses(line: Line, box: Box) -> bool:
    return any(
        max(min(a.x, b.x), box.left) <= min(max(a.x, b.x), box.right)
        and max(min(a.y, b.y), box.top) <= min(max(a.y, b.y), box.bottom)
        for a, b in pairwise(line)
    )


def _runs_along(line: Line, other: Line) -> bool:
    return any(_close(a, b, c, d) for a, b in pairwise(line) for c, d in pairwise(other))


def _close(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether two lines, both level or both upright, are beside each other."""
    if a.x == b.x and c.x == d.x:
        return abs(a.x - c.x) < _APART and max(a.y, c.y) < min(b.y, d.y)
    if a.y == b.y and c.y == d.y:
        inner = max(min(a.x, b.x), min(c.x, d.x)) < min(max(a.x, b.x), max(c.x, d.x))
        return abs(a.y - c.y) < _APART and inner
    return False
