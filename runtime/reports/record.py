"""A run as its folder tells of it."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import DataError

EVENTS, SETTINGS, ENVIRONMENT, EVIDENCE = "events.jsonl", "settings.json", "environment.json", "evidence.json"
MODEL, GRAPH, REPORT = "model", "graph.html", "report.html"

# An event as to_json writes it.
EventDict = Mapping[str, Any]


@dataclasses.dataclass
class Run:
    """What is known of a run; every part but the events may be missing ({}, "").

    name         of its folder
    settings     those in force, by group ("run", "solver", "options")
    evidence     what evidence.gather found
    graph        of the net: a page (sparknet_dsl.view) that is shown in a frame
    """

    name: str
    events: Sequence[EventDict]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    evidence: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    graph: str = ""

    @classmethod
    def load(cls, path: pathlib.Path) -> "Run":
        """The run in the folder `path`, or in a file of events (`--json`) alone; raises DataError."""
        if path.is_file():
            return cls(path.stem, _events(path))
        return dataclasses.replace(cls.about(path), events=_events(path / EVENTS))

    @classmethod
    def about(cls, folder: pathlib.Path) -> "Run":
        """All but the events; raises DataError."""
        return cls(
            folder.absolute().name,
            (),
            settings=_object(folder / SETTINGS),
            environment=_object(folder / ENVIRONMENT),
            evidence=_object(folder / EVIDENCE),
            graph=_text(folder / MODEL / GRAPH),
        )


def _events(path: pathlib.Path) -> list[EventDict]:
    text = _text(path, needed=True)
    found: list[EventDict] = []
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
            if not isinstance(event, dict) or "event" not in event:
                raise ValueError("an object with `event` is wanted")
            found.append(event)
        except ValueError as error:
            # A process that was killed leaves half a line.
            if number == len(lines) and not line.endswith("\n"):
                break
            raise DataError(f"{path}, line {number}, is no event of a run: {error}") from error
    if not found:
        raise DataError(f"{path} has no events: the run has not begun, or was ended before it could")
    return found


def _object(path: pathlib.Path) -> Mapping[str, Any]:
    text = _text(path)
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is no JSON object")
    return found


def _text(path: pathlib.Path, needed: bool = False) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if not needed:
            return ""
        where = path.parent if path.name == EVENTS else path
        raise DataError(f"{where} is no folder of a run: there is no {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
