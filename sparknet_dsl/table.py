"""The table of a model's layers: type, output shape, parameters, multiply-adds."""

from __future__ import annotations

import math
import sys
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .compile import Model
from .proto import caffe_pb2

if TYPE_CHECKING:
    from rich.table import Table

    from .check import LayerReport, NetReport
    from .library import Entry

HEADINGS = ("layer", "type", "phase", "output", "parameters", "multiply-adds")
RIGHT = HEADINGS[4:]  # numbers


def rows(model: Model) -> list[tuple[str, str, str, str, int, int]]:
    """One row for each layer of the net: name, type, phase (empty: all), output shape, parameters, multiply-adds."""
    seen: dict[int, tuple[LayerReport, list[str]]] = {}
    phases = [phase for phase in ("TRAIN", "TEST") if phase in model.reports]
    for phase in phases:
        for report in model.reports[phase].layers:
            if report.index >= 0:
                seen.setdefault(report.index, (report, []))[1].append(phase)
    result = []
    for index in sorted(seen):
        report, where = seen[index]
        shapes = ", ".join(dims(shape) for shape in report.top_shapes) or "-"
        count = sum(math.prod(shape) for shape in _learned(report))
        only = "" if len(where) == len(phases) else where[0]
        result.append((report.name, report.type, only, shapes, count, report.multiply_adds))
    return result


def totals(model: Model) -> tuple[int, int]:
    """Parameters (shared ones once) and multiply-adds of one training batch's forward pass."""
    phase = "TRAIN" if "TRAIN" in model.reports else next(iter(model.reports), None)
    return _count(model.reports[phase], model.net) if phase else (0, 0)


def costs(model: Model) -> tuple[int, int]:
    """Parameters and multiply-adds for one row, of the deploy variant where there is one: what publications count."""
    if model.deploy is None:
        parameters, work = totals(model)
        return parameters, work // (_batch(model.reports["TRAIN"]) or 1)
    parameters, work = _count(model.reports["DEPLOY"], model.deploy)
    return parameters, work // (_batch(model.reports["DEPLOY"]) or 1)


def _learned(report: LayerReport) -> Sequence[Sequence[int]]:
    """The shapes of a layer's parameters; BatchNorm's are statistics that no gradient reaches."""
    return () if report.type == "BatchNorm" else report.param_shapes


def _count(phase: NetReport, net: caffe_pb2.NetParameter) -> tuple[int, int]:
    shared: set[str] = set()
    parameters = work = 0
    for report in phase.layers:
        work += report.multiply_adds
        specs = net.layer[report.index].param if report.index >= 0 else []
        for index, shape in enumerate(_learned(report)):
            name = specs[index].name if index < len(specs) else ""
            if name and name in shared:
                continue
            shared.add(name)
            parameters += math.prod(shape)
    return parameters, work


def dims(shape: Sequence[int] | None) -> str:
    """A shape as people write it: 64×20×24×24; `?` where it is not known."""
    if shape is None:
        return "?"
    return "×".join(str(dim) for dim in shape) or "scalar"


def print_table(model: Model) -> None:
    """Prints the table to standard output: folded and bold for a terminal, else in plain lines of any width."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(_table(model))
    else:
        print(summary(model))


def summary(model: Model) -> str:
    """The table as text."""
    cells = [HEADINGS, *_cells(model)]
    widths = [max(_width(row[column]) for row in cells) for column in range(len(HEADINGS))]
    lines = [_title(model)]
    for row in cells:
        padding = [" " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        padded = [
            space + cell if heading in RIGHT else cell + space
            for heading, cell, space in zip(HEADINGS, row, padding, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _width(cell: str) -> int:
    """Columns of a terminal that the text takes."""
    return len(cell) + sum(unicodedata.east_asian_width(char) in "WF" for char in cell)


def _title(model: Model) -> str:
    phase = next(iter(model.reports), None)
    batch = _batch(model.reports[phase]) if phase else None
    return f"{model.name}, batches of {batch}" if batch else model.name


def _cells(model: Model) -> list[tuple[str, ...]]:
    """The table's rows as texts, the totals last."""
    everything = rows(model)
    result = [(*texts, number(parameters), number(work)) for *texts, parameters, work in everything]
    return [*result, (f"{len(everything)} layers", "", "", "", *map(number, totals(model)))]


def _table(model: Model) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(_title(model)), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in RIGHT else "left", overflow="fold")
    *layers, total = _cells(model)
    for row in layers:
        table.add_row(*(Text(cell) for cell in row))
    table.add_section()
    table.add_row(*(Text(cell, style="bold") for cell in total))
    return table


def _batch(phase: NetReport) -> int | None:
    for report in phase.layers:
        if not report.bottoms and report.top_shapes and report.top_shapes[0]:
            return report.top_shapes[0][0]
    return None


def number(value: int) -> str:
    """With separators; empty for none."""
    return f"{value:,}" if value else ""


def print_library(library: Sequence[Entry]) -> None:
    """Prints the library's models to standard output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "what", "parameters", "multiply-adds"):
        right = heading in RIGHT
        table.add_column(heading, justify="right" if right else "left", overflow="fold", no_wrap=right)
    for entry in library:
        cells = (entry.name, entry.what, number(entry.parameters), number(entry.multiply_adds))
        table.add_row(*(Text(cell) for cell in cells))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
