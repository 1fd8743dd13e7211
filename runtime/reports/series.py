"""A run's events as what a page shows: curves, workers, histograms; thinned out to what a screen can show."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .record import EventDict

# Points of a curve, columns and cells of the workers' map, histograms of a parameter: more cannot be told apart.
POINTS, COLUMNS, CELLS, FRAMES = 800, 240, 4000, 24
# What a run went through, as marks on its curves.
MARKS = ("tau", "again", "dropped")

Point = tuple[float, float | None]


def thinned(points: Sequence[Point], most: int = POINTS) -> list[Point]:
    """At most about `most` of the points: of each stretch the least and the greatest, so that no spike is lost.

    A stretch with a number that is not there (NaN was written as null) keeps such a point, too: the curve breaks.
    """
    if len(points) <= most:
        return list(points)
    stretch = math.ceil(2 * len(points) / most)
    kept: list[Point] = []
    for at in range(0, len(points), stretch):
        some = points[at : at + stretch]
        known = [index for index, (_, y) in enumerate(some) if y is not None]
        chosen = {index for index, (_, y) in enumerate(some) if y is None}
        chosen = {min(chosen)} if chosen else set()
        if known:
            chosen |= {min(known, key=lambda i: some[i][1] or 0.0), max(known, key=lambda i: some[i][1] or 0.0)}
        kept += [some[index] for index in sorted(chosen)]
    if kept[-1] != points[-1]:
        kept.append(points[-1])
    return kept


def curves(events: Iterable[EventDict]) -> list[dict[str, Any]]:
    """The charts: each has an `id`, a `title`, a `format` ("number", "share", "count") and `series` of named points.

    x is the iteration. Losses, of training and of tests, are one chart; metrics between 0 and 1 another; any other
    metric has one of its own.
    """
    training: dict[str, list[Point]] = {"loss": [], "rate": [], "speed": [], "averaging": []}
    tests: dict[str, list[Point]] = {}
    for event in events:
        x = event.get("iteration")
        if x is None:
            continue
        if event["event"] in ("round", "iteration"):
            training["loss"].append((x, event["loss"]))
            training["rate"].append((x, event["rate"]))
            if event["rows"] and event["seconds"]:
                training["speed"].append((x, event["rows"] / event["seconds"]))
            if event["event"] == "round":
                training["averaging"].append((x, event["averaging"]))
        elif event["event"] == "test":
            for name, value in event["metrics"].items():
                named = f"{name} (net {event['net']})" if event.get("net") else name
                tests.setdefault(named, []).append((x, value))
    losses = {name: points for name, points in tests.items() if "loss" in name.lower()}
    shares = {name: points for name, points in tests.items() if name not in losses and _is_share(points)}
    found = [_chart("loss", "Loss", "number", {"training": training["loss"], **_tested(losses)})]
    found.append(_chart("share", "Test accuracy", "share", shares))
    for name, points in tests.items():
        if name not in losses and name not in shares:
            found.append(_chart(f"metric {name}", f"Test {name}", "number", {name: points}))
    found.append(_chart("speed", "Images per second", "count", {"training": training["speed"]}))
    found.append(_chart("averaging", "Time not spent training", "share", {"averaging": training["averaging"]}))
    found.append(_chart("rate", "Learning rate", "number", {"rate": training["rate"]}))
    return [chart for chart in found if chart["series"]]


def _chart(identity: str, title: str, form: str, series: Mapping[str, Sequence[Point]]) -> dict[str, Any]:
    lines = [{"name": name, "points": thinned(points)} for name, points in series.items() if points]
    return {"id": identity, "title": title, "format": form, "series": lines}


def _tested(losses: Mapping[str, list[Point]]) -> dict[str, list[Point]]:
    return {f"test {name}" if len(losses) > 1 or name != "loss" else "test": points for name, points in losses.items()}


def _is_share(points: Sequence[Point]) -> bool:
    return all(y is None or 0 <= y <= 1 for _, y in points)


def workers(events: Iterable[EventDict]) -> dict[str, Any] | None:
    """Seconds of each worker in each round, or means over stretches of rounds; None for fewer than two workers.

    columns    of the map: `first` and `last` round, `seconds` by worker (null: left out), `median` among them
    totals     by worker: mean `seconds`, `rows` a second, `slowest`: in what share of the rounds it was
    """
    rounds = [event for event in events if event["event"] == "round" and len(event.get("each", ())) > 1]
    if not rounds:
        return None
    count = max(len(event["each"]) for event in rounds)
    stretch = math.ceil(len(rounds) / max(24, min(COLUMNS, CELLS // count)))
    columns = []
    for at in range(0, len(rounds), stretch):
        some = rounds[at : at + stretch]
        seconds = [_mean(_seconds(event, worker) for event in some) for worker in range(count)]
        known = [each for each in seconds if each is not None]
        median = statistics.median(known) if known else None
        columns.append({"first": some[0]["round"], "last": some[-1]["round"], "seconds": seconds, "median": median})
    slowest = [0] * count
    for event in rounds:
        times = [_seconds(event, worker) or 0.0 for worker in range(count)]
        slowest[times.index(max(times))] += 1
    totals = []
    for worker in range(count):
        came = [event["each"][worker] for event in rounds if _seconds(event, worker) is not None]
        spent = sum(each["seconds"] for each in came)
        totals.append(
            {
                "seconds": spent / len(came) if came else None,
                "rows": sum(each["rows"] for each in came) / spent if spent else None,
                "slowest": slowest[worker] / len(rounds),
                "out": len(rounds) - len(came),
            }
        )
    return {"columns": columns, "totals": totals}


def _seconds(event: EventDict, worker: int) -> float | None:
    each = event["each"]
    return each[worker]["seconds"] if worker < len(each) and each[worker]["rows"] else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def histograms(events: Iterable[EventDict]) -> list[dict[str, Any]]:
    """For each parameter its `layer`, `param`, `shape` and `frames`: figures (events.LayerStats) by `iteration`."""
    told = [event for event in events if event["event"] == "layers"]
    if len(told) > FRAMES:
        told = [told[round(k * (len(told) - 1) / (FRAMES - 1))] for k in range(FRAMES)]
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for event in told:
        for stats in event["layers"]:
            key = (stats["layer"], stats["param"])
            entry = found.setdefault(key, {"layer": key[0], "param": key[1], "shape": stats["shape"], "frames": []})
            frame = {name: stats[name] for name in ("mean", "std", "counts", "gradient")}
            ends = (stats["edges"][0], stats["edges"][-1])
            gradient = stats["gradient"]
            if gradient is not None:
                frame["gradient"] = {name: gradient[name] for name in ("mean", "std", "counts")}
                frame["gradient"]["ends"] = (gradient["edges"][0], gradient["edges"][-1])
            entry["frames"].append({"iteration": event["iteration"], "ends": ends, **frame})
    return list(found.values())


def marks(events: Iterable[EventDict]) -> list[dict[str, Any]]:
    """What happened on the way, in words."""
    found = []
    for event in events:
        if event["event"] in MARKS:
            text = event.get("reason") or f"tau {event.get('tau')} from here on"
            found.append({"kind": event["event"], "iteration": event["iteration"], "text": text})
        elif event["event"] == "skipped":
            text = f"{event['count']:,} records of {event['source']} could not be read and were skipped"
            found.append({"kind": "skipped", "iteration": None, "text": text})
    return found


def scores(events: Iterable[EventDict]) -> list[dict[str, Any]]:
    """The tests' metrics: each `name`, its `last` value, the `best` and the `iteration` of that (losses: the least)."""
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        if event["event"] != "test" or event.get("net"):
            continue
        for name, value in event["metrics"].items():
            entry = found.setdefault(name, {"name": name, "last": None, "best": None, "iteration": None})
            entry["last"] = value
            better = entry["best"] is None or (
                value is not None and (value < entry["best"] if "loss" in name.lower() else value > entry["best"])
            )
            if value is not None and better:
                entry["best"], entry["iteration"] = value, event["iteration"]
    return list(found.values())
