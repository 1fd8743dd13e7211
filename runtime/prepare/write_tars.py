"""Writes tars: WebDataset's, in which files of one name and different endings are a row, and SparkNet's of ImageNet."""

import io
import pathlib
import tarfile
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from ...errors import DataError
from ..data import Column, Columns
from .writer import (
    Layout,
    Lines,
    Names,
    Part,
    Parted,
    ending,
    image_and_label,
    label_of,
    labels_of,
    path_in,
    rows_of,
    unnumbered,
)


class _Tar:
    """A tar that is the same whoever writes it, and when."""

    def __init__(self, path: pathlib.Path) -> None:
        self._tar = tarfile.open(path, "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115

    def add(self, name: str, content: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        self._tar.addfile(info, io.BytesIO(content))

    def close(self) -> None:
        self._tar.close()


class WebDatasetWriter(Parted):
    """NUMBER.jpg and NUMBER.cls are a row; other columns are NUMBER.NAME.npy."""

    images: ClassVar[Literal["raw", "encoded", "any"]] = "any"
    suffix = ".tar"
    content = ("*.tar",)

    def open(self, path: pathlib.Path) -> Part:
        """As `Parted.open`."""
        return _Samples(path, self.columns)


class _Samples(_Tar):
    def __init__(self, path: pathlib.Path, columns: Sequence[Column]) -> None:
        super().__init__(path)
        self._columns = columns
        self._label = label_of(columns)

    def write(self, rows: Columns, names: Names, first: int) -> None:
        for row in range(rows_of(rows)):
            for column in self._columns:
                value = rows[column.name][row]
                if column.encoded:
                    self.add(f"{first + row:08d}.{ending(value)}", bytes(value))
                elif column == self._label:
                    self.add(f"{first + row:08d}.cls", b"%d" % value)
                else:
                    array = io.BytesIO()
                    np.save(array, value)
                    self.add(f"{first + row:08d}.{column.name}.npy", array.getvalue())


class ImageNetWriter(Parted):
    """Tars of images, train.00000.tar and so on, and train.txt, which has a line `name label` for each; or val."""

    images: ClassVar[Literal["raw", "encoded", "any"]] = "encoded"
    suffix = ".tar"
    content = ("*.tar", "train.txt", "val.txt", "classes.txt")

    def __init__(self, path: pathlib.Path, columns: Sequence[Column], done: int, layout: Layout) -> None:
        super().__init__(path, columns, done, layout)
        self.image, label = image_and_label(columns, "a tar of images")
        if label is None:
            raise DataError("imagenet: wants a label for each image, and the data has none")
        if layout.single:
            raise DataError("imagenet: is a folder of tars and a list of their labels: name a folder")
        self.label = label
        self.list = Lines(path / f"{layout.phase}.txt", done)
        self.seen = {line.rpartition(" ")[0] for line in self.list.kept}

    def open(self, path: pathlib.Path) -> Part:
        """As `Parted.open`."""
        return _Images(path.with_name(f"{self.layout.phase}.{path.name}"), self)

    def write(self, rows: Columns, names: Names) -> int:
        """As `Parted.write`."""
        kept = super().write(rows, names)
        self.list.flush()
        return kept

    def close(self) -> None:
        """As `Parted.close`."""
        super().close()
        self.list.close()


class _Images(_Tar):
    def __init__(self, path: pathlib.Path, writer: ImageNetWriter) -> None:
        super().__init__(path)
        self._writer = writer

    def write(self, rows: Columns, names: Names, first: int) -> None:
        labels = labels_of(rows, self._writer.label, 0)
        for row, content in enumerate(rows[self._writer.image.name]):
            name = self._name(names[row]) if names is not None else ""
            if not name or name in self._writer.seen:
                name = f"{first + row:08d}{'_' + name if name else '.' + ending(content)}"
            self._writer.seen.add(name)
            self.add(name, bytes(content))
            self._writer.list.write(f"{name} {labels[row]}")

    def _name(self, name: bytes) -> str:
        """The last part of an image's own name, by which lists know it, without spaces."""
        if self._writer.layout.caffe in ("copy", "renumber"):
            name = unnumbered(name)
        return path_in(name).rpartition("/")[2].replace(" ", "_")
