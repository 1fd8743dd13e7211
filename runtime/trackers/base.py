"""What trackers have in common: they hear of the model and of events, and whatever goes wrong in them stays there."""

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ... import Model
from ..events import Event, Iteration, Round, Test
from ..report import Report

_log = logging.getLogger(__name__)


class Tracker:
    """A sink of events (runtime.events); subclasses say in `start` and `tell` what they keep.

    The first error there is logged as a warning, on standard error where nobody has set up logging; after it the
    tracker keeps nothing more. `name` and `place` say in that warning what failed.
    """

    name = ""
    place = ""

    def __init__(self) -> None:
        self.failed = False

    def start(self, model: Model) -> None:
        """A run of `model` begins; raises whatever it likes."""

    def tell(self, event: Event) -> None:
        """Keeps what `event` says; raises whatever it likes."""

    def begin(self, model: Model, report: Path | None = None) -> None:
        """A run of `model` begins, which leaves the file `report`."""
        del report
        self.failed = False
        self.attempt(self.start, model)

    def __call__(self, event: Event) -> None:
        """Keeps what `event` says."""
        self.attempt(self.tell, event)

    def attempt(self, step: Callable[..., None], *arguments: Any) -> None:
        """Does `step`, unless one before it has failed."""
        if self.failed:
            return
        try:
            step(*arguments)
        except Exception as error:  # of a server, a filesystem, a library: training has nothing to do with it
            self.give_up(str(error) or type(error).__name__)

    def give_up(self, reason: str) -> None:
        """Says that nothing more is kept, once."""
        if not self.failed:
            self.failed = True
            first = next(iter(reason.strip().splitlines()), "")
            _log.warning("warning: %s keeps nothing more of this run (%s): %s", self.name, self.place, first)


def follow(run: Report, trackers: Iterable[Tracker], model: Model, report: Path | None) -> None:
    """From here on `trackers` keep a run of `model`, after whoever keeps it now, as the file `report`, say."""
    for tracker in trackers:
        tracker.begin(model, report)
        run.add(tracker)


def numbers(event: Event) -> Iterator[tuple[str, float]]:
    """The numbers in a Round, an Iteration or a Test, with the names that trackers show; none of other events."""
    match event:
        case Round() | Iteration():
            yield "train/loss", event.loss
            yield "train/rate", event.rate
            if event.seconds > 0:
                yield "train/images_per_second", event.rows / event.seconds
    match event:
        case Round():
            yield "train/tau", event.tau
            yield "train/averaging", event.averaging
            for partition, worker in enumerate(event.each):
                yield f"workers/{partition}/seconds", worker.seconds
                yield f"workers/{partition}/rows", worker.rows
        case Test():
            kind = f"test{event.net}" if event.net else "test"
            for name, value in event.metrics.items():
                yield f"{kind}/{name}", value
