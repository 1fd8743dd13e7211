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
from .text import Piece, lines_of, parsed, pieces

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
        sample = b""
        if self._pieces:
            piece = self._pieces[0]
            lines = next(lines_of([piece._replace(end=min(piece.end, piece.begin + SAMPLE))], 0, 1)).lines
            sample = b"".join(lines)
        if not sample:
            raise DataError(f"{shown(uri.path)} has no rows")
        width = len(self._split(lines[0]))
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

    def _sampled(self, place: str, sample: bytes, label: str) -> Any:
        """The first rows as a batch; finds the types. Raises DataError."""
        import pyarrow as pa

        try:
            found = self._parse(sample, self._names).schema
            for field in found:
                number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
                whole = field.name == label and pa.types.is_integer(field.type)
                if number or pa.types.is_null(field.type):
                    self._types[field.name] = pa.int64() if whole else pa.float32()
                else:
                    self._types[field.name] = field.type
            return self._parse(sample, self._names)
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{shown(place)} cannot be read as CSV: {str(error).splitlines()[0]}; sep= says what is between values"
            ) from error

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
