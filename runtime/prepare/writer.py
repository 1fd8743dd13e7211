"""What a writer of a format is: it takes rows, and says how many of them are on the disk for good."""

import abc
import os
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol, TextIO

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from ..data import Column, Columns

# Their records' own names, in the chunks of sources that have them.
Names = npt.NDArray[np.object_] | None


class Layout(NamedTuple):
    """How a data set is laid out.

    single      one file, not a folder
    per_file    rows in each file of a folder
    phase       what the rows are for, as ImageNet's files have it in their names
    caffe       which of Caffe's tools the records of a database are to equal (its keys, and how it fills in a Datum);
                "copy": keys are those of the database that is read; "renumber": their numbers begin anew
    """

    single: bool = False
    per_file: int = 0
    phase: Literal["train", "val"] = "train"
    caffe: Literal["convert_imageset", "convert_mnist_data", "convert_cifar_data", "copy", "renumber"] = (
        "convert_imageset"
    )


class Writer(abc.ABC):
    """Writes rows of `columns` to `path`, of which `done` are there from an earlier call.

    Rows come in their order, in chunks, from row `done` on. Constructors and `write` raise DataError for what the
    format cannot hold, OSError where the system refuses.
    """

    # What an image has to be: numbers, bytes (JPEG, PNG), or either.
    images: ClassVar[Literal["raw", "encoded", "any"]]
    # The ending of a path that means one file; "": there is always a folder.
    suffix: ClassVar[str] = ""
    # Patterns of the names in such a folder.
    content: ClassVar[Sequence[str]]

    def __init__(self, path: pathlib.Path, columns: Sequence[Column], done: int, layout: Layout) -> None:
        self.path = path
        self.columns = columns
        self.layout = layout
        self.rows = done

    @classmethod
    def read_as(cls, path: pathlib.Path) -> pathlib.Path:
        """What a source is to name to read such a data set at `path`."""
        return path

    @abc.abstractmethod
    def write(self, rows: Columns, names: Names) -> int:
        """Writes a chunk, whose records had `names`; gives how many rows, from the first on, are safe on the disk."""

    @abc.abstractmethod
    def finish(self) -> None:
        """Ends the data set, after its last row."""

    @abc.abstractmethod
    def close(self) -> None:
        """Lets go of files, also of those that are not finished."""


class Part(Protocol):
    """A file of a data set that has several."""

    def write(self, rows: Columns, names: Names, first: int) -> None:
        """Writes rows; `first` is the number of their first one in the data set."""

    def close(self) -> None:
        """Ends the file."""


class Parted(Writer):
    """Writes files of equally many rows, 00000.suffix and so on, or one; which are whole tells how far it got."""

    def __init__(self, path: pathlib.Path, columns: Sequence[Column], done: int, layout: Layout) -> None:
        super().__init__(path, columns, done, layout)
        self._per_file = sys.maxsize if layout.single else layout.per_file
        self._part: Part | None = None
        if not layout.single:
            path.mkdir(exist_ok=True)

    @abc.abstractmethod
    def open(self, path: pathlib.Path) -> Part:
        """A new file."""

    def write(self, rows: Columns, names: Names) -> int:
        """As `Writer.write`."""
        count = rows_of(rows)
        start = 0
        while start < count:
            if self._part is None:
                name = f"{self.rows // self._per_file:05d}{self.suffix}"
                self._part = self.open(self.path if self.layout.single else self.path / name)
            stop = min(count, start + self._per_file - self.rows % self._per_file)
            piece = {name: values[start:stop] for name, values in rows.items()}
            self._part.write(piece, None if names is None else names[start:stop], self.rows)
            self.rows += stop - start
            start = stop
            if self.rows % self._per_file == 0:
                self._end_part()
        return self.rows - self.rows % self._per_file

    def finish(self) -> None:
        """As `Writer.finish`."""
        if self.rows == 0:
            self._part = self.open(self.path if self.layout.single else self.path / f"00000{self.suffix}")
        self._end_part()

    def close(self) -> None:
        """As `Writer.close`."""
        self._end_part()

    def _end_part(self) -> None:
        if self._part is not None:
            part, self._part = self._part, None
            part.close()


