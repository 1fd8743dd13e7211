"""The examples, each in its shortest form."""

import importlib.util
import pathlib
import sys
from types import ModuleType

import cv2
import numpy as np
import pytest
from pyspark.sql import SparkSession

from sparknet_dsl import caffe_ext, compile_file
from sparknet_dsl.runtime import Trainer
from sparknet_dsl.runtime.spark import Cluster

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script `name`, imported as Python would run it: its folder is where its neighbours are."""
    path = EXAMPLES / name
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def session(spark: Cluster) -> SparkSession:
    session = SparkSession(spark.context)
    session.conf.set("spark.sql.shuffle.partitions", "2")
    return session


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_features(session: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    assert example("features/features.py", monkeypatch).run(session, iterations=60) > 0.85


def test_features_of_photographs(session: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    features = example("features/features.py", monkeypatch)
    photographs("photos", 8)
    net = "net n { data, label: RDDData([[4, 3, 20, 20], [4]], crop_size=20) @train data -> fc: InnerProduct(6) }"
    pathlib.Path("n.snet").write_text(net)
    caffe_ext.Net(compile_file("n.snet").net, caffe_ext.TRAIN, seed=1).save("w.caffemodel")
    pattern = f"{pathlib.Path.cwd()}/photos/*/*.png"
    accuracy = features.run(session, images=pattern, model="n.snet", weights="w.caffemodel", blob="fc")
    assert 0 <= accuracy <= 1


def test_a_table(session: SparkSession, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    adult = example("tabular/adult.py", monkeypatch)
    example("tabular/make_data.py", monkeypatch).write("adult.csv", 600)
    accuracy = adult.run(session, str(tmp_path / "adult.csv"), iterations=100)
    assert accuracy > 0.7  # 0.54 of the rows are of one class
    sys.modules.pop("make_data", None)


def test_characters(session: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    characters = example("characters/characters.py", monkeypatch)
    pathlib.Path("text").write_text("abcdefgh " * 400)
    rows = characters.pieces(b"abcdefgh " * 20)
    assert bytes(rows[0][0]).startswith(b"abcdefgh abc") and bytes(rows[0][2]).startswith(b"bcdefgh abcd")
    text = characters.run(session, "text", iterations=40, length=30, options={"hidden": "32", "streams": "8"})
    assert text.startswith("The ") and len(text) == 34


def photographs(folder: str, count: int) -> None:
    """Two classes of pictures, `count` each."""
    random = np.random.default_rng(1)
    for place, name in enumerate(("dark", "light")):
        pathlib.Path(folder, name).mkdir(parents=True)
        for number in range(count):
            image = random.integers(120 * place, 120 * place + 120, (70, 80, 3), np.uint8)
            cv2.imwrite(f"{folder}/{name}/{number}.png", image)


def test_fine_tuning(spark: Cluster) -> None:
    small = {"crop": "67", "classes": "2", "batch": "4"}
    photographs("photos", 6)
    model = compile_file(EXAMPLES / "finetune" / "finetune.snet", defines=small)
    # In place of CaffeNet's: weights of a net with its layers, by chance, and another last one.
    named = compile_file(EXAMPLES / "finetune" / "finetune.snet", defines={**small, "classes": "1000"}).net
    for layer in named.layer:
        layer.name = layer.name.replace("fc8_ten", "fc8")
    caffe_ext.Net(named, caffe_ext.TRAIN, seed=1).save("caffenet.caffemodel")
    before = caffe_ext.read_weights("caffenet.caffemodel")
    model.solver.max_iter = 4
    trainer = Trainer(model, spark.context, show=False, workers=2, tau=2, weights="caffenet.caffemodel", seed=1)
    result = trainer.fit("images:photos?resize=72", "images:photos?resize=72")
    assert result.iteration == 4 and "accuracy" in result.metrics
    after = caffe_ext.read_weights(pathlib.Path(str(result.files[0])))
    for frozen in ("conv1", "conv2"):
        np.testing.assert_array_equal(after[frozen][0], before[frozen][0])
    assert not np.array_equal(after["conv3"][0], before["conv3"][0])
    assert after["fc8_ten"][0].shape == (2, 4096)
