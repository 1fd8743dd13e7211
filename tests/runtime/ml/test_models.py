"""Models over DataFrames: what they compute, from which columns, and what they refuse."""

import pathlib
from typing import Any

import cv2
import numpy as np
import pytest
from linear import LINEAR
from pyspark.errors import PythonException
from pyspark.ml.functions import vector_to_array
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import DataError, ModelError, OutputError, UsageError, WeightsError
from sparknet_dsl.ml import (
    SparkNetClassifier,
    SparkNetClassifierModel,
    SparkNetFeaturizer,
    SparkNetFeaturizerModel,
    SparkNetRegressor,
)


@pytest.fixture(scope="session")
def model(digits: DataFrame, weights: pathlib.Path) -> SparkNetClassifierModel:
    return SparkNetClassifier(model=LINEAR, weights=str(weights), maxIter=0, blobs=["hidden"]).fit(digits)


def scores(rows: np.ndarray, weights: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """The hidden units and the scores, by NumPy."""
    params = caffe_ext.read_weights(weights)
    hidden = np.maximum(rows / 16 @ params["hidden"][0].T + params["hidden"][1], 0)
    return hidden, hidden @ params["ip"][0].T + params["ip"][1]


def test_it_computes_what_numpy_does(model: SparkNetClassifierModel, digits: DataFrame, weights: pathlib.Path) -> None:
    assert model.numClasses == 10
    rows = model.transform(digits).collect()
    assert len(rows) == 400
    hidden, raw = scores(np.array([row.features.toArray() for row in rows]), weights)
    np.testing.assert_allclose([row.hidden.toArray() for row in rows], hidden, atol=1e-5)
    np.testing.assert_allclose([row.rawPrediction.toArray() for row in rows], raw, atol=1e-4)
    exponential = np.exp(raw - raw.max(axis=1, keepdims=True))
    probabilities = exponential / exponential.sum(axis=1, keepdims=True)
    np.testing.assert_allclose([row.probability.toArray() for row in rows], probabilities, atol=1e-5)
    assert [row.prediction for row in rows] == list(np.argmax([row.probability.toArray() for row in rows], axis=1))


def test_columns_may_be_of_many_kinds(
    session: SparkSession, digits: DataFrame, model: SparkNetClassifierModel, weights: pathlib.Path
) -> None:
    """Vectors, flat arrays, arrays of arrays, bytes, PNG files and Spark's image schema give the same."""
    images = np.array([row.features.toArray() for row in digits.limit(3).collect()], np.uint8).reshape(3, 8, 8)
    raw = scores(images.reshape(3, 64).astype(float), weights)[1]
    cells: dict[str, Any] = {
        "flat array<int>": [image.ravel().tolist() for image in images],
        "nested array<array<array<float>>>": [[image.astype(float).tolist()] for image in images],
        "bytes binary": [bytearray(image.tobytes()) for image in images],
        "png binary": [bytearray(cv2.imencode(".png", image)[1].tobytes()) for image in images],
        "image struct<origin:string,height:int,width:int,nChannels:int,mode:int,data:binary>": [
            ("", 8, 8, 1, 0, bytearray(image.tobytes())) for image in images
        ],
    }
    for declared, values in cells.items():
        frame = session.createDataFrame([(value,) for value in values], declared)
        name = declared.split()[0]
        found = model.copy({model.featuresCol: name}).transform(frame).collect()
        np.testing.assert_allclose([row.rawPrediction.toArray() for row in found], raw, atol=1e-4, err_msg=name)


def test_images_are_resized(
    session: SparkSession, digits: DataFrame, model: SparkNetClassifierModel, weights: pathlib.Path
) -> None:
    images = np.array([row.features.toArray() for row in digits.limit(3).collect()], np.uint8).reshape(3, 8, 8)
    large = [cv2.imencode(".png", np.kron(image, np.ones((2, 3), np.uint8)))[1].tobytes() for image in images]
    frame = session.createDataFrame([(bytearray(file),) for file in large], "features binary")
    found = model.copy({model.resize: "8x8"}).transform(frame).collect()
    raw = scores(images.reshape(3, 64).astype(float), weights)[1]
    np.testing.assert_allclose([row.rawPrediction.toArray() for row in found], raw, atol=1e-4)
    with pytest.raises(DataError, match="resize=8x: write resize=256, or resize=HEIGHTxWIDTH"):
        model.copy({model.resize: "8x"}).transform(frame)


def test_a_row_does_not_depend_on_its_neighbours(model: SparkNetClassifierModel, digits: DataFrame) -> None:
    def raw(frame: DataFrame) -> dict[Any, Any]:
        return {row.features: row.rawPrediction for row in model.transform(frame).collect()}

    whole, few = raw(digits), raw(digits.limit(5).coalesce(1))
    assert len(few) == 5 and all(whole[features] == found for features, found in few.items())


def test_columns_are_left_out_by_empty_names(model: SparkNetClassifierModel, digits: DataFrame) -> None:
    quiet = model.copy({model.rawPredictionCol: "", model.probabilityCol: "", model.blobs: []})
    assert quiet.transform(digits).columns == ["features", "label", "prediction"]


def test_no_rows_are_no_error(model: SparkNetClassifierModel, digits: DataFrame) -> None:
    assert model.transform(digits.filter("label > 100")).count() == 0


def test_a_regressor_gives_numbers(session: SparkSession, tmp_path: pathlib.Path) -> None:
    text = """
    net line {
      x, y: RDDData([[4, 3], [4]]) @train
      x -> out: InnerProduct(1)
      out, y -> loss: EuclideanLoss
    }
    """
    from sparknet_dsl import compile_text

    net = caffe_ext.Net(compile_text(text).net, caffe_ext.TRAIN)
    net.params["out"][0].data[...] = [[1, 2, 3]]
    net.params["out"][1].data[...] = 0.5
    net.save(tmp_path / "w.caffemodel")
    frame = session.createDataFrame([([1.0, 1.0, 1.0],), ([0.0, 2.0, 0.0],)], ["x"])
    model = SparkNetRegressor(model=text, weights=str(tmp_path / "w.caffemodel"), maxIter=0, featuresCol="x").fit(frame)
    assert [row.prediction for row in model.transform(frame).collect()] == [6.5, 4.5]


def test_saved_and_loaded(model: SparkNetClassifierModel, digits: DataFrame, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "model"
    model.save(str(path))
    assert sorted(entry.name for entry in path.iterdir() if not entry.name.startswith(".")) == [
        "metadata",
        "net.prototxt",
        "weights.caffemodel",
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
    loaded = SparkNetClassifierModel.load(str(path))
    assert loaded.uid == model.uid and loaded.getBlobs() == ["hidden"]
    assert loaded.transform(digits).collect() == model.transform(digits).collect()
    with pytest.raises(OutputError, match=r"exists already: .*overwrite"):
        model.save(str(path))
    model.write().overwrite().save(str(path))
    with pytest.raises(DataError, match="holds a SparkNetClassifierModel, no SparkNetFeaturizerModel"):
        SparkNetFeaturizerModel.load(str(path))
    (path / "weights.caffemodel").write_bytes(b"other")
    for checksum in path.glob(".*.crc"):
        checksum.unlink()
    with pytest.raises(DataError, match="has changed since the model was saved"):
        SparkNetClassifierModel.load(str(path))
    with pytest.raises(DataError, match="does not exist"):
        SparkNetClassifierModel.load(str(tmp_path / "absent"))


def test_a_failed_save_leaves_what_was_there(
    model: SparkNetClassifierModel, digits: DataFrame, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model"
    model.save(str(path))

    def fails(self: object, folder: pathlib.Path) -> None:
        raise OutputError("no room")

    monkeypatch.setattr("sparknet_dsl.runtime.inference.Deployed.save", fails)
    with pytest.raises(OutputError, match="no room"):
        model.write().overwrite().save(str(path))
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
    assert SparkNetClassifierModel.load(str(path)).numClasses == 10


def test_the_mean_image_goes_along(
    session: SparkSession, digits: DataFrame, weights: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    from sparknet_dsl.runtime.means import write_mean

    write_mean(tmp_path / "mean.binaryproto", np.full((1, 8, 8), 3, np.float32))
    text = tmp_path / "linear.snet"
    text.write_text(LINEAR.replace("scale=1/16", 'scale=1/16, mean_file="mean.binaryproto"'))
    made = SparkNetFeaturizer(model=str(text), weights=str(weights), blobs=["ip"], outputCols=["scores"]).fit(digits)
    made.save(str(tmp_path / "saved"))
    text.unlink()
    (tmp_path / "mean.binaryproto").unlink()
    row = SparkNetFeaturizerModel.load(str(tmp_path / "saved")).transform(digits).first()
    assert row is not None
    np.testing.assert_allclose(row.scores.toArray(), scores(row.features.toArray()[None] - 3, weights)[1][0], atol=1e-4)


def test_wrong_columns_are_said_at_once(model: SparkNetClassifierModel, digits: DataFrame) -> None:
    cases: list[tuple[DataFrame, type[Exception], str]] = [
        (digits.drop("features"), DataError, "has no column `features`; it has label"),
        (digits.withColumn("features", sql.lit("text")), DataError, "`features` is of the type string"),
        (digits.withColumn("prediction", sql.lit(1)), DataError, "has a column `prediction` already"),
    ]
    for frame, error, message in cases:
        with pytest.raises(error, match=message):
            model.transform(frame)
    with pytest.raises(ModelError, match="no blob `nosuch`; it has data, hidden, ip, prob"):
        model.copy({model.blobs: ["nosuch"]}).transform(digits)
    with pytest.raises(UsageError, match="want as many outputCols"):
        model.copy({model.outputCols: ["a", "b"]}).transform(digits)
    with pytest.raises(UsageError, match="batchSize 0"):
        model.copy({model.batchSize: 0}).transform(digits)


def test_wrong_rows_end_the_job(session: SparkSession, model: SparkNetClassifierModel, digits: DataFrame) -> None:
    short = digits.select(sql.slice(vector_to_array("features"), 1, 63).alias("features"))
    with pytest.raises(PythonException, match=r"DataError: .* are 63, the net's input `data` wants 1×8×8"):
        model.transform(short).collect()
    null = session.createDataFrame([([0.0] * 64,), (None,)], "features array<float>").coalesce(1)
    with pytest.raises(PythonException, match=r"DataError: the DataFrame's column `features`: .*null"):
        model.transform(null).collect()


def test_lacking_weights_are_said(digits: DataFrame, weights: pathlib.Path) -> None:
    other = LINEAR.replace("ip:", "other:").replace("ip, label", "other, label")
    featurizer = SparkNetFeaturizer(model=other, weights=str(weights), blobs=["hidden"])
    featurizer.fit(digits).transform(digits)
    with pytest.raises(WeightsError, match="no weights for layer `other`"):
        featurizer.copy({featurizer.blobs: ["other"]}).fit(digits).transform(digits)
