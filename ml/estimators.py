"""Estimators: they train a net by parameter averaging on the Spark that the DataFrame is of."""

import logging
import pathlib
import tempfile
import threading
from typing import Any, Generic, Self, TypeVar, Unpack

from pyspark.ml import Estimator
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable
from pyspark.sql import DataFrame

from ..errors import UsageError
from ..proto import caffe_pb2
from ..runtime import deploy
from ..runtime.inference import Deployed
from .models import NetModel, SparkNetClassifierModel, SparkNetFeaturizerModel, SparkNetRegressorModel
from .params import (
    ClassifierArguments,
    ClassifierParams,
    PredictionArguments,
    PredictionParams,
    TrainingArguments,
    TrainingParams,
)
from .training import check_classes, compiled, train
from .udf import check_column

M = TypeVar("M", bound=NetModel)
_log = logging.getLogger(__name__)
# A fit takes a slot for each worker at the same time, and all cores: two at once would wait for each other's slots
# for ever, or share the cores and both take twice as long. CrossValidator's `parallelism` asks for several.
_one_at_a_time = threading.Lock()


class NetEstimator(Estimator[M], TrainingParams, DefaultParamsReadable[Any], DefaultParamsWritable, Generic[M]):
    """Trains a net on the columns `featuresCol` and `labelCol` of a DataFrame.

    `featuresCol` feeds the net's first input, `labelCol` the one that its loss compares with, columns of their names
    any others. With maxIter=0 nothing is trained: the Model has the weights of the file `weights`. Raises what
    Trainer.fit raises; DataError for columns and labels that do not fit, before training.
    """

    def _fit(self, dataset: DataFrame) -> M:
        if _one_at_a_time.locked():
            _log.info("%s waits for the fit at hand: each takes all slots", self.uid)
        with _one_at_a_time, tempfile.TemporaryDirectory(prefix="sparknet-") as folder:
            if self._trains():
                model, weights = train(dataset, self, folder, self._check_net, self._check_labels)
            elif self.isDefined(self.weights):
                model, weights = compiled(self, None), pathlib.Path(self.getWeights())
            else:
                raise UsageError("nothing is to be trained (maxIter=0): name the weights to take (weights=FILE)")
            folders = (pathlib.Path(), weights.parent, *([model.path.parent] if model.path else []))
            net = deploy.deploy_net(model)
            self._check_net(net)
            deployed = Deployed.of(net, [weights], folders)
        return self._copyValues(self._made_of(deployed))

    def _made_of(self, deployed: Deployed) -> M:
        """The Model of a trained net."""
        raise NotImplementedError

    def _check_net(self, net: caffe_pb2.NetParameter) -> None:
        """Raises ModelError or UsageError where the net that predicts does not give what is asked for."""
        if self.isDefined(self.blobs):
            deploy.pruned(net, self.getBlobs())

    def _check_labels(self, dataset: DataFrame, net: caffe_pb2.NetParameter) -> None:
        """Raises DataError for labels that the net (of phase TRAIN) cannot learn."""
        raise NotImplementedError

    def _trains(self) -> bool:
        return not (self.isDefined(self.maxIter) and self.getMaxIter() == 0)

    def _take(self, given: TrainingArguments) -> Self:
        settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        unknown = [name for name in settings if not self.hasParam(name)]
        if unknown:
            known = ", ".join(param.name for param in self.params)
            raise UsageError(f"{type(self).__name__} has no Param {unknown[0]}; it has {known}")
        settings |= {name: str(settings[name]) for name in ("tau", "resize") if name in settings}
        return self._set(**settings)


class SparkNetClassifier(NetEstimator[SparkNetClassifierModel], ClassifierParams):
    """Trains a net with SoftmaxWithLoss to tell classes; labels are 0, 1, ... in any numeric type.

    classifier = SparkNetClassifier(model="lenet", workers=4, maxIter=2000, featuresCol="image")
    classifier.fit(train).transform(test).select("label", "prediction", "probability")
    """

    def __init__(self, **params: Unpack[ClassifierArguments]) -> None:
        super().__init__()
        self._take(params)

    def setParams(self, **params: Unpack[ClassifierArguments]) -> Self:
        """Sets Params by name."""
        return self._take(params)

    def _made_of(self, deployed: Deployed) -> SparkNetClassifierModel:
        return SparkNetClassifierModel(deployed)

    def _check_net(self, net: caffe_pb2.NetParameter) -> None:
        super()._check_net(net)
        deploy.scores(net)

    def _check_labels(self, dataset: DataFrame, net: caffe_pb2.NetParameter) -> None:
        check_classes(dataset, self.getLabelCol(), net)


class SparkNetRegressor(NetEstimator[SparkNetRegressorModel], PredictionParams):
    """Trains a net with EuclideanLoss, or another loss of numbers, to give numbers.

    regressor = SparkNetRegressor(model="prices.snet", labelCol="price", baseLr=0.01)
    """

    def __init__(self, **params: Unpack[PredictionArguments]) -> None:
        super().__init__()
        self._take(params)

    def setParams(self, **params: Unpack[PredictionArguments]) -> Self:
        """Sets Params by name."""
        return self._take(params)

    def _made_of(self, deployed: Deployed) -> SparkNetRegressorModel:
        return SparkNetRegressorModel(deployed)

    def _check_labels(self, dataset: DataFrame, net: caffe_pb2.NetParameter) -> None:
        check_column(dataset, self.getLabelCol())


class SparkNetFeaturizer(NetEstimator[SparkNetFeaturizerModel]):
    """Gives blobs of a net as features; with `weights` alone it trains nothing, with maxIter it trains first.

    SparkNetFeaturizer(model="caffenet", weights="caffenet.caffemodel", featuresCol="image", blobs=["fc7"])
    """

    def __init__(self, **params: Unpack[TrainingArguments]) -> None:
        super().__init__()
        self._take(params)

    def setParams(self, **params: Unpack[TrainingArguments]) -> Self:
        """Sets Params by name."""
        return self._take(params)

    def _made_of(self, deployed: Deployed) -> SparkNetFeaturizerModel:
        return SparkNetFeaturizerModel(deployed)

    def _check_net(self, net: caffe_pb2.NetParameter) -> None:
        if not self.isDefined(self.blobs):
            raise UsageError(f"name the blobs to give: blobs=[...], of {', '.join(deploy.blobs_of(net))}")
        super()._check_net(net)

    def _check_labels(self, dataset: DataFrame, net: caffe_pb2.NetParameter) -> None:
        if any(layer.type == "SoftmaxWithLoss" for layer in net.layer):
            check_classes(dataset, self.getLabelCol(), net)

    def _trains(self) -> bool:
        return super()._trains() and (self.isDefined(self.maxIter) or not self.isDefined(self.weights))