class Lines:
    """A text file of a line for each row; of an earlier call's the first `done` are kept."""

    def __init__(self, path: pathlib.Path, done: int) -> None:
        self.kept: list[str] = []
        if done:
            with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                self.kept = [next(file).removesuffix("\n") for _ in range(done)]
        self._file: TextIO = path.open("w", encoding="utf-8", errors="surrogateescape", newline="\n")
        self._file.writelines(f"{line}\n" for line in self.kept)

    def write(self, line: str) -> None:
        """Adds a line."""
        self._file.write(f"{line}\n")

    def flush(self) -> None:
        """Brings what was written to the disk."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def rows_of(rows: Columns) -> int:
    """How many rows a chunk has."""
    return len(next(iter(rows.values())))


def image_and_label(columns: Sequence[Column], format: str) -> tuple[Column, Column | None]:
    """The columns of an image, or other array, and of its label; raises DataError where there are others, or none."""
    image, label = image_of(columns), label_of(columns)
    others = [column.name for column in columns if column not in (image, label)]
    if image is None or others:
        names = ", ".join(column.name for column in columns)
        what = "no images" if image is None else f"also {', '.join(others)}"
        raise DataError(
            f"{format} holds an image and a label for each row, and the data has {what} (its columns: {names}); "
            "choose with ?columns=IMAGE,LABEL"
        )
    return image, label


def image_of(columns: Sequence[Column]) -> Column | None:
    """The column of images: encoded, or of the most axes, one at least."""
    found = [column for column in columns if column.encoded or column.shape]
    return max(found, key=lambda column: 3 if column.encoded else len(column.shape), default=None)


def label_of(columns: Sequence[Column]) -> Column | None:
    """The column of class labels: `label`, else the only whole number of a row."""
    numbers = [
        column
        for column in columns
        if not column.encoded and column.shape == () and np.issubdtype(np.dtype(column.dtype), np.integer)
    ]
    named = [column for column in numbers if column.name == "label"]
    return named[0] if named else numbers[0] if len(numbers) == 1 else None


def labels_of(rows: Columns, label: Column, least: int = -(2**31)) -> npt.NDArray[np.int64]:
    """A chunk's labels; raises DataError for one below `least`, or too large for Caffe's 32 bits."""
    labels = rows[label.name].astype(np.int64)
    if labels.size and (labels.min() < least or labels.max() >= 2**31):
        wrong = labels.min() if labels.min() < least else labels.max()
        raise DataError(f"column `{label.name}`: a label is {wrong}; this format takes {least} to {2**31 - 1}")
    return labels


# As convert_imageset begins the key of a record; those of other tools are nothing but a number.
_NUMBER = re.compile(rb"^\d{5,8}(?:_|$)")
_ENDINGS = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png", b"GIF8": "gif", b"BM": "bmp", b"RIFF": "webp"}


def unnumbered(name: bytes) -> bytes:
    """A record's name without the number that Caffe's tools begin it with."""
    return _NUMBER.sub(b"", name, count=1)


def path_in(name: bytes) -> str:
    """A record's name as a path that leads out of no folder."""
    text = os.fsdecode(name)
    return "/".join(part for part in text.replace("\\", "/").split("/") if part not in ("", ".", ".."))


def ending(content: bytes) -> str:
    """The usual ending of a file with this image: jpg, png, ..."""
    found = (ending for start, ending in _ENDINGS.items() if content.startswith(start))
    return next(found, "tif" if content[:2] in (b"II", b"MM") else "img")


def slices(count: int, step: int) -> Iterator[slice]:
    """Cuts `count` rows into pieces of `step`."""
    for start in range(0, count, step):
        yield slice(start, min(count, start + step))
