"""Shows a run on the terminal: a live line where there is a terminal, plain lines where there is none."""

import sys
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from .. import terminal
from .events import Again, Dropped, End, Event, Iteration, Round, Skipped, Snapshot, Start, Tau, Test
from .progress import Waiting


class ConsoleReport:
    """A sink of events that prints them; --quiet leaves the end, and what went wrong on the way."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or terminal.console()
        self.live = terminal.live(sys.stdout) if console is None else console.is_terminal
        self._quiet = terminal.quiet()
        self._progress: Progress | None = None
        self._waiting = Waiting()
        self._metrics: Mapping[str, float] = {}
        self._rows = 0
        self._seconds = 0.0
        self._averaging = 0.0
        self._loss: float | None = None

    def wait(self, what: str) -> None:
        """Says on a terminal that `what` is going on, until the next event."""
        self._waiting.start(what)

    def go_on(self) -> None:
        """Ends `wait`."""
        self._waiting.stop()

    def say(self, text: str) -> None:
        """Prints a line, unless only the result is wanted."""
        if not self._quiet:
            self._say(text)

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __call__(self, event: Event) -> None:
        """Shows `event`."""
        self.go_on()
        match event:
            case Start():
                self._start(event)
            case Round():
                self._round(event)
            case Tau():
                self.say(f"tau {event.tau} from iteration {event.iteration:,} on")
            case Again():
                self.say(f"again from round {event.round}: {event.reason}")
            case Dropped():
                self.say(f"left out of round {event.round + 1}: {event.reason}")
            case Iteration():
                self._iteration(event)
            case Test():
                self._metrics = event.metrics
                number = f" net {event.net}" if event.net else ""
                self.say(f"test{number} after {_when(event)}: {_metrics(event.metrics)} ({event.rows:,} rows)")
            case Snapshot():
                self.say(f"snapshot after {_when(event)}: {event.files[0]}")
            case Skipped():
                for line in skipped_lines(event):
                    self.say(line)
            case End():
                self._end(event)

    def _start(self, start: Start) -> None:
        where = f"batch {start.batch}, seed {start.seed}"
        if start.rounds is not None:
            length = f"× {start.tau} iterations a round" if isinstance(start.tau, int) else f"with tau {start.tau}"
            where = f"{start.workers} workers {length}, {where}, {start.master}"
        self.say(f"{start.model}: {start.parameters:,} parameters, {where}")
        for phase, source, rows in (("train", start.train, start.train_rows), ("test", start.test, start.test_rows)):
            if source is not None:
                self.say(f"{phase}: {source}" + (f", {rows:,} rows" if rows is not None else ""))
        for note in start.notes:
            self.say(note)
        if self.live:
            what, done, total = "round", start.round, start.rounds
            if total is None:
                what, done, total = "iteration", start.iteration, start.max_iter
            # On a narrow terminal the description gives way.
            widest = len(f"{what} {total}/{total}")
            self._progress = Progress(
                TextColumn(what + " {task.completed:.0f}/{task.total:.0f}", table_column=Column(min_width=widest)),
                BarColumn(bar_width=None, table_column=Column(min_width=10, max_width=24)),
                TextColumn("{task.description}", table_column=Column(no_wrap=True)),
                TimeRemainingColumn(compact=True, table_column=Column(min_width=5)),
                console=self.console,
                transient=True,
            )
            self._progress.add_task(f"first {what}", total=total, completed=done or 0)
            self._progress.start()

    def _round(self, event: Round) -> None:
        self._rows += event.rows
        self._seconds += event.seconds
        self._averaging += event.averaging * event.seconds
        self._loss = event.loss
        line = (
            f"iteration {event.iteration:,}  loss {event.loss:.4g}  {event.rows / event.seconds:,.0f} images/s  "
            f"averaging {event.averaging:.0%}"
        )
        if self._progress is None:
            line = f"round {event.round}/{event.rounds}  {line}"
        self._advance(event.round, event.rounds, line)

    def _iteration(self, event: Iteration) -> None:
        self._rows += event.rows
        self._seconds += event.seconds
        self._loss = event.loss
        line = f"loss {event.loss:.4g}  rate {event.rate:.4g}"
        if event.rows and event.seconds:
            line += f"  {event.rows / event.seconds:,.0f} images/s"
        if self._progress is None:
            line = f"iteration {event.iteration:,}/{event.max_iter:,}  {line}"
        self._advance(event.iteration, event.max_iter, line)

    def _advance(self, done: int, total: int, line: str) -> None:
        if self._progress is None:
            self.say(line)
            return
        metrics = "".join(f"  {name} {value:.4g}" for name, value in self._metrics.items())
        self._progress.update(self._progress.task_ids[0], completed=done, total=total, description=line + metrics)

    def _end(self, end: End) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        if not end.iteration and not end.files:
            return
        table = Table(show_header=False)
        table.add_column(style="bold")
        table.add_column(justify="right")
        table.add_row("status", end.status)
        if end.round is not None:
            table.add_row("rounds", f"{end.round:,}")
        table.add_row("iterations", f"{end.iteration:,}")
        table.add_row("time", f"{end.seconds:,.1f} s")
        if self._seconds:
            table.add_row("images/s", f"{self._rows / self._seconds:,.0f}")
        if self._seconds and end.round is not None:
            table.add_row("averaging", f"{self._averaging / self._seconds:.1%}")
        if self._loss is not None:
            table.add_row("training loss", f"{self._loss:.4g}")
        for name, value in end.metrics.items():
            table.add_row(f"test {name}", f"{value:.4g}")
        if self._quiet:
            for name, value in end.metrics.items():
                self._say(f"{name} {value:.6g}")
        else:
            self.console.print(table)
        for file in end.files:
            self._say(f"wrote {file}")


def skipped_lines(event: Skipped) -> list[str]:
    """What was left out, in words: how many records, and the first of them."""
    shown = f", the first {len(event.first)}" if event.count > len(event.first) else ""
    whole = event.rows + event.count
    said = f"{event.count:,} of {whole:,} records of {event.source} could not be read and were skipped{shown}:"
    return [said, *(f"  {bad['key']}: {bad['reason']}" for bad in event.first)]


def _when(event: Test | Snapshot) -> str:
    return f"iteration {event.iteration:,}" if event.round is None else f"round {event.round}"


def _metrics(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()) or "the net has no outputs of one number"
