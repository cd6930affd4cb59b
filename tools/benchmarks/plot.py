"""Horizontal bars as SVG: a row of panels for each kind of artifact, a column for each command.

Written by hand, so that nothing has to be installed, and on a light ground of its own, so that it
can be read on a dark page too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

_MARGIN = 24
_GUTTER = 32
_LABEL = 170
_VALUE = 100
_ROW = 20
_BAR = 12
_TITLE = 26
_GAP = 14
_HEAD = 52
_FOOT = 34
_COLUMN = 440.0
OURS_COLOUR, PEER_COLOUR = "#2563a8", "#b9c0c8"
TEXT, FAINT = "#24292f", "#6a737d"


@dataclass(frozen=True)
class Bar:
    """One tool's seconds, and what is to be noted behind them; ours stands out."""

    label: str
    seconds: float
    note: str
    ours: bool


Panel = Sequence[Bar]


@dataclass(frozen=True)
class Chart:
    """What is drawn.

    Attributes:
        title: Above everything.
        note: Below everything.
        rows: For each kind of artifact, by its title, a panel for each command; a column of panels
            that are all empty is left out.
    """

    title: str
    note: str
    rows: Mapping[str, Mapping[str, Panel]]


def svg(chart: Chart) -> str:
    """Return the drawing."""
    columns = list(
        dict.fromkeys(
            column for panels in chart.rows.values() for column, bars in panels.items() if bars
        )
    )
    parts: list[str] = []
    width = 2 * _MARGIN + len(columns) * (_COLUMN + _GUTTER) - _GUTTER
    y = float(_HEAD + _MARGIN)
    for title, panels in chart.rows.items():
        parts.append(text(_MARGIN, y + 14, title, weight="600"))
        y += _TITLE
        for number, column in enumerate(columns):
            parts += _panel(_MARGIN + number * (_COLUMN + _GUTTER), y, panels[column])
        y += max(map(len, panels.values())) * _ROW + _GAP
    height = y + _FOOT
    heads = [
        text(_MARGIN + number * (_COLUMN + _GUTTER), _HEAD + 8, head, size=13, colour=FAINT)
        for number, head in enumerate(columns)
    ]
    return drawing(width, height, chart.title, chart.note, [*heads, *parts])


def drawing(width: float, height: float, title: str, note: str, parts: Sequence[str]) -> str:
    """Return a drawing of parts, with a title above and a note below."""
    style = "font-family:-apple-system,'Segoe UI',Helvetica,Arial,sans-serif"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" role="img" style="{style}">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width:.0f}" height="{height:.0f}" rx="8" fill="#fbfbfa"/>',
            text(_MARGIN, 34, title, size=17, weight="600"),
            *parts,
            text(_MARGIN, height - 16, note, size=11, colour=FAINT),
            "</svg>\n",
        ]
    )


def _panel(x: float, y: float, panel: Panel) -> Iterator[str]:
    """Draw the bars of one panel, to a scale of their own."""
    longest = max((bar.seconds for bar in panel), default=0.0)
    for number, bar in enumerate(panel):
        top = y + number * _ROW
        length = max(1.0, (_COLUMN - _LABEL - _VALUE) * bar.seconds / longest)
        weight = "600" if bar.ours else "400"
        colour = OURS_COLOUR if bar.ours else PEER_COLOUR
        value = f"{bar.seconds:.2f} s"
        if bar.note:
            value += f" ({bar.note})"
        middle = top + _BAR / 2 + 4
        yield text(x + _LABEL - 8, middle, bar.label, size=12, weight=weight, anchor="end")
        yield (
            f'<rect x="{x + _LABEL:.1f}" y="{top:.1f}" width="{length:.1f}" height="{_BAR}" '
            f'rx="2" fill="{colour}"/>'
        )
        yield text(x + _LABEL + length + 6, middle, value, size=12, weight=weight)


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 14,
    weight: str = "400",
    anchor: str = "start",
    colour: str = TEXT,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'
    )
