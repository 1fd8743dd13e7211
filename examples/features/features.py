"""Features of a trained net into Spark ML's logistic regression: SparkNet's FeaturizerApp as a Pipeline.

    python examples/features/features.py                     # digits, a net of our own: half a minute, no download
    python examples/features/features.py --model examples/finetune/finetune.snet --blob fc7 \
        --weights bvlc_reference_caffenet.caffemodel --images 'photos/*/*.jpg'    # a folder for each class

The first half of the digits trains the net; the logistic regression learns from its features of the second half.
"""

import argparse
import tempfile

from pyspark.ml import Pipeline, PipelineModel, Transformer
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.feature import StringIndexer
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql

from sparknet_dsl.ml import SparkNetFeaturizer


def digits(spark: SparkSession) -> DataFrame:
    """scikit-learn's digits: vectors of 64 numbers, and labels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    rows = zip(map(Vectors.dense, found.images.reshape(-1, 64)), map(float, found.target), strict=True)
    return spark.createDataFrame(rows, ["image", "label"])


def photographs(spark: SparkSession, pattern: str) -> tuple[DataFrame, list[Transformer]]:
    """Image files, and the stage that makes labels of their folders' names."""
    files = spark.read.format("binaryFile").load(pattern)
    folder = sql.element_at(sql.split("path", "/"), -2)
    named = files.select(sql.col("content").alias("image"), folder.alias("class"))
    return named, [StringIndexer(inputCol="class", outputCol="label")]


def run(
    spark: SparkSession,
    images: str | None = None,
    model: str = "digits",
    weights: str | None = None,
    blob: str = "ip1",
    iterations: int = 200,
) -> float:
    """Fits, saves, loads and tests; the accuracy on rows that nothing was fitted to."""
    stages: list[Transformer] = []
    if images is None:
        own, rows = digits(spark).randomSplit([0.5, 0.5], seed=1)
    else:
        own, (rows, stages) = None, photographs(spark, images)
    train, test = rows.randomSplit([0.7, 0.3], seed=2)

    featurizer = SparkNetFeaturizer(model=model, featuresCol="image", blobs=[blob], outputCols=["features"], seed=1)
    if images is not None:
        featurizer.setResize(256)
    if weights is not None:
        featurizer.setWeights(weights)
        stages += [featurizer]
    else:
        stages += [featurizer.setMaxIter(iterations).fit(own)]
    stages += [LogisticRegression(featuresCol="features", maxIter=50, regParam=0.01)]
    fitted = Pipeline(stages=stages).fit(train)

    with tempfile.TemporaryDirectory() as folder:
        fitted.save(f"{folder}/pipeline")
        predicted = PipelineModel.load(f"{folder}/pipeline").transform(test)
        accuracy = float(MulticlassClassificationEvaluator(metricName="accuracy").evaluate(predicted))
    print(f"accuracy of logistic regression on {blob}: {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="image files, such as 'photos/*/*.jpg'; without it, digits")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--weights", help="a .caffemodel; without it the net is trained first")
    parser.add_argument("--blob", default="ip1")
    # Spark's Python processes start in this folder, where a checkout must not hide the installed package.
    builder = SparkSession.builder.master("local[2]").config("spark.executorEnv.PYTHONSAFEPATH", "1")
    run(builder.getOrCreate(), **vars(parser.parse_args()))
