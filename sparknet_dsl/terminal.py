"""What a command says on its terminal: how much (--quiet, --verbose), and whether in colours and with live lines."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

# Columns of what goes into a pipe or a file, where nobody says how many there are.
PIPED = 200
_quiet = _verbose = False


def quiet() -> bool:
    """Whether only errors and the result are wanted."""
    return _quiet


@contextlib.contextmanager
def speaking(*, quiet: bool = False, verbose: bool = False) -> Iterator[None]:
    """During the block the process says less, or, on standard error, what the package's loggers tell, too."""
    global _quiet, _verbose
    before, _quiet, _verbose = (_quiet, _verbose), quiet, verbose
    logger, handler = logging.getLogger(__package__), logging.StreamHandler()
    handler.setFormatter(_Since())
    level = logger.level
    if verbose:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        _quiet, _verbose = before
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Since(logging.Formatter):
    """Messages behind the seconds since Python started, dim where there are colours."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{record.relativeCreated / 1000:7.2f} s  {record.getMessage()}"
        return f"\x1b[2m{line}\x1b[0m" if colours(sys.stderr) else line


def colours(stream: TextIO) -> bool:
    """Whether to write colours: as NO_COLOR or FORCE_COLOR say, else if it is a terminal that has any."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and not _dumb())


def live(stream: TextIO) -> bool:
    """Whether lines of `stream` may change while they are read, bars of progress; --verbose has lines that stay."""
    return stream.isatty() and not _dumb() and not _quiet and not _verbose


def console(*, error: bool = False, width: int | None = None) -> "Console":
    """A console of rich on standard output, or error, with colours as `colours` says.

    Where nobody says how wide it is (no terminal, no COLUMNS), it has `width` columns, or PIPED.
    """
    from rich.console import Console

    stream = sys.stderr if error else sys.stdout
    wide = None if stream.isatty() or "COLUMNS" in os.environ else width or PIPED
    if not colours(stream):
        return Console(stderr=error, highlight=False, color_system=None, width=wide)
    return Console(
        stderr=error, highlight=False, color_system="auto" if stream.isatty() and not _dumb() else "256", width=wide
    )


def complain(text: str) -> None:
    """Writes an error's message to standard error."""
    head = "\x1b[1;31merror:\x1b[0m" if colours(sys.stderr) else "error:"
    print(f"{head} {text}", file=sys.stderr)


def _dumb() -> bool:
    return os.environ.get("TERM", "").lower() in ("dumb", "unknown")
