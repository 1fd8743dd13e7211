"""What a source turned out to hold once its rows were read: how many, and the records that could not be."""

import dataclasses
from collections.abc import Sequence

from ..errors import DataError
from .data import Bad, BadRecords, Phase
from .events import Skipped


@dataclasses.dataclass(frozen=True)
class Ingested:
    """Of the source `uri`, in `phase`: the rows of each partition, and the bad records of all of them."""

    uri: str
    phase: Phase
    rows: tuple[int, ...]
    bad: BadRecords

    @classmethod
    def of(cls, uri: str, phase: Phase, parts: Sequence[tuple[int, BadRecords]]) -> "Ingested":
        """Adds up what the partitions tell. Raises DataError where there are no rows at all."""
        first: list[Bad] = [bad for _, found in parts for bad in found.first][: BadRecords.KEPT]
        found = cls(
            uri, phase, tuple(rows for rows, _ in parts), BadRecords("skip", sum(b.count for _, b in parts), first)
        )
        if not found.total:
            said = f", all {found.bad.count:,} records of it are bad: {found._reasons()}" if first else ""
            raise DataError(f"{uri} has no rows{said}")
        return found

    @property
    def total(self) -> int:
        """Rows of all partitions."""
        return sum(self.rows)

    @property
    def skipped(self) -> Skipped | None:
        """The event that tells of bad records; None where there were none."""
        if not self.bad.count:
            return None
        first = tuple({"key": bad.key, "reason": bad.reason} for bad in self.bad.first)
        return Skipped(phase=self.phase, source=self.uri, count=self.bad.count, rows=self.total, first=first)

    def check_workers(self) -> None:
        """Raises DataError unless every partition has rows, so that every worker has something to train on."""
        if 0 in self.rows:
            workers = len(self.rows)
            raise DataError(
                f"{self.uri} has {self.total:,} rows, too few for {workers} workers"
                if self.total < workers
                else f"{self.uri} gives worker {self.rows.index(0) + 1} of {workers} no rows"
            )

    def _reasons(self) -> str:
        return "; ".join(f"{bad.key}: {bad.reason}" for bad in self.bad.first)
