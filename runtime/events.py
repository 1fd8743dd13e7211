"""What a run tells: five kinds of events, for the console and, one JSON object a line, for scripts (`--json FILE`).

In JSON an event is an object with the key "event" ("start", "round", "test", "snapshot" or "end") and, beside it, the
fields of the class below under their own names. Times are in seconds, `time` is since the epoch. NaN and infinite
numbers are written as null. A run writes one start, then rounds, tests and snapshots as they happen, then one end,
always; a run that ends before Spark has started (a wrong model, say) writes only the end.
"""

import dataclasses
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal, Self

from ..errors import OutputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """Training begins.

    model        the net's name
    workers, tau, rounds, seed, master, momentum: the settings in force
    round, iteration: where it begins, 0 unless resumed
    batch        rows of an iteration on one worker (with iter_size)
    parameters   numbers to learn
    train, test  the sources, test null where there is none
    train_rows, test_rows: their rows
    notes        what a user should know: where weights came from, a mean that was computed
    """

    model: str
    workers: int
    tau: int
    rounds: int
    seed: int
    master: str
    momentum: str
    round: int
    iteration: int
    batch: int
    parameters: int
    train: str
    test: str | None
    train_rows: int
    test_rows: int
    notes: tuple[str, ...]
    time: float = dataclasses.field(default_factory=time.time)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    """A round is over, and the weights are averaged.

    round        rounds done, this one counted; `rounds` is their whole number
    iteration    iterations done (each counts once, however many workers took part)
    loss         mean over the round's iterations and the workers
    rate         the learning rate of the last iteration
    rows         rows that all workers together trained on in this round
    seconds      from the broadcast to the average
    averaging    share of `seconds` not spent training: what the slowest worker's own work leaves
    """

    round: int
    rounds: int
    iteration: int
    loss: float
    rate: float
    rows: int
    seconds: float
    averaging: float
    time: float = dataclasses.field(default_factory=time.time)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Test:
    """The averaged weights on the whole test set; `metrics` are the net's outputs, means over `rows` rows."""

    __test__ = False  # not for pytest

    round: int
    iteration: int
    metrics: Mapping[str, float]
    rows: int
    seconds: float
    time: float = dataclasses.field(default_factory=time.time)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Files were written: `files`, absolute paths; the first is the .caffemodel."""

    round: int
    iteration: int
    files: tuple[str, ...]
    time: float = dataclasses.field(default_factory=time.time)


Status = Literal["done", "failed", "interrupted"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class End:
    """The run is over.

    status       "done", "failed" or "interrupted"
    message      null, or why it failed
    round, iteration: rounds and iterations done
    seconds      since the start
    metrics      of the last test, {} where there was none
    files        everything written that is still there
    """

    status: Status
    message: str | None
    round: int
    iteration: int
    seconds: float
    metrics: Mapping[str, float]
    files: tuple[str, ...]
    time: float = dataclasses.field(default_factory=time.time)


Event = Start | Round | Test | Snapshot | End
Emit = Callable[[Event], None]


def to_json(event: Event) -> str:
    """The event as one line of JSON."""
    return json.dumps({"event": type(event).__name__.lower(), **_plain(dataclasses.asdict(event))}, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class JsonLines:
    """Writes events to `path`, a line each as it happens; raises OutputError."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)
        try:
            self._file = self.path.open("w", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error

    def __call__(self, event: Event) -> None:
        """Writes `event` and flushes."""
        try:
            self._file.write(to_json(event) + "\n")
            self._file.flush()
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
