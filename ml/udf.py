"""A net as a function over columns of a DataFrame: rows come to Spark's Python workers in Arrow batches."""

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.ml.functions import array_to_vector, vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sql
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import ArrayType, BinaryType, BooleanType, DataType, NumericType, StructType

from ..errors import DataError, UsageError
from ..runtime.config import slots
from ..runtime.cores import cores
from ..runtime.data.arrow import Kind, RefusedError, UnfitError, kind_of
from ..runtime.data.encoded import Images
from ..runtime.inference import Deployed, predictor

IMAGE = {"height", "width", "nChannels", "data"}  # fields of Spark's image schema that are read


class NetUdf:
    """`deployed` as a function over columns; its content is sent to the executors once, as a broadcast."""

    def __init__(self, deployed: Deployed) -> None:
        self._deployed = deployed
        self._broadcast: tuple[Any, Any] | None = None

    def added(
        self,
        dataset: DataFrame,
        made: str,
        columns: Mapping[str, str],
        blobs: Sequence[str],
        batch: int,
        precision: Any,
        size: tuple[int, int] | None = None,
    ) -> DataFrame:
        """`dataset` with a column `made` of structs with the fields "0", "1", ...: arrays, the values of `blobs`.

        They are computed from `columns`, by input; images are resized to `size`, height and width, if any.
        """
        context = _context(dataset)
        if self._broadcast is None or self._broadcast[0] is not context:
            self._broadcast = context, context.broadcast(self._deployed)
        sent, digest = self._broadcast[1], self._deployed.digest
        tops, names = list(columns), list(columns.values())
        threads = _threads(context)

        def compute(parts: Iterator[Any]) -> Iterator[pd.DataFrame]:
            net = predictor(digest, lambda: sent.value, blobs, batch, threads, precision)
            kinds: dict[str, Kind] = {}
            with ThreadPoolExecutor(threads, "decode") as pool:
                for cells in parts:
                    table = batch_of(dict(zip(names, cells, strict=False)))
                    values = {
                        top: rows_of(table, kinds, names[i], net.inputs[top], size, pool) for i, top in enumerate(tops)
                    }
                    arrays = net(values, table.num_rows)
                    flat = (arrays[blob].reshape(table.num_rows, -1) for blob in blobs)
                    yield pd.DataFrame({str(index): list(rows) for index, rows in enumerate(flat)})

        # As Spark's pandas_udf reads it: an iterator of several columns.
        compute.__annotations__["parts"] = Iterator[tuple[pd.Series, ...]]
        schema = ", ".join(f"`{index}` array<float>" for index in range(len(blobs)))
        # Else Spark may compute it once for each of its uses, of a filter above it, say.
        function = cast(Any, pandas_udf)(compute, schema).asNondeterministic()
        # A number for each row, read by nobody, takes a step of its own before the function, which then gets rows: on
        # columns, as Parquet gives them, Spark 4.3 fails where vectors are among those that only pass by.
        numbered = dataset.withColumn(made, sql.monotonically_increasing_id())
        return numbered.withColumn(made, function(*(argument(dataset, name) for name in names), sql.col(made)))


def argument(dataset: DataFrame, name: str) -> Column:
    """The column `name` as workers get it, vectors as arrays; raises DataError for one that cannot feed a net."""
    kind = check_column(dataset, name)
    column = dataset[f"`{name}`"]
    if isinstance(kind, VectorUDT):
        return vector_to_array(column, "float32")
    return column


def check_column(dataset: DataFrame, name: str) -> DataType:
    """The type of the column `name`; raises DataError where there is none, or it cannot feed a net."""
    if name not in dataset.columns:
        raise DataError(f"the DataFrame has no column `{name}`; it has {', '.join(dataset.columns)}")
    kind = dataset.schema[name].dataType
    inner = kind
    while isinstance(inner, ArrayType):
        inner = inner.elementType
    image = isinstance(kind, StructType) and set(kind.names) >= IMAGE
    if not (image or isinstance(kind, VectorUDT | BinaryType) or isinstance(inner, NumericType | BooleanType)):
        raise DataError(
            f"column `{name}` is of the type {kind.simpleString()}: a net is fed from numbers, arrays of numbers, "
            "Spark ML's vectors, images as bytes (binary) or of Spark's image schema"
        )
    return kind


def vector_of(array: Column) -> Column:
    """An array as a vector of Spark ML's."""
    return array_to_vector(array)


def prediction_of(probabilities: Column) -> Column:
    """The number of the largest of an array, the first of equals, as Spark ML's classifiers give it: a double."""
    return sql.array_position(probabilities, sql.array_max(probabilities)).cast("double") - 1


def first_of(array: Column) -> Column:
    """The one number of an array, a double."""
    return array[0].cast("double")


def batch_of(columns: "Mapping[str, pd.Series[Any] | pd.DataFrame]") -> Any:
    """Columns as Spark hands them to Python, in pandas, as a RecordBatch of Arrow."""
    arrays = []
    for cells in columns.values():
        if isinstance(cells, pd.DataFrame):  # a struct
            arrays.append(pa.RecordBatch.from_pandas(cells, preserve_index=False).to_struct_array())
        else:
            arrays.append(pa.Array.from_pandas(cells))
    return pa.RecordBatch.from_arrays(arrays, list(columns))


def rows_of(
    table: Any,
    kinds: dict[str, Kind],
    name: str,
    shape: tuple[int, ...],
    size: tuple[int, int] | None,
    pool: ThreadPoolExecutor,
) -> npt.NDArray[Any]:
    """The column `name` of a RecordBatch as the values of an input with rows of `shape`, by the rules of the sources.

    `kinds` keeps what the first batch says of each column; `size` is what images are resized to. Raises DataError.
    """
    try:
        if name not in kinds:
            kinds[name] = kind_of(name, table.column(name), lambda color: Images(size, color))
        values = kinds[name].values(table, pool)
    except (RefusedError, UnfitError) as error:
        raise DataError(f"the DataFrame's column `{name}`: {error}") from error
    flat = values.ndim == 2 and values.dtype != object
    return values.reshape(-1, *shape) if flat and values.shape[1] == math.prod(shape) else values


def _context(dataset: DataFrame) -> Any:
    try:
        return dataset.sparkSession.sparkContext
    except PySparkException as error:
        raise UsageError(
            "a net travels to the executors through a SparkContext, which Spark Connect's sessions lack: use a classic "
            "SparkSession"
        ) from error


def _threads(context: Any) -> int:
    """Threads for the engine in one task: its share of this machine's cores, else the cores that Spark gives it."""
    places = slots(context.master)
    if places is not None and context.master.startswith("local["):
        return max(1, cores() // places)
    return max(1, int(context.getConf().get("spark.task.cpus", "1") or 1))
