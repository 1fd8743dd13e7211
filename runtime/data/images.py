"""`images:DIR` or `images:LIST`: image files, in a folder for each class or in a list of lines `path label`."""

import functools
import os
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from ...caffe_ext.sources import labelled
from ...errors import DataError
from ...files import is_dir
from .base import NAME, BadRecords, Column, Columns, Phase, SourceURI, part
from .encoded import Images, Record
from .places import find, is_url, open_place

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
LABEL = Column("label", "int32", ())


class ImageFiles:
    """Columns image and label.

    In a folder the classes are its folders, in the order of their sorted names, and labels count them from 0. A list is
    a text file (at a URL, one that ends in .txt); its paths begin with `root`, as in Caffe: put before them as it is.
    """

    OPTIONS: ClassVar[Mapping[str, str]] = {
        **Images.OPTIONS,
        "root": "what is put before the paths of a list",
        "shuffle": "N: the files in an order that follows from the number N",
    }

    def __init__(self, uri: SourceURI, phase: Phase) -> None:
        del phase
        if not uri.path:
            raise DataError(f"`{uri}` wants a folder with a folder for each class, or a list of lines `path label`")
        self.uri = uri
        self.place = uri.located(uri.path)
        self.listed = self.place.endswith(".txt") if is_url(self.place) else not is_dir(self.place)
        self.images = Images.of(uri)
        key, label = self._entries()[0]
        del label
        # A file that is missing or damaged is told of when the rows are read.
        try:
            first: bytes | None = self._content(key)
        except DataError:
            first = None
        self.columns: tuple[Column, ...] = (self.images.column("image", first), LABEL)

    def read(self, partition: int, partitions: int, bad: BadRecords) -> Iterator[Columns]:
        """Reads as `base.Source` says."""
        entries = self._entries()
        mine = entries[part(len(entries), partition, partitions)]
        # What a list calls a file; of a folder, from there on.
        base = self.uri.options.get("root", "") if self.listed else self.place.rstrip("/") + "/"
        records = (
            Record(path, functools.partial(self._content, path), (label, os.fsencode(path.removeprefix(base))))
            for path, label in mine
        )
        return self.images.chunks(records, [*self.columns, NAME], bad)

    def _entries(self) -> list[tuple[str, int]]:
        """The files, each with its label. They are looked up by each worker: a list may be long."""
        entries = self._list() if self.listed else self._by_class()
        if "shuffle" not in self.uri.options:
            return entries
        try:
            random = np.random.default_rng(int(self.uri.options["shuffle"]))
        except ValueError as error:
            given = self.uri.options["shuffle"]
            raise DataError(f"{self.uri}: shuffle={given}: a whole number from 0 up is wanted") from error
        return [entries[index] for index in random.permutation(len(entries))]

    def _list(self) -> list[tuple[str, int]]:
        with open_place(self.place) as file:
            lines = file.read().decode(errors="surrogateescape").split("\n")
        entries = labelled([line for line in lines if line.strip()], str(self.uri))
        if not entries:
            raise DataError(f"{self.uri} is empty: lines of `path label` are wanted")
        root = self.uri.options.get("root", "")
        return [(root + path, label) for path, label in entries]

    def _by_class(self) -> list[tuple[str, int]]:
        found = [file.place for file in find(self.place, SUFFIXES)]
        base = self.place.rstrip("/") + "/"
        names = [path.removeprefix(base).split("/") for path in found]
        if loose := next((name for name in names if len(name) == 1), None):
            raise DataError(
                f"{self.uri}: {loose[0]} lies in the folder itself; images lie in a folder for each class, or write a "
                "list of lines `path label`"
            )
        labels = {name: label for label, name in enumerate(sorted({name[0] for name in names}))}
        return [(path, labels[name[0]]) for path, name in zip(found, names, strict=True)]

    def _content(self, path: str) -> bytes:
        with open_place(self.uri.located(path, self.place)) as file:
            return file.read()
