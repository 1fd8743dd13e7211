"""The Params that Estimators and Models have in common; what they mean is in docs/spark-ml.md."""

from collections.abc import Sequence
from typing import Any, Self, TypedDict

from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import (
    HasFeaturesCol,
    HasLabelCol,
    HasMaxIter,
    HasPredictionCol,
    HasProbabilityCol,
    HasRawPredictionCol,
)


def _param(name: str, doc: str, converter: Any) -> Any:
    return Param(Params._dummy(), name, doc, typeConverter=converter)


class NetParams(HasFeaturesCol):
    """Of everything that runs a net."""

    batchSize: "Param[int]" = _param("batchSize", "rows of a batch (> 0).", TypeConverters.toInt)
    blobs: "Param[list[str]]" = _param("blobs", "blobs to give as columns.", TypeConverters.toListString)
    outputCols: "Param[list[str]]" = _param(
        "outputCols", "columns for the blobs, by default of their names.", TypeConverters.toListString
    )
    precision: "Param[str]" = _param("precision", "what is multiplied in: float32 or bf16.", TypeConverters.toString)
    resize: "Param[str]" = _param("resize", "N or HxW: what images are resized to.", TypeConverters.toString)

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(precision="float32")

    def setFeaturesCol(self, value: str) -> Self:
        """Sets the column of the net's first input."""
        return self._set(featuresCol=value)

    def setBatchSize(self, value: int) -> Self:
        """Sets the rows of a batch, in training those of one worker."""
        return self._set(batchSize=value)

    def getBatchSize(self) -> int:
        """Gets the rows of a batch."""
        return self.getOrDefault(self.batchSize)

    def setResize(self, value: int | str) -> Self:
        """Sets what images are resized to, N or HxW."""
        return self._set(resize=str(value))

    def getResize(self) -> str:
        """Gets what images are resized to."""
        return self.getOrDefault(self.resize)

    def setBlobs(self, value: Sequence[str]) -> Self:
        """Sets the blobs to give as columns."""
        return self._set(blobs=list(value))

    def getBlobs(self) -> list[str]:
        """Gets the blobs to give as columns."""
        return self.getOrDefault(self.blobs)

    def setOutputCols(self, value: Sequence[str]) -> Self:
        """Sets the columns for the blobs."""
        return self._set(outputCols=list(value))

    def getOutputCols(self) -> list[str]:
        """Gets the columns for the blobs: those set, else of the blobs' names."""
        return self.getOrDefault(self.outputCols) if self.isDefined(self.outputCols) else self.getBlobs()

    def setPrecision(self, value: str) -> Self:
        """Sets what is multiplied in."""
        return self._set(precision=value)

    def getPrecision(self) -> str:
        """Gets what is multiplied in."""
        return self.getOrDefault(self.precision)


class PredictionParams(NetParams, HasLabelCol, HasPredictionCol):
    """Of classifiers and regressors."""

    def setLabelCol(self, value: str) -> Self:
        """Sets the column of the labels."""
        return self._set(labelCol=value)

    def setPredictionCol(self, value: str) -> Self:
        """Sets the column of the predictions; "" for none."""
        return self._set(predictionCol=value)


class ClassifierParams(PredictionParams, HasProbabilityCol, HasRawPredictionCol):
    """Of classifiers."""

    def setProbabilityCol(self, value: str) -> Self:
        """Sets the column of the probabilities; "" for none."""
        return self._set(probabilityCol=value)

    def setRawPredictionCol(self, value: str) -> Self:
        """Sets the column of the scores; "" for none."""
        return self._set(rawPredictionCol=value)


class TrainingParams(NetParams, HasLabelCol, HasMaxIter):
    """Of what trains; those that are not set are the model's own."""

    model: "Param[str]" = _param(
        "model",
        "a .snet file or its text, a net or solver of Caffe's, or a model of the library.",
        TypeConverters.toString,
    )
    defines: "Param[list[str]]" = _param("defines", "name=value for the model's options.", TypeConverters.toListString)
    weights: "Param[str]" = _param("weights", "a .caffemodel to start from.", TypeConverters.toString)
    workers: "Param[int]" = _param("workers", "workers that train (> 0).", TypeConverters.toInt)
    tau: "Param[str]" = _param("tau", "iterations between two averages, a schedule, or auto.", TypeConverters.toString)
    baseLr: "Param[float]" = _param("baseLr", "the solver's base_lr (> 0).", TypeConverters.toFloat)
    seed: "Param[int]" = _param("seed", "seed of everything random (>= 0).", TypeConverters.toInt)
    verbose: "Param[bool]" = _param("verbose", "whether fit shows its progress.", TypeConverters.toBoolean)

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(verbose=False)

    def setLabelCol(self, value: str) -> Self:
        """Sets the column of the labels."""
        return self._set(labelCol=value)

    def setModel(self, value: str) -> Self:
        """Sets the model."""
        return self._set(model=value)

    def getModel(self) -> str:
        """Gets the model."""
        return self.getOrDefault(self.model)

    def setDefines(self, value: Sequence[str]) -> Self:
        """Sets values for the model's options."""
        return self._set(defines=list(value))

    def getDefines(self) -> list[str]:
        """Gets values for the model's options."""
        return self.getOrDefault(self.defines)

    def setWeights(self, value: str) -> Self:
        """Sets the weights to start from."""
        return self._set(weights=value)

    def getWeights(self) -> str:
        """Gets the weights to start from."""
        return self.getOrDefault(self.weights)

    def setWorkers(self, value: int) -> Self:
        """Sets the number of workers."""
        return self._set(workers=value)

    def getWorkers(self) -> int:
        """Gets the number of workers."""
        return self.getOrDefault(self.workers)

    def setTau(self, value: int | str) -> Self:
        """Sets the iterations between two averages."""
        return self._set(tau=str(value))

    def getTau(self) -> str:
        """Gets the iterations between two averages."""
        return self.getOrDefault(self.tau)

    def setMaxIter(self, value: int) -> Self:
        """Sets the iterations of each worker; 0 trains nothing and takes `weights` as they are."""
        return self._set(maxIter=value)

    def setBaseLr(self, value: float) -> Self:
        """Sets the solver's base_lr."""
        return self._set(baseLr=value)

    def getBaseLr(self) -> float:
        """Gets the solver's base_lr."""
        return self.getOrDefault(self.baseLr)

    def setSeed(self, value: int) -> Self:
        """Sets the seed of everything random."""
        return self._set(seed=value)

    def getSeed(self) -> int:
        """Gets the seed of everything random."""
        return self.getOrDefault(self.seed)

    def setVerbose(self, value: bool) -> Self:
        """Sets whether fit shows its progress."""
        return self._set(verbose=value)

    def getVerbose(self) -> bool:
        """Gets whether fit shows its progress."""
        return self.getOrDefault(self.verbose)


class TrainingArguments(TypedDict, total=False):
    """What an Estimator's constructor takes."""

    model: str | None
    featuresCol: str
    labelCol: str
    workers: int | None
    tau: int | str | None
    maxIter: int | None
    baseLr: float | None
    batchSize: int | None
    seed: int | None
    weights: str | None
    defines: Sequence[str] | None
    blobs: Sequence[str] | None
    outputCols: Sequence[str] | None
    precision: str
    resize: int | str | None
    verbose: bool


class PredictionArguments(TrainingArguments, total=False):
    """That of SparkNetRegressor."""

    predictionCol: str


class ClassifierArguments(PredictionArguments, total=False):
    """That of SparkNetClassifier."""

    probabilityCol: str
    rawPredictionCol: str
