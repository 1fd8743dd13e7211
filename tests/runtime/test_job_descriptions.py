"""What Spark's own UI says of a run's jobs; it shows what is asked for here, the store behind it."""

import pathlib

import pytest
from pyspark import SparkContext

import sparknet_dsl
from sparknet_dsl.runtime import Trainer
from sparknet_dsl.runtime.spark import Cluster

MODEL = """
net small {
  data, label: RDDData([[16, 1, 8, 8], [16]], source="digits:", scale=1/16)
  data -> ip: InnerProduct(10)
  ip, label -> accuracy: Accuracy @test
  ip, label -> loss: SoftmaxWithLoss
}
solver (base_lr=0.1, lr_policy="fixed", max_iter=35, random_seed=3)
spark (tau=10, workers=2, test_every=2)
"""


def descriptions(context: SparkContext) -> list[str]:
    """Those of all jobs so far, in the order in which they began."""
    jobs = context._jsc.sc().statusStore().jobsList(None)
    found = [jobs.apply(index) for index in range(jobs.size())]
    return [job.description().get() if job.description().isDefined() else "" for job in reversed(found)]


@pytest.mark.parametrize(
    ("average", "rounds"),
    [
        ("ring", ["rounds 1 to 2: tau=10", "test after round 2", "rounds 3 to 4: tau=5 to 10", "test after round 4"]),
        (
            "spark",
            [
                *("round 1: tau=10", "round 2: tau=10", "test after round 2"),
                *("round 3: tau=10", "round 4: tau=5", "test after round 4"),
            ],
        ),
    ],
)
def test_jobs_are_described(spark: Cluster, average: str, rounds: list[str], tmp_path: pathlib.Path) -> None:
    before = len(descriptions(spark.context))
    model = sparknet_dsl.compile_text(MODEL)
    Trainer(model, spark.context, show=False, average=average, snapshot_dir=str(tmp_path)).fit()
    found = descriptions(spark.context)[before:]
    how = {"ring": "by ring", "spark": "through Spark"}[average]
    expected = [f"{name}, averaging {how}" if name.startswith("round") else name for name in rounds]
    assert found[:3] == ["reading train rows", "reading test rows", "building nets"]
    # What is removed from the executors at the end is no job of a round.
    assert found[3 : 3 + len(expected)] == expected
