"""How far a long piece of work is: a bar where standard error is a terminal, nothing where it is none."""

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class Bar:
    """One piece of work."""

    def __init__(self, shown: Progress | None = None) -> None:
        self._shown = shown

    def advance(self, amount: int) -> None:
        """`amount` more is done."""
        if self._shown is not None:
            self._shown.advance(self._shown.task_ids[0], amount)


@contextlib.contextmanager
def progress(what: str, total: int | None = None, done: int = 0, *, bytes: bool = False) -> Iterator[Bar]:
    """Shows `what` is going on during the block: `done` of `total` rows, or bytes; None: nobody knows how many."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield Bar()
        return
    amounts: list[ProgressColumn] = [DownloadColumn(), TransferSpeedColumn()]
    if not bytes:
        amounts = [TextColumn("{task.completed:,.0f} rows")] if total is None else [MofNCompleteColumn()]
    left = TimeElapsedColumn() if total is None else TimeRemainingColumn(compact=True)
    bar = BarColumn(bar_width=24)
    with Progress(TextColumn("{task.description}"), bar, *amounts, left, console=console, transient=True) as shown:
        shown.add_task(what, total=total, completed=done)
        yield Bar(shown)
