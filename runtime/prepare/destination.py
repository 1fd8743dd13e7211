"""Where a converted data set goes: beside its place until it is whole, so that nobody ever sees a part of one.

What is being written lies in `.NAME.unfinished`, with how far it got; the same command goes on from there.
"""

import contextlib
import difflib
import fcntl
import fnmatch
import json
import os
import pathlib
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from ...errors import OutputError, UsageError
from ...files import exists, write_atomic
from ..data import parse_uri

# Seconds between two notes of how far it got.
NOTED = 1.0


class Destination(NamedTuple):
    """What is written, and where: `scheme:path`, as sources are named."""

    scheme: str
    path: pathlib.Path

    def __str__(self) -> str:
        return f"{self.scheme}:{self.path}"


def destination(text: str, schemes: Collection[str]) -> Destination:
    """Reads `scheme:path`; raises UsageError where the scheme is none of `schemes`, or the path is no local one."""
    uri = parse_uri(text)
    known = ", ".join(f"{scheme}:" for scheme in schemes)
    if uri is None or not uri.scheme:
        raise UsageError(f"`{text}` names no format: write scheme:path, where the scheme is one of {known}")
    if uri.scheme not in schemes:
        close = difflib.get_close_matches(uri.scheme, schemes, n=1, cutoff=0.5)
        help = f"did you mean `{close[0]}:`?" if close else f"there are {known}"
        raise UsageError(f"`{uri.scheme}:` (in `{text}`) cannot be written: {help}")
    if uri.options or uri.columns:
        raise UsageError(f"`{text}`: options such as ?columns= belong to what is read, not to what is written")
    if not uri.path or "://" in uri.path:
        raise UsageError(f"`{text}`: a path on this machine is wanted after {uri.scheme}:")
    return Destination(uri.scheme, pathlib.Path(os.path.expanduser(uri.path)))  # noqa: PTH111 - pathlib's may raise


class Unfinished:
    """What is being written: to `path`, `done` rows of it earlier."""

    def __init__(self, folder: pathlib.Path, done: int) -> None:
        self.path = folder / "data"
        self.done = done
        self._noted = time.monotonic()
        self._progress = folder / "progress.json"
        self._settings = json.loads(self._progress.read_text())["settings"]

    def keep(self, rows: int) -> None:
        """Notes, every now and then, that the first `rows` rows are safe on the disk."""
        if rows > self.done and time.monotonic() - self._noted > NOTED:
            self.done, self._noted = rows, time.monotonic()
            write_atomic(self._progress, json.dumps({"rows": rows, "settings": self._settings}))


@contextlib.contextmanager
def writing(
    to: Destination, settings: Mapping[str, Any], content: Collection[str], *, force: bool = False
) -> Iterator[Unfinished]:
    """What the block writes takes its place at `to` when it ends well.

    When it fails, what was there before stays, and a later call with equal `settings` (what is read, and how; JSON)
    goes on. `force` replaces what is there: a file, or a folder in which all names match `content`, as such data sets
    have them. Raises OutputError: there is something already, another process writes there, or the system refuses.
    """
    target = to.path
    if exists(target):
        if not force:
            raise OutputError(f"{target} is there already: --force writes it anew")
        other = _other(target, content)
        if other is not None:
            raise OutputError(f"{target} holds {other}, so it is no {to.scheme}: of ours, and --force leaves it alone")
    folder = target.parent / f".{target.name}.unfinished"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, to):
            unfinished = Unfinished(folder, _done(folder, {"format": to.scheme, **settings}))
            yield unfinished
            _replace(unfinished.path, target)
            shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(f"cannot write {to}: {error.strerror or error}") from error


@contextlib.contextmanager
def _locked(folder: pathlib.Path, to: Destination) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{to} is being written by another process") from error
        yield


def _done(folder: pathlib.Path, settings: Mapping[str, Any]) -> int:
    """The rows that an earlier call of equal settings has written; clears what one of others left."""
    settings = json.loads(json.dumps(settings))  # tuples are lists there
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        kept = json.loads((folder / "progress.json").read_text())
        if kept["settings"] == settings:
            return int(kept["rows"])
    data = folder / "data"
    if data.is_dir():
        shutil.rmtree(data)
    else:
        data.unlink(missing_ok=True)
    write_atomic(folder / "progress.json", json.dumps({"rows": 0, "settings": settings}))
    return 0


def _other(target: pathlib.Path, content: Collection[str]) -> str | None:
    """The name of something in the folder `target` that is none of `content`."""
    names = sorted(path.name for path in target.iterdir()) if target.is_dir() else []
    return next((name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in content)), None)


def _replace(written: pathlib.Path, target: pathlib.Path) -> None:
    if exists(target) and (target.is_dir() or written.is_dir()):
        # A folder with content cannot be replaced in one step.
        old = written.parent / "old"
        if old.exists():
            shutil.rmtree(old)
        target.rename(old)
    written.replace(target)
