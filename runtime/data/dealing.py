"""Which files, or pieces of files, each part of a source reads."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def deal(units: Sequence[T], partition: int, partitions: int) -> Iterator[tuple[T, bool]]:
    """Deals `units` like cards: those of part `partition`, each its own; the rest that does not go round is shared.

    Of a shared unit (True) every part takes the rows that `Turns` gives it, so that parts are equal even where there is
    one unit only, and nothing but the rest is read twice.
    """
    rest = len(units) - len(units) % partitions
    yield from ((unit, False) for unit in units[partition:rest:partitions])
    yield from ((unit, True) for unit in units[rest:])


class Turns:
    """Shares out the rows of shared units: each part takes its turn, on from unit to unit."""

    def __init__(self, partition: int, partitions: int) -> None:
        self._next = partition
        self._partitions = partitions

    def take(self, rows: int, shared: bool) -> range:
        """Which of the next `rows` rows of a unit are this part's."""
        if not shared:
            return range(rows)
        mine = range(self._next, rows, self._partitions)
        self._next += len(mine) * self._partitions - rows
        return mine
