"""`sparknet-train`: whole runs on one machine, and every way to go wrong, without a Spark anywhere."""

import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
from click.testing import CliRunner

from sparknet_dsl import caffe_ext, cli_local, compile_file
from sparknet_dsl.errors import DataError
from sparknet_dsl.runtime import checkpoint, rows, train_command
from sparknet_dsl.runtime.batches import batch_rows, derive
from sparknet_dsl.runtime.config import RunConfig
from sparknet_dsl.runtime.console import ConsoleReport
from sparknet_dsl.runtime.data import BadRecords, open_source
from sparknet_dsl.runtime.events import Event, Iteration
from sparknet_dsl.runtime.feeding import Choose, shuffled
from sparknet_dsl.runtime.signals import Signals

MODEL = """
net small {{
  data, label: RDDData([[16, 1, 8, 8], [16]], source="digits:", {transform}) @train
  data, label: RDDData([[50, 1, 8, 8], [50]], source="digits:", scale=1/16) @test
  data -> ip1: InnerProduct(32, weight_filler=xavier) -> relu1: ReLU! -> drop: Dropout(0.2)!
       -> ip2: InnerProduct(10, weight_filler=xavier)
  ip2, label -> accuracy: Accuracy @test
  ip2, label -> loss: SoftmaxWithLoss
}}
solver (base_lr={rate}, lr_policy="fixed", momentum=0.9, random_seed=3, snapshot_prefix="small", {solver})
"""
# A net that needs no rows from outside.
OWN = """
name: "Own"
layer { name: "made" type: "DummyData" top: "x" top: "t"
  dummy_data_param { shape { dim: 6 dim: 4 } shape { dim: 6 } data_filler { type: "gaussian" }
                     data_filler { value: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "t" top: "loss" }
layer { name: "hits" type: "Accuracy" bottom: "ip" bottom: "t" top: "hits" include { phase: TEST stage: "scored" } }
"""


