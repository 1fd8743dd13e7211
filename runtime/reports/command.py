"""`sparknet-report`: the page of a run made again from its folder, or one of several runs side by side."""

import json as json_format
import pathlib
import webbrowser
from collections.abc import Sequence
from typing import Any

from ..events import finite
from . import page
from .record import REPORT, Run

# The page of several runs, where no file is named.
COMPARISON = "comparison.html"


def main(paths: Sequence[str], *, output: str | None = None, show: bool = False, json: bool = False) -> None:
    """Writes the page of the runs in the folders (or files of events) `paths`; `show` opens it in a browser.

    `json`: prints the runs' figures and the settings that differ, and writes nothing. Raises DataError, OutputError.
    """
    places = [pathlib.Path(path) for path in paths]
    runs = [Run.load(place) for place in places]
    if json:
        print(json_format.dumps(finite(summary(runs)), indent=2))
        return
    if output is not None:
        target = pathlib.Path(output)
    elif len(places) == 1:
        target = places[0].with_suffix(".html") if places[0].is_file() else places[0] / REPORT
    else:
        target = pathlib.Path(COMPARISON)
    page.write(target, runs)
    print(f"wrote {target}")
    if show:
        webbrowser.open(target.absolute().as_uri())


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """The runs' figures, and the settings that differ."""
    names = ("name", "status", "message", "iteration", "round", "seconds", "loss", "speed", "averaging", "scores")
    told = [page.run_data(run) for run in runs]
    return {"runs": [{name: run[name] for name in names} for run in told], "differ": page.differences(runs)}
