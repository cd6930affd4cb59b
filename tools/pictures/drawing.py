"""What our drawings share: a card in the colors of the page, boxes, and arrows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

_STYLE = """
text{font:13px -apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#24292f}
.name{font:600 13px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.note{font-size:11.5px;fill:#57606a}.strong{font-weight:600}
.card{fill:#fbfbfa;stroke:#d8dee4}.box{fill:#fff;stroke:#afb8c1}
.ours{fill:#e3eefb;stroke:#2563a8}.apart{fill:none;stroke:#afb8c1;stroke-dasharray:4 3}
.line{fill:none;stroke:#6e7781;stroke-width:1.4}.head{fill:#6e7781}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}
.card{fill:#161b22;stroke:#30363d}.box{fill:#21262d;stroke:#565f69}
.ours{fill:#16304f;stroke:#539bf5}.apart{stroke:#565f69}
.line{stroke:#8b949e}.head{fill:#8b949e}}
"""
_HEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
    'markerHeight="7" orient="auto-start-reverse"><path class="head" d="M0,0 8,4 0,8z"/>'
    "</marker></defs>"
)


@dataclass(frozen=True)
class Point:
    """A place on the card."""

    x: float
    y: float


@dataclass(frozen=True)
class Box:
    """A box with a name, and notes on the lines below it.

    Attributes:
        left: Its left edge.
        top: Its upper edge.
        width: How wide it is.
        height: How high it is.
        name: What it is called.
        notes: What it is, in few words.
        kind: `box`, `ours`, or `apart`.
        named: How the name is written: `name`, as code is, or `strong`.
    """

    left: float
    top: float
    width: float
    height: float
    name: str
    notes: tuple[str, ...] = ()
    kind: str = "box"
    named: str = "name"

    @property
    def right(self) -> float:
        """The right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.top + self.height

    @property
    def middle(self) -> Point:
        """The middle."""
        return Point(self.left + self.width / 2, self.top + self.height / 2)

    def draw(self) -> list[str]:
        """Return the box as SVG."""
        first = self.middle.y + 4.5 - 7.5 * len(self.notes)
        return [
            f'<rect class="{self.kind}" x="{self.left:g}" y="{self.top:g}" '
            f'width="{self.width:g}" height="{self.height:g}" rx="6"/>',
            text(Point(self.middle.x, first), self.name, self.named, "middle"),
            *(
                text(Point(self.middle.x, first + 15.5 * number), note, "note", "middle")
                for number, note in enumerate(self.notes, 1)
            ),
        ]


def text(at: Point, said: str, kind: str = "", anchor: str = "start") -> str:
    """Return a line of text as SVG.

    Args:
        at: Where its base line begins, ends, or has its middle.
        said: The text.
        kind: `name`, `note`, `strong`, or nothing.
        anchor: `start`, `middle` or `end`.
    """
    place = f'x="{at.x:g}" y="{at.y:g}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(said)}</text>'


def arrow(*points: Point, both: bool = False) -> str:
    """Return a line through points that ends in a head, and begins in one if it goes both ways."""
    path = " ".join(f"{point.x:g},{point.y:g}" for point in points)
    begin = ' marker-start="url(#head)"' if both else ""
    return f'<polyline class="line" points="{path}"{begin} marker-end="url(#head)"/>'


def card(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    """Return a drawing on a card, so that it can be read on any page."""
    size = f'width="{width:g}" height="{height:g}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" {size} '
            'role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            _HEAD,
            f'<rect class="card" x=".5" y=".5" width="{width - 1:g}" height="{height - 1:g}" '
            'rx="10"/>',
            *parts,
            "</svg>\n",
        ]
    )
