"""A model as HTML, for notebooks: the table of layers and the graph, with nothing loaded from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from .table import HEADINGS, dims, number, rows, totals

if TYPE_CHECKING:
    from .compile import Model

_WIDTH, _LINE, _GAP = 190, 14, 26  # of a box, of a line of text in it, between two boxes; in pixels


def html(model: Model) -> str:
    """The graph and the table, each folding away."""
    everything = rows(model)
    parameters, work = totals(model)
    head = "".join(f"<th>{escape(heading)}</th>" for heading in HEADINGS)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{escape(str(cell))}</td>" for cell in (*row[:4], number(row[4]), number(row[5])))
        + "</tr>"
        for row in everything
    )
    said = f"{len(everything)} layers, {number(parameters) or 0} parameters, {number(work) or 0} multiply-adds"
    return (
        f"<div><b>{escape(model.name)}</b>: {said}"
        f"<details open><summary>graph</summary>{svg(model)}</details>"
        f'<details><summary>layers</summary><div style="max-height:30em;overflow:auto">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details></div>"
    )


@dataclass
class _Box:
    """A layer and those that work in place on its top."""

    lines: list[str]
    readers_of: list[tuple[_Box, str]]  # the boxes that it reads, and what
    rank: int
    x: float = 0
    y: float = 0
    tops: list[str] = field(default_factory=list)

    @property
    def height(self) -> int:
        return _LINE * len(self.lines) + 8


def svg(model: Model) -> str:
    """The net of the first phase in layers from top to bottom: who reads stands below whom it reads."""
    boxes = _boxes(model)
    ranks: dict[int, list[_Box]] = {}
    for box in boxes:
        ranks.setdefault(box.rank, []).append(box)
    most = max((len(row) for row in ranks.values()), default=0)
    width, y = most * (_WIDTH + _GAP) + _GAP, _GAP
    for rank in sorted(ranks):
        row = ranks[rank]
        left = (width - len(row) * (_WIDTH + _GAP) + _GAP) / 2
        for index, box in enumerate(row):
            box.x, box.y = left + index * (_WIDTH + _GAP), y
        y += max(box.height for box in row) + _GAP
    drawn = [_edge(source, box, name) for box in boxes for source, name in box.readers_of]
    drawn += [_rectangle(box) for box in boxes]
    return (
        '<div style="max-height:40em;overflow:auto"><svg xmlns="http://www.w3.org/2000/svg" '
        f'width="{width}" height="{y}" '
        f'font-family="sans-serif" font-size="11">{"".join(drawn)}</svg></div>'
    )


def _boxes(model: Model) -> list[_Box]:
    phase = next(iter(model.reports), None)
    boxes: list[_Box] = []
    writers: dict[str, _Box] = {}
    for report in model.reports[phase].layers if phase else []:
        if report.index < 0:
            continue
        layer = model.net.layer[report.index]
        said = f"{layer.name}: {layer.type}"
        if list(layer.top) == list(layer.bottom) and layer.top and layer.top[0] in writers:
            writers[layer.top[0]].lines.append(said)
            continue
        sources = [(writers[bottom], bottom) for bottom in layer.bottom if bottom in writers]
        rank = max((source.rank + 1 for source, _ in sources), default=0)
        shapes = [dims(shape) for shape in report.top_shapes]
        box = _Box([said, *shapes], sources, rank)
        boxes.append(box)
        writers.update(dict.fromkeys(layer.top, box))
    return boxes


def _rectangle(box: _Box) -> str:
    lines = "".join(
        f'<text x="{box.x + 6:g}" y="{box.y + _LINE * (index + 1):g}">{escape(_short(line))}</text>'
        for index, line in enumerate(box.lines)
    )
    title = escape("\n".join(box.lines))
    return (
        f'<g><title>{title}</title><rect x="{box.x:g}" y="{box.y:g}" width="{_WIDTH}" height="{box.height}" rx="4" '
        f'fill="#eef3fa" stroke="#5b7aa6"/>{lines}</g>'
    )


def _short(text: str, most: int = 32) -> str:
    return text if len(text) <= most else "…" + text[1 - most :]


def _edge(source: _Box, target: _Box, name: str) -> str:
    x1, y1 = source.x + _WIDTH / 2, source.y + source.height
    x2, y2 = target.x + _WIDTH / 2, target.y
    middle = (y1 + y2) / 2
    path = f"M{x1:g} {y1:g} C{x1:g} {middle:g} {x2:g} {middle:g} {x2:g} {y2:g}"
    return f'<path d="{path}" fill="none" stroke="#999"><title>{escape(name)}</title></path>'
