"""`sparknet-data show`: what there is in a data set."""

import json
import sys

from rich.console import Console
from rich.table import Table

from ... import terminal
from ...errors import DataError
from ..events import finite
from ..progress import progress
from .reading import Input
from .sheet import Sample, print_sheet, write_sheet
from .summary import Summary
from .writer import rows_of

CLASSES = 20  # that are listed


def show(data: Input, sheet: str | None, count: int, as_json: bool) -> None:
    """Prints a table of the data set, and a contact sheet of `count` images into the file `sheet`.

    Raises DataError, also where a sheet is wanted of rows that are no images; OutputError.
    """
    summary = Summary(data.columns)
    sample = Sample(data, count)
    with progress(f"reading {data.text}") as bar:
        for rows in data.chunks():
            summary.add(rows)
            sample.add(rows)
            bar.advance(rows_of(rows))
    tiles = sample.tiles()
    if sheet is not None:
        if not tiles:
            raise DataError(f"{data.text} has no images to make a contact sheet of")
        write_sheet(sheet, tiles)
    if as_json:
        document = {"source": data.text, **summary.json(), "bad_records": data.bad.count, "sheet": sheet}
        json.dump(finite(document), sys.stdout, indent=2, allow_nan=False)
        print()
        return
    console = terminal.console()
    _print(console, data, summary)
    if tiles and console.color_system and not console.is_dumb_terminal:
        print_sheet(console, tiles)
    if sheet is not None:
        print(f"wrote {sheet}: {len(tiles)} images")


def _print(console: Console, data: Input, summary: Summary) -> None:
    print(f"{data.text}: {summary.rows:,} rows{data.skipped()}")
    table = Table()
    for heading in ("column", "type", "row"):
        table.add_column(heading)
    for heading in ("smallest", "largest", "mean"):
        table.add_column(heading, justify="right")
    for column in data.columns:
        found = summary.ranges[column.name]
        shape = "×".join(map(str, column.shape)) or "one number"
        if column.encoded:
            shape = "bytes"
        table.add_row(column.name, column.dtype, shape, _number(found.least), _number(found.most), _number(found.mean))
    console.print(table)
    for name, found in summary.ranges.items():
        if found.wrong:
            print(f"{found.wrong:,} values of {name} are NaN or infinite")
    if len(summary.sizes) > 1 or (summary.image is not None and summary.image.encoded):
        sizes = summary.sizes.most_common(5)
        listed = ", ".join(f"{'×'.join(map(str, shape))} ({rows:,})" for shape, rows in sizes)
        more = f", and {len(summary.sizes) - 5:,} sizes more" if len(summary.sizes) > 5 else ""
        print(f"image sizes: {listed}{more}")
    if summary.labels:
        classes = sorted(summary.labels.items())
        listed = ", ".join(f"{label}: {rows:,}" for label, rows in classes[:CLASSES])
        more = f", and {len(classes) - CLASSES:,} more" if len(classes) > CLASSES else ""
        least, most = min(summary.labels.values()), max(summary.labels.values())
        print(f"{len(classes):,} classes of {least:,} to {most:,} rows: {listed}{more}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:.4g}"
