"""A session as an SVG that shows its last screen, then plays once by CSS alone.

Without animation the picture stays on the last screen: attributes alone draw it, so a renderer
that ignores CSS shows it as well. The picture contains no script and no external font, because
GitHub removes both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from pictures.screen import BY_KEY, COLUMNS, PROMPT, Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CELL, _LINE = 8.4, 20
_MARGIN, _BAR = 20, 38
_WIDTH = round(COLUMNS * _CELL) + 2 * _MARGIN
_STILL = 4.0
"""Seconds for which the last screen is shown before the session plays."""
_STYLE = f"""
text{{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
fill:#c9d1d9;white-space:pre}}
.i{{animation:i 0s {_STILL:g}s step-end}}
.o{{animation:o step-end}}
.k{{animation:o step-end,k}}
.t{{font-weight:600;fill:#f0f6fc}}.p{{fill:#7ee787}}
@keyframes i{{from{{visibility:hidden}}}}
@keyframes o{{from{{visibility:visible}}}}
@keyframes k{{to{{transform:translateX(var(--x))}}}}
@media(prefers-reduced-motion:reduce){{*{{animation:none!important}}}}
"""


def svg(rows: Sequence[Row], *, height: int) -> str:
    """Return the picture.

    Args:
        rows: What is shown.
        height: How many rows the terminal has.
    """
    inside = height * _LINE
    whole = inside + _BAR + _MARGIN
    title = "A recorded session of cpstage: show, fetch, build, push, report"
    scroll, steps = _scroll(rows, height)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {whole}" '
            f'width="{_WIDTH}" height="{whole}" role="img">',
            f"<title>{title}</title>",
            f"<style>{_STYLE}{steps}</style>",
            f'<rect x=".5" y=".5" width="{_WIDTH - 1}" height="{whole - 1}" rx="10" '
            'fill="#0d1117" stroke="#3d444d"/>',
            *(
                f'<circle cx="{_MARGIN + 6 + 20 * number}" cy="20" r="6" fill="#3d444d"/>'
                for number in range(3)
            ),
            f'<svg x="{_MARGIN}" y="{_BAR}" width="{_WIDTH - _MARGIN - 1}" height="{inside}">',
            f'<g xml:space="preserve" font-family="monospace" font-size="14" fill="#c9d1d9" '
            f"{scroll}>",
            *(line for row in rows if row.text for line in _row(row)),
            "</g></svg></svg>\n",
        ]
    )


def texts(picture: str) -> list[str]:
    """Return what the rows show in the end, of a picture that :func:`svg` made."""
    root = ElementTree.fromstring(picture)
    found = root.iter("{http://www.w3.org/2000/svg}text")
    return ["".join(one.itertext()) for one in found if one.get("class") != "o"]


def _scroll(rows: Sequence[Row], height: int) -> tuple[str, str]:
    """Return how the rows move up when there are more of them than the terminal has."""
    end = max(row.since for row in rows)
    offsets: dict[str, int] = {}
    for row in sorted(rows, key=lambda one: one.since):
        top = max(0, row.number + 1 - height)
        percent = f"{100 * row.since / end:.2f}%"
        offsets[percent] = max(top, *offsets.values(), 0)
    moves = "".join(
        f"{percent}{{transform:{_up(top)}}}"
        for (percent, top), before in zip(offsets.items(), [-1, *offsets.values()], strict=False)
        if top != before
    )
    style = f"animation:s {end:.2f}s {_STILL:g}s step-end"
    still = f"translate(0 {-max(offsets.values()) * _LINE})"
    return f'transform="{still}" style="{style}"', f"@keyframes s{{{moves}}}\n"


def _up(rows: int) -> str:
    return f"translateY({-rows * _LINE}px)"


def _row(row: Row) -> Iterator[str]:
    """Draw one row for the time that it is there, and what covers it while it is typed."""
    y = row.number * _LINE
    place = f'y="{y + 15}" textLength="{len(row.text) * _CELL:.1f}"'
    timed = _timed(row)
    yield f"<text {timed} {place}>{_spans(row)}</text>"
    x = len(PROMPT) * _CELL
    cursor = f'<rect {{}}x="{x:.1f}" y="{y + 2}" width="8" height="16" fill="#8b949e"/>'
    if row.text == PROMPT.strip():
        yield cursor.format(f"{timed} ")
    if row.keys:
        style = (
            f"--x:{row.keys * _CELL:.1f}px;animation-delay:{_STILL + row.since:.2f}s;"
            f"animation-duration:{row.keys * BY_KEY:.2f}s;"
            f"animation-timing-function:step-end,steps({row.keys})"
        )
        cover = f'<rect x="{x:.1f}" y="{y}" width="{_WIDTH}" height="{_LINE}" fill="#0d1117"/>'
        yield f'<g class="k" visibility="hidden" style="{style}">{cover}{cursor.format("")}</g>'


def _timed(row: Row) -> str:
    """Return the attributes that show a row from its first to its last second.

    A row of the last screen is visible by itself, and is hidden while the session has not come to
    it. Any other row is hidden by itself.
    """
    if row.until is None:
        return f'class="i" style="animation-duration:{row.since:.2f}s"'
    style = (
        f"animation-delay:{_STILL + row.since:.2f}s;animation-duration:{row.until - row.since:.2f}s"
    )
    return f'class="o" visibility="hidden" style="{style}"'


def _spans(row: Row) -> str:
    if not row.text.startswith(PROMPT.strip()):
        return escape(row.text)
    rest = escape(row.text[1:])
    typed = f'<tspan class="t">{rest}</tspan>' if rest else ""
    return f'<tspan class="p">{PROMPT.strip()}</tspan>{typed}'
