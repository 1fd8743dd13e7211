"""Training in a notebook: a chart that grows while a run goes on, and what a run was, as HTML."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from .runtime.console import ConsoleReport
from .runtime.events import Again, Dropped, End, Event, Iteration, Round, Start, Test
from .view.chart import Line, Panel, charts

if TYPE_CHECKING:
    from .runtime.train import Result

EVERY = 0.5  # seconds between two drawings, at least


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel, whose outputs are shown as HTML."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


class LiveChart:
    """A callback that draws a run while it goes on: loss, metrics of tests, and how fast it is.

        Trainer("digits", workers=2, callbacks=[LiveChart()]).fit()

    In a notebook `Trainer` has one of its own where none is given. Outside notebooks the run is told in lines, as on a
    terminal.
    """

    def __init__(self) -> None:
        self._lines = None if in_notebook() else ConsoleReport()
        self._events: list[Event] = []
        self._handle: Any = None
        self._drawn = 0.0

    def wait(self, what: str) -> None:
        """Shows that `what` is going on, until the next event."""
        if self._lines is not None:
            self._lines.wait(what)
        else:
            self._events = []
            self._handle = None
            self._show(f"<i>{escape(what)} …</i>")

    def go_on(self) -> None:
        """Ends `wait`."""
        if self._lines is not None:
            self._lines.go_on()

    def __call__(self, event: Event) -> None:
        """Draws `event`, at once or with those that follow soon."""
        if self._lines is not None:
            self._lines(event)
            return
        if isinstance(event, Start):
            self._events = []
        self._events.append(event)
        now = time.monotonic()
        if now - self._drawn >= EVERY or isinstance(event, Start | End):
            self._drawn = now
            self._show(history(self._events))
        if isinstance(event, End):
            self._handle = None

    def _show(self, content: str) -> None:
        from IPython.display import HTML, display

        drawing = HTML(content)  # type: ignore[no-untyped-call]
        if self._handle is None:
            self._handle = display(drawing, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(drawing)


def history(events: Sequence[Event]) -> str:
    """What `events` of one run tell, as HTML: where it is or how it ended, loss and metrics as charts."""
    trained = [event for event in events if isinstance(event, Round | Iteration)]
    tests = [event for event in events if isinstance(event, Test) and event.net == 0]
    losses = [Line("training", [(event.iteration, event.loss) for event in trained])]
    names = list(tests[0].metrics) if tests else []
    lines = {
        name: Line(name, [(test.iteration, test.metrics.get(name, float("nan"))) for test in tests]) for name in names
    }
    # Losses of tests belong beside that of training; what else is measured has a panel of its own.
    losses += [Line(f"test {line.name}", line.points) for name, line in lines.items() if "loss" in name]
    others = [line for name, line in lines.items() if "loss" not in name]
    panels = [Panel("loss, by iteration", losses), *([Panel("tests, by iteration", others)] if others else [])]
    shown = charts(panels) if trained or tests else ""
    said = "".join(f'<div style="opacity:.75">{escape(line)}</div>' for line in _notes(events))
    return f"<div><div>{_where(events, trained)}</div>{said}{shown}</div>"


def _where(events: Sequence[Event], trained: Sequence[Round | Iteration]) -> str:
    """One line: the model, and how far it is, or how it ended."""
    start = next((event for event in events if isinstance(event, Start)), None)
    end = next((event for event in events if isinstance(event, End)), None)
    parts = [f"<b>{escape(start.model)}</b>"] if start is not None else []
    if end is not None:
        parts.append(end.status + (f": {escape(end.message)}" if end.message else ""))
    if trained:
        last = trained[-1]
        if isinstance(last, Round):
            done, total, unit = last.round, last.rounds, "round"
        else:
            done, total, unit = last.iteration, last.max_iter, "iteration"
        parts.append(f"{unit} {done:,} of {total:,}")
        seconds = sum(event.seconds for event in trained)
        if seconds:
            parts.append(f"{sum(event.rows for event in trained) / seconds:,.0f} images/s")
        first = (start.round or 0 if unit == "round" else start.iteration) if start is not None else 0
        if end is None and done > first:
            parts.append(f"{seconds / (done - first) * (total - done):,.0f} s left")
    if end is not None:
        parts.append(f"{end.seconds:,.1f} s")
        parts += [f"{escape(name)} {value:.4g}" for name, value in end.metrics.items()]
    return ", ".join(parts)


def _notes(events: Sequence[Event]) -> list[str]:
    notes: list[str] = []
    for event in events:
        if isinstance(event, Start):
            notes += event.notes
        elif isinstance(event, Again | Dropped):
            what = "again from" if isinstance(event, Again) else "left out of"
            notes.append(f"{what} round {event.round}: {event.reason}")
    return notes


def result(found: Result) -> str:
    """What a run left, as a table."""
    rows: dict[str, str] = {"rounds": f"{found.round:,}", "iterations": f"{found.iteration:,}"}
    rows |= {name: f"{value:.4g}" for name, value in found.metrics.items()}
    files = "<br>".join(escape(str(file)) for file in found.files)
    return _table({**rows, "files": files})


def _table(rows: Mapping[str, str]) -> str:
    cells = (
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{value}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table>{''.join(cells)}</table>"
