"""What a run tells: events as JSON lines, and the console with and without a terminal."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from sparknet_dsl.errors import DataError, OutputError
from sparknet_dsl.runtime.console import ConsoleReport
from sparknet_dsl.runtime.events import (
    Again,
    Dropped,
    End,
    Event,
    Iteration,
    JsonLines,
    Layers,
    LayerStats,
    Round,
    Snapshot,
    Spread,
    Start,
    Tau,
    Test,
    Worker,
    to_json,
)
from sparknet_dsl.runtime.report import Report

START = Start(
    model="LeNet",
    workers=2,
    tau=50,
    rounds=3,
    seed=7,
    master="local[2,4]",
    rule={"momentum": "AVERAGE"},
    round=0,
    iteration=0,
    batch=64,
    parameters=431080,
    train="mnist:/data",
    test="mnist:/data",
    train_rows=60000,
    test_rows=10000,
    notes=("starts from x.caffemodel: weights of conv1",),
)
ROUND = Round(
    round=1,
    rounds=3,
    tau=50,
    iteration=50,
    loss=0.25,
    rate=0.01,
    rows=6400,
    seconds=2.0,
    averaging=0.125,
    each=(Worker(1.75, 3200), Worker(1.5, 3200)),
)
SPREAD = {"mean": 0.0, "std": float("nan"), "min": -1.0, "max": 1.0, "counts": (1, 3), "edges": (-1.0, 0.0, 1.0)}
LAYERS = Layers(
    round=1,
    iteration=50,
    layers=(LayerStats(layer="ip", param=0, shape=(2, 2), gradient=Spread(**SPREAD), **SPREAD),),
)
TEST = Test(round=1, iteration=50, metrics={"accuracy": 0.9712, "loss": 0.1}, rows=10000, seconds=1.0)
SNAPSHOT = Snapshot(round=1, iteration=50, files=("/s/lenet_iter_50.caffemodel", "/s/lenet_iter_50.solverstate"))
EVENTS = [START, ROUND, TEST, SNAPSHOT]
LATE = [
    Again(round=0, iteration=0, reason="worker 2 is lost"),
    Dropped(round=1, iteration=50, reason="worker 2 is late"),
]
# A run on one machine.
LOCAL: list[Event] = [
    Start(
        model="LeNet",
        seed=7,
        iteration=100,
        max_iter=500,
        batch=64,
        parameters=431080,
        train="the net's own",
        test="mnist:/data",
        train_rows=None,
        test_rows=10000,
        notes=(),
    ),
    Iteration(iteration=200, max_iter=500, loss=0.25, rate=0.01, rows=6400, seconds=2.0),
    Test(net=1, iteration=200, metrics={"accuracy": 0.5}, rows=100, seconds=1.0),
    Snapshot(iteration=200, files=("/s/lenet_iter_200.caffemodel",)),
]


def test_each_event_is_one_line_of_json_and_says_all():
    for event in [
        *EVENTS,
        *LOCAL,
        *LATE,
        LAYERS,
        End(status="done", message=None, round=1, iteration=50, seconds=3, metrics={}, files=()),
    ]:
        line = to_json(event)
        assert "\n" not in line
        found = json.loads(line)
        assert found.pop("event") == type(event).__name__.lower()
        assert found.keys() == vars(event).keys()
        assert found["time"] > 1e9


def test_workers_and_layers_are_objects_in_json():
    assert json.loads(to_json(ROUND))["each"] == [{"seconds": 1.75, "rows": 3200}, {"seconds": 1.5, "rows": 3200}]
    (layer,) = json.loads(to_json(LAYERS))["layers"]
    spread = {**SPREAD, "std": None, "counts": [1, 3], "edges": [-1.0, 0.0, 1.0]}
    assert layer == {"layer": "ip", "param": 0, "shape": [2, 2], "gradient": spread, **spread}


def test_json_has_no_nan():
    found = json.loads(to_json(Test(round=1, iteration=1, metrics={"loss": float("nan")}, rows=1, seconds=1)))
    assert found["metrics"] == {"loss": None}


def test_lines_are_there_as_soon_as_they_happen(tmp_path):
    path = tmp_path / "events.jsonl"
    with JsonLines(path) as lines:
        for count, event in enumerate(EVENTS, 1):
            lines(event)
            assert len(path.read_text().splitlines()) == count


def test_a_json_file_that_cannot_be_written(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*nowhere"):
        JsonLines(tmp_path / "nowhere" / "events.jsonl")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (None, "done", None),
        (DataError("a file is cut short"), "failed", "a file is cut short"),
        (KeyboardInterrupt(), "interrupted", None),
    ],
)
def test_every_run_ends_with_an_end(error, status, message):
    seen = []

    def block():
        with Report([seen.append]) as report:
            for event in EVENTS:
                report(event)
            if error:
                raise error

    if error:
        with pytest.raises(type(error)):
            block()
    else:
        block()
    end = seen[-1]
    assert (end.status, end.message, end.round, end.iteration) == (status, message, 1, 50)
    assert end.metrics == TEST.metrics
    assert end.files == SNAPSHOT.files


def show(events=EVENTS, width=100, **options) -> str:
    stream = io.StringIO()
    with Report([ConsoleReport(Console(file=stream, highlight=False, width=width, **options))]) as report:
        for event in events:
            report(event)
    return stream.getvalue()


def test_workers_that_are_lost_or_late():
    lines = show([START, LATE[0], ROUND, LATE[1]]).splitlines()
    assert "again from round 0: worker 2 is lost" in lines
    assert "left out of round 2: worker 2 is late" in lines


def test_plain_lines_without_a_terminal():
    text = show()
    lines = text.splitlines()
    assert "\x1b" not in text
    assert "LeNet: 431,080 parameters, 2 workers × 50 iterations a round, batch 64, seed 7, local[2,4]" in lines
    assert "round 1/3  iteration 50  loss 0.25  3,200 images/s  averaging 12%" in lines
    assert "test after round 1: accuracy 0.9712, loss 0.1000 (10,000 rows)" in lines
    assert "wrote /s/lenet_iter_50.caffemodel" in lines
    assert START.notes[0] in lines
    assert any("test accuracy" in line and "0.9712" in line for line in lines)


def test_a_tau_that_is_chosen_shows_its_choices():
    chosen = Tau(round=1, iteration=50, tau=200, schedule="50,50:200")
    later = dataclasses.replace(ROUND, round=2, rounds=9, tau=200, iteration=250)
    lines = show([dataclasses.replace(START, tau="auto"), ROUND, chosen, later]).splitlines()
    assert "LeNet: 431,080 parameters, 2 workers with tau auto, batch 64, seed 7, local[2,4]" in lines
    assert "tau 200 from iteration 50 on" in lines
    assert any(line.startswith("round 2/9  iteration 250") for line in lines)


def test_a_run_on_one_machine_has_no_rounds():
    lines = show(LOCAL).splitlines()
    assert lines[:6] == [
        "LeNet: 431,080 parameters, batch 64, seed 7",
        "train: the net's own",
        "test: mnist:/data, 10,000 rows",
        "iteration 200/500  loss 0.25  rate 0.01  3,200 images/s",
        "test net 1 after iteration 200: accuracy 0.5000 (100 rows)",
        "snapshot after iteration 200: /s/lenet_iter_200.caffemodel",
    ]
    assert not any("round" in line or "averaging" in line for line in lines)


def test_a_narrow_terminal_keeps_the_count(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "iteration 200/500 " in show(LOCAL, width=60, force_terminal=True)


def test_a_live_line_on_a_terminal(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    text = show(force_terminal=True)
    assert "\x1b[" in text
    assert "round 1/3" in text
    assert "3,200 images/s" in text


def test_no_color_is_respected(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    text = show(force_terminal=True)
    assert "\x1b[3" not in text


def test_a_run_that_never_began_shows_no_table():
    stream = io.StringIO()
    with pytest.raises(DataError), Report([ConsoleReport(Console(file=stream))]):
        raise DataError("no such folder")
    assert stream.getvalue() == ""
