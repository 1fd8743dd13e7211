"""What a data source is: rows in named columns, read partition by partition, anywhere."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from ...files import exists, is_dir
from .places import is_url

Phase = Literal["TRAIN", "TEST"]
BadPolicy = Literal["skip", "fail"]
# Some rows: name of the column -> array of shape (rows, *shape of a row); of an encoded column one of bytes, (rows,).
Columns = Mapping[str, npt.NDArray[Any]]
# Rows, and bytes, that are read, cached and handed on at a time.
CHUNK = 1024
CHUNK_BYTES = 8 << 20
ENCODED = "encoded"


class Column(NamedTuple):
    """A column's name, type and the shape of one row: () for a number, (channels, height, width) for an image.

    dtype    numpy's name of it, or "encoded": images as bytes (JPEG, PNG, ...), whose sizes may differ
    shape    of an encoded column (channels or 0 where they differ, 0, 0)
    first    of an encoded column, the shape of the first image, where the source has looked: a net that states no
             shape takes it, as Caffe does
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    first: tuple[int, ...] = ()

    @property
    def encoded(self) -> bool:
        """Whether its rows are images as bytes."""
        return self.dtype == ENCODED


# In the chunks of sources whose records have names (a database's key, a file's path), those names as bytes. It is not
# among a source's `columns`: nets do not read it, `sparknet-data` does.
NAME = Column("__name__", ENCODED, (0, 0, 0))


class SourceURI(NamedTuple):
    """A URI's parts: `scheme:path?name=value&...`.

    columns   names of the columns that feed the tops, in the tops' order; (): not given
    options   the others
    folder    of the model that names the source, "" where none does: relative paths are looked for there, too
    """

    scheme: str
    path: str
    columns: tuple[str, ...] = ()
    options: Mapping[str, str] = {}
    folder: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}:{self.path}"

    def located(self, path: str, beside: str = "") -> str:
        """`path` as workers find it, in whatever folder they are: a URL as it is, a path absolute.

        A relative path is one from the working directory; where there is nothing, from the folder of the file `beside`,
        which names it, or from the model's.
        """
        if is_url(path):
            return path
        folders = ["", self.folder, *([os.path.dirname(beside)] if beside else [])]  # noqa: PTH120
        # pathlib's may raise.
        path = os.path.expanduser(path)  # noqa: PTH111
        places = [os.path.abspath(os.path.join(folder, path)) for folder in folders]  # noqa: PTH100, PTH118
        return next(filter(exists, places), places[0])

    def flag(self, name: str) -> bool:
        """The option `name` as yes or no, no where it is not given; raises DataError."""
        value = self.options.get(name, "false").lower()
        if value not in ("true", "false"):
            raise DataError(f"{self}: {name}={value}: write {name}=true or {name}=false")
        return value == "true"


class Bad(NamedTuple):
    """A record that could not be read: which one, and why."""

    key: str
    reason: str


@dataclasses.dataclass
class BadRecords:
    """The records that one reading of a part could not read: how many, and the first of them.

    With policy "fail" the first one is a DataError.
    """

    KEPT: ClassVar[int] = 10

    policy: BadPolicy = "fail"
    count: int = 0
    first: list[Bad] = dataclasses.field(default_factory=list)

    def add(self, key: str, reason: str) -> None:
        """A record that cannot be read, which the source leaves out; raises DataError where it may not."""
        if self.policy == "fail":
            raise DataError(f"{key}: {reason}; --bad-records skip leaves such records out")
        self.count += 1
        if len(self.first) < self.KEPT:
            self.first.append(Bad(key, reason))


class Source(Protocol):
    """Rows of one phase. Sources are pickled and sent to the workers, which call `read`.

    A source has no number of rows: how many there are is known once they are read, and bad records left out.
    """

    # Name of an option in its URI -> what it means; `columns` is everybody's.
    OPTIONS: ClassVar[Mapping[str, str]]
    columns: tuple[Column, ...]

    def __init__(self, uri: SourceURI, phase: Phase) -> None:
        """Looks at the files, without keeping them; raises DataError that names file, expected and found sizes."""

    def read(self, partition: int, partitions: int, bad: BadRecords) -> Iterator[Columns]:
        """Reads one of `partitions` parts, a few rows at a time; the parts are disjoint and together hold every row.

        Two calls give the same rows in the same order. A chunk has CHUNK rows and CHUNK_BYTES at most, or one row,
        and memory does not grow with the part. Records that cannot be read go to `bad`. Raises DataError for damage
        that is no single record's.
        """


class StagedSource(Protocol):
    """Rows that only Spark can read, such as a DataFrame's: they are written down first, for the workers to read."""

    columns: tuple[Column, ...]

    def stage(self, context: Any, folder: str) -> Source:
        """Writes the rows with Spark (`context`, a SparkContext) into `folder`, which all workers see."""


def part(rows: int, partition: int, partitions: int) -> slice:
    """Every `partitions`-th row from `partition` on: parts differ by one row at most, even where files are sorted."""
    return slice(partition, rows, partitions)


def chunks(columns: Columns) -> Iterator[Columns]:
    """Cuts `columns`, arrays that are in memory, into chunks."""
    rows = len(next(iter(columns.values())))
    row = sum(values[:1].nbytes for values in columns.values())
    step = max(1, min(CHUNK, CHUNK_BYTES // max(1, row)))
    for start in range(0, rows, step):
        yield {name: values[start : start + step] for name, values in columns.items()}


def gathered(rows: Iterable[Sequence[Any]], columns: Sequence[Column]) -> Iterator[Columns]:
    """Makes chunks of `rows`, each with a value for each of `columns`: an array, a number, or bytes."""
    taken: list[Sequence[Any]] = []
    size = 0
    fixed = sum(math.prod(column.shape) * np.dtype(column.dtype).itemsize for column in columns if not column.encoded)
    encoded = [index for index, column in enumerate(columns) if column.encoded]
    for row in rows:
        own = fixed + sum(len(row[index]) for index in encoded)
        if taken and (len(taken) == CHUNK or size + own > CHUNK_BYTES):
            yield _stacked(taken, columns)
            taken, size = [], 0
        taken.append(row)
        size += own
    if taken:
        yield _stacked(taken, columns)


def _stacked(rows: Sequence[Sequence[Any]], columns: Sequence[Column]) -> Columns:
    result: dict[str, npt.NDArray[Any]] = {}
    for index, column in enumerate(columns):
        if column.encoded:
            values = np.empty(len(rows), object)
            values[:] = [row[index] for row in rows]
        elif not column.shape:
            values = np.array([row[index] for row in rows], column.dtype)
        else:
            values = np.empty((len(rows), *column.shape), column.dtype)
            for place, row in enumerate(rows):
                values[place] = row[index]
        result[column.name] = values
    return result


def existing_folder(uri: SourceURI, content: str) -> pathlib.Path:
    """The folder that `uri` names; raises DataError, which says what is to lie there (`content`)."""
    if not uri.path:
        raise DataError(f"`{uri}` wants a folder, {uri}DIR, where DIR holds {content}")
    folder = pathlib.Path(uri.located(uri.path))
    if not is_dir(folder):
        problem = "is no folder" if exists(folder) else "does not exist"
        raise DataError(f"{uri}: the folder {folder} {problem}; it should hold {content}")
    return folder
