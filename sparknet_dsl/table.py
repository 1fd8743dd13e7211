"""The table of a model's layers: type, output shape, parameters, multiply-adds."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .compile import Model
from .proto import caffe_pb2

if TYPE_CHECKING:
    from rich.table import Table

    from .check import LayerReport, NetReport
    from .library import Entry

HEADINGS = ("layer", "type", "phase", "output", "parameters", "multiply-adds")


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
    """Prints the table to standard output; in plain lines of any width where that is no terminal."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200).print(_table(model))


def summary(model: Model) -> str:
    """The table as text."""
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=200, color_system=None).print(_table(model))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _table(model: Model) -> Table:
    from rich.table import Table
    from rich.text import Text

    phase = next(iter(model.reports), None)
    batch = _batch(model.reports[phase]) if phase else None
    title = f"{model.name}, batches of {batch}" if batch else model.name
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in HEADINGS[4:] else "left", overflow="fold")
    everything = rows(model)
    for name, kind, phase, shape, parameters, work in everything:
        table.add_row(*(Text(cell) for cell in (name, kind, phase, shape, number(parameters), number(work))))
    parameters, work = totals(model)
    table.add_section()
    total = f"{len(everything)} layers"
    table.add_row(*(Text(cell, style="bold") for cell in (total, "", "", "", number(parameters), number(work))))
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
        right = heading in HEADINGS
        table.add_column(heading, justify="right" if right else "left", overflow="fold", no_wrap=right)
    for entry in library:
        cells = (entry.name, entry.what, number(entry.parameters), number(entry.multiply_adds))
        table.add_row(*(Text(cell) for cell in cells))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
