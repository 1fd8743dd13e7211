"""Models: nets that run over DataFrames, batch by batch, with the native engine in Spark's Python workers."""

import math
from collections.abc import Callable
from typing import Any

from pyspark.ml import Model
from pyspark.ml.util import MLReadable, MLWritable
from pyspark.sql import Column, DataFrame

from .. import caffe_ext
from ..errors import DataError, ModelError, UsageError
from ..runtime import deploy
from ..runtime.data.encoded import size_of
from ..runtime.inference import BATCH, Deployed
from .params import ClassifierParams, NetParams, PredictionParams
from .storage import NetReader, NetWriter
from .udf import NetUdf, first_of, prediction_of, vector_of

# How a column is made: from which blob, and from its array.
How = tuple[str, Callable[[Column], Column]]


class NetModel(Model, NetParams, MLReadable[Any], MLWritable):
    """A trained net, over DataFrames.

    The column `featuresCol` feeds the net's first input, columns of their names the others. `blobs` become the vectors
    `outputCols`, flattened row by row. What is wrong with columns is a DataError at once; what is wrong with a row
    (null, another shape, a damaged image) ends the job with that DataError in Spark's message.
    """

    def __init__(self, deployed: Deployed) -> None:
        super().__init__()
        self.deployed = deployed
        self._sent: NetUdf | None = None

    def net(self) -> caffe_ext.Net:
        """The net that predicts, with its weights, for one row or more (`blobs[...].reshape`)."""
        net = caffe_ext.Net(self.deployed.message, caffe_ext.TEST)
        for layer, blobs in self.deployed.params().items():
            for blob, values in zip(net.params[layer], blobs, strict=True):
                blob.data[...] = values
        return net

    def write(self) -> NetWriter:
        """Writes it: `write().save(path)`, `write().overwrite().save(path)`."""
        return NetWriter(self)

    @classmethod
    def read(cls) -> NetReader:
        """Reads one: `read().load(path)`."""
        return NetReader(cls)

    def _made(self) -> dict[str, How]:
        """The columns to make."""
        if not self.isDefined(self.blobs):
            return {}
        blobs, columns = self.getBlobs(), self.getOutputCols()
        if len(blobs) != len(columns):
            raise UsageError(f"{len(blobs)} blobs ({', '.join(blobs)}) want as many outputCols, not {len(columns)}")
        return {column: (blob, vector_of) for column, blob in zip(columns, blobs, strict=True)}

    def _transform(self, dataset: DataFrame) -> DataFrame:
        made = {column: how for column, how in self._made().items() if column}
        if not made:
            return dataset
        taken = [column for column in made if column in dataset.columns]
        if taken:
            raise DataError(
                f"the DataFrame has a column `{taken[0]}` already: give the output another name, or drop it"
            )
        blobs = list(dict.fromkeys(blob for blob, _ in made.values()))
        batch = self.getBatchSize() if self.isDefined(self.batchSize) else BATCH
        if batch < 1:
            raise UsageError(f"batchSize {batch}: a whole number from 1 up is wanted")
        self.deployed.check(blobs, batch)
        size = size_of(self.getResize()) if self.isDefined(self.resize) else None
        tops = list(deploy.inputs(deploy.pruned(self.deployed.message, blobs)))
        if self._sent is None:
            self._sent = NetUdf(self.deployed)
        columns = {top: self.getFeaturesCol() if index == 0 else top for index, top in enumerate(tops)}
        unique = f"{self.uid}_arrays"
        computed = self._sent.added(dataset, unique, columns, blobs, batch, self.getPrecision(), size)
        for column, (blob, function) in made.items():
            computed = computed.withColumn(column, function(computed[f"{unique}.{blobs.index(blob)}"]))
        return computed.drop(unique)


class SparkNetFeaturizerModel(NetModel):
    """Gives blobs of a net as columns: features for other stages of a Pipeline."""


class SparkNetClassifierModel(NetModel, ClassifierParams):
    """Gives classes: `rawPredictionCol` has the scores, `probabilityCol` their Softmax, `predictionCol` its maximum."""

    @property
    def numClasses(self) -> int:
        """How many classes there are."""
        return deploy.scores(self.deployed.message).classes

    def _made(self) -> dict[str, How]:
        raw, probability, _ = deploy.scores(self.deployed.message)
        return {
            self.getRawPredictionCol(): (raw, vector_of),
            self.getProbabilityCol(): (probability, vector_of),
            self.getPredictionCol(): (probability, prediction_of),
            **super()._made(),
        }


class SparkNetRegressorModel(NetModel, PredictionParams):
    """Gives numbers: `predictionCol` has the net's output, a vector where that is several numbers a row."""

    def _made(self) -> dict[str, How]:
        found = deploy.outputs(self.deployed.message)
        if len(found) != 1:
            raise ModelError(f"a regressor has one output, this net {', '.join(found)}: mark the one wanted @deploy")
        several = math.prod(deploy.shape_of(self.deployed.message, found[0])[1:]) != 1
        return {self.getPredictionCol(): (found[0], vector_of if several else first_of), **super()._made()}