@pytest.fixture(autouse=True)
def here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal bits take equal numbers of threads."""
    monkeypatch.chdir(tmp_path)
    caffe_ext.set_num_threads(1)


def write(
    solver: str = "max_iter=20", rate: str = "0.1", transform: str = "scale=1/16", name: str = "small.snet"
) -> str:
    pathlib.Path(name).write_text(MODEL.format(solver=solver, rate=rate, transform=transform))
    return name


def events(path: str = "events") -> list[dict[str, object]]:
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def train(model: str, **options: object) -> int:
    return train_command.main(model, json="events", **options)  # type: ignore[arg-type]


def learned(path: str) -> np.ndarray:
    return np.concatenate([blob.ravel() for blobs in caffe_ext.read_weights(path).values() for blob in blobs])


# ---- what a run does ----


def test_a_run_learns_tests_and_tells(capsys: pytest.CaptureFixture[str]) -> None:
    model = write("max_iter=200, test_iter=4, test_interval=100, display=50, average_loss=5, snapshot=150")
    assert train(model) == 0
    found = events()
    kinds = [event["event"] for event in found]
    assert kinds[0] == "start" and kinds[-1] == "end" and kinds.count("end") == 1
    start, end = found[0], found[-1]
    assert (start["train"], start["train_rows"], start["test_rows"]) == ("digits:", 1437, 360)
    assert (start["seed"], start["max_iter"], start["batch"], start["rounds"]) == (3, 200, 16, None)
    assert [event["iteration"] for event in found if event["event"] == "iteration"] == [0, 50, 100, 150, 200]
    assert [event["iteration"] for event in found if event["event"] == "test"] == [0, 100, 200]
    assert [event["iteration"] for event in found if event["event"] == "snapshot"] == [150, 200]
    layers = [event for event in found if event["event"] == "layers"]
    assert [event["iteration"] for event in layers] == [0, 100, 150, 200]
    for event in layers:
        first = event["layers"][0]  # type: ignore[index]
        assert (first["layer"], first["param"], first["shape"]) == ("ip1", 0, [32, 64])
        assert sum(first["counts"]) == 32 * 64
        assert (first["gradient"] is None) == (event["iteration"] == 0)
    assert layers[1]["layers"][0]["gradient"]["std"] > 0  # type: ignore[index]
    assert (end["status"], end["iteration"]) == ("done", 200)
    assert end["metrics"]["accuracy"] > 0.85  # type: ignore[index]
    assert sorted(path.name for path in pathlib.Path("snapshots").iterdir()) == [
        f"small_iter_{n}.{kind}" for n in (150, 200) for kind in ("caffemodel", "json", "solverstate")
    ]
    out = capsys.readouterr().out
    assert "test after iteration 200: accuracy 0." in out and "snapshot after iteration 150: " in out


def test_a_run_is_the_solver_on_shuffled_rows() -> None:
    """Against a solver stepped by hand, with the rows that a run of one worker would take."""
    model = write("max_iter=12, iter_size=2")
    assert train(model) == 0
    compiled = compile_file(model)
    assert compiled.solver is not None
    solver = caffe_ext.Solver(compiled.solver, compiled.net, seed=3)
    chunks = list(open_source("digits:", "TRAIN").read(0, 1, BadRecords()))
    rows = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in ("image", "label")}
    for i in range(12):

        def feed(k: int, i: int = i) -> None:
            if k == 0:
                solver.net.set_seed(derive(3, 0, i))
            chosen = batch_rows(3, 0, 1437, (2 * i + k) * 16, 16)
            solver.net.blobs["data"].data[...] = rows["image"][chosen].astype("f4") / 16
            solver.net.blobs["label"].data[...] = rows["label"][chosen]

        solver.step(1, feed)
    solver.net.save("by_hand.caffemodel")
    np.testing.assert_allclose(
        learned("snapshots/small_iter_12.caffemodel"), learned("by_hand.caffemodel"), rtol=1e-5, atol=1e-6
    )


def test_a_run_gone_on_with_ends_bit_for_bit_the_same() -> None:
    model = write("max_iter=20, snapshot=8", transform="scale=1/16, mirror=true")
    assert train(model, snapshot_dir="whole", seed=77) == 0
    assert train(model, snapshot_dir="rest", snapshot="whole/small_iter_8.solverstate") == 0
    assert events()[0]["iteration"] == 8
    assert events()[0]["seed"] == 77  # that of the run gone on with, not random_seed
    whole, rest = (pathlib.Path(folder, "small_iter_20") for folder in ("whole", "rest"))
    assert whole.with_suffix(".caffemodel").read_bytes() == rest.with_suffix(".caffemodel").read_bytes()
    histories = [caffe_ext.read_state(path.with_suffix(".solverstate")).history for path in (whole, rest)]
    for one, other in zip(*histories, strict=True):
        np.testing.assert_array_equal(one, other)
    assert train(model, snapshot_dir="rest", snapshot="whole/small_iter_20.solverstate") == 0
    assert "nothing is left to train" in str(events()[0]["notes"])


def test_sparknet_run_can_go_on_from_it() -> None:
    model = write("max_iter=5")
    assert train(model) == 0
    path, _ = checkpoint.newest(pathlib.Path("snapshots"), "small")
    compiled = compile_file(model)
    assert compiled.solver is not None
    config = RunConfig.resolve(None, compiled.solver, snapshot_dir="snapshots", resume=True)
    solver = caffe_ext.Solver(compiled.solver, compiled.net, seed=9)
    state, config = checkpoint.load(path, solver, config)
    assert (state.round, state.iteration, config.seed) == (0, 5, 3)
    assert state.history.any()


def test_without_test_iter_the_whole_test_set_counts_once() -> None:
    assert train(write("max_iter=30")) == 0
    [test] = [event for event in events() if event["event"] == "test"]
    assert (test["iteration"], test["rows"]) == (30, 360)
    net = caffe_ext.Net(compile_file("small.snet").net, caffe_ext.TEST, weights="snapshots/small_iter_30.caffemodel")
    rows = next(iter(open_source("digits:", "TEST").read(0, 1, BadRecords())))
    net.blobs["data"].reshape(360, 1, 8, 8)
    net.blobs["label"].reshape(360)
    net.reshape()
    out = net.forward(data=rows["image"].astype("f4") / 16, label=rows["label"])
    assert test["metrics"]["accuracy"] == pytest.approx(float(out["accuracy"]), abs=1e-6)  # type: ignore[index]


def test_finetuning_and_max_iter() -> None:
    assert train(write("max_iter=3")) == 0
    assert train("small.snet", weights=("snapshots/small_iter_3.caffemodel",), max_iter=1, snapshot_dir="b") == 0
    assert "weights of ip1, ip2" in str(events()[0]["notes"])
    assert {path.name for path in pathlib.Path("b").glob("*.caffemodel")} == {"small_iter_1.caffemodel"}
    moved = np.abs(learned("b/small_iter_1.caffemodel") - learned("snapshots/small_iter_3.caffemodel")).max()
    assert 0 < moved < 0.1


def test_a_mean_image_is_computed_from_the_rows() -> None:
    assert train(write("max_iter=1", transform='mean_file="digits_mean.binaryproto"'), snapshot_dir="s") == 0
    mean = caffe_ext.read_mean("s/digits_mean.binaryproto")
    images = np.concatenate([chunk["image"] for chunk in open_source("digits:", "TRAIN").read(0, 1, BadRecords())])
    np.testing.assert_allclose(mean, images.mean(axis=0, dtype="f8"), rtol=1e-6)


def write_own(**fields: str) -> str:
    pathlib.Path("own.prototxt").write_text(OWN)
    lines = {"net": '"own.prototxt"', "base_lr": "0.1", "lr_policy": '"fixed"', "max_iter": "6", **fields}
    pathlib.Path("own_solver.prototxt").write_text("\n".join(f"{name}: {value}" for name, value in lines.items()))
    return "own_solver.prototxt"


def test_a_net_with_data_layers_of_its_own_feeds_itself() -> None:
    assert train(write_own(snapshot_prefix='"deep/er/own"')) == 0
    start = events()[0]
    assert (start["train"], start["train_rows"], start["test"], start["batch"]) == ("the net's own", None, None, 6)
    assert "nothing says how long they are" in str(start["notes"])
    assert pathlib.Path("deep/er/own_iter_6.caffemodel").is_file()


def test_each_test_net_is_told_of() -> None:
    model = write_own(
        test_iter="2\ntest_iter: 3",
        test_interval="4",
        test_state='{ }\ntest_state: { stage: "scored" }',
        test_initialization="false",
    )
    assert train(model) == 0
    tests = [event for event in events() if event["event"] == "test"]
    assert [(test["net"], test["iteration"], test["rows"]) for test in tests] == [(0, 4, 12), (1, 4, 18)]
    assert [sorted(test["metrics"]) for test in tests] == [["loss"], ["hits", "loss"]]  # type: ignore[call-overload]


def test_a_database_that_is_not_there_is_named_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    fields = 'data_param { source: "no_lmdb" backend: LMDB batch_size: 4 }'
    data = f'layer {{ name: "d" type: "Data" top: "x" top: "t" {fields} }}\n'
    pathlib.Path("own.prototxt").write_text(data + OWN[OWN.index('layer { name: "ip"') :])
    pathlib.Path("own_solver.prototxt").write_text('net: "own.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 2')
    assert train_command.main("own_solver.prototxt") == 1
    assert capsys.readouterr().err == (
        "error: layer `d` (Data): there is no database no_lmdb: the path is relative to the working directory; "
        "or name other data: --train SRC --test SRC\n"
    )


def test_debug_info_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(write("max_iter=2, display=5, debug_info=true")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("[update] layer ip1, parameter 0 data: ")]


# ---- signals ----


class Sends(ConsoleReport):
    """A console that sends this process a signal when the display comes to an iteration."""

    signals: ClassVar[dict[int, int]] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Iteration) and event.iteration in self.signals:
            os.kill(os.getpid(), self.signals[event.iteration])


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, int]], None]:
    monkeypatch.setattr(train_command, "ConsoleReport", Sends)
    return lambda signals: monkeypatch.setattr(Sends, "signals", signals)


def test_sighup_makes_a_snapshot_and_sigint_stops(
    sends: Callable[[dict[int, int]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    sends({4: signal.SIGHUP, 7: signal.SIGINT})
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP)
    assert train(write("max_iter=20, display=1, snapshot_after_train=false")) == 130
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP)) == before
    # The iteration at hand is finished first.
    assert [event["iteration"] for event in events() if event["event"] == "snapshot"] == [5, 8]
    assert (events()[-1]["status"], events()[-1]["iteration"]) == ("interrupted", 8)
    assert capsys.readouterr().err == "interrupted\n"
    sends({})
    assert train("small.snet", snapshot="snapshots/small_iter_8.solverstate") == 0


def test_effects_can_be_swapped_or_switched_off(sends: Callable[[dict[int, int]], None]) -> None:
    sends({2: signal.SIGINT, 4: signal.SIGHUP})
    assert train(write("max_iter=10, display=1"), sigint="none", sighup="stop") == 130
    assert [event["iteration"] for event in events() if event["event"] == "snapshot"] == [5]


def test_a_second_sigint_does_not_wait() -> None:
    with Signals("stop", "none") as signals:
        signal.raise_signal(signal.SIGHUP)
        assert signals.asked() is None
        signal.raise_signal(signal.SIGINT)
        assert signals.asked() == signals.asked() == "stop"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with Signals("snapshot", "none") as signals:
        signal.raise_signal(signal.SIGINT)
        assert [signals.asked(), signals.asked()] == ["snapshot", None]


# ---- what goes wrong ----


def test_divergence_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    model = write("max_iter=50, snapshot=1, display=1", rate="1e20")
    assert train(model) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: training diverged: ") and "lower base_lr" in error and "Traceback" not in error
    assert events()[-1]["status"] == "failed"
    kept = sorted(pathlib.Path("snapshots").glob("*.caffemodel"))
    assert kept
    assert all(np.isfinite(learned(str(path))).all() for path in kept)


def test_a_failure_keeps_what_was_learnt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*numbers: int) -> Choose:
        def choose(k: int) -> tuple[np.ndarray, int]:
            if k == 6:
                raise DataError("a row is damaged")
            return shuffled(*numbers)(k)

        return choose

    monkeypatch.setattr(rows, "shuffled", fails)
    assert train(write()) == 1
    assert capsys.readouterr().err == "error: a row is damaged\n"
    assert (events()[-1]["status"], events()[-1]["iteration"]) == ("failed", 6)
    assert pathlib.Path("snapshots/small_iter_6.solverstate").is_file()


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        ({"weights": ("w",), "snapshot": "s"}, 2, "give one of them"),
        ({"max_iter": 0}, 2, "--max-iter 0"),
        ({"threads": -1}, 2, "--threads -1"),
        ({"seed": -1}, 2, "--seed -1"),
        ({"weights": ("absent.caffemodel",)}, 1, "absent.caffemodel"),
        ({"snapshot": "absent.solverstate"}, 1, "absent.solverstate"),
        ({"train_source": "mnist:absent"}, 1, "absent"),
        ({"train_source": "nothing:"}, 1, "no data source `nothing:`"),
        ({"snapshot_dir": "small.snet/x"}, 1, "cannot write snapshots"),
    ],
)
def test_errors(options: dict[str, object], status: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(write(), **options) == status
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error and len(error.splitlines()) == 1
    assert [event["event"] for event in events()] == ["end"]


@pytest.mark.parametrize(
    ("solver", "says"),
    [("", "no max_iter: give it one, or say --max-iter N"), ("max_iter=5, base_lr2=1", "has no field `base_lr2`")],
)
def test_models_that_cannot_be_trained(solver: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(write(solver)) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"test_net": '"own.prototxt"'}, "only one train_net with one test_net"),
        ({"test_iter": "1\ntest_iter: 1", "test_interval": "1", "test_state": "{ }"}, "test_state must be given once"),
        ({"test_iter": "1"}, "set test_interval as well"),
        ({"type": '"AdaGrad"', "momentum": "0.5"}, "AdaGrad takes no `momentum`"),
    ],
)
def test_solvers_that_make_no_sense(fields: dict[str, str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(write_own(**fields)) == 1
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error


def test_sources_may_be_those_of_a_stage() -> None:
    model = write_own(test_iter="1", test_interval="6", test_state='{ stage: "scored" }', test_initialization="false")
    text = OWN.replace('name: "made"', 'name: "made" include { phase: TRAIN }')
    test = OWN[OWN.index("layer") : OWN.index('layer { name: "ip"')]
    text += test.replace('name: "made"', 'name: "test" include { phase: TEST stage: "scored" }')
    layers = text.split("\nlayer")
    text = "\nlayer".join([layers[0], layers[1], layers[-1], *layers[2:-1]])  # sources first
    pathlib.Path("own.prototxt").write_text(text)
    assert train(model) == 0
    assert [sorted(event["metrics"]) for event in events() if event["event"] == "test"] == [["hits", "loss"]]  # type: ignore[call-overload]


def test_a_source_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    text = MODEL.format(solver="max_iter=5", rate="0.1", transform="scale=1").replace('source="digits:", ', "")
    pathlib.Path("bare.snet").write_text(text)
    assert train("bare.snet") == 1
    assert "names no source: say --train SRC" in capsys.readouterr().err
    assert train("bare.snet", train_source="digits:") == 0
    assert "no tests: data layer" in str(events()[0]["notes"])


# ---- the command line ----


def test_options_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}

    def main(model: str, **options: object) -> int:
        seen.update(options, model=model)
        return 3

    monkeypatch.setattr(train_command, "main", main)
    command = "m.snet --train a: --test b: --weights u,v --weights w --snapshot s --max-iter 4 --threads 2 --seed 7"
    command += (
        " --precision bf16 --memory lean --snapshot-dir d --sigint-effect none --sighup_effect stop -D x=1 --json j"
        " --no-report --ui 0.0.0.0:80 --tensorboard t --mlflow http://m --mlflow-experiment e"
    )
    result = CliRunner().invoke(cli_local.train_command, command.split())
    assert result.exit_code == 3, result.output
    assert seen == {
        "model": "m.snet",
        "train_source": "a:",
        "test_source": "b:",
        "weights": ("u", "v", "w"),
        "snapshot": "s",
        "max_iter": 4,
        "threads": 2,
        "precision": "bf16",
        "memory": "lean",
        "seed": 7,
        "snapshot_dir": "d",
        "sigint": "none",
        "sighup": "stop",
        "defines": {"x": "1"},
        "json": "j",
        "tensorboard": "t",
        "mlflow": "http://m",
        "mlflow_experiment": "e",
        "report": False,
        "ui": "0.0.0.0:80",
        "bad_records": "fail",
    }


def test_no_spark_is_loaded() -> None:
    code = "import sys; from sparknet_dsl.runtime import timing, train_command; print('pyspark' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
