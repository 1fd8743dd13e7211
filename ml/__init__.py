"""Spark ML: Estimators that train a net by parameter averaging, and Models that run it over DataFrames."""

if __name__ == "ml":
    raise ImportError("this folder is the package sparknet_dsl.ml: import it by that name")

from .estimators import SparkNetClassifier, SparkNetFeaturizer, SparkNetRegressor
from .models import SparkNetClassifierModel, SparkNetFeaturizerModel, SparkNetRegressorModel

__all__ = [
    "SparkNetClassifier",
    "SparkNetClassifierModel",
    "SparkNetFeaturizer",
    "SparkNetFeaturizerModel",
    "SparkNetRegressor",
    "SparkNetRegressorModel",
]
