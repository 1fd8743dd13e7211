"""Training from Python: what programs and notebooks see of a run."""

import pathlib
from typing import Any

import numpy as np
import pytest

import sparknet_dsl
from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import DataError, ModelError, UsageError
from sparknet_dsl.runtime import Trainer
from sparknet_dsl.runtime.events import End, Event, Round, Snapshot, Start, Test
from sparknet_dsl.runtime.spark import Cluster

MODEL = """
option rate = 0.1
net small {
  data, label: RDDData([[16, 1, 8, 8], [16]], source="digits:", scale=1/16) @train
  data, label: RDDData([[50, 1, 8, 8], [50]], source="digits:", scale=1/16) @test
  data: Input([[5, 1, 8, 8]]) @deploy
  data -> ip: InnerProduct(10, weight_filler=xavier)
  ip, label -> accuracy: Accuracy @test
  ip, label -> loss: SoftmaxWithLoss @train @test
  ip -> prob: Softmax @deploy
}
solver (base_lr=rate, lr_policy="fixed", momentum=0.9, max_iter=60, random_seed=3)
spark (tau=10, workers=2, test_every=2)
"""


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.snet").write_text(MODEL)


def test_fit_tells_and_leaves_a_net(spark: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Event] = []
    trainer = Trainer("small.snet", spark.context, callbacks=[seen.append], snapshot_dir="s")
    result = trainer.fit()
    assert (result.round, result.iteration) == (6, 60)
    assert result.metrics["accuracy"] > 0.7
    assert seen == trainer.history
    kinds = [type(event) for event in seen]
    assert kinds[0] is Start and kinds[-2:] == [Snapshot, End]
    assert kinds.count(Round) == 6 and kinds.count(Test) == 3
    assert "accuracy" in capsys.readouterr().out

    net = trainer.net()
    np.testing.assert_array_equal(
        net.params["ip"][0].data, caffe_ext.read_weights(pathlib.Path(str(result.files[0])))["ip"][0]
    )
    rows = np.random.default_rng(0).random((5, 1, 8, 8), np.float32)
    np.testing.assert_allclose(net.forward(data=rows)["prob"].sum(axis=1), 1, rtol=1e-5)
    # The Spark is the caller's.
    assert spark.context.parallelize([1, 2]).count() == 2


def test_a_session_and_a_compiled_model_serve_too(spark: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    from pyspark.sql import SparkSession

    model = sparknet_dsl.compile_file("small.snet", defines={"rate": "0.2"})
    trainer = Trainer(model, SparkSession(spark.context), show=False, rounds=1)
    assert trainer.fit().round == 1
    assert capsys.readouterr().out == ""
    assert [event.rate for event in trainer.history if isinstance(event, Round)] == [pytest.approx(0.2)]
    assert trainer.fit(resume=True).round == 1


def test_a_callback_ends_it(spark: Cluster) -> None:
    def enough(event: Event) -> None:
        if isinstance(event, Test) and event.round >= 2:
            trainer.stop()

    trainer = Trainer("small.snet", spark.context, callbacks=[enough], show=False)
    result = trainer.fit()
    # The test comes after its leg: one more.
    assert result.round == 4 and result.metrics and result.files
    assert trainer.fit(resume=True).round == 6


def test_a_failing_callback_keeps_what_was_learnt(spark: Cluster) -> None:
    def fails(event: Event) -> None:
        if isinstance(event, Test):
            raise ValueError("mine")

    trainer = Trainer("small.snet", spark.context, callbacks=[fails], show=False, snapshot_dir="kept")
    with pytest.raises(ValueError, match="mine"):
        trainer.fit()
    assert list(pathlib.Path("kept").glob("*_iter_20.caffemodel"))
    last = trainer.history[-1]
    assert isinstance(last, End) and last.status == "failed"


@pytest.mark.parametrize(
    ("settings", "fit", "error", "message"),
    [
        ({"worker": 2}, {}, UsageError, "no setting worker; there are .*workers"),
        ({"workers": 0}, {}, UsageError, "--workers 0"),
        ({}, {"train": "nosuch:x"}, DataError, "nosuch"),
        ({"weights": "w.caffemodel"}, {"resume": True}, UsageError, "give one of them"),
    ],
)
def test_what_is_wrong_is_said(
    spark: Cluster, settings: dict[str, Any], fit: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Trainer("small.snet", spark.context, show=False, **settings).fit(**fit)


def test_there_is_no_net_before_training() -> None:
    with pytest.raises(ModelError, match="call fit"):
        Trainer("small.snet", show=False).net()
