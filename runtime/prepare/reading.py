"""The rows of a source, all of them in their order, on this machine."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from ..data import BadPolicy, BadRecords, Column, Columns, Phase, Source, SourceURI, open_source, parse_uri
from ..data.base import CHUNK, CHUNK_BYTES, NAME
from ..shards import Shard, remove_shards, shard

# Their images have the planes R, G, B, since Caffe's example stores them so; all others B, G, R.
RGB = ("cifar10", "cifar100")


@dataclasses.dataclass(frozen=True)
class Input:
    """A source, and which of its columns are asked for (`?columns=`, else all); `bad` has what could not be read."""

    text: str
    uri: SourceURI
    source: Source
    columns: tuple[Column, ...]
    bad: BadRecords

    @property
    def rgb(self) -> bool:
        """Whether images that are not encoded have the planes R, G, B."""
        return self.uri.scheme in RGB

    def chunks(self) -> Iterator[Columns]:
        """The rows, in chunks of `columns`, and of NAME where records have names of their own.

        Raises DataError: the source's, and where there are no rows.
        """
        rows = 0
        for chunk in self.source.read(0, 1, self.bad):
            picked = {column.name: chunk[column.name] for column in self.columns}
            if NAME.name in chunk:
                picked[NAME.name] = chunk[NAME.name]
            rows += len(next(iter(picked.values())))
            yield picked
        if not rows:
            raise DataError(f"{self.text} has no rows" + self.skipped())

    def shuffled(self, seed: int, scratch: pathlib.Path) -> Iterator[Columns]:
        """The rows in an order that follows from `seed`; they are written into the folder `scratch` first."""
        rows = self.chunks()
        first = next(rows)
        columns = [*self.columns, *([NAME] if NAME.name in first else [])]

        def reading(bad: BadRecords) -> Iterator[Columns]:
            del bad  # `chunks` has its own
            yield first
            yield from rows

        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            kept = shard("shuffled", "rows", columns, reading, pathlib.Path(folder))
            order = np.random.default_rng(seed).permutation(kept.rows)
            row = max(1, sum(values.nbytes for values in first.values()) // len(first[columns[0].name]))
            step = max(1, min(CHUNK, CHUNK_BYTES // row))
            for start in range(0, kept.rows, step):
                yield picked(kept, order[start : start + step])
            remove_shards("shuffled", pathlib.Path(folder))

    def skipped(self) -> str:
        """What was skipped, and why, as further lines of a message; empty where nothing was."""
        if not self.bad.count:
            return ""
        shown = f", the first {len(self.bad.first)}" if self.bad.count > len(self.bad.first) else ""
        lines = "".join(f"\n  {bad.key}: {bad.reason}" for bad in self.bad.first)
        what = f"{self.bad.count:,} records could not be read and were"
        if self.bad.count == 1:
            what = "1 record could not be read and was"
        return f"\n{what} skipped{shown}:{lines}"


def open_input(
    text: str,
    phase: Phase,
    bad_records: BadPolicy,
    size: tuple[int, int] | None = None,
    gray: bool = False,
    shuffle: int | None = None,
) -> Input:
    """Opens the source `text`, which resizes images, makes them grey and shuffles (by a seed) itself where it can.

    Raises DataError.
    """
    source = open_source(text, phase)
    uri = parse_uri(text)
    assert uri is not None  # open_source has read it
    asked = {
        "resize": f"{size[0]}x{size[1]}" if size else "",
        "gray": "true" if gray else "",
        "shuffle": "" if shuffle is None else str(shuffle),
    }
    options = "&".join(f"{name}={value}" for name, value in asked.items() if value and name in source.OPTIONS)
    if options and any(column.encoded for column in source.columns):
        source = open_source(f"{text}{'&' if uri.options or uri.columns else '?'}{options}", phase)
    known = {column.name: column for column in source.columns}
    for name in uri.columns:
        if name not in known:
            raise DataError(f"{text}: there is no column `{name}`; there are {', '.join(known)}")
    columns = tuple(known[name] for name in uri.columns) or source.columns
    return Input(text, uri, source, columns, BadRecords(bad_records))


def names_in(rows: Columns) -> Any:
    """The names of a chunk's records; None where the source has none."""
    return rows.get(NAME.name)


def picked(kept: Shard, rows: npt.NDArray[np.int64]) -> Columns:
    """The rows of a shard with the indices `rows`."""
    result: dict[str, Any] = {name: values[rows] for name, values in kept.columns.items()}
    for name, values in kept.encoded.items():
        result[name] = np.empty(len(rows), object)
        result[name][:] = [bytes(values[row]) for row in rows]
    return result
