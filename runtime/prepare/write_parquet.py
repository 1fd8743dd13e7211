"""Writes Parquet: a column each, arrays as lists (in lists), images that are encoded as bytes."""

import pathlib
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from ..data import Columns
from .writer import Names, Part, Parted


class ParquetWriter(Parted):
    """Files that Spark, pandas and Arrow read."""

    images: ClassVar[Literal["raw", "encoded", "any"]] = "any"
    suffix = ".parquet"
    content = ("*.parquet",)

    def open(self, path: pathlib.Path) -> Part:
        """As `Parted.open`."""
        return _File(path, self)


class _File:
    def __init__(self, path: pathlib.Path, writer: ParquetWriter) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        fields = []
        for column in writer.columns:
            kind = pa.binary() if column.encoded else pa.from_numpy_dtype(np.dtype(column.dtype))
            for size in reversed(column.shape if not column.encoded else ()):
                kind = pa.list_(kind, size)
            fields.append(pa.field(column.name, kind, nullable=False))
        self._schema = pa.schema(fields)
        self._file: Any = pq.ParquetWriter(path, self._schema)

    def write(self, rows: Columns, names: Names, first: int) -> None:
        import pyarrow as pa

        arrays = [_arrow(rows[field.name], field.type) for field in self._schema]
        self._file.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        self._file.close()


def _arrow(values: npt.NDArray[Any], kind: Any) -> Any:
    import pyarrow as pa

    if values.dtype == object:
        return pa.array([bytes(value) for value in values], kind)
    array = pa.array(np.ascontiguousarray(values).ravel())
    for size in reversed(values.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array
