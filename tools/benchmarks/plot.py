"""Horizontal bars as SVG: a row of panels for each kind of artifact, a column for each command.

The SVG needs no plotting library. Its colours follow the reader's light or dark mode. A renderer
without CSS draws the light colours, which the attributes carry.
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
_LIGHT = {
    "ground": "#fbfbfa",
    "text": "#24292f",
    "faint": "#57606a",
    "ours": "#2563a8",
    "peer": "#a3acb6",
}
_DARK = {
    "ground": "#161b22",
    "text": "#e6edf3",
    "faint": "#9198a1",
    "ours": "#539bf5",
    "peer": "#6b7683",
}


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


def fill(role: str) -> str:
    """Return the attributes that fill a shape: `ground`, `text`, `faint`, `ours` or `peer`."""
    return f'class="{role}" fill="{_LIGHT[role]}"'


def stroke(role: str) -> str:
    """Return the attributes that draw a line in the colour of a role."""
    return f'class="{role}-line" fill="none" stroke="{_LIGHT[role]}"'


def _style() -> str:
    dark = "".join(
        f".{role}{{fill:{colour}}}.{role}-line{{stroke:{colour}}}" for role, colour in _DARK.items()
    )
    return f"@media(prefers-color-scheme:dark){{{dark}}}"


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
        text(_MARGIN + number * (_COLUMN + _GUTTER), _HEAD + 8, head, size=13, role="faint")
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
            f"<style>{_style()}</style>",
            f'<rect width="{width:.0f}" height="{height:.0f}" rx="8" {fill("ground")}/>',
            text(_MARGIN, 34, title, size=17, weight="600"),
            *parts,
            text(_MARGIN, height - 16, note, size=11, role="faint"),
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
        role = "ours" if bar.ours else "peer"
        value = f"{bar.seconds:.2f} s"
        if bar.note:
            value += f" ({bar.note})"
        middle = top + _BAR / 2 + 4
        yield text(x + _LABEL - 8, middle, bar.label, size=12, weight=weight, anchor="end")
        yield (
            f'<rect x="{x + _LABEL:.1f}" y="{top:.1f}" width="{length:.1f}" height="{_BAR}" '
            f'rx="2" {fill(role)}/>'
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
    role: str = "text",
) -> str:
    """Return a line of text as SVG."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}" {fill(role)}>{escape(words)}</text>'
    )
