"""`imagenet:TARS`: ImageNet in tars, as SparkNet keeps it (a list has the labels) or as published (a tar a class)."""

import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

from ...caffe_ext.sources import labelled
from ...errors import DataError
from .base import NAME, BadRecords, Column, Columns, Phase, SourceURI
from .encoded import Images, Record
from .places import Found, find, open_place, shown
from .tars import Member, members

LABEL = Column("label", "int32", ())
# What the names of a phase's tars and label lists have in them.
NAMES: Mapping[Phase, tuple[str, ...]] = {"TRAIN": ("train",), "TEST": ("val", "test")}
_CLASS = re.compile(r"(n\d{8})\.tar")


class ImageNet:
    """Columns image and label, from the tars of a folder or of a pattern (`s3://bucket/train.*.tar`).

    In a folder, tars are those of the phase, with train, or val or test, in their names; a list beside them, train.txt,
    has lines `file label`. Tars that are named after their classes, n01440764.tar, need no list: labels are their
    numbers in the order of their names, or the numbers of their lines in `labels`.
    """

    OPTIONS: ClassVar[Mapping[str, str]] = {
        **Images.OPTIONS,
        "labels": "the list of labels: lines `file label`, or for tars of a class each their names, in order",
    }

    def __init__(self, uri: SourceURI, phase: Phase) -> None:
        if not uri.path:
            raise DataError(f"`{uri}` wants a folder of tars, or a pattern: imagenet:DIR/train.*.tar")
        self.uri = uri
        self.place = uri.located(uri.path)
        self.tars = self._tars(phase)
        self.images = Images.of(uri)
        self.by_class = all(_CLASS.fullmatch(_name(tar.place)) for tar in self.tars)
        self.list = self._list(phase)
        labels = self._labels()
        first = next(members(self.tars, 0, 1), None)
        if first is None:
            raise DataError(f"{uri}: {shown(self.tars[0].place)} has no files in it")
        if not labels:
            raise DataError(f"{uri}: {shown(self.list)} is empty: it should tell the labels")
        self.columns: tuple[Column, ...] = (self.images.column("image", first.content), LABEL)

    def read(self, partition: int, partitions: int, bad: BadRecords) -> Iterator[Columns]:
        """Reads as `base.Source` says."""
        found = members(self.tars, partition, partitions)
        return self.images.chunks(self._records(found), [*self.columns, NAME], bad)

    def _records(self, found: Iterable[Member]) -> Iterator[Record]:
        labels = self._labels()
        for member in found:
            name = _CLASS.sub(r"\1", _name(member.tar)) if self.by_class else _name(member.name)
            label = labels.get(name)
            if label is None:
                yield Record(member.key, DataError(f"{shown(self.list)} has no label for it"))
            else:
                yield Record(member.key, member.content, (label, os.fsencode(member.name)))

    def _tars(self, phase: Phase) -> list[Found]:
        found = find(self.place, (".tar",))
        by_class = all(_CLASS.fullmatch(_name(tar.place)) for tar in found)
        if by_class or self.place.endswith(".tar") or re.search(r"[*?\[{]", self.uri.path):
            return found
        mine = [tar for tar in found if any(name in _name(tar.place).lower() for name in NAMES[phase])]
        if not mine:
            raise DataError(
                f"{self.uri}: of the {len(found):,} tars there none is for phase {phase}: none has "
                f"{' or '.join(NAMES[phase])} in its name; name them by a pattern, imagenet:DIR/*.tar"
            )
        return mine

    def _list(self, phase: Phase) -> str:
        """The place of the list of labels; "" for tars of a class each without one."""
        given = self.uri.options.get("labels")
        if given is not None:
            return self.uri.located(given, self.tars[0].place)
        if self.by_class:
            return ""
        folder = self.tars[0].place.rpartition("/")[0]
        lists = [f"{folder}/{name}.txt" for name in NAMES[phase]]
        for place in lists:
            try:
                open_place(place).close()
            except DataError:
                continue
            return place
        raise DataError(
            f"{self.uri}: there is no {' or '.join(map(_name, lists))} beside the tars, which tells the labels, in "
            "lines `file label`; say where it is: ?labels=FILE"
        )

    def _labels(self) -> Mapping[str, int]:
        """The label of each file by its name, or of each class."""
        if not self.list:
            return {name: label for label, name in enumerate(sorted(_name(tar.place)[:9] for tar in self.tars))}
        with open_place(self.list) as file:
            lines = [line for line in file.read().decode(errors="surrogateescape").split("\n") if line.strip()]
        if self.by_class:
            return {line.split()[0]: number for number, line in enumerate(lines)}
        return {_name(path): label for path, label in labelled(lines, shown(self.list))}


def _name(place: str) -> str:
    return pathlib.PurePosixPath(place).name
