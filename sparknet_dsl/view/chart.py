"""Line charts as SVG without a script: they stay as they are wherever HTML is shown, in light and in dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 400, 230
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 24, 34
COLOURS = ("#2f7fe0", "#e0702a", "#2f9e55", "#8a63e0")
POINTS = 300  # of a line: more cannot be told apart


@dataclass(frozen=True)
class Line:
    """A line through points; those that are NaN or infinite are left out."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """Lines over one pair of axes."""

    title: str
    lines: Sequence[Line]


def charts(panels: Sequence[Panel]) -> str:
    """The panels side by side; on a narrow page below one another."""
    return '<div style="display:flex;flex-wrap:wrap;gap:12px">' + "".join(map(chart, panels)) + "</div>"


def chart(panel: Panel) -> str:
    """One panel as an SVG element."""
    lines = [Line(line.name, thinned(line.points)) for line in panel.lines]
    points = [point for line in lines for point in line.points]
    xs, ys = _span([x for x, _ in points]), _span([y for _, y in points])
    drawn = [f'<text x="{LEFT}" y="14" font-weight="600">{escape(panel.title)}</text>']
    for value in ticks(*ys):
        y = _place(value, ys, HEIGHT - BOTTOM, TOP)
        drawn.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="currentColor" stroke-opacity=".15"/>')
        drawn.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for value in ticks(*xs):
        x = _place(value, xs, LEFT, WIDTH - RIGHT)
        drawn.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{value:,.4g}</text>')
    at = LEFT
    for line, colour in zip(lines, COLOURS, strict=False):
        placed = [
            f"{_place(x, xs, LEFT, WIDTH - RIGHT):.1f} {_place(y, ys, HEIGHT - BOTTOM, TOP):.1f}"
            for x, y in line.points
        ]
        if len(placed) == 1:
            left, _, top = placed[0].partition(" ")
            drawn.append(f'<circle cx="{left}" cy="{top}" r="2.5" fill="{colour}"/>')
        elif placed:
            drawn.append(
                f'<path d="M{" L".join(placed)}" fill="none" stroke="{colour}" stroke-width="1.8" '
                'stroke-linejoin="round"/>'
            )
        last = f" {line.points[-1][1]:.4g}" if line.points else ""
        drawn.append(f'<circle cx="{at + 4}" cy="{HEIGHT - 8}" r="4" fill="{colour}"/>')
        drawn.append(f'<text x="{at + 12}" y="{HEIGHT - 4}">{escape(line.name)}{last}</text>')
        at += 24 + 7 * len(line.name + last)
    return (
        f'<svg role="img" aria-label="{escape(panel.title, quote=True)}" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="11" fill="currentColor">'
        f"{''.join(drawn)}</svg>"
    )


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The finite points, at most POINTS of them: of neighbours the last, and the very last in any case."""
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    step = -(-len(finite) // POINTS)
    return finite[::-1][:: max(1, step)][::-1]


def ticks(least: float, most: float) -> list[float]:
    """Round numbers from `least` to `most`, three at least: the largest of 1, 2, 5 times a power of ten apart."""
    power = 10 ** math.floor(math.log10(most - least))
    for factor in (5, 2, 1, 0.5, 0.2, 0.1):
        step = power * factor
        found = range(math.ceil(least / step - 1e-9), math.floor(most / step + 1e-9) + 1)
        if len(found) >= 3:
            break
    return [step * k for k in found]


def _span(values: Sequence[float]) -> tuple[float, float]:
    least, most = (min(values), max(values)) if values else (0.0, 1.0)
    return (least, most) if most > least else (least - (abs(least) or 1) / 2, most + (abs(most) or 1) / 2)


def _place(value: float, span: tuple[float, float], begin: float, end: float) -> float:
    return begin + (value - span[0]) / (span[1] - span[0]) * (end - begin)
