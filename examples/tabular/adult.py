"""A table of numbers and categories into a net: a CSV file, Spark ML's own feature stages, SparkNetClassifier.

    python examples/tabular/make_data.py adult.csv
    python examples/tabular/adult.py adult.csv

The net is models/adult.snet: 108 numbers, of which 102 stand for categories.
"""

import argparse

from make_data import CATEGORIES, NUMBERS
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.feature import OneHotEncoder, StandardScaler, StringIndexer, VectorAssembler
from pyspark.sql import DataFrame, SparkSession

from sparknet_dsl.ml import SparkNetClassifier


def pipeline(rows: DataFrame, iterations: int, workers: int) -> Pipeline:
    """All stages, from the columns of the file to the prediction; the categories are those of all `rows`."""
    names = list(CATEGORIES)
    places, vectors = [f"{name}_place" for name in names], [f"{name}_vector" for name in names]
    return Pipeline(
        stages=[
            StringIndexer(inputCols=names, outputCols=places).fit(rows),
            OneHotEncoder(inputCols=places, outputCols=vectors, dropLast=False),
            VectorAssembler(inputCols=NUMBERS, outputCol="numbers"),
            StandardScaler(inputCol="numbers", outputCol="scaled", withMean=True),
            VectorAssembler(inputCols=["scaled", *vectors], outputCol="features"),
            StringIndexer(inputCol="income", outputCol="label", stringOrderType="alphabetAsc"),
            SparkNetClassifier(model="adult", workers=workers, maxIter=iterations, seed=1),
        ]
    )


def run(spark: SparkSession, path: str, iterations: int = 1000, workers: int = 2) -> float:
    """Trains on two thirds of the rows; the accuracy on the others."""
    rows = spark.read.csv(path, header=True, inferSchema=True)
    train, test = rows.randomSplit([2.0, 1.0], seed=1)
    fitted: PipelineModel = pipeline(rows, iterations, workers).fit(train)
    accuracy = float(MulticlassClassificationEvaluator(metricName="accuracy").evaluate(fitted.transform(test)))
    print(f"accuracy on {test.count():,} rows: {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    # Spark's Python processes start in this folder, where a checkout must not hide the installed package.
    builder = SparkSession.builder.master("local[2]").config("spark.executorEnv.PYTHONSAFEPATH", "1")
    run(builder.getOrCreate(), **vars(parser.parse_args()))
