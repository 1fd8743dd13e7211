"""bench/convergence.py: what it counts, that it goes on where it was, and its plot."""

import argparse
import json
import xml.etree.ElementTree as ElementTree

import pytest
from bench_modules import bench_module
from rich.console import Console

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import UsageError
from sparknet_dsl.runtime.averaging import Averaging

# A worker alone takes 600 iterations, or (seed 2) 800, or (3) never arrives; two with tau 50 take 6 rounds.
RESULTS = {
    "settings": {"model": "m", "target": 0.9, "max_iter": 999, "workers": [2], "taus": [50, 100], "costs": [0.0, 50.0]},
    "runs": [
        {"workers": 1, "tau": 0, "seed": 1, "iterations": 600},
        {"workers": 1, "tau": 0, "seed": 2, "iterations": 800},
        {"workers": 1, "tau": 0, "seed": 3, "iterations": None},
        {"workers": 2, "tau": 50, "seed": 1, "iterations": 300},
        {"workers": 2, "tau": 100, "seed": 1, "iterations": None},
    ],
}


def test_speed_ups_are_counted_as_in_the_paper():
    bench = bench_module("convergence")
    assert bench.iterations(RESULTS, 1, 0) == 800
    assert bench.speedup(RESULTS, 2, 50, 0.0) == pytest.approx(800 / 300)
    assert bench.speedup(RESULTS, 2, 50, 50.0) == pytest.approx(800 / (6 * (50 + 50)))
    assert bench.speedup(RESULTS, 2, 100, 0.0) is None
    assert bench.naive(4, 0.0) == 4
    assert bench.naive(4, 0.25) == 2


def test_tables_and_plot_show_what_was_counted():
    bench = bench_module("convergence")
    console = Console(record=True, width=100)
    bench.show(RESULTS, console)
    text = console.export_text()
    assert "one worker: 800 iterations to an accuracy of 0.9" in text
    assert "2.67" in text and "1.33" in text and " - " in text
    svg = ElementTree.fromstring(bench.plot(RESULTS))
    texts = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"an average costs 0 iterations", "an average costs 50 iterations", "2 workers", "50"} <= set(texts)
    circles = [float(circle.get("cy")) for circle in svg.iter("{http://www.w3.org/2000/svg}circle")]
    assert len(circles) == 2 and circles[0] < circles[1]  # the dearer average lies lower
    nothing = {**RESULTS, "runs": []}
    ElementTree.fromstring(bench.plot(nothing))
    bench.show(nothing, console)
    assert "one worker does not reach 0.9 in 999 iterations" in console.export_text()


def test_the_rule_of_averaging_can_be_set():
    bench = bench_module("convergence")
    settings = ["momentum=LOCAL", "outer_rate=0.7", "outer_nesterov=false"]
    assert bench.averaging_of(settings) == Averaging(momentum="LOCAL", outer_rate=0.7, outer_nesterov=False)
    with pytest.raises(UsageError, match=r"--set x=1: the rule of averaging has weighting, momentum"):
        bench.averaging_of(["x=1"])


def test_runs_are_kept_and_not_run_again(tmp_path, monkeypatch):
    bench = bench_module("convergence")
    caffe_ext.set_num_threads(1)
    args = argparse.Namespace(
        model="digits", data=None, target=0.7, max_iter=60, test_every=10, set=[], workers=[2], taus=[5, 20], seeds=[1],
        costs=[0.0], json=tmp_path / "found.json", plot=tmp_path / "found.svg",
    )  # fmt: skip
    console = Console(record=True, width=100)
    assert bench.measure(args, console) == 0
    found = json.loads(args.json.read_text())
    assert [(run["workers"], run["tau"]) for run in found["runs"]] == [(1, 0), (2, 5), (2, 20)]
    for run in found["runs"]:
        steps = [iteration for iteration, _ in run["accuracies"]]
        every = {0: 10, 5: 10, 20: 20}[run["tau"]]
        assert steps == list(range(every, steps[-1] + 1, every))
        assert [value >= 0.7 for _, value in run["accuracies"]] == [False] * (len(steps) - 1) + [True]
        assert run["iterations"] == steps[-1]
    monkeypatch.setattr(bench.Simulation, "train", None)
    assert bench.measure(args, console) == 0
    assert json.loads(args.json.read_text()) == found
    with pytest.raises(UsageError, match="holds results of other settings"):
        bench.measure(argparse.Namespace(**{**vars(args), "target": 0.8}), console)
