"""What sources of named, typed columns have in common: options, which columns there are, reading them."""

import copy
import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from ... import caffe_ext
from ...errors import DataError
from .arrow import Classes, Features, Kind, Numbers, RefusedError, UnfitError, kind_of
from .base import CHUNK, CHUNK_BYTES, BadRecords, Column, Columns, SourceURI
from .encoded import Images
from .places import expand

LABEL = "label"
FEATURES = "features"
EXTRA = "pip install 'sparknet-dsl[data]'"


class Batch(NamedTuple):
    """Rows as Arrow has them (a RecordBatch), and the key of each, for messages."""

    rows: Any
    key: Callable[[int], str]


class Table:
    """A source of rows in named columns; a subclass says where they come from (`batches`).

    `columns` are those that can feed a net, in the table's order, but `label` last; `features`, where it was asked for,
    first. The others are refused when somebody asks for them.
    """

    OPTIONS: ClassVar[Mapping[str, str]] = {
        **Images.OPTIONS,
        "label": "NAME of the column that is to be `label`",
        "features": "NAMES, or * for all numbers (and `classes`) but the label: they make one vector, `features`",
        "shape": "NAME:3x32x32,...: the shape of a row, for lists, vectors and bytes that are stored flat",
        "classes": "NAME:cat|dog|...: the strings, or whole numbers ({1..1000}), of a column, in the order of what "
        "they stand for: 0, 1, ...",
    }

    columns: tuple[Column, ...]

    def __init__(self, uri: SourceURI, first: Any) -> None:
        """Takes the columns from `first`, a RecordBatch of the first rows, or of none. Raises DataError."""
        self.uri = uri
        self._name = f"{uri.scheme}:{uri.path}"
        options = uri.options
        self._label = options.get("label", LABEL)
        shapes, classes = self._shapes(options.get("shape")), self._classes(options.get("classes"))
        kinds: dict[str, Kind] = {}
        self._refused: dict[str, str] = {}
        for name in first.schema.names:
            own = LABEL if name == self._label else name
            if name == LABEL != self._label:
                continue  # another is the label
            try:
                if first.schema.names.count(name) > 1:
                    raise RefusedError("there are several of this name")
                kinds[own] = kind_of(
                    name, first.column(name), self._images, shapes.get(own), classes.get(own) or classes.get(name)
                )
            except RefusedError as error:
                if {own, name} & (shapes.keys() | classes.keys()):
                    raise DataError(f"{self._name}: column `{name}`: {error}") from error
                self._refused[own] = str(error)
        for option, names in (("label", [self._label] if "label" in options else []), ("shape", shapes)):
            self._check(option, names, first.schema.names)
        self._check("classes", classes, first.schema.names)
        if "features" in options:
            vector = self._vector(options["features"], kinds, shapes)
            kinds = {name: kind for name, kind in kinds.items() if kind not in vector.parts}
            kinds = {FEATURES: vector, **kinds}
        if LABEL in kinds:
            kinds[LABEL] = kinds.pop(LABEL)
        self._kinds = kinds
        if not kinds:
            said = "; ".join(f"`{name}`: {why}" for name, why in self._refused.items())
            raise DataError(f"{self._name} has no column that can feed a net{f' ({said})' if said else ''}")
        self._take(uri.columns or tuple(kinds))

    def only(self, wanted: Mapping[str, tuple[int, ...]]) -> Self:
        """The same table, of which no other columns are read; flat rows get the shape that is wanted, if any."""
        narrow = copy.copy(self)
        narrow._kinds = dict(self._kinds)
        for name, shape in wanted.items():
            kind = self._kinds[name]
            flat = len(kind.column.shape) == 1 and not kind.column.encoded
            if flat and shape and math.prod(shape) == kind.column.shape[0]:
                narrow._kinds[name] = dataclasses.replace(kind, column=kind.column._replace(shape=shape))
        narrow._take(tuple(wanted))
        return narrow

    def needed(self) -> list[str]:
        """The columns of the table that have to be read."""
        return list(dict.fromkeys(name for kind in self._taken.values() for name in kind.names))

    def batches(self, partition: int, partitions: int, bad: BadRecords) -> Iterator[Batch]:
        """The rows of a part, in batches whose columns are `needed()` at least, of some CHUNK_BYTES."""
        raise NotImplementedError

    def read(self, partition: int, partitions: int, bad: BadRecords) -> Iterator[Columns]:
        """Reads as `base.Source` says."""
        yield from self.converted(self.batches(partition, partitions, bad), bad)

    def converted(self, batches: Iterable[Batch], bad: BadRecords) -> Iterator[Columns]:
        """The rows of `batches` as arrays; those with a null, or of another shape than the first, go to `bad`."""
        with ThreadPoolExecutor(caffe_ext.num_threads(), "decode") as threads:
            for batch in batches:
                count = batch.rows.num_rows
                step = self._step(batch.rows) if count else 1
                for start in range(0, count, step):
                    yield self._convert(batch, start, batch.rows.slice(start, step), bad, threads)

    def _convert(
        self, batch: Batch, start: int, rows: Any, bad: BadRecords, threads: ThreadPoolExecutor
    ) -> dict[str, Any]:
        def values(rows: Any) -> dict[str, Any]:
            return {name: kind.values(rows, threads) for name, kind in self._taken.items()}

        try:
            return values(rows)
        except UnfitError:
            # One of them, or more: each is looked at by itself.
            good = []
            for row in range(rows.num_rows):
                try:
                    values(rows.slice(row, 1))
                except UnfitError as error:
                    bad.add(batch.key(start + row), str(error))
                else:
                    good.append(row)
            return values(rows.take(good))

    def _step(self, rows: Any) -> int:
        """As many rows as a chunk holds, before and after they are converted."""
        made = 0
        for column in self.columns:
            if not column.encoded:
                made += math.prod(column.shape) * np.dtype(column.dtype).itemsize
        return max(1, min(CHUNK, CHUNK_BYTES // max(1, made, int(rows.nbytes) // len(rows))))

    def _take(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self._kinds:
                why = self._refused.get(name)
                known = ", ".join(self._kinds)
                raise DataError(
                    f"{self._name}: column `{name}` can feed no net: {why}"
                    if why
                    else f"{self._name}: there is no column `{name}`: there are {known}"
                )
        self._taken = {name: self._kinds[name] for name in dict.fromkeys(names)}
        self.columns = tuple(kind.column._replace(name=name) for name, kind in self._taken.items())

    def _images(self, color: bool) -> Images:
        return Images.of(self.uri, color)

    def _vector(self, text: str, kinds: Mapping[str, Kind], shapes: Mapping[str, tuple[int, ...]]) -> Features:
        numbers = {name: kind for name, kind in kinds.items() if isinstance(kind, Numbers | Classes)}
        names = (
            [name for name in kinds if name in numbers and name != LABEL]
            if text.strip() == "*"
            else [name.strip() for name in text.split(",")]
        )
        for name in names:
            if name not in numbers:
                why = self._refused.get(name) or ("it holds no single numbers" if name in kinds else "there is none")
                raise DataError(f"{self._name}: features: column `{name}`: {why}")
        if not names:
            raise DataError(f"{self._name}: features: there is no column of numbers but the label")
        shape = shapes.get(FEATURES, (len(names),))
        if math.prod(shape) != len(names):
            raise DataError(f"{self._name}: shape: {len(names)} features do not fill {'×'.join(map(str, shape))}")
        parts = tuple(numbers[name] for name in names)
        return Features(Column(FEATURES, "float32", shape), tuple(part.name for part in parts), parts)

    def _shapes(self, text: str | None) -> dict[str, tuple[int, ...]]:
        shapes = {}
        for item in text.split(",") if text else ():
            match = re.fullmatch(r"\s*(.+):(\d+(?:[xX×]\d+)*)\s*", item)
            sizes = tuple(int(size) for size in re.split("[xX×]", match[2])) if match else (0,)
            if match is None or 0 in sizes:
                raise DataError(f"{self._name}: shape={text}: write shape=NAME:3x32x32, and more behind commas")
            shapes[match[1]] = sizes
        return shapes

    def _classes(self, text: str | None) -> dict[str, tuple[str, ...]]:
        classes = {}
        for item in text.split(",") if text else ():
            name, colon, names = item.partition(":")
            known = tuple(each.strip() for choice in names.split("|") for each in expand(choice))
            if not colon or "" in known or len(set(known)) < len(known):
                raise DataError(f"{self._name}: classes={text}: write classes=NAME:cat|dog, each class once")
            classes[name.strip()] = known
        return classes

    def _check(self, option: str, names: Iterable[str], known: Sequence[str]) -> None:
        for name in names:
            if name not in {*known, LABEL, FEATURES}:
                raise DataError(f"{self._name}: {option}: there is no column `{name}`: there are {', '.join(known)}")


def require_pyarrow(scheme: str) -> None:
    """Raises DataError, which says what to install, unless pyarrow is there."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise DataError(f"`{scheme}:` takes pyarrow: {EXTRA}") from error
