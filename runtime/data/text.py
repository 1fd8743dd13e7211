"""Files of lines, a record each, read in pieces that are dealt out to the parts."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from .base import BadRecords
from .dealing import Turns, deal
from .places import Found, open_place, shown

# Dealt out, and read, at a time.
PIECE = 4 << 20
T = TypeVar("T")


class Piece(NamedTuple):
    """The lines of a file that begin from `begin` on and before `end`."""

    place: str
    begin: int
    end: int


class Lines(NamedTuple):
    """Some lines of a file, with their ends, and the position of each in it."""

    place: str
    lines: list[bytes]
    positions: list[int]


def pieces(files: Sequence[Found], header: int = 0) -> list[Piece]:
    """The pieces of `files`, without the first `header` bytes of each."""
    return [
        Piece(file.place, begin, min(begin + PIECE, file.size))
        for file in files
        for begin in range(header, file.size, PIECE)
    ]


def lines_of(units: Sequence[Piece], partition: int, partitions: int) -> Iterator[Lines]:
    """The lines of a part, empty ones left out, some of a piece at a time. Raises DataError."""
    turns = Turns(partition, partitions)
    for piece, shared in deal(units, partition, partitions):
        lines, positions = _read(piece)
        mine = turns.take(len(lines), shared)
        yield Lines(piece.place, [lines[row] for row in mine], [positions[row] for row in mine])


def _read(piece: Piece) -> tuple[list[bytes], list[int]]:
    with open_place(piece.place) as file:
        position = piece.begin
        if position:
            # A line that begins before is another piece's; one that begins right here is ours.
            file.seek(position - 1)
            position += len(file.readline()) - 1
        content = file.read(max(0, piece.end - position))
        if content and not content.endswith(b"\n"):
            content += file.readline()
    lines, positions = [], []
    for line in content.splitlines(keepends=True):
        if line.strip():
            lines.append(line)
            positions.append(position)
        position += len(line)
    return lines, positions


def parsed(
    lines: Lines, parse: Callable[[bytes], T], errors: type[Exception] | tuple[type[Exception], ...], bad: BadRecords
) -> Iterator[tuple[T, Callable[[int], str]]]:
    """What `parse` makes of the lines, with the key of each; those that it raises `errors` for go to `bad`.

    They are parsed together, and in halves where they cannot be.
    """

    def halves(begin: int, end: int) -> Iterator[tuple[Any, Callable[[int], str]]]:
        try:
            made = parse(b"".join(lines.lines[begin:end]))
        except errors as error:
            if end - begin == 1:
                text = lines.lines[begin].strip()[:60].decode("utf-8", "replace")
                bad.add(key(begin), f"{str(error).strip().splitlines()[0]} in {text!r}")
                return
            middle = (begin + end) // 2
            yield from halves(begin, middle)
            yield from halves(middle, end)
        else:
            yield made, lambda row: key(begin + row)

    def key(row: int) -> str:
        return f"{shown(lines.place)}, byte {lines.positions[row]:,}"

    if lines.lines:
        yield from halves(0, len(lines.lines))
