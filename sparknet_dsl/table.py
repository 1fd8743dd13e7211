"""The table of a model's layers: type, output shape, parameters, multiply-adds."""

from __future__ import annotations

import math
import sys
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import terminal
from .compile import Model
from .proto import caffe_pb2

if TYPE_CHECKING:
    from rich.table import Table

    from .check import LayerReport, NetReport
    from .library import Entry

HEADINGS = ("layer", "type", "phase", "output", "parameters", "multiply-adds")
RIGHT = HEADINGS[4:]  # numbers
NARROW = 90  # columns below which texts go under the numbers


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
        count = sum(math.prod(shape) for shape in learned(report))
        only = "" if len(where) == len(phases) else where[0]
        result.append((report.name, report.type, only, shapes, count, report.multiply_adds))
    return result


def totals(model: Model) -> tuple[int, int]:
    """Parameters (shared ones once) and multiply-adds of one training batch's forward pass."""
    phase = "TRAIN" if "TRAIN" in model.reports else next(iter(model.reports), None)
    return totals_of(model.reports[phase], model.net) if phase else (0, 0)


def costs(model: Model) -> tuple[int, int]:
    """Parameters and multiply-adds for one row, of the deploy variant where there is one: what publications count."""
    if model.deploy is None:
        parameters, work = totals(model)
        return parameters, work // (_batch(model.reports["TRAIN"]) or 1)
    parameters, work = totals_of(model.reports["DEPLOY"], model.deploy)
    return parameters, work // (_batch(model.reports["DEPLOY"]) or 1)


def learned(report: LayerReport) -> Sequence[Sequence[int]]:
    """The shapes of a layer's parameters; BatchNorm's are statistics that no gradient reaches."""
    return () if report.type == "BatchNorm" else report.param_shapes


def totals_of(phase: NetReport, net: caffe_pb2.NetParameter) -> tuple[int, int]:
    """Parameters (shared ones once) and multiply-adds of a forward pass in one phase."""
    shared: set[str] = set()
    parameters = work = 0
    for report in phase.layers:
        work += report.multiply_adds
        specs = net.layer[report.index].param if report.index >= 0 else []
        for index, shape in enumerate(learned(report)):
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
        terminal.console().print(_table(model))
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
    """Prints the library's models to standard output, and how to use one; numbers are short: 6.99 M."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = terminal.console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "parameters", "multiply-adds", "what"):
        right = heading in RIGHT
        table.add_column(heading, justify="right" if right else "left", overflow="fold", no_wrap=heading != "what")
    for entry in library:
        name, what = Text(entry.name, style="cyan"), Text(entry.what.partition(": ")[2] or entry.what)
        parameters, work = short(entry.parameters), short(entry.multiply_adds)
        if console.width < NARROW:
            console.print(name, f"{parameters} parameters, {work} multiply-adds", sep="  ")
            console.print(Padding(what, (0, 0, 0, 2)))
        table.add_row(name, parameters, work, what)
    if console.width >= NARROW:
        console.print(table)
    if sys.stdout.isatty() and not terminal.quiet():
        console.print("\nA name stands for its model in every command: sparknet-compile googlenet", style="dim")


def library_json(library: Sequence[Entry]) -> str:
    """The library's models as a JSON list of objects."""
    import dataclasses
    import json

    return json.dumps([dataclasses.asdict(entry) for entry in library], indent=2, ensure_ascii=False)


def short(value: int) -> str:
    """A large number in three digits: 6.99 M; as it is below a thousand."""
    if value < 1000:
        return str(value)
    power = min((len(str(value)) - 1) // 3, 4)
    scaled = value / 1000**power
    return f"{scaled:.{max(0, 3 - len(str(int(scaled))))}f} {'kMGT'[power - 1]}"
