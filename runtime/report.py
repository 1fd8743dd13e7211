"""Hands a run's events to whoever shows or keeps them, and closes every run with an End."""

import contextlib
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from ..errors import SparkNetError
from .events import Emit, End, Event, Iteration, Round, Snapshot, Start, Status, Test


class Report:
    """A context around a run: call it with the run's events; when the block ends, however it does, it adds the End.

    The sinks get every event in turn. An error of the block goes on.
    """

    def __init__(self, sinks: Sequence[Emit]) -> None:
        self._sinks = list(sinks)
        self._began = time.perf_counter()
        self._round: int | None = 0
        self._iteration = 0
        self._metrics: dict[str, float] = {}
        self._files: list[str] = []

    def add(self, sink: Emit) -> None:
        """From here on `sink` gets the events, too."""
        self._sinks.append(sink)

    def __call__(self, event: Event) -> None:
        """Hands on `event`."""
        if isinstance(event, Start | Round | Snapshot):
            # An interrupted run may keep a round that it has not told of.
            self._round, self._iteration = event.round, event.iteration
        elif isinstance(event, Iteration):
            self._iteration = event.iteration
        elif isinstance(event, Test):
            self._metrics = dict(event.metrics)
        if isinstance(event, Snapshot):
            self._files += [file for file in event.files if file not in self._files]
        # One that fails keeps it from none of the others.
        with contextlib.ExitStack() as stack:
            for sink in reversed(self._sinks):
                stack.callback(sink, event)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status: Status = "done" if error is None else "failed"
        if isinstance(error, KeyboardInterrupt):
            status = "interrupted"
        message = None
        if status == "failed":
            message = str(error) if isinstance(error, SparkNetError) else repr(error)
        self(
            End(
                status=status,
                message=message,
                round=self._round,
                iteration=self._iteration,
                seconds=time.perf_counter() - self._began,
                metrics=self._metrics,
                files=tuple(self._files),
            )
        )
