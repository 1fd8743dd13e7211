"""Spark's DataFrames as a source: `Trainer.fit(df, test_df)`. Their rows stay on the executors.

Which rows a worker has, and in which order, is a function of the rows alone: a hash of a row's values says its worker
and its place there. So a DataFrame that is computed again, after an executor was lost, gives every worker the same rows
in the same order, unless it is random itself.
"""

import copy
from collections.abc import Iterable, Iterator
from typing import Any, Self

from ...errors import DataError
from .base import BadRecords, Columns, SourceURI
from .tables import Batch, Table, require_pyarrow

# Rows that Spark hands to Python at a time: large images take a quarter of a megabyte each.
ROWS = 256
PEEK = 64


class DataFrame(Table):
    """The rows of `frame`, whose columns are taken by the rules for Parquet's.

        trainer.fit(DataFrame(spark.read.json("s3a://bucket/rows"), shape="pixels:1x28x28", classes="label:no|yes"))

    columns   those that feed the net, in the order of its tops; by default they are found by name, or in their order
    options   as behind `parquet:`

    Raises DataError for a column or option that there is not, or of which no numbers can be made.
    """

    def __init__(self, frame: Any, columns: Iterable[str] = (), **options: str) -> None:
        require_pyarrow("DataFrame")
        unknown = options.keys() - self.OPTIONS.keys()
        if unknown:
            raise DataError(f"a DataFrame has no option {min(unknown)}; there are {', '.join(self.OPTIONS)}")
        self._frame = frame
        first = frame.limit(PEEK).toArrow().combine_chunks()
        if not first.num_rows:
            raise DataError("the DataFrame has no rows")
        uri = SourceURI("DataFrame", ", ".join(frame.columns), tuple(columns), options)
        super().__init__(uri, first.to_batches()[0])

    def __str__(self) -> str:
        return f"DataFrame({self.uri.path})"

    def reader(self) -> Self:
        """What workers need to call `rows`."""
        reader = copy.copy(self)
        reader._frame = None
        return reader

    def rdd(self, partitions: int) -> Any:
        """The rows as an RDD of bytes, `partitions` parts of Arrow's streams, which `rows` reads."""
        frame = self._frame
        names = ", ".join(_quoted(name) for name in self.needed())
        # Two hashes of 64 bits: rows that have both in common are the same row twice.
        hashed = frame.selectExpr(
            *map(_quoted, self.needed()), f"xxhash64({names}) AS `#a`", f"xxhash64(1, {names}) AS `#b`"
        )
        dealt = hashed.repartition(partitions, "#a").sortWithinPartitions("#a", "#b")
        conf = frame.sparkSession.conf
        key = "spark.sql.execution.arrow.maxRecordsPerBatch"
        before = conf.get(key)
        conf.set(key, str(ROWS))
        try:
            # The plan takes the setting with it.
            return dealt.drop("#a", "#b").mapInArrow(_streams, "stream binary").rdd.map(lambda row: row[0])
        finally:
            conf.set(key, before)

    def rows(self, streams: Iterable[bytes], partition: int, bad: BadRecords) -> Iterator[Columns]:
        """The rows of a part of `rdd`, as `read` gives those of other sources."""
        yield from self.converted(_batches(streams, partition), bad)

    def batches(self, partition: int, partitions: int, bad: BadRecords) -> Iterator[Batch]:
        """Raises DataError: only Spark reads a DataFrame."""
        raise DataError("a DataFrame trains on Spark only: write it as Parquet, and read parquet:FOLDER")


def as_source(data: Any) -> Any:
    """`data`, which is given to Trainer.fit: a URI or a source as it is, a DataFrame of Spark's as a source."""
    return DataFrame(data) if hasattr(data, "mapInArrow") else data


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _streams(batches: Iterable[Any]) -> Iterator[Any]:
    import pyarrow as pa

    for batch in batches:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        yield pa.record_batch([pa.array([sink.getvalue().to_pybytes()], pa.binary())], ["stream"])


def _batches(streams: Iterable[bytes], partition: int) -> Iterator[Batch]:
    import pyarrow as pa

    number = 0
    for stream in streams:
        with pa.ipc.open_stream(stream) as reader:
            for batch in reader:

                def key(row: int, number: int = number) -> str:
                    return f"DataFrame, partition {partition}, row {number + row:,}"

                yield Batch(batch, key)
                number += batch.num_rows
