"""`webdataset:PLACE`: tar files of samples, one, a folder or a pattern (`train-{0000..0146}.tar`); WebDataset's layout.

A sample is the files of one name that follow each other in a tar, `dir/0001.jpg`, `dir/0001.cls`: what is behind the
name's first dot is a column. An image file is the column `image`, `.cls` (a whole number as text) `label`; `.npy` is an
array, `.txt` a string, other files are bytes. The first samples say which columns there are. Whole tars are dealt out,
of the rest every so many-th sample.
"""

import io
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...errors import DataError
from .arrow import typed
from .base import CHUNK, CHUNK_BYTES, BadRecords, Phase, SourceURI
from .dealing import Turns, deal
from .places import find, shown
from .tables import LABEL, Batch, Table, require_pyarrow
from .tars import members

PEEK = 16
IMAGE = "image"
COLUMNS = {"cls": LABEL, **dict.fromkeys(("jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff", "pgm", "ppm"), IMAGE)}


class Sample(NamedTuple):
    """The files of one name: the key that names it in messages, and the bytes of each by its extension."""

    key: str
    files: dict[str, bytes]


class WebDataset(Table):
    """The samples of tars; columns are the extensions of the first ones."""

    def __init__(self, uri: SourceURI, phase: Phase) -> None:
        del phase
        require_pyarrow(uri.scheme)
        if not uri.path:
            raise DataError(
                "`webdataset:` wants tars, webdataset:FOLDER or webdataset:s3://bucket/train-{0000..0146}.tar"
            )
        self._tars = find(uri.path, (".tar",))
        samples = list(itertools.islice(itertools.chain.from_iterable(map(self._samples, self._tars)), PEEK))
        if not samples:
            raise DataError(f"{shown(uri.path)} holds no files, so no samples")
        self._types = _types(samples)
        super().__init__(uri, self._batch(samples, list(self._types)))

    def batches(self, partition: int, partitions: int, bad: BadRecords) -> Iterator[Batch]:
        """Reads as `Table.batches` says."""
        del bad
        needed = self.needed()
        turns = Turns(partition, partitions)
        for tar, shared in deal(self._tars, partition, partitions):
            taken: list[Sample] = []
            size = 0
            for sample in self._samples(tar):
                if not turns.take(1, shared):
                    continue
                taken.append(sample)
                size += sum(map(len, sample.files.values()))
                if len(taken) == CHUNK or size > CHUNK_BYTES:
                    yield self._keyed(taken, needed)
                    taken, size = [], 0
            if taken:
                yield self._keyed(taken, needed)

    @staticmethod
    def _samples(tar: Any) -> Iterator[Sample]:
        def name(member: Any) -> str:
            folder, slash, file = member.name.rpartition("/")
            return f"{folder}{slash}{file.partition('.')[0]}"

        for key, files in itertools.groupby(members([tar], 0, 1), name):
            found = {}
            for file in files:
                extension = file.name.rpartition("/")[2].partition(".")[2].lower()
                found[COLUMNS.get(extension, extension)] = file.content
            # Folders' and editors' own files have no name before the dot.
            if not key.rpartition("/")[2] or "" in found:
                continue
            yield Sample(f"{key} in {shown(tar.place)}", found)

    def _batch(self, samples: Sequence[Sample], names: Sequence[str]) -> Any:
        import pyarrow as pa

        columns = [
            typed([_value(name, sample.files.get(name)) for sample in samples], self._types[name]) for name in names
        ]
        return pa.record_batch(columns, list(names))

    def _keyed(self, samples: Sequence[Sample], names: Sequence[str]) -> Batch:
        return Batch(self._batch(samples, names), lambda row: samples[row].key)


def _types(samples: Sequence[Sample]) -> dict[str, Any]:
    """The Arrow type of each column, images first, then by name."""
    import pyarrow as pa

    first: dict[str, Any] = {}
    for sample in samples:
        for name, content in sample.files.items():
            value = _value(name, content)
            if value is not None:
                first.setdefault(name, value)
    return {name: pa.array([first[name]]).type for name in sorted(first, key=lambda name: (name != IMAGE, name))}


def _value(name: str, content: bytes | None) -> Any:
    """What a file holds, by its extension; None: it is not there, or holds something else."""
    try:
        if content is None:
            return None
        if name == LABEL:
            return int(content)
        if name.endswith("npy"):
            return np.load(io.BytesIO(content), allow_pickle=False).tolist()
        return content.decode().strip() if name.endswith("txt") else content
    except (ValueError, EOFError):
        return None
