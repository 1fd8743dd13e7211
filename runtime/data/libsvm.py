"""`libsvm:PLACE`: lines of `label index:value ...`, as LIBSVM and Spark write them; indices from 1 on.

Rows are read as dense vectors, `features`. How long they are, `width=` says; without it all files are looked through
for the largest index, which in training and test files may be another.
"""

import io
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from ...errors import DataError
from .base import CHUNK, CHUNK_BYTES, BadRecords, Column, Columns, Phase, SourceURI, chunks
from .places import find, shown
from .text import lines_of, parsed, pieces

SUFFIXES = (".libsvm", ".svm", ".txt", ".data", ".t")


class LibSVM:
    """Columns features (float32) and label, int64 if the first are whole numbers, else float32."""

    OPTIONS: ClassVar[Mapping[str, str]] = {"width": "how many features a row has"}

    def __init__(self, uri: SourceURI, phase: Phase) -> None:
        del phase
        if not uri.path:
            raise DataError("`libsvm:` wants files, libsvm:FILE or libsvm:s3://bucket/*.libsvm")
        self._pieces = pieces(find(uri.path, SUFFIXES))
        if not self._pieces:
            raise DataError(f"{shown(uri.path)} has no rows")
        # A first line that cannot be read is told of when the rows are read.
        ignored = BadRecords("skip")
        first = next(lines_of(self._pieces[:1], 0, 1))
        labels = [rows[1] for rows, _ in parsed(first._replace(lines=first.lines[:100]), _parse, ValueError, ignored)]
        whole = all((values == np.floor(values)).all() for values in labels)
        width = uri.options.get("width", "")
        if width and not (width.isdigit() and int(width)):
            raise DataError(f"libsvm:{uri.path}: width={width}: write width=784, the number of features")
        self._width = int(width) if width else self._largest()
        self.columns: tuple[Column, ...] = (
            Column("features", "float32", (self._width,)),
            Column("label", "int64" if whole else "float32", ()),
        )

    def read(self, partition: int, partitions: int, bad: BadRecords) -> Iterator[Columns]:
        """Reads as `base.Source` says."""
        for lines in lines_of(self._pieces, partition, partitions):
            for (features, labels), key in parsed(lines, _parse, ValueError, bad):
                good = np.arange(features.shape[0])
                if features.shape[1] > self._width:
                    wide = np.flatnonzero((features[:, self._width :] != 0).sum(axis=1))
                    for row in wide:
                        largest = int(features[row].indices.max()) + 1
                        bad.add(key(int(row)), f"there is a feature {largest:,}, and width={self._width}")
                    good = np.setdiff1d(good, wide)
                yield from self._dense(features[good], labels[good])

    def _dense(self, features: Any, labels: Any) -> Iterator[Columns]:
        step = max(1, min(CHUNK, CHUNK_BYTES // (4 * self._width)))
        label = self.columns[1].dtype
        for start in range(0, len(labels), step):
            rows = features[start : start + step]
            dense = np.zeros((rows.shape[0], self._width), np.float32)
            taken = rows[:, : self._width].toarray()
            dense[:, : taken.shape[1]] = taken
            yield from chunks({"features": dense, "label": labels[start : start + step].astype(label)})

    def _largest(self) -> int:
        ignored = BadRecords("skip")
        widths = [
            int(rows[0].shape[1])
            for lines in lines_of(self._pieces, 0, 1)
            for rows, _ in parsed(lines, _parse, ValueError, ignored)
        ]
        if not widths or not max(widths):
            raise DataError(f"{shown(self._pieces[0].place)} holds no line of `label index:value ...`")
        return max(widths)


def _parse(content: bytes) -> Any:
    """The sparse matrix and the labels of some lines; raises ValueError."""
    from sklearn.datasets import load_svmlight_file

    return load_svmlight_file(io.BytesIO(content), dtype=np.float32, zero_based=False)
