"""Digits as a DataFrame of the Spark that all tests share, and small models."""

import pathlib
from collections.abc import Iterator

import numpy as np
import pytest
from linear import LINEAR
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame, SparkSession
from sklearn.datasets import load_digits

from sparknet_dsl import caffe_ext, compile_text
from sparknet_dsl.runtime.spark import Cluster


@pytest.fixture(scope="session")
def session(spark: Cluster) -> Iterator[SparkSession]:
    session = SparkSession(spark.context)
    # The default of 200 is for clusters.
    session.conf.set("spark.sql.shuffle.partitions", "2")
    yield session


@pytest.fixture(scope="session")
def digits(session: SparkSession) -> DataFrame:
    """400 digits: `features`, vectors of 64, some of them sparse, and `label`."""
    found = load_digits()
    dense = [Vectors.dense(image.ravel()) for image in found.images[:400]]
    vectors = [
        Vectors.sparse(64, np.flatnonzero(vector.values), vector.values[vector.values != 0]) if row % 3 == 0 else vector
        for row, vector in enumerate(dense)
    ]
    rows = [(vector, float(label)) for vector, label in zip(vectors, found.target, strict=False)]
    frame = session.createDataFrame(rows, ["features", "label"]).repartition(2).cache()
    frame.count()
    return frame


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Weights of LINEAR, as its fillers leave them."""
    path = tmp_path_factory.mktemp("weights") / "linear.caffemodel"
    caffe_ext.Net(compile_text(LINEAR).net, caffe_ext.TRAIN, seed=5).save(path)
    return path
