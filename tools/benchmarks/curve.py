"""One curve as SVG, beside the straight line that it would be at best."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from benchmarks.plot import drawing, fill, stroke, text

_WIDTH, _HEIGHT = 640, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 40, 76, 92

Points = Mapping[int, float]


def svg(*, title: str, note: str, across: str, measured: Points, ideal: Points) -> str:
    """Return the drawing.

    Args:
        title: Above everything.
        note: Below everything.
        across: What the horizontal axis counts.
        measured: The curve.
        ideal: The line; its points have the same places.
    """
    most_x = max(measured)
    most_y = max(*measured.values(), *ideal.values())

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (_WIDTH - _LEFT - _RIGHT) * x / most_x,
            _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * y / most_y,
        )

    def line(points: Points, role: str, dashes: str) -> str:
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*one) for one in points.items()))
        return (
            f'<polyline points="{corners}" {stroke(role)} stroke-width="2.5"'
            f'{dashes} stroke-linejoin="round"/>'
        )

    left, bottom = place(0, 0)
    parts = [
        f'<path d="M{left},{_TOP - 12} V{bottom} H{_WIDTH - _RIGHT + 12}" {stroke("faint")}/>',
        line(ideal, "peer", ' stroke-dasharray="6 5"'),
        line(measured, "ours", ""),
    ]
    for count, value in measured.items():
        x, y = place(count, value)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" {fill("ours")}/>')
        parts.append(text(x + 8, y + 16, f"{value:.0f}", size=12, weight="600"))
        parts.append(text(x, bottom + 18, str(count), size=12, anchor="middle"))
    x, y = place(max(ideal), ideal[max(ideal)])
    parts.append(text(x - 8, y + 2, "ideal", size=12, anchor="end", role="faint"))
    parts.append(text(_WIDTH - _RIGHT, bottom + 38, escape(across), size=12, anchor="end"))
    return drawing(_WIDTH, _HEIGHT, title, note, parts)
