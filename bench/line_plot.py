"""Line plots as SVG, side by side: logarithmic x, linear y from 0."""

import dataclasses
import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP = 300, 220, 48, 56, 44, 24
# Distinct in print and for colour-blind eyes (Okabe, Ito 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


@dataclasses.dataclass(frozen=True)
class Line:
    """Points (x > 0, y), and a height at which a dashed line goes across."""

    name: str
    points: Sequence[tuple[float, float]]
    level: float


@dataclasses.dataclass(frozen=True)
class Panel:
    title: str
    x: str
    y: str
    lines: Sequence[Line]


def svg(title: str, panels: Sequence[Panel]) -> str:
    """The panels as one file; all have the same axes."""
    xs = [x for panel in panels for line in panel.lines for x, _ in line.points]
    ys = [y for panel in panels for line in panel.lines for y in (line.level, *(y for _, y in line.points))]
    left, right = math.log10(min(xs, default=1.0)), math.log10(max(xs, default=10.0))
    right = max(right, left + 0.1)
    step = nice_step(max(ys, default=1.0))
    most = step * math.ceil(max(ys, default=1.0) / step)
    width = len(panels) * (LEFT + WIDTH + GAP)
    height = TOP + HEIGHT + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        text(LEFT, 18, title, size=14),
    ]
    for index, panel in enumerate(panels):
        x0, y0 = LEFT + index * (LEFT + WIDTH + GAP), TOP + HEIGHT

        def at(x: float, y: float, x0: int = x0, y0: int = y0) -> str:
            return f"{x0 + (math.log10(x) - left) / (right - left) * WIDTH:.1f},{y0 - y / most * HEIGHT:.1f}"

        parts.append(text(x0, TOP - 10, panel.title))
        for tick in range(round(most / step) + 1):
            y = y0 - tick * step / most * HEIGHT
            parts.append(f'<path d="M{x0},{y:.1f}h{WIDTH}" stroke="#ddd"/>')
            parts.append(text(x0 - 6, y + 4, f"{tick * step:g}", "end"))
        ticks = sorted({x for line in panel.lines for x, _ in line.points})
        parts.extend(text(float(at(x, 0).split(",")[0]), y0 + 15, f"{x:g}", "middle") for x in ticks)
        parts.append(text(x0 + WIDTH / 2, y0 + 34, panel.x, "middle"))
        if index == 0:
            middle = TOP + HEIGHT / 2
            parts.append(f'<g transform="rotate(-90 12 {middle})">{text(12, middle, panel.y, "middle")}</g>')
        for number, line in enumerate(panel.lines):
            colour = COLOURS[number % len(COLOURS)]
            level = y0 - line.level / most * HEIGHT
            parts.append(f'<path d="M{x0},{level:.1f}h{WIDTH}" stroke="{colour}" stroke-dasharray="4 3"/>')
            points = " ".join(at(x, y) for x, y in line.points)
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
            for x, y in line.points:
                parts.append('<circle cx="{}" cy="{}" r="3" fill="{}"/>'.format(*at(x, y).split(","), colour))
            parts.append(text(x0 + 8, TOP + 14 + 14 * number, line.name, colour=colour))
    return "\n".join([*parts, "</svg>"]) + "\n"


def nice_step(most: float) -> float:
    """1, 2 or 5 times a power of ten, so that `most` has four to ten steps."""
    power = 10.0 ** math.floor(math.log10(most / 4)) if most > 0 else 1.0
    return next(power * factor for factor in (1, 2, 5, 10) if most / (power * factor) <= 10)


def text(x: float, y: float, content: str, anchor: str = "start", colour: str = "#222", size: int = 11) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}" font-size="{size}">{escape(content)}</text>'
