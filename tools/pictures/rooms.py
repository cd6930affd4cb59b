"""Draw the rooms of the package, and who imports whom: ``python tools/pictures/rooms.py``.

It writes docs/rooms.svg. The floors are the design, and stand here; the arrows are read from the
source. Arrows that others imply are not drawn.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.extend(str(Path(__file__).parents[2] / one) for one in ("tools", "tests/support"))

from pictures.drawing import Box, Point, arrow, card, text
from pictures.imports import Imports, essential, imports
from pictures.routes import route

PICTURE = Path(__file__).resolve().parents[2] / "docs/rooms.svg"

FLOORS: tuple[tuple[tuple[str, float, float, str], ...], ...] = (
    (("cli", 0, 7, "the command line: prints and exits"),),
    (("cpstage", 1, 7, "the public API: names handed on"),),
    (("local", 0, 1, "an AWS, apart"), ("worker", 1, 3, "polls, claims, runs, reports")),
    (("runner", 1, 3, "a command in between"), ("inspect", 4, 6, "show, ls, cat, diff, doctor")),
    (("transfer", 1, 6, "fetch and push, pack and unpack"),),
    (
        ("encryption", 1, 2, "Encryption SDK"),
        ("workspace", 6, 7, "lock, publish"),
    ),
    (("archive", 5, 6, "zip, tar, tar.gz"),),
    (
        ("aws", 1, 4, "boto3: clients, S3, job credentials"),
        ("filesystem", 4, 7, "writes, walks, globs"),
    ),
)
"""From the top: the rooms of each floor, from which column to which, and what they are."""

GROUND: tuple[tuple[str, ...], ...] = (
    ("job", "progress", "_posix"),
    ("errors", "_deflate", "_version"),
)
"""Below them: what any room may use; these modules import neither AWS, archives nor workspaces."""

APART = frozenset({"local"})
_TITLE = "The rooms of cpstage, and which imports which: arrows go down only"
_MARGIN, _COLUMN, _GAP = 18, 112, 10
_HEIGHT, _FLOOR = 40, 62
_WIDTH = 2 * _MARGIN + 7 * _COLUMN + 6 * _GAP


def height_of(room: str) -> int:
    """Return on which floor a room is, from the ground up.

    Raises:
        ValueError: It has none.
    """
    floors = [*([name for name, *_ in floor] for floor in FLOORS), *GROUND]
    for height, names in enumerate(reversed(floors)):
        if room in names:
            return height
    raise ValueError(f"{room} has no floor in {__file__}")


def boxes() -> dict[str, Box]:
    """Return the boxes of all rooms above the ground."""
    return {
        name: Box(
            _MARGIN + first * (_COLUMN + _GAP),
            _MARGIN + number * _FLOOR,
            (end - first) * (_COLUMN + _GAP) - _GAP,
            _HEIGHT,
            name,
            (said,),
            "apart" if name in APART else "ours" if name == "transfer" else "box",
        )
        for number, floor in enumerate(FLOORS)
        for name, first, end, said in floor
    }


def arrows(known: Imports) -> list[tuple[str, str]]:
    """Return the arrows that are drawn: between rooms above the ground, none implied by others."""
    drawn = boxes().keys()
    above = {
        room: others & (APART if room in APART else drawn)
        for room, others in known.items()
        if room in drawn
    }
    return sorted(essential(above), key=lambda one: (-height_of(one[0]), one))


def svg() -> str:
    """Return the drawing."""
    placed = boxes()
    lines: list[tuple[Point, ...]] = []
    for room, other in arrows(imports()):
        lines.append(route(placed[room], placed[other], list(placed.values()), lines))
    parts = [arrow(*line) for line in lines]
    parts += [part for box in placed.values() for part in box.draw()]
    top = _MARGIN + len(FLOORS) * _FLOOR - 6
    return card(_WIDTH, top + 108, _TITLE, [*parts, *_ground(top)])


def _ground(top: float) -> list[str]:
    """Draw what all others stand on."""
    width = _WIDTH - 2 * _MARGIN
    middle = _WIDTH / 2
    said = "what all may use, and what knows of no AWS, no archive and no workspace"
    return [
        f'<rect class="box" x="{_MARGIN}" y="{top}" width="{width}" height="90" rx="6"/>',
        *(
            text(Point(middle, top + 22 + 18 * number), " · ".join(names), "name", "middle")
            for number, names in enumerate(GROUND)
        ),
        text(Point(middle, top + 78), said, "note", "middle"),
    ]


def main() -> None:
    """Write the picture."""
    PICTURE.write_text(svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
