"""What there is in the columns of a data set: ranges, sizes, classes; gathered chunk by chunk."""

import collections
import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ...caffe_ext.images import decode
from ...errors import DataError
from ..data import Column, Columns
from ..data.encoded import in_threads
from .writer import image_of, label_of, rows_of


@dataclasses.dataclass
class Range:
    """The numbers of a column: smallest, largest, sum and how many; and how many are NaN or infinite."""

    least: float = np.inf
    most: float = -np.inf
    total: float = 0.0
    count: int = 0
    wrong: int = 0

    def add(self, values: npt.NDArray[Any]) -> None:
        """Counts `values` in."""
        if np.issubdtype(values.dtype, np.floating):
            finite = np.isfinite(values)
            if not finite.all():
                self.wrong += int(values.size - finite.sum())
                values = values[finite]
        if values.size:
            self.least = min(self.least, float(values.min()))
            self.most = max(self.most, float(values.max()))
            self.total += float(values.sum(dtype=np.float64))
            self.count += values.size

    @property
    def mean(self) -> float:
        """The mean of the numbers."""
        return self.total / self.count if self.count else float("nan")


class Summary:
    """Of the columns given; `add` takes the rows.

    rows      how many there were
    ranges    of each column's numbers, of encoded images their bytes' lengths
    sizes     how many images there are of each shape (channels, height, width), those that are encoded decoded
    labels    how many rows there are of each label
    """

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self.columns = columns
        self.image, self.label = image_of(columns), label_of(columns)
        self.rows = 0
        self.ranges = {column.name: Range() for column in columns}
        self.sizes: collections.Counter[tuple[int, ...]] = collections.Counter()
        self.labels: collections.Counter[int] = collections.Counter()

    def add(self, rows: Columns) -> None:
        """Counts a chunk in."""
        self.rows += rows_of(rows)
        for column in self.columns:
            values = rows[column.name]
            if column.encoded:
                self.ranges[column.name].add(np.array(list(map(len, values))))
            else:
                self.ranges[column.name].add(values)
        if self.label is not None:
            found, counts = np.unique(rows[self.label.name], return_counts=True)
            self.labels.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
        if self.image is None:
            return
        if self.image.encoded:
            self.sizes.update(shape for _, shape in in_threads(_shape, rows[self.image.name]))
        else:
            self.sizes[self.image.shape] += rows_of(rows)

    def json(self) -> dict[str, Any]:
        """As `--json` shows it."""
        return {
            "rows": self.rows,
            "columns": [
                {
                    "name": column.name,
                    "type": column.dtype,
                    "shape": list(column.shape) if not column.encoded else None,
                    ("bytes" if column.encoded else "values"): _json(self.ranges[column.name]),
                }
                for column in self.columns
            ],
            "image_sizes": [{"shape": list(shape), "rows": rows} for shape, rows in self.sizes.most_common()],
            "classes": {str(label): rows for label, rows in sorted(self.labels.items())},
        }


def _json(found: Range) -> dict[str, Any]:
    if not found.count:
        return {"min": None, "max": None, "mean": None, "not_finite": found.wrong}
    return {"min": found.least, "max": found.most, "mean": found.mean, "not_finite": found.wrong}


def _shape(content: bytes) -> tuple[int, ...]:
    try:
        return decode(content, None).shape
    except DataError:
        return ()  # sources have looked already; this one has 16 bits a channel, say
