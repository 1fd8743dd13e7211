"""The writing side of `convert`, `split` and `shards`: rows in, a data set out."""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import DataError
from ..data import Column, Columns
from .destination import Destination, Unfinished, destination, writing
from .pixels import Pixelwork, Work
from .reading import Input, names_in
from .writer import Layout, Writer, image_of, rows_of
from .writers import WRITERS

# The files of a data set, as far as its first rows tell.
FILE_BYTES = 128 << 20


@dataclasses.dataclass(frozen=True)
class Written:
    """A data set that was written: where, its rows, and its columns."""

    to: Destination
    rows: int
    columns: tuple[Column, ...]

    def __str__(self) -> str:
        columns = ", ".join(described(column) for column in self.columns)
        source = WRITERS[self.to.scheme].read_as(self.to.path)
        return f"wrote {self.to.scheme}:{source}: {self.rows:,} rows ({columns})"


def described(column: Column) -> str:
    """A column in a few words: image 3×32×32 uint8."""
    if column.encoded:
        return f"{column.name} encoded"
    shape = "×".join(map(str, column.shape))
    return " ".join(part for part in (column.name, shape, column.dtype) if part)


class Sink:
    """Takes a data set's rows, from the first on; those that an earlier call has written are passed over."""

    def __init__(self, to: Destination, unfinished: Unfinished, data: Input, work: Pixelwork, layout: Layout) -> None:
        self._to = to
        self._unfinished = unfinished
        self._data = data
        self._asked = work
        self._layout = layout
        self._taken = 0
        self._writer: Writer | None = None
        self._work: Work | None = None

    @property
    def path(self) -> pathlib.Path:
        """Where the data set lies while it is written."""
        return self._unfinished.path

    @property
    def scratch(self) -> pathlib.Path:
        """A folder on the disk that is written to."""
        return self._unfinished.path.parent

    def take(self, rows: Columns) -> None:
        """Writes a chunk."""
        if self._writer is None:
            self._writer = self._begin(rows)
        first, self._taken = self._taken, self._taken + rows_of(rows)
        passed = max(0, min(rows_of(rows), self._unfinished.done - first))
        if passed == rows_of(rows):
            return
        rows = {name: values[passed:] for name, values in rows.items()}
        if self._work is not None:
            rows = self._work(rows, first + passed)
        names = names_in(rows)
        kept = self._writer.write({column.name: rows[column.name] for column in self._writer.columns}, names)
        self._unfinished.keep(kept)

    def finish(self) -> Written:
        """Ends the data set. Raises DataError where it has no rows."""
        if self._writer is None:
            raise DataError(f"{self._to} would have no rows")
        self._writer.finish()
        return Written(self._to, self._taken, tuple(self._writer.columns))

    def close(self) -> None:
        """Lets go of what is open."""
        if self._writer is not None:
            self._writer.close()

    def _begin(self, rows: Columns) -> Writer:
        kind = WRITERS[self._to.scheme]
        columns = self._data.columns
        image = image_of(columns)
        asked = self._asked
        if image is not None:
            if asked.encoding is None and kind.images != "any" and image.encoded != (kind.images == "encoded"):
                asked = dataclasses.replace(asked, encoding="png" if kind.images == "encoded" else "raw")
            elif (asked.encoding, kind.images) in (("raw", "encoded"), ("png", "raw"), ("jpg", "raw")):
                raise DataError(f"{self._to.scheme}: holds no images that are {asked.encoding}: leave --encode out")
            if asked.changes:
                self._work = asked.on(image, rows[image.name][0])
        if self._work is not None:
            columns = tuple(self._work.column if column == image else column for column in columns)
        if kind.images == "raw":
            other = next((column.name for column in columns if column.encoded), None)
            if other is not None:
                raise DataError(f"{self._to.scheme}: holds numbers; leave out the column `{other}` with ?columns=")
        layout = self._layout
        if not layout.per_file:
            layout = layout._replace(per_file=_per_file(rows))
        return kind(self._unfinished.path, columns, self._unfinished.done, layout)


def _per_file(rows: Columns) -> int:
    """A round number of rows that make a file of about FILE_BYTES."""
    size = sum(sum(map(len, values)) if values.dtype == object else int(values.nbytes) for values in rows.values())
    wanted = max(1, FILE_BYTES * rows_of(rows) // max(1, size))
    unit: int = 10 ** int(math.log10(wanted))
    return max(step * unit for step in (1, 2, 5) if step * unit <= wanted)


@contextlib.contextmanager
def sink(
    text: str, data: Input, work: Pixelwork, layout: Layout, settings: Mapping[str, Any], *, force: bool
) -> Iterator[Sink]:
    """A sink for the destination `text`, whose data set takes its place when the block, which finishes it, ends well.

    Raises UsageError, OutputError.
    """
    to = destination(text, WRITERS)
    kind = WRITERS[to.scheme]
    layout = layout._replace(single=bool(kind.suffix) and to.path.name.endswith(kind.suffix))
    with writing(to, settings, kind.content, force=force) as unfinished:
        result = Sink(to, unfinished, data, work, layout)
        try:
            yield result
        finally:
            result.close()
