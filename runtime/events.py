"""What a run tells: eleven kinds of events, for the console and, one JSON object a line, for scripts (`--json FILE`).

In JSON an event is an object with the key "event" ("start", "round", "tau", "again", "dropped", "iteration", "test",
"layers", "snapshot", "skipped" or "end") and, beside it, the fields of the class below under their own names. Times
are in seconds, `time` is since the epoch. NaN and infinite numbers are written as null. A run writes one start, then
rounds (on Spark) or iterations (on one machine), tests and snapshots as they happen, then one end, always; a run that
ends before training has begun (a wrong model, say) writes only the end. What only Spark has is null on one machine:
`round` everywhere, and some fields of the start.
"""

import contextlib
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
    workers, rounds, seed, master, average: the settings in force; all but seed null on one machine
    tau          iterations of a round: a number, a schedule, or "auto"; null on one machine
    rule         the settings of averaging by name (momentum, outer_rate, ...); null on one machine
    precision    in which the nets multiply: float32 or bf16
    round, iteration: where it begins, 0 unless resumed
    max_iter     on one machine: the iteration where it ends
    batch        rows of an iteration on one worker (with iter_size)
    parameters   numbers to learn
    train, test  the sources, test null where there is none; "the net's own" where its data layers read files themselves
    train_rows, test_rows: their rows, null where the net's own layers read them
    notes        what a user should know: where weights came from, a mean that was computed
    """

    model: str
    workers: int | None = None
    tau: int | str | None = None
    rounds: int | None = None
    seed: int
    master: str | None = None
    average: str | None = None
    rule: Mapping[str, Any] | None = None
    precision: str = "float32"
    round: int | None = None
    iteration: int
    max_iter: int | None = None
    batch: int
    parameters: int
    train: str
    test: str | None
    train_rows: int | None
    test_rows: int | None
    notes: tuple[str, ...]
    time: float = dataclasses.field(default_factory=time.time)


@dataclasses.dataclass(frozen=True)
class Worker:
    """What one worker did in a round: seconds that it trained, and rows that it trained on (both 0: left out)."""

    seconds: float
    rows: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    """A round is over, and the weights are averaged.

    round        rounds done, this one counted; `rounds` is their whole number, with tau "auto" as it looks now
    tau          iterations of this round
    iteration    iterations done (each counts once, however many workers took part)
    loss         mean over the round's iterations and the workers
    rate         the learning rate of the last iteration
    rows         rows that all workers together trained on in this round
    seconds      from the broadcast to the average
    averaging    share of `seconds` not spent training: what the slowest worker's own work leaves
    each         what each worker did, in the partitions' order
    """

    round: int
    rounds: int
    tau: int
    iteration: int
    loss: float
    rate: float
    rows: int
    seconds: float
    averaging: float
    each: tuple[Worker, ...] = ()
    time: float = dataclasses.field(default_factory=time.time)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tau:
    """With tau "auto": rounds from `round`, `iteration` on have `tau` iterations.

    schedule: all choices so far; given as --tau, it repeats the run
    """

    round: int
    iteration: int
    tau: int
    schedule: str
    time: float = dataclasses.field(default_factory=time.time)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Again:
    """A worker was lost or late: rounds from `round`, `iteration` on are run again, with the same outcome.

    Those that a Round was told of already are not told of again.
    """

    round: int
    iteration: int
    reason: str
    time: float = dataclasses.field(default_factory=time.time)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dropped:
    """With late=DROP: a worker is late, as `reason` says, and left out of the round after `round`, `iteration`."""

    round: int
    iteration: int
    reason: str
    time: float = dataclasses.field(default_factory=time.time)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Iteration:
    """Training on one machine has come so far: told every `display` iterations.

    iteration    iterations done; `max_iter` is where it ends
    loss         of the last iteration, smoothed over average_loss
    rate         its learning rate
    rows         rows trained on since the event before, in `seconds`, tests and snapshots not counted
    """

    iteration: int
    max_iter: int
    loss: float
    rate: float
    rows: int
    seconds: float
    time: float = dataclasses.field(default_factory=time.time)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Test:
    """The (averaged) weights on test data; `metrics` are the net's outputs of one number, means over `rows` rows.

    `net` counts the test nets of a solver that has several. On Spark, and without test_iter, a test takes the whole
    test set, each row once.
    """

    __test__ = False  # not for pytest

    net: int = 0
    round: int | None = None
    iteration: int
    metrics: Mapping[str, float]
    rows: int
    seconds: float
    time: float = dataclasses.field(default_factory=time.time)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """How numbers are spread. Those that are not finite count as the whole's mean and std only, which are then NaN.

    std          with division by the count
    min, max     of the finite ones; 0 where there are none
    counts       of the finite ones in 32 equal bins from min to max, or around a single value
    edges        of the bins, 33
    """

    mean: float
    std: float
    min: float
    max: float
    counts: tuple[int, ...]
    edges: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerStats(Spread):
    """A parameter of a layer: its numbers, and its gradient's.

    param        0 weights, 1 bias, ...
    gradient     as it came from the last iteration, the sum over iter_size passes; null where it is not at hand
    """

    layer: str
    param: int
    shape: tuple[int, ...]
    gradient: Spread | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layers:
    """What the (averaged) weights look like: told with tests and snapshots, once an iteration, and so at the end."""

    round: int | None = None
    iteration: int
    layers: tuple[LayerStats, ...]
    time: float = dataclasses.field(default_factory=time.time)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Files were written: `files`, absolute paths; the first is the .caffemodel."""

    round: int | None = None
    iteration: int
    files: tuple[str, ...]
    time: float = dataclasses.field(default_factory=time.time)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skipped:
    """Records could not be read, and were left out (`--bad-records skip`); told once for each source, after the start.

    phase        "TRAIN" or "TEST"; `source` is its URI
    count        how many; `rows` are those that could be read
    first        the first of them: each has a key and a reason
    """

    phase: str
    source: str
    count: int
    rows: int
    first: tuple[Mapping[str, str], ...]
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
    round: int | None
    iteration: int
    seconds: float
    metrics: Mapping[str, float]
    files: tuple[str, ...]
    time: float = dataclasses.field(default_factory=time.time)


Event = Start | Round | Tau | Again | Dropped | Iteration | Test | Layers | Snapshot | Skipped | End
Emit = Callable[[Event], None]


def to_json(event: Event) -> str:
    """The event as one line of JSON."""
    return json.dumps({"event": type(event).__name__.lower(), **finite(dataclasses.asdict(event))}, allow_nan=False)


def finite(value: Any) -> Any:
    """`value` as JSON can hold it: None for NaN and infinite numbers, also inside mappings and sequences."""
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [finite(entry) for entry in value]
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

    def close(self) -> None:
        """No more events come."""
        # After a full disk the last words are still in its buffer.
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
