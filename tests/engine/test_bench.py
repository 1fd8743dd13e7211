"""bench/engine.py on a small net: both engines run it, what they compute is compared, the numbers add up."""

import json
import pathlib
import subprocess
import sys

import pytest
from bench_modules import BENCH, bench_module

from sparknet_dsl.proto import caffe_pb2

pytest.importorskip("torch", reason="compares with PyTorch: pip install torch==2.13.0")

DIGITS = BENCH.parent / "models" / "digits.snet"
# Multiply-adds for an image: two convolutions, two inner products.
CONV1, CONV2, IP1, IP2 = 32 * 64 * 9, 64 * 16 * 32 * 9, 256 * 128, 128 * 10


@pytest.mark.parametrize(
    ("task", "multiply_adds"),
    # No gradient is asked of the images.
    [("training", 2 * CONV1 + 3 * (CONV2 + IP1 + IP2)), ("inference", CONV1 + CONV2 + IP1 + IP2)],
)
def test_a_run(tmp_path: pathlib.Path, task: str, multiply_adds: int) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, BENCH / "engine.py", f"{DIGITS}:1x8x8:4", "--only", task, "--batches", "4"]
    command += ["--modes", "ours", "eager", "--rounds", "2", "--seconds", "0", "--threads", "1", "--json", report]
    command += ["--product", "64" if task == "training" else "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(report.read_text())
    assert (found["model"], found["task"], found["batch"], found["best"]) == ("digits", task, 4, "eager")
    assert found["operations"] == 2 * 4 * multiply_adds
    assert found["ratio_min"] <= found["ratio"] <= found["ratio_max"]
    assert set(found["ms"]) == set(found["peak_mb"]) == {"ours", "eager"}
    # Ours must not pay for PyTorch's libraries.
    assert 0 < found["peak_mb"]["ours"] < found["peak_mb"]["eager"]
    assert set(found["product_gflops"]) == ({"InnerProduct", "Convolution", "PyTorch"} if task == "training" else set())
    assert f"digits, {task}, batch 4, 1 threads" in done.stdout


def test_what_differs_ends_the_run() -> None:
    engine = bench_module("engine")
    training, inference = (engine.Job("ours", task, "digits", 1) for task in ("training", "inference"))
    engine.compare({"ours": [1.0, 0.9], "eager": [1.0001, 0.91]}, training)
    engine.compare({"ours": [[0.2, 0.8]], "eager": [[0.2001, 0.7999]]}, inference)
    for found, job in (
        ({"ours": [1.0, 0.9], "eager": [1.01, 0.9]}, training),
        ({"ours": [1.0, 0.9], "eager": [1.0, float("nan")]}, training),
        ({"ours": [[0.2, 0.8]], "eager": [[0.21, 0.79]]}, inference),
    ):
        with pytest.raises(SystemExit, match="ours and eager differ"):
            engine.compare(found, job)


def test_dropout_is_left_out() -> None:
    net = caffe_pb2.NetParameter()
    for name, type, bottom, top in (
        ("a", "ReLU", "x", "a"),
        ("in place", "Dropout", "a", "a"),
        ("drop", "Dropout", "a", "b"),
        ("ip", "InnerProduct", "b", "ip"),
    ):
        net.layer.add(name=name, type=type, bottom=[bottom], top=[top])
    bench_module("workloads").without_dropout(net)
    assert [(layer.name, *layer.bottom) for layer in net.layer] == [("a", "x"), ("ip", "a")]


def test_a_workload_is_named_or_described() -> None:
    workloads = bench_module("workloads")
    assert workloads.find("lenet").row == (1, 28, 28)
    other = workloads.find("models/other.snet:3x32x16:7")
    assert (other.name, other.row, other.batch) == ("other", (3, 32, 16), 7)
    with pytest.raises(ValueError, match="neither FILE:CxHxW:BATCH nor one of lenet, "):
        workloads.find("lenett")
