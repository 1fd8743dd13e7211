"""DataFrames: the same rows in the same order however Spark came by them, trained on where Spark computes them."""

import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from sparknet_dsl.errors import DataError
from sparknet_dsl.runtime import Trainer
from sparknet_dsl.runtime.data import BadRecords, DataFrame
from sparknet_dsl.runtime.events import Round, Skipped, Start
from sparknet_dsl.runtime.spark import Cluster

pytest.importorskip("pyarrow")

MODEL = """
net small {
  data, label: RDDData([[16, 1, 6, 6], [16]], scale=1/256) @train
  data, label: RDDData([[16, 1, 6, 6], [16]], scale=1/256) @test
  data -> ip: InnerProduct(3, weight_filler=xavier)
  ip, label -> accuracy: Accuracy @test
  ip, label -> loss: SoftmaxWithLoss
}
solver (base_lr=0.1, lr_policy="fixed", max_iter=6, random_seed=3)
spark (tau=2, workers=2)
"""


@pytest.fixture(scope="module")
def session(spark: Cluster) -> SparkSession:
    return SparkSession(spark.context)


@pytest.fixture
def frame(session: SparkSession) -> Any:
    rng = np.random.default_rng(0)
    rows = [(index % 3, "name", bytearray(rng.bytes(36))) for index in range(500)]
    return session.createDataFrame(rows, "label int, name string, image binary")


def rows_of(source: DataFrame, partitions: int) -> list[list[tuple[bytes, int]]]:
    parts = source.rdd(partitions).glom().collect()
    found = []
    for number, part in enumerate(parts):
        chunks = source.rows(part, number, BadRecords())
        found.append(
            [(i.tobytes(), int(n)) for chunk in chunks for i, n in zip(chunk["image"], chunk["label"], strict=True)]
        )
    return found


def test_rows_and_order_are_a_function_of_the_rows(frame):
    first = rows_of(DataFrame(frame), 3)
    again = rows_of(DataFrame(frame.repartition(7).orderBy("label")), 3)
    assert first == again
    expected = [(bytes(row.image), row.label) for row in frame.collect()]
    assert sorted(row for part in first for row in part) == sorted(expected)
    assert min(map(len, first)) > 100


def test_a_dataframe_trains_and_the_partitions_of_its_source_do_not_matter(frame, spark, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("small.snet").write_text(MODEL)
    losses = []
    for each in (frame, frame.repartition(5)):
        trainer = Trainer("small.snet", spark.context, show=False)
        trainer.fit(each, DataFrame(frame.limit(50)))
        start = next(event for event in trainer.history if isinstance(event, Start))
        assert (start.train, start.train_rows, start.test_rows) == ("DataFrame(label, name, image)", 500, 50)
        losses.append([event.loss for event in trainer.history if isinstance(event, Round)])
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_bad_rows_are_skipped_and_told(frame, spark, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("small.snet").write_text(MODEL)
    holes = frame.selectExpr("if(label = 1, null, label) AS label", "image")
    trainer = Trainer("small.snet", spark.context, show=False, rounds=1, bad_records="skip")
    trainer.fit(holes)
    skipped = next(event for event in trainer.history if isinstance(event, Skipped))
    assert (skipped.count, skipped.rows) == (167, 333)
    assert skipped.first[0]["reason"] == "`label` is null"
    with pytest.raises(DataError, match=r"DataFrame, partition \d, row \d+: `label` is null; --bad-records skip"):
        Trainer("small.snet", spark.context, show=False, rounds=1).fit(holes)


def test_vectors_and_arrays(session):
    linalg = pytest.importorskip("pyspark.ml.linalg")
    rows = [(linalg.Vectors.dense([1.0, 0.0]), [[1, 2]], 0), (linalg.Vectors.sparse(2, [1], [5.0]), [[3, 4]], 1)]
    source = DataFrame(session.createDataFrame(rows, ["v", "m", "label"]), columns=["v", "m", "label"])
    assert [(column.name, column.shape) for column in source.columns] == [("v", (2,)), ("m", (1, 2)), ("label", ())]
    found = {}
    for part, streams in enumerate(source.rdd(2).glom().collect()):
        for chunk in source.rows(streams, part, BadRecords()):
            for v, m, label in zip(chunk["v"], chunk["m"], chunk["label"], strict=True):
                found[int(label)] = (v.tolist(), m.tolist())
    assert found == {0: ([1, 0], [[1, 2]]), 1: ([0, 5], [[3, 4]])}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda frame: DataFrame(frame, ["nmae"]), "there is no column `nmae`: there are image, label"),
        (lambda frame: DataFrame(frame, ["name"]), r"`name` can feed no net: it holds strings.*classes=name:cat\|dog"),
        (lambda frame: DataFrame(frame, size="3"), "has no option size; there are resize"),
        (lambda frame: DataFrame(frame.where("label > 5")), "the DataFrame has no rows"),
        (lambda frame: DataFrame(frame, shape="image:7x5"), "its rows have 36 values, and shape=image:7×5 is 35"),
    ],
)
def test_what_a_dataframe_lacks_is_one_clear_error(frame, make, message):
    with pytest.raises(DataError, match=message):
        make(frame)


def test_one_row_is_too_few_for_two_workers(frame, spark, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("small.snet").write_text(MODEL)
    with pytest.raises(DataError, match=r"has 1 rows, too few for 2 workers"):
        Trainer("small.snet", spark.context, show=False).fit(frame.limit(1))


LOST = f"""
import os, pathlib, signal, subprocess
import numpy as np
from pyspark.sql import SparkSession
from sparknet_dsl.runtime import Trainer
from sparknet_dsl.runtime.events import Round
from sparknet_dsl.runtime.spark import Cluster

pathlib.Path("small.snet").write_text({MODEL!r})
weights = []

def lose_one(event):
    if isinstance(event, Round) and event.round == 1 and weights:
        executors = subprocess.run(["pgrep", "-P", str(java), "-f", "Coarse"], capture_output=True, text=True)
        os.kill(int(executors.stdout.split()[0]), signal.SIGKILL)

with Cluster("local-cluster[2,1,1024]", 2, conf={{"spark.executor.memory": "512m"}}) as cluster:
    java = cluster.context._gateway.proc.pid
    rng = np.random.default_rng(0)
    rows = [(index % 3, bytearray(rng.bytes(36))) for index in range(500)]
    frame = SparkSession(cluster.context).createDataFrame(rows, "label int, image binary")
    for _ in range(2):
        trainer = Trainer("small.snet", cluster.context, show=False, average="spark", callbacks=[lose_one])
        weights.append(pathlib.Path(trainer.fit(frame).files[0]).read_bytes())
assert weights[0] == weights[1]
"""


def test_a_lost_executor_takes_rows_along_that_are_computed_again(tmp_path):
    done = subprocess.run([sys.executable, "-P", "-c", LOST], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
