"""How far a long piece of work is: a line that changes where standard error is a terminal, nothing where it is none.

A bar tells what was done, how fast, and how long the rest will take, where that is known.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column
from rich.text import Text

from .. import terminal


class Bar:
    """One piece of work."""

    def __init__(self, shown: Progress | None = None) -> None:
        self._shown = shown

    def advance(self, amount: int) -> None:
        """`amount` more is done."""
        if self._shown is not None:
            self._shown.advance(self._shown.task_ids[0], amount)


class _Amount(ProgressColumn):
    """So many of so many, and how many in a second."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        super().__init__(Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        of = "" if task.total is None else f"/{task.total:,.0f}"
        speed = "" if not task.speed else f"  {task.speed:,.{0 if task.speed >= 10 else 1}f}/s"
        return Text(f"{task.completed:,.0f}{of} {self._unit}{speed}")


@contextlib.contextmanager
def progress(
    what: str, total: int | None = None, done: int = 0, *, unit: str = "rows", bytes: bool = False
) -> Iterator[Bar]:
    """Shows `what` is going on during the block: `done` of `total` units, or bytes; None: nobody knows how many."""
    if not terminal.live(sys.stderr):
        yield Bar()
        return
    # On a narrow terminal what is said gives way, then the bar; the numbers stay.
    said = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
    amounts: list[ProgressColumn] = [DownloadColumn(), TransferSpeedColumn()] if bytes else [_Amount(unit)]
    left = TimeElapsedColumn() if total is None else TimeRemainingColumn(compact=True)
    bars = [BarColumn(bar_width=None, table_column=Column(min_width=6, max_width=24))] if total is not None else []
    console = terminal.console(error=True)
    wide = len(what) + 60 < console.width
    if wide:
        said = TextColumn("{task.description}")
    with Progress(
        SpinnerColumn(), said, *bars, *amounts, left, console=console, transient=True, expand=not wide
    ) as shown:
        shown.add_task(what, total=total, completed=done)
        yield Bar(shown)


class Waiting(logging.Handler):
    """Shows what goes on, as the loggers tell, and since when, where nobody knows how long it takes."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._shown: Progress | None = None
        self._level = logging.NOTSET

    def start(self, what: str) -> None:
        """Shows `what` until `stop`, or what this package's loggers tell meanwhile."""
        self.stop()
        if not terminal.live(sys.stderr):
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self._shown = Progress(*columns, console=terminal.console(error=True), transient=True)
        self._shown.add_task(what, total=None)
        self._shown.start()
        logger = logging.getLogger("sparknet_dsl")
        self._level = logger.level
        logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def stop(self) -> None:
        """Takes the line away."""
        if self._shown is None:
            return
        logger = logging.getLogger("sparknet_dsl")
        logger.removeHandler(self)
        logger.setLevel(self._level)
        self._shown.stop()
        self._shown = None

    def emit(self, record: logging.LogRecord) -> None:
        """Shows what a logger tells."""
        if self._shown is not None:
            self._shown.update(self._shown.task_ids[0], description=record.getMessage())


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Shows `what` during the block, as Waiting does."""
    shown = Waiting()
    shown.start(what)
    try:
        yield
    finally:
        shown.stop()
