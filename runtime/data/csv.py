"""`csv:PLACE`: text files of values between commas, or other signs, one, a folder or a pattern of them.

Without options the columns' names stand in the first line, and all numbers but the column `label` make one vector,
`features`. Types are taken from the first megabyte of the first file: numbers are float32, whole ones in the label's
column int64; a text that is no number is a string (`classes=`). Lines end where they end: no value holds a line's end.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from ...errors import DataError
from .base import BadRecords, Phase, SourceURI
from .places import find, open_place, shown
from .tables import LABEL, Batch, Table, require_pyarrow
from .text import Lines, Piece, lines_of, parsed, pieces

SUFFIXES = (".csv", ".tsv", ".txt", ".data")
SAMPLE = 1 << 20
SEPARATORS = {"tab": "\t", "space": " ", "comma": ",", "semicolon": ";"}


class CSV(Table):
    """The rows of CSV files; all have the first one's columns."""

    OPTIONS: ClassVar[Mapping[str, str]] = {
        **Table.OPTIONS,
        "sep": "what stands between values: a sign, or tab, space, semicolon; a comma by default",
        "header": "false: the first line is a row, and the columns are called c0, c1, ...",
    }

    def __init__(self, uri: SourceURI, phase: Phase) -> None:
        del phase
        require_pyarrow(uri.scheme)
        if not uri.path:
            raise DataError("`csv:` wants files, csv:FILE or csv:s3://bucket/*.csv")
        name = f"csv:{uri.path}"
        separator = uri.options.get("sep", ",")
        self._separator = SEPARATORS.get(separator, separator)
        if len(self._separator) != 1:
            raise DataError(f"{name}: sep={separator}: one sign is wanted, or {', '.join(SEPARATORS)}")
        header = uri.options.get("header", "true")
        if header not in ("true", "false"):
            raise DataError(f"{name}: header={header}: write header=true or header=false")
        files = find(uri.path, SUFFIXES)
        self._pieces: list[Piece] = []
        first = b""
        for file in files:
            line = _first_line(file.place) if header == "true" else b""
            if first and line.strip() != first.strip():
                raise DataError(f"{shown(file.place)} has another first line than {shown(files[0].place)}")
            first = first or line
            self._pieces += pieces([file], len(line))
        sample: list[bytes] = []
        for piece in self._pieces[:1]:
            sample = next(lines_of([piece._replace(end=min(piece.end, piece.begin + SAMPLE))], 0, 1)).lines
        if not sample:
            raise DataError(f"{shown(uri.path)} has no rows")
        width = len(self._split(sample[0]))
        self._names = self._split(first) if first else [f"c{index}" for index in range(width)]
        label = uri.options.get("label", LABEL)
        self._types: dict[str, Any] = {}
        batch = self._sampled(files[0].place, sample, label)
        if not uri.columns and "features" not in uri.options and _numbers(self._types, label):
            uri = uri._replace(options={**uri.options, "features": "*"})
        super().__init__(uri, batch)

    def batches(self, partition: int, partitions: int, bad: BadRecords) -> Iterator[Batch]:
        """Reads as `Table.batches` says."""
        import pyarrow as pa

        needed = self.needed()
        for lines in lines_of(self._pieces, partition, partitions):
            for batch, key in parsed(lines, lambda content: self._parse(content, needed), pa.ArrowInvalid, bad):
                yield Batch(batch, key)

    def _sampled(self, place: str, sample: list[bytes], label: str) -> Any:
        """The first rows as a batch; finds the types. Raises DataError."""
        import pyarrow as pa

        def parse(content: bytes) -> Any:
            return self._parse(content, self._names)

        lines = Lines(place, sample, list(range(len(sample))))
        ignored = BadRecords("skip")
        parts = [batch for batch, _ in parsed(lines, parse, pa.ArrowInvalid, ignored)]
        if not parts:
            raise DataError(
                f"{shown(place)} cannot be read as CSV: {ignored.first[0].reason}; sep= says what is between values"
            )
        for name in self._names:
            self._types[name] = _type_of([part.column(name) for part in parts], whole=name == label)
        return next(batch for batch, _ in parsed(lines, parse, pa.ArrowInvalid, ignored))

    def _parse(self, content: bytes, needed: Sequence[str]) -> Any:
        """Lines as a RecordBatch; raises ArrowInvalid."""
        import pyarrow as pa
        from pyarrow import csv as reader

        table = reader.read_csv(
            pa.BufferReader(content),
            reader.ReadOptions(column_names=self._names, use_threads=False, block_size=len(content) + 1),
            reader.ParseOptions(delimiter=self._separator),
            reader.ConvertOptions(column_types=self._types, include_columns=list(needed)),
        )
        return table.combine_chunks().to_batches()[0]

    def _split(self, line: bytes) -> list[str]:
        text = line.decode("utf-8-sig", "replace").strip("\r\n")
        return [value.strip() for value in next(csv.reader([text], delimiter=self._separator))]


def _first_line(place: str) -> bytes:
    with open_place(place) as file:
        return file.readline()


def _numbers(types: Mapping[str, Any], label: str) -> bool:
    import pyarrow as pa

    return any(name != label and pa.types.is_floating(type) for name, type in types.items())


def _type_of(parts: Sequence[Any], whole: bool) -> Any:
    """The type of a column, of which the sample has `parts`; whole numbers stay so if `whole`."""
    import pyarrow as pa

    texts = [value for part in parts if pa.types.is_string(part.type) for value in part.to_pylist()]
    if texts:
        numbers = sum(_is_number(text) for text in texts)
        return pa.float32() if numbers * 10 >= 9 * len(texts) else pa.string()
    types = {part.type for part in parts if not pa.types.is_null(part.type)}
    if whole and types and all(map(pa.types.is_integer, types)):
        return pa.int64()
    if all(pa.types.is_integer(type) or pa.types.is_floating(type) for type in types):
        return pa.float32()
    return types.pop() if len(types) == 1 else pa.string()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
