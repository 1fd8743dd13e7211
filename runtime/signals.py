"""Signals that ask a run for something: SIGINT to stop, SIGHUP for a snapshot, as with `caffe train`."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Literal, Self

Effect = Literal["stop", "snapshot", "none"]


class Signals:
    """In this context the signals have the effects given; `asked()` tells, once each time, what they asked for.

    A second SIGINT that asks for a stop, while the first one waits for the end of an iteration, is a KeyboardInterrupt.
    Outside the main thread, where Python hears no signals, nothing is changed.
    """

    def __init__(self, sigint: Effect, sighup: Effect) -> None:
        self._effects: dict[int, Effect] = {signal.SIGINT: sigint, signal.SIGHUP: sighup}
        self._before: dict[int, object] = {}
        self._snapshot = False
        self.stop = False

    def asked(self) -> Literal["stop", "snapshot"] | None:
        """What was asked for since the last call; a stop holds."""
        if self.stop:
            return "stop"
        wanted, self._snapshot = self._snapshot, False
        return "snapshot" if wanted else None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        effect = self._effects[number]
        if effect == "stop":
            if self.stop and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.stop = True
        elif effect == "snapshot":
            self._snapshot = True

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in self._effects:
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C has no effect in this block: it is writing what an earlier one asked to keep."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
