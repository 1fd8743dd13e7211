"""Benches on small data: both sides learn the same, what is counted adds up."""

import json
import pathlib
import subprocess
import sys

import pytest
from bench_modules import BENCH, bench_module
from source_files import coded, noise, write_tar

DIGITS = BENCH.parent / "models" / "digits.snet"


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, BENCH / f"{name}.py", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_with_an_average_in_each_iteration_both_sides_learn_the_same(tmp_path: pathlib.Path) -> None:
    """The mean of two steps is the step of the mean gradient: rows, weights, solver and tests must be the same."""
    pytest.importorskip("torch", reason="compares with PyTorch: pip install torch==2.13.0")
    model, report = tmp_path / "digits.snet", tmp_path / "report.json"
    text = DIGITS.read_text().replace('"inv", gamma=0.001, power=0.75', '"fixed"').replace("tau=20", "tau=1")
    model.write_text(text)
    settings = ["--target", 0.9, "--max-iter", 60, "--test-every", 5, "--modes", "channels_last", "--json", report]
    said = run("to_accuracy", "--model", model, "--data", "digits:", *settings)
    found = json.loads(report.read_text())
    ours, (theirs,) = found["ours"], found["theirs"]
    assert ours["reached"] and theirs["reached"]
    assert [iteration for iteration, _ in ours["accuracies"]] == list(range(5, ours["iterations"] + 1, 5))
    assert len(ours["accuracies"]) > 2
    for (at, a), (same, b) in zip(ours["accuracies"], theirs["accuracies"], strict=True):
        assert at == same and abs(a - b) <= 1 / 360 + 1e-6  # of 360 rows one, by rounding
    assert [a >= 0.9 for _, a in ours["accuracies"]] == [False] * (len(ours["accuracies"]) - 1) + [True]
    assert ours["samples"] == theirs["samples"] == ours["iterations"] * found["batch"] * 2
    for each in (ours, theirs):
        assert 0 < each["testing"] < each["seconds"] and each["start_up"] > 0
    (ratio,) = found["ratios"]
    assert ratio["seconds"] == pytest.approx(ours["seconds"] / theirs["seconds"]) and ratio["iterations"] == 1
    assert f"ours takes {ratio['seconds']:.2f} of DDP's time at rate 0.05" in said


def test_a_long_run_leaves_nothing(tmp_path: pathlib.Path) -> None:
    report = tmp_path / "report.json"
    settings = ["--rounds", 10, "--tau", 1, "--every", 5, "--averages", "ring", "--json", report]
    run("long_run", "--model", "digits", "--data", "digits:", *settings)
    (found,) = json.loads(report.read_text())
    assert list(found["memory"]) == ["5", "10"]
    for sizes in found["memory"].values():
        assert set(sizes) == {"driver", "java", "daemon", "worker"} and min(sizes.values()) > 10
    assert found["files"] > 0 and found["left"] == []


def test_workers_hold_less_than_their_part(tmp_path: pathlib.Path) -> None:
    report = tmp_path / "report.json"
    said = run("ingestion", "--gigabytes", 0.1, "--folder", tmp_path, "--json", report)
    found = json.loads(report.read_text())
    assert (found["images"], found["iterations"]) == (136, 400)
    assert 10e6 < found["peak_allocated"] < found["limit"]
    assert "workers limited to 1.00 GB each: training after" in said
    assert list(tmp_path.iterdir()) == [report]


def test_imagenet_feeding_measures_each_way(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("PIL")
    bench = bench_module("imagenet_feeding")
    (tmp_path / "tars").mkdir()
    names = [f"{number}.jpg" for number in range(bench.BATCH)]
    files = dict(zip(names, (coded(image, ".jpg") for image in noise(bench.BATCH, (3, 30, 40))), strict=True))
    write_tar(tmp_path / "tars" / "train.0.tar", files)
    (tmp_path / "tars" / "train.txt").write_text("".join(f"{name} 3\n" for name in names))
    (tmp_path / "kept").mkdir()
    rates = bench.measure(tmp_path / "tars", tmp_path / "kept", 1, 1, 1)
    assert [name for name in rates if "DataLoader" not in name] == [
        "caffe: first pass",
        "caffe: later passes",
        "augmented: each pass",
    ]
    assert len(rates) == 7 and all(len(found) == 1 and found[0] > 0 for found in rates.values())
