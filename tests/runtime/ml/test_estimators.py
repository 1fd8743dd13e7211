"""Estimators: in Pipelines, under CrossValidator, and what they refuse to train on."""

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest
from linear import LINEAR
from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.evaluation import MulticlassClassificationEvaluator, RegressionEvaluator
from pyspark.ml.tuning import CrossValidator, CrossValidatorModel, ParamGridBuilder
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql

from sparknet_dsl.errors import DataError, ModelError, SparkNetError, UsageError
from sparknet_dsl.ml import SparkNetClassifier, SparkNetFeaturizer, SparkNetRegressor

LOADED = """
import json, sys
from pyspark.ml import PipelineModel
from pyspark.sql import SparkSession
session = (SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
           .config("spark.executorEnv.PYTHONSAFEPATH", "1").config("spark.driver.bindAddress", "127.0.0.1")
           .config("spark.driver.host", "127.0.0.1").getOrCreate())
model = PipelineModel.load(sys.argv[1])
rows = model.transform(session.read.parquet(sys.argv[2])).orderBy("row").collect()
print(json.dumps([[row.prediction, *row.probability.toArray()] for row in rows]))
"""


def test_a_pipeline_gives_the_same_in_a_new_process(
    digits: DataFrame, weights: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    featurizer = SparkNetFeaturizer(model=LINEAR, weights=str(weights), blobs=["hidden"])
    regression = LogisticRegression(featuresCol="hidden", maxIter=20)
    rows = digits.withColumn("row", sql.monotonically_increasing_id())
    rows.write.parquet(str(tmp_path / "rows"))
    model = Pipeline(stages=[featurizer, regression]).fit(rows)
    found = model.transform(rows).orderBy("row").collect()
    assert sum(row.prediction == row.label for row in found) > 300  # of 400; by chance 40
    model.save(str(tmp_path / "model"))
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOADED, str(tmp_path / "model"), str(tmp_path / "rows")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[row.prediction, *row.probability.toArray()] for row in found]


# PySpark leaves its pool of threads to the collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*Pool:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed running multiprocessing pool:ResourceWarning")
def test_cross_validation_picks_a_learning_rate(digits: DataFrame, tmp_path: pathlib.Path) -> None:
    accuracy = MulticlassClassificationEvaluator(metricName="accuracy")
    classifier = SparkNetClassifier(model=LINEAR, maxIter=40, seed=1)
    grid = ParamGridBuilder().addGrid(classifier.baseLr, [1e-5, 0.1]).build()
    # Two at a time are asked for; the fits wait for each other.
    validator = CrossValidator(
        estimator=classifier, estimatorParamMaps=grid, evaluator=accuracy, numFolds=2, parallelism=2, seed=7
    )
    model = validator.fit(digits)
    slow, fast = model.avgMetrics
    assert slow < 0.5 < 0.8 < fast
    assert accuracy.evaluate(model.transform(digits)) > 0.8
    model.save(str(tmp_path / "validated"))
    loaded = CrossValidatorModel.load(str(tmp_path / "validated"))
    assert loaded.transform(digits).collect() == model.transform(digits).collect()


def test_a_fit_is_that_of_the_seed(digits: DataFrame) -> None:
    classifier = SparkNetClassifier(model=LINEAR, maxIter=10, tau=5, workers=2, batchSize=8, seed=4)
    first, second = classifier.fit(digits), classifier.fit(digits)
    assert first.deployed == second.deployed
    assert classifier.copy({classifier.seed: 5}).fit(digits).deployed != first.deployed


def test_a_regressor_learns(session: SparkSession) -> None:
    text = """
    net line {
      x, y: RDDData([[10, 2], [10]]) @train
      x -> out: InnerProduct(1, weight_filler=xavier)
      out, y -> loss: EuclideanLoss
    }
    solver (base_lr=0.1, lr_policy="fixed", max_iter=200, random_seed=1)
    spark (workers=1, tau=200, average=SPARK)
    """
    points = [(float(a), float(b)) for a in range(-3, 4) for b in range(-3, 4)]
    frame = session.createDataFrame([([a, b], 2 * a - b + 1) for a, b in points], ["x", "y"])
    model = SparkNetRegressor(model=text, featuresCol="x", labelCol="y").fit(frame)
    assert RegressionEvaluator(labelCol="y").evaluate(model.transform(frame)) < 0.01  # root mean square


def test_a_featurizer_says_what_it_can_give(digits: DataFrame) -> None:
    with pytest.raises(UsageError, match=r"name the blobs to give: .* of data, hidden, ip, prob"):
        SparkNetFeaturizer(model=LINEAR, maxIter=5).fit(digits)
    with pytest.raises(UsageError, match=r"has no Param modle; it has .*model"):
        SparkNetFeaturizer(modle=LINEAR)  # type: ignore[call-arg]


def test_params_are_kept_by_name(tmp_path: pathlib.Path, session: SparkSession) -> None:
    classifier = SparkNetClassifier(model="lenet", tau=20, workers=3).setBaseLr(0.5).setParams(maxIter=7)
    assert (classifier.getTau(), classifier.getWorkers(), classifier.getBaseLr()) == ("20", 3, 0.5)
    classifier.save(str(tmp_path / "estimator"))
    loaded = SparkNetClassifier.load(str(tmp_path / "estimator"))
    assert {p.name: v for p, v in loaded.extractParamMap().items()} == {
        p.name: v for p, v in classifier.extractParamMap().items()
    }


def wrong(digits: DataFrame, what: str) -> DataFrame:
    label = sql.col("label")
    return {
        "no label": digits.drop("label"),
        "text": digits.withColumn("label", sql.lit("seven")),
        "null": digits.withColumn("label", sql.when(label < 5, label)),
        "eleven classes": digits.withColumn("label", label + 1),
        "halves": digits.withColumn("label", label / 2),
        "empty": digits.filter("label > 100"),
        "features": digits.withColumnRenamed("features", "pixels"),
    }[what]


@pytest.mark.parametrize(
    ("what", "settings", "error", "message"),
    [
        ("no label", {}, DataError, "no column `label`; it has features"),
        ("text", {}, DataError, "`label` is of the type string"),
        ("null", {}, DataError, "of 400 labels in `label` are null"),
        ("eleven classes", {}, DataError, r"go from 1.0 to 10.0, but linear tells 10 classes, 0 to 9"),
        ("halves", {}, DataError, "not all of them whole numbers"),
        ("empty", {}, DataError, "the DataFrame has no rows"),
        ("features", {}, DataError, "no column `features`"),
        ("", {"model": None}, UsageError, "name the model"),
        ("", {"maxIter": 0}, UsageError, "name the weights"),
        ("", {"defines": ["rate"]}, UsageError, "not of the form name=value"),
        ("", {"model": "nosuch"}, ModelError, "no file and no model of the library"),
        ("", {"model": LINEAR.partition("solver")[0]}, ModelError, "has no solver"),
    ],
)
def test_what_is_wrong_is_said(
    digits: DataFrame, what: str, settings: dict[str, Any], error: type[SparkNetError], message: str
) -> None:
    with pytest.raises(error, match=message):
        SparkNetClassifier(**{"model": LINEAR, **settings}).fit(wrong(digits, what) if what else digits)
