"""Writes image files, in a folder for each label, and the list that Caffe's tools and ImageData layers read."""

import pathlib
from collections.abc import Sequence
from typing import ClassVar, Literal

from ..data import Column, Columns
from .writer import Layout, Lines, Names, Writer, ending, image_and_label, labels_of, rows_of

LIST = "list.txt"


class ImagesWriter(Writer):
    """Files LABEL/NUMBER.jpg and a list of `path label` lines, in the rows' order."""

    images: ClassVar[Literal["raw", "encoded", "any"]] = "encoded"
    content = (LIST, "[0-9][0-9][0-9][0-9]*", "all")

    @classmethod
    def read_as(cls, path: pathlib.Path) -> pathlib.Path:
        """As `Writer.read_as`: the list, which has the rows in their order."""
        return path / LIST

    def __init__(self, path: pathlib.Path, columns: Sequence[Column], done: int, layout: Layout) -> None:
        super().__init__(path, columns, done, layout)
        self._image, self._label = image_and_label(columns, "a folder of images")
        path.mkdir(exist_ok=True)
        self._list = Lines(path / LIST, done)

    def write(self, rows: Columns, names: Names) -> int:
        """As `Writer.write`."""
        labels = [0] * rows_of(rows) if self._label is None else labels_of(rows, self._label, 0).tolist()
        for content, label in zip(rows[self._image.name], labels, strict=True):
            folder = "all" if self._label is None else f"{label:04d}"
            name = f"{folder}/{self.rows:08d}.{ending(content)}"
            (self.path / folder).mkdir(exist_ok=True)
            (self.path / name).write_bytes(content)
            self._list.write(f"{name} {label}")
            self.rows += 1
        self._list.flush()
        return self.rows

    def finish(self) -> None:
        """As `Writer.finish`."""
        self.close()

    def close(self) -> None:
        """As `Writer.close`."""
        self._list.close()
