"""What keeps a run: a sink of events that fills the run's folder and feeds its live page."""

import json
import os
import pathlib
import sys
from collections.abc import Callable

from ...errors import OutputError
from ...files import write_atomic
from ..events import End, Event, JsonLines, Layers, to_json
from ..report import Report
from . import evidence, page
from .folder import Subject, default_folder, make_folder
from .record import EVENTS, EVIDENCE, REPORT, EventDict, Run
from .series import FRAMES
from .serve import LivePage

# Events with histograms that are kept in memory.
KEPT = 4 * FRAMES
# Where a report goes: a folder, False for none, None for one of its own in ./runs.
Where = str | os.PathLike[str] | bool | None


def record(
    report: Report, subject: Subject, where: Where, ui: str | None, say: Callable[[str], None]
) -> pathlib.Path | None:
    """From here on keeps what `report` hears of, in the folder `where`, and shows it live at the port `ui`.

    Gives the page that there will be when the run has ended, if any.

    Raises OutputError for a folder that cannot be written, UsageError for a port that cannot be had; without its own
    folder in ./runs, since nobody asked for that, a run goes on, and says so.
    """
    live = Recording(subject, say)
    if where is not False:
        named = None if where is None or where is True else pathlib.Path(where)
        folder = named or default_folder(subject.name)
        if folder is not None:
            try:
                live.keep(folder)
            except OutputError as error:
                if named is not None:
                    raise
                say(f"no report is kept: {error}")
    if ui is not None:
        live.serve(ui)
    if live.active:
        report.add(live)
    return live.report


class Recording:
    """The sink. A folder that can no longer be written never ends a run: it is told of at the end."""

    def __init__(self, subject: Subject, say: Callable[[str], None]) -> None:
        self._subject = subject
        self._say = say
        self._run = Run(subject.name, [])
        self._events: list[EventDict] = []
        self._folder: pathlib.Path | None = None
        self._lines: JsonLines | None = None
        self._lost: OutputError | None = None
        self._page: LivePage | None = None

    @property
    def active(self) -> bool:
        """Whether there is anything to do."""
        return self._folder is not None or self._page is not None

    @property
    def report(self) -> pathlib.Path | None:
        """The page that the end leaves."""
        return None if self._folder is None else self._folder / REPORT

    def keep(self, folder: pathlib.Path) -> None:
        """Makes the folder; raises OutputError."""
        make_folder(folder, self._subject)
        self._lines = JsonLines(folder / EVENTS)
        self._folder = folder
        self._run = Run.about(folder)

    def serve(self, where: str) -> None:
        """Shows the run at `where`; raises UsageError."""
        self._page = LivePage(where, self._now)
        self._say(f"live page: {self._page.url}")

    def __call__(self, event: Event) -> None:
        """Keeps `event`."""
        self._events.append(json.loads(to_json(event)))
        if isinstance(event, Layers):
            self._forget()
        if self._lines is not None and self._lost is None:
            try:
                self._lines(event)
            except OutputError as error:
                self._lost = error
        try:
            if isinstance(event, End):
                self._end(event)
            elif self._page is not None:
                self._page.changed()
        finally:
            if isinstance(event, End) and self._page is not None:
                self._page.close()

    def _forget(self) -> None:
        """Of many histograms lets go of every second: those of a large net are half a megabyte each time."""
        told = [index for index, event in enumerate(self._events) if event["event"] == "layers"]
        if len(told) > KEPT:
            dropped = set(told[1:-1:2])
            self._events = [event for index, event in enumerate(self._events) if index not in dropped]

    def _now(self) -> Run:
        """The run as it stands; asked from other threads."""
        run = self._run
        return Run(run.name, list(self._events), run.settings, run.environment, run.evidence, run.graph)

    def _end(self, end: End) -> None:
        if self._lines is not None:
            self._lines.close()
        if self._folder is None:
            return
        try:
            if self._lost is not None:
                raise self._lost
            # First without what takes time: whoever presses Ctrl-C now has a report all the same.
            page.write(self._folder / REPORT, [self._now()])
            if end.status != "failed" and end.iteration:
                self._run.evidence = found = evidence.gather(self._subject, end, self._events)
                write_atomic(self._folder / EVIDENCE, json.dumps(found) + "\n")
                page.write(self._folder / REPORT, [self._now()])
            self._say(f"report: {self._folder / REPORT}")
        except OutputError as error:
            if end.status != "done":
                print(f"warning: the report is not whole: {error}", file=sys.stderr)
                return
            raise OutputError(f"the model is trained, but its report is not whole: {error}") from error
