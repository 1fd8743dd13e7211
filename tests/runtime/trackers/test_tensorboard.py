"""TensorBoard's files: what they hold, by our own reader of records and by TensorBoard's."""

import pathlib
import struct
from collections.abc import Iterator
from typing import Any

import google_crc32c
import numpy as np
import pytest

import sparknet_dsl
from sparknet_dsl.runtime import Trainer
from sparknet_dsl.runtime.events import End, Layers, LayerStats, Round, Spread, Test, Worker
from sparknet_dsl.runtime.spark import Cluster
from sparknet_dsl.runtime.trackers import TensorBoard
from sparknet_dsl.runtime.train_command import main

pytest.importorskip("tensorboardX")

ROUND = Round(
    round=2,
    rounds=4,
    tau=5,
    iteration=10,
    loss=0.5,
    rate=0.01,
    rows=640,
    seconds=2.0,
    averaging=0.25,
    each=(Worker(1.5, 320), Worker(1.25, 320)),
)


def records(folder: pathlib.Path) -> Iterator[Any]:
    """The events in the one file of a folder, whose checksums are checked."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = folder.iterdir()
    content = path.read_bytes()
    at = 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        assert struct.unpack_from("<I", content, at + 8)[0] == masked(content[at : at + 8])
        body = content[at + 12 : at + 12 + length]
        assert struct.unpack_from("<I", content, at + 12 + length)[0] == masked(body)
        yield Event.FromString(body)
        at += 16 + length


def masked(content: bytes) -> int:
    crc = int(google_crc32c.value(content))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


NET = """
net Small {
  data, label: RDDData([[16, 1, 8, 8], [16]], source="digits:", scale=1/16)
  data -> conv: Convolution(4, 3) -> relu: ReLU! -> ip: InnerProduct(10)
  ip, label -> accuracy: Accuracy @test
  ip, label -> loss: SoftmaxWithLoss
}
solver (base_lr=0.05, lr_policy="fixed", max_iter=20, random_seed=3, display=10)
"""


def spread(values: np.ndarray) -> Spread:
    counts, edges = np.histogram(values, 32)
    return Spread(
        mean=float(values.mean()),
        std=float(values.std()),
        min=float(values.min()),
        max=float(values.max()),
        counts=tuple(counts.tolist()),
        edges=tuple(edges.tolist()),
    )


def written(folder: pathlib.Path, values: np.ndarray) -> None:
    board = TensorBoard(folder)
    board.begin(sparknet_dsl.compile_text(NET))
    board(ROUND)
    board(Test(round=2, iteration=10, metrics={"accuracy": 0.75, "loss": 0.5}, rows=360, seconds=1.0))
    stats = LayerStats(layer="conv", param=0, shape=(4, 1, 3, 3), gradient=spread(values / 8), **vars(spread(values)))
    board(Layers(round=2, iteration=10, layers=(stats,)))
    board(End(status="done", message=None, round=4, iteration=20, seconds=5.0, metrics={}, files=()))


def test_the_records_hold_the_numbers_and_the_net(tmp_path: pathlib.Path) -> None:
    from tensorboardX.proto.graph_pb2 import GraphDef

    values = np.random.default_rng(0).normal(0.5, 2, 1000)
    written(tmp_path, values)
    first, net, *numbers = records(tmp_path)
    assert first.file_version == "brain.Event:2"
    nodes = {node.name: node for node in GraphDef.FromString(net.graph_def).node}
    assert {name: node.op for name, node in nodes.items()} == {
        "data": "Input",
        "conv": "Convolution",
        "relu": "ReLU",
        "ip": "InnerProduct",
        "loss": "SoftmaxWithLoss",
    }
    assert list(nodes["ip"].input) == ["relu"] and list(nodes["loss"].input) == ["ip", "data:1"]
    assert [dim.size for dim in nodes["conv"].attr["_output_shapes"].list.shape[0].dim] == [16, 4, 6, 6]
    assert all(event.step == 10 for event in numbers)
    found = {value.tag: value for event in numbers for value in event.summary.value}
    assert {tag: value.simple_value for tag, value in found.items() if value.WhichOneof("value") == "simple_value"} == {
        "train/loss": 0.5,
        "train/rate": pytest.approx(0.01),
        "train/images_per_second": 320,
        "train/tau": 5,
        "train/averaging": 0.25,
        "workers/0/seconds": 1.5,
        "workers/0/rows": 320,
        "workers/1/seconds": 1.25,
        "workers/1/rows": 320,
        "test/accuracy": 0.75,
        "test/loss": 0.5,
    }
    histogram = found["weights/conv/0"].histo
    assert (histogram.num, histogram.min, histogram.max) == (1000, values.min(), values.max())
    assert histogram.sum == pytest.approx(values.sum()) and histogram.sum_squares == pytest.approx((values**2).sum())
    # A bucket counts what is below its limit, and not below the limit before.
    below = [(values <= limit).sum() for limit in histogram.bucket_limit]
    assert np.cumsum(histogram.bucket).tolist()[1:-1] == below[1:-1]
    assert found["gradients/conv/0"].histo.max == values.max() / 8


def test_tensorboard_reads_them(tmp_path: pathlib.Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    values = np.random.default_rng(0).normal(0.5, 2, 1000)
    written(tmp_path, values)
    read = accumulator.EventAccumulator(str(tmp_path))
    read.Reload()
    assert [(each.step, each.value) for each in read.Scalars("test/accuracy")] == [(10, 0.75)]
    assert read.Histograms("weights/conv/0")[0].histogram_value.num == 1000
    assert [node.name for node in read.Graph().node] == ["data", "conv", "relu", "ip", "loss"]


def test_training_writes_them(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.snet").write_text(NET)
    assert main("small.snet", tensorboard="board") == 0
    assert main("small.snet", tensorboard="board", max_iter=10) == 0
    first, second = sorted((tmp_path / "board").iterdir(), key=lambda path: path.stat().st_size, reverse=True)
    assert first.name != second.name
    second.unlink()
    events = list(records(tmp_path / "board"))
    steps = [event.step for event in events for value in event.summary.value if value.tag == "train/loss"]
    assert steps == [0, 10, 20]
    tags = {value.tag for event in events for value in event.summary.value}
    assert {"test/accuracy", "weights/conv/0", "weights/ip/1", "gradients/ip/0"} <= tags


def test_a_trainer_has_them_written_by_a_callback(spark: Cluster, tmp_path: pathlib.Path) -> None:
    board = TensorBoard(tmp_path / "board")
    trainer = Trainer(
        sparknet_dsl.compile_text(NET + "spark (tau=10, workers=2)"),
        spark.context,
        callbacks=[board],
        show=False,
        snapshot_dir=str(tmp_path / "snapshots"),
    )
    trainer.fit()
    events = list(records(tmp_path / "board"))
    rounds = [event for event in trainer.history if isinstance(event, Round)]
    values = [(event.step, value) for event in events for value in event.summary.value]
    losses = [(step, value.simple_value) for step, value in values if value.tag == "train/loss"]
    assert losses == [(event.iteration, pytest.approx(event.loss)) for event in rounds]
    seconds = [value.simple_value for _, value in values if value.tag == "workers/1/seconds"]
    assert seconds == [pytest.approx(event.each[1].seconds) for event in rounds]


def test_a_folder_that_cannot_be_written_is_told_of_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.snet").write_text(NET)
    (tmp_path / "file").write_text("")
    assert main("small.snet", tensorboard="file/board") == 0
    (said,) = caplog.messages
    assert said.startswith("warning: TensorBoard keeps nothing more of this run (file/board): ")
    assert (tmp_path / "snapshots" / "Small_iter_20.caffemodel").exists()
