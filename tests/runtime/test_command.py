"""`sparknet-run` as a user meets it: a whole run, and every way to go wrong with its message and its exit status."""

import gzip
import json
import os
import pathlib
import signal
import struct
import subprocess
import sysconfig
import time

import numpy as np
import pytest
from source_files import coded, datum, noise, write_lmdb

from sparknet_dsl import caffe_ext
from sparknet_dsl.proto import caffe_pb2

COMMAND = pathlib.Path(sysconfig.get_path("scripts")) / "sparknet-run"
MODEL = """
default InnerProduct (weight_filler=xavier)
net small {{
  data, label: RDDData([[16, 1, 8, 8], [16]], source="digits:", scale=1/16) @train
  data, label: RDDData([[50, 1, 8, 8], [50]], source="digits:", scale=1/16) @test
  data -> ip1: InnerProduct(32) -> relu1: ReLU! -> ip2: InnerProduct(10)
  ip2, label -> accuracy: Accuracy @test
  ip2, label -> loss: SoftmaxWithLoss
}}
solver (base_lr={rate}, lr_policy="fixed", momentum=0.9, max_iter={iterations}, random_seed=3)
spark (tau=10, workers=2, test_every=2)
"""
MNIST_NET = """
name: "Plain"
layer { name: "mnist" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.00390625 }
  data_param { source: "examples/mnist/mnist_train_lmdb" batch_size: 8 backend: LMDB } }
layer { name: "mnist" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.00390625 }
  data_param { source: "examples/mnist/mnist_test_lmdb" batch_size: 8 backend: LMDB } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def write_model(folder: pathlib.Path, rate: str = "0.1", iterations: int = 60, **replaced: str) -> pathlib.Path:
    text = MODEL.format(rate=rate, iterations=iterations)
    for old, new in replaced.items():
        text = text.replace(old, new)
    path = folder / "small.snet"
    path.write_text(text)
    return path


def sparknet_run(folder: pathlib.Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def events(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_trains_tells_and_leaves_weights(tmp_path):
    model = write_model(tmp_path)
    done = sparknet_run(tmp_path, model, "--json", "events.jsonl")
    assert done.stderr == ""
    assert done.returncode == 0
    told = events(tmp_path / "events.jsonl")
    # The weights are looked at while a test goes on.
    assert [event["event"] for event in told] == [
        *("start", "round", "round", "layers", "test", "round", "round", "layers", "test"),
        *("round", "round", "layers", "test", "snapshot", "end"),
    ]
    start, end = told[0], told[-1]
    assert (start["train"], start["train_rows"], start["test_rows"], start["seed"]) == ("digits:", 1437, 360, 3)
    assert (end["status"], end["round"], end["iteration"]) == ("done", 6, 60)
    assert end["metrics"]["accuracy"] > 0.8
    model_file, *_ = end["files"]
    assert model_file == str(tmp_path / "snapshots" / "small_iter_60.caffemodel")
    assert set(caffe_ext.read_weights(model_file)) == {"ip1", "ip2"}
    assert "round 6/6  iteration 60" in done.stdout
    assert f"wrote {model_file}" in done.stdout
    assert "\x1b" not in done.stdout

    on = sparknet_run(tmp_path, model, "--resume", "--rounds", 7, "--json", "resumed.jsonl")
    assert on.returncode == 0, on.stderr
    told = events(tmp_path / "resumed.jsonl")
    assert told[0]["round"] == 6
    assert told[-1]["round"] == 7


def idx(array: np.ndarray) -> bytes:
    return gzip.compress(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes(), 1)


def write_mnist(folder: pathlib.Path, rows: int = 40) -> None:
    rng = np.random.default_rng(0)
    for prefix in ("train", "t10k"):
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx(rng.integers(0, 256, (rows, 28, 28), np.uint8)))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx(rng.integers(0, 10, rows, np.uint8)))


def test_a_prototxt_of_caffes_runs_on_data_from_the_command_line(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "net.prototxt").write_text(MNIST_NET)
    (tmp_path / "solver.prototxt").write_text(
        'net: "net.prototxt" test_iter: 5 test_interval: 10 base_lr: 0.01 lr_policy: "fixed" max_iter: 20 display: 5 '
        'snapshot: 10 snapshot_prefix: "somewhere/plain" solver_mode: GPU snapshot_format: HDF5'
    )
    source = f"mnist:{tmp_path}"
    done = sparknet_run(tmp_path, "solver.prototxt", "--train", source, "--test", source, "--tau", 10, "--json", "e")
    assert done.returncode == 0, done.stderr
    told = events(tmp_path / "e")
    assert told[0]["test_rows"] == 40
    assert told[-1]["files"][0] == str(tmp_path / "snapshots" / "plain_iter_20.caffemodel")


def test_a_prototxt_of_caffes_runs_unchanged_on_its_own_databases(tmp_path):
    folder = tmp_path / "model"
    images = noise(40, (1, 28, 28))
    for phase in ("train", "test"):
        records = [datum(image, number % 10) for number, image in enumerate(images)]
        write_lmdb(folder / f"examples/mnist/mnist_{phase}_lmdb", records)
    mean = np.mean(images, axis=0, dtype=np.float64).astype(np.float32)
    blob = caffe_pb2.BlobProto(num=1, channels=1, height=28, width=28, data=mean.ravel().tolist())
    (folder / "mean.binaryproto").write_bytes(blob.SerializeToString())
    net = MNIST_NET.replace("scale:", 'mean_file: "mean.binaryproto" scale:')
    (folder / "net.prototxt").write_text(net)
    (folder / "solver.prototxt").write_text(
        'net: "net.prototxt" test_iter: 5 test_interval: 10 base_lr: 0.01 lr_policy: "fixed" max_iter: 20 '
        'random_seed: 1 snapshot_prefix: "plain"'
    )
    solver = "model/solver.prototxt"
    done = sparknet_run(tmp_path, solver, "--workers", 2, "--tau", 10, "--json", "e", "--snapshot-dir", "s")
    assert done.returncode == 0, done.stderr
    start = events(tmp_path / "e")[0]
    assert (start["train"], start["train_rows"], start["test_rows"]) == (
        "lmdb:examples/mnist/mnist_train_lmdb",
        40,
        40,
    )
    assert not any("mean" in note for note in start["notes"])  # it was found
    # The same rows from elsewhere, and the mean computed from them: the same weights.
    for prefix in ("train", "t10k"):
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx(np.stack(images)[:, 0]))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(40, dtype=np.uint8) % 10))
    (folder / "mean.binaryproto").unlink()
    source = f"mnist:{tmp_path}"
    again = sparknet_run(
        tmp_path, solver, "--workers", 2, "--tau", 10, "--snapshot-dir", "t", "--train", source, "--test", source
    )
    assert again.returncode == 0, again.stderr
    first, second = (caffe_ext.read_weights(tmp_path / name / "plain_iter_20.caffemodel") for name in "st")
    np.testing.assert_array_equal(first["ip"][0], second["ip"][0])


def test_bad_records_are_skipped_and_told_of_once(tmp_path):
    images = [coded(image, ".jpg") for image in noise(60, (1, 28, 28))]
    images[20:35] = [image[:-30] for image in images[20:35]]
    for phase in ("train", "test"):
        records = [datum(image, number % 10) for number, image in enumerate(images)]
        write_lmdb(tmp_path / f"examples/mnist/mnist_{phase}_lmdb", records)
    (tmp_path / "net.prototxt").write_text(MNIST_NET)
    (tmp_path / "solver.prototxt").write_text('net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 20')
    failed = sparknet_run(tmp_path, "solver.prototxt", "--tau", 10)
    assert failed.returncode == 1
    assert "record 00000020 of lmdb:examples/mnist/mnist_train_lmdb: the JPEG is cut short" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    done = sparknet_run(
        tmp_path, "solver.prototxt", "--workers", 2, "--tau", 10, "--bad-records", "skip", "--json", "e"
    )
    assert done.returncode == 0, done.stderr
    told = [event for event in events(tmp_path / "e") if event["event"] == "skipped"]
    assert [(event["phase"], event["count"], event["rows"], len(event["first"])) for event in told] == [
        ("TRAIN", 15, 45, 10),
        ("TEST", 15, 45, 10),
    ]
    assert "15 of 60 records of lmdb:examples/mnist/mnist_train_lmdb could not be read and were skipped" in done.stdout
    assert done.stdout.count("cut short") == 20


def no_java(folder):
    (folder / "empty").mkdir()
    return ["small.snet"], {"JAVA_HOME": str(folder / "empty")}


def misspelt_field(folder):
    write_model(folder, xavier="xavier, num_outptu=3")
    return ["small.snet"], {}


def missing_folder(folder):
    return ["small.snet", "--train", "mnist:/does/not/exist"], {}


def misspelt_scheme(folder):
    return ["small.snet", "--train", "digist:"], {}


def truncated_file(folder):
    write_mnist(folder)
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    return ["small.snet", "--train", f"mnist:{folder}"], {}


def short_file(folder):
    write_mnist(folder)
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-100]))
    return ["small.snet", "--train", f"mnist:{folder}"], {}


def wrong_shape(folder):
    write_mnist(folder)
    return ["small.snet", "--train", f"mnist:{folder}"], {}


def too_few_slots(folder):
    return ["small.snet", "--workers", "3", "--master", "local[2]"], {}


def unknown_master(folder):
    return ["small.snet", "--master", "cluster"], {}


def no_snapshot_folder(folder):
    (folder / "file").touch()
    return ["small.snet", "--snapshot-dir", "file/snapshots"], {}


def no_json_folder(folder):
    return ["small.snet", "--json", "nowhere/events"], {}


def no_source(folder):
    write_model(folder, **{', source="digits:"': ""})
    return ["small.snet"], {}


def no_solver(folder):
    path = write_model(folder)
    path.write_text(path.read_text().partition("solver")[0])
    return ["small.snet"], {}


def no_rounds(folder):
    return ["small.snet", "--rounds", "0"], {}


def unknown_option(folder):
    return ["small.snet", "--wrokers", "2"], {}


def more_workers_than_rows(folder):
    write_mnist(folder, rows=1)
    write_model(folder, **{"1, 8, 8": "1, 28, 28", "digits:": f"mnist:{folder}"})
    return ["small.snet", "--workers", "2"], {}


def no_weights(folder):
    return ["small.snet", "--weights", "none.caffemodel"], {}


def nothing_to_resume(folder):
    return ["small.snet", "--resume"], {}


def nan_loss(folder):
    write_model(folder, rate="1e38")
    return ["small.snet"], {}


WRONG = [
    (no_java, 3, "no bin/java. Spark needs Java 17 or newer: install it"),
    (misspelt_field, 1, "did you mean `num_output`"),
    (missing_folder, 1, "error: mnist:/does/not/exist: the folder /does/not/exist does not exist; it should hold"),
    (misspelt_scheme, 1, "did you mean `digits:`"),
    (
        truncated_file,
        1,
        "train-images-idx3-ubyte.gz (",
    ),
    (short_file, 1, "train-images-idx3-ubyte.gz: expected 31,376 bytes for 40×28×28, found 31,276"),
    (wrong_shape, 1, "28"),
    (too_few_slots, 3, "error: 3 workers need 3 slots at a time, but local[2] has 2: say --workers 2"),
    (unknown_master, 3, "error: Spark does not start with --master cluster: Master must"),
    (no_snapshot_folder, 1, "error: cannot write snapshots to file/snapshots: Not a directory"),
    (no_json_folder, 1, "error: cannot write nowhere/events: No such file or directory"),
    (no_source, 1, "names no source: say --train SRC"),
    (no_solver, 1, "has no solver"),
    (no_rounds, 2, "error: --rounds 0: a whole number from 1 up is wanted"),
    (unknown_option, 2, "--workers"),
    (more_workers_than_rows, 1, "has 1 rows, too few for 2 workers"),
    (no_weights, 1, "cannot read the weights file none.caffemodel"),
    (nothing_to_resume, 1, "there is no snapshot of small in"),
    (nan_loss, 1, "error: training diverged: "),
]


@pytest.mark.parametrize(("case", "status", "message"), WRONG, ids=[case[0].__name__ for case in WRONG])
def test_whatever_goes_wrong_is_one_clear_message(tmp_path, case, status, message):
    write_model(tmp_path)
    arguments, environment = case(tmp_path)
    done = sparknet_run(tmp_path, *arguments, **environment)
    assert message in done.stderr
    assert done.returncode == status
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.count("error") == 1 or status == 2 or "[S" in done.stderr
    if case is not nothing_to_resume:
        assert not list((tmp_path).glob("snapshots/*"))


def test_a_failed_run_ends_its_json_with_the_reason(tmp_path):
    write_model(tmp_path)
    done = sparknet_run(tmp_path, "small.snet", "--train", "mnist:/none", "--json", "events")
    assert done.returncode == 1
    (end,) = events(tmp_path / "events")
    assert (end["event"], end["status"]) == ("end", "failed")
    assert "the folder /none does not exist" in end["message"]


def test_ctrl_c_keeps_the_last_weights_and_says_where(tmp_path):
    write_model(tmp_path, iterations=10_000_000)
    told = tmp_path / "events"
    process = subprocess.Popen(
        [COMMAND, "small.snet", "--json", "events"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 200
        while not told.exists() or '"round": 3' not in told.read_text():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=200)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert errors == "interrupted\n"
    # Layers are told of after the snapshot, unless a test of the same weights had them told before.
    *_, snapshot, end = (event for event in events(told) if event["event"] != "layers")
    assert (snapshot["event"], end["status"]) == ("snapshot", "interrupted")
    assert end["round"] == snapshot["round"] >= 3
    assert pathlib.Path(end["files"][0]).is_file()
    assert f"wrote {end['files'][0]}" in output
    assert caffe_ext.read_state(end["files"][1]).iter == end["iteration"]


def test_help_teaches():
    done = subprocess.run([COMMAND, "--help"], capture_output=True, text=True, check=True)
    for option in ("--workers", "--master", "--train", "--snapshot-dir", "--resume", "--json", "Exit status"):
        assert option in done.stdout
