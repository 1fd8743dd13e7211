"""`parquet:PLACE`: Parquet files, one, a folder or a pattern of them, here or in an object store.

Row groups are dealt out to the parts, and of them the needed columns read. Folders named `key=value` are columns, too.
"""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from ...errors import DataError
from .base import CHUNK, CHUNK_BYTES, BadRecords, Phase, SourceURI
from .dealing import Turns, deal
from .places import failed, find, is_url, open_arrow, shown
from .tables import Batch, Table, require_pyarrow

SUFFIXES = (".parquet", ".parq", ".pq")
# Footers read at a time.
THREADS = 16
BUFFER = 1 << 20


class Group(NamedTuple):
    """A row group: its file, its number there, its first row's number, rows, and their bytes, not compressed."""

    place: str
    number: int
    first: int
    rows: int
    size: int


class Parquet(Table):
    """The rows of Parquet files; all have the columns of the first, and these are of the same types."""

    def __init__(self, uri: SourceURI, phase: Phase) -> None:
        del phase
        require_pyarrow(uri.scheme)
        if not uri.path:
            raise DataError(f"`{uri.scheme}:` wants files, {uri.scheme}:FOLDER or {uri.scheme}:s3://bucket/*.parquet")
        self._open(uri, [file.place for file in find(uri.path, SUFFIXES)])

    def _open(self, uri: SourceURI, places: Sequence[str]) -> None:
        with ThreadPoolExecutor(THREADS) as threads:
            read = list(threads.map(_footer, places))
        self.groups = [group for groups, _ in read for group in groups if group.rows]
        if not self.groups:
            raise DataError(f"{shown(uri.path)} has no rows: the {len(places)} Parquet files are empty")
        self._schema = read[0][1]
        self._keys = tuple(_partition(places[0]))
        first = next(self._read(self.groups[0], [*self._schema.names, *self._keys], 64))
        super().__init__(uri, first)
        names = [name for name in self.needed() if name not in self._keys]
        for place, (_, schema) in zip(places, read, strict=True):
            if tuple(_partition(place)) != self._keys:
                raise DataError(f"{shown(place)} and {shown(places[0])} lie in folders that name other columns")
            for name in names:
                _check_type(place, name, schema, places[0], self._schema)

    def batches(self, partition: int, partitions: int, bad: BadRecords) -> Iterator[Batch]:
        """Reads as `Table.batches` says."""
        del bad
        import pyarrow as pa

        turns = Turns(partition, partitions)
        names = self.needed()
        for group, shared in deal(self.groups, partition, partitions):
            rows = max(1, min(CHUNK, CHUNK_BYTES * group.rows // max(1, group.size)))
            number = group.first
            for read in self._read(group, names, rows):
                mine = turns.take(read.num_rows, shared)
                taken = read.take(pa.array(mine, pa.int64())) if shared else read

                def key(row: int, number: int = number, mine: range = mine, place: str = group.place) -> str:
                    return f"{shown(place)}, row {number + mine[row]:,}"

                yield Batch(taken, key)
                number += read.num_rows

    def _read(self, group: Group, names: Sequence[str], rows: int) -> Iterator[Any]:
        """The columns `names` of a row group, `rows` rows at a time."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        keys = _partition(group.place)
        stored = [name for name in names if name not in self._keys]
        # What is remote is fetched by ranges that hold several columns; what is here, as it is needed.
        remote = is_url(group.place)
        try:
            with (
                open_arrow(group.place) as stream,
                pq.ParquetFile(stream, pre_buffer=remote, buffer_size=0 if remote else BUFFER) as file,
            ):
                for batch in file.iter_batches(rows, [group.number], stored, use_threads=True):
                    for name in names:
                        if name in self._keys:
                            batch = batch.append_column(name, pa.array([keys[name]] * batch.num_rows))
                    yield batch
        except (OSError, pa.ArrowException) as error:
            raise _damaged(group.place, error) from error


def _footer(place: str) -> tuple[list[Group], Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_arrow(place) as stream, pq.ParquetFile(stream) as file:
            groups = []
            first = 0
            for index in range(file.metadata.num_row_groups):
                about = file.metadata.row_group(index)
                groups.append(Group(place, index, first, about.num_rows, about.total_byte_size))
                first += about.num_rows
            return groups, file.schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise _damaged(place, error) from error


def _damaged(place: str, error: Exception) -> DataError:
    if is_url(place) and isinstance(error, OSError):
        return failed(place, error)
    reason = str(error).strip().splitlines()[0]
    return DataError(f"{shown(place)} cannot be read as Parquet: {reason}; is it whole? write or fetch it again")


def _check_type(place: str, name: str, schema: Any, first_place: str, first: Any) -> None:
    if schema.get_field_index(name) < 0:
        raise DataError(
            f"{shown(place)} has no column `{name}`, which {shown(first_place)} has: are they of one table?"
        )
    found, wanted = schema.field(name).type, first.field(name).type
    if found != wanted:
        raise DataError(f"{shown(place)}: column `{name}` holds {found}, and in {shown(first_place)} {wanted}")


def _partition(place: str) -> dict[str, Any]:
    """What the folders of a file say: `.../label=3/part-0.parquet`."""
    values: dict[str, Any] = {}
    for key, value in re.findall(r"/([^/=]+)=([^/=]+)(?=/)", place):
        values[key] = int(value) if re.fullmatch(r"-?\d{1,18}", value) else value
    return values
