"""The page: one file with everything in it, that fetches nothing. See pages/ for its looks and behaviour."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ... import __version__
from ...files import write_atomic
from . import series
from .record import Run

PAGES = pathlib.Path(__file__).parent / "pages"
SCRIPTS = ("dom.js", "chart.js", "figures.js", "sections.js", "main.js")


def render(runs: Sequence[Run], live: bool = False) -> str:
    """The page of one run, or of several side by side; `live`: it asks its server for what is new."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    template = environment.get_template("report.html.j2")
    data = page_data(runs)
    title = " · ".join(run["name"] for run in data["runs"])
    scripts = [(PAGES / name).read_text(encoding="utf-8") for name in SCRIPTS]
    style = (PAGES / "report.css").read_text(encoding="utf-8")
    return template.render(title=title, data=data, live=live, style=style, scripts=scripts, version=__version__)


def write(path: pathlib.Path, runs: Sequence[Run]) -> None:
    """Writes the page to the file `path`, whole or not at all; raises OutputError."""
    write_atomic(path, render(runs))


def page_data(runs: Sequence[Run]) -> dict[str, Any]:
    """What the page shows: `runs`, and the settings in which they `differ`."""
    return {"runs": [run_data(run) for run in runs], "differ": differences(runs)}


def run_data(run: Run) -> dict[str, Any]:
    """What the page shows of a run."""
    events = run.events
    start: Mapping[str, Any] = next((event for event in events if event["event"] == "start"), {})
    end: Mapping[str, Any] = next((event for event in events if event["event"] == "end"), {})
    trained = [event for event in events if event["event"] in ("round", "iteration")]
    last = trained[-1] if trained else start
    seconds = sum(event["seconds"] for event in trained)
    files = end.get("files") or [file for event in events if event["event"] == "snapshot" for file in event["files"]]
    return {
        "name": run.name,
        "status": end.get("status", "running"),
        "message": end.get("message"),
        "began": start.get("time") or events[0].get("time"),
        "seconds": end.get("seconds") or (events[-1]["time"] - start["time"] if start else 0),
        "start": {key: value for key, value in start.items() if key not in ("event", "time", "notes")},
        "notes": list(start.get("notes", ())),
        "iteration": last.get("iteration"),
        "round": last.get("round"),
        "rounds": last.get("rounds"),
        "loss": last.get("loss"),
        "speed": sum(event["rows"] for event in trained) / seconds if seconds else None,
        "averaging": _averaging(trained),
        "scores": series.scores(events),
        "curves": series.curves(events),
        "workers": series.workers(events),
        "histograms": series.histograms(events),
        "marks": series.marks(events),
        "files": list(files),
        "settings": run.settings,
        "environment": run.environment,
        "evidence": run.evidence,
        "graph": run.graph,
    }


def _averaging(trained: Sequence[Mapping[str, Any]]) -> float | None:
    """The share of all rounds' time that was not spent training."""
    rounds = [event for event in trained if event["event"] == "round"]
    seconds = sum(event["seconds"] for event in rounds)
    return sum(event["averaging"] * event["seconds"] for event in rounds) / seconds if seconds else None


def differences(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The settings and circumstances in which several runs differ: `group`, `name` and the `values` in their order."""
    if len(runs) < 2:
        return []
    known = [{**run.settings, "environment": run.environment, "start": _facts(run)} for run in runs]
    found = []
    for group in ("start", "run", "solver", "environment"):
        parts = [each.get(group, {}) for each in known]
        for name in dict.fromkeys(name for part in parts for name in part):
            values = [part.get(name) for part in parts]
            if any(value != values[0] for value in values):
                found.append({"group": group, "name": name, "values": values})
    return found


def _facts(run: Run) -> dict[str, Any]:
    """What a start tells that the settings, where there are any, do not."""
    start = next((event for event in run.events if event["event"] == "start"), {})
    settings = run.settings.get("run", {})
    left = {"event", "time", "notes", "rule", *settings}
    return {name: value for name, value in start.items() if name not in left}
