"""Scripts written for pycaffe, run with no change but that of their import line."""

import os
import pathlib
import re
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from shared import shared

from sparknet_dsl import caffe_ext as caffe

SCRIPTS = pathlib.Path(__file__).parent / "pycaffe_scripts"
PROTOTXT = "corpus/prototxt/BVLC+caffe"


def run(name: str, folder: pathlib.Path, *arguments: object) -> list[str]:
    """The lines that a script prints, `import caffe` being replaced in it and in the modules that it names."""
    for path in SCRIPTS.glob("*.py"):
        text, count = re.subn(r"^import caffe$", "import sparknet_dsl.caffe_ext as caffe", path.read_text(), flags=re.M)
        assert count == 1
        (folder / path.name).write_text(text)
    done = subprocess.run(
        [sys.executable, folder / name, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONWARNINGS": "error"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def slim(name: str, folder: pathlib.Path) -> pathlib.Path:
    """A net of the corpus, but for its fc6 and fc7, which are 16 times as small: their 200 MB would take long."""
    text = shared(f"{PROTOTXT}/{name}").read_text()
    assert text.count("num_output: 4096") == 2
    path = folder / name
    path.write_text(text.replace("num_output: 4096", "num_output: 256"))
    return path


@pytest.fixture(scope="module")
def caffenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, pathlib.Path]:
    """CaffeNet's deploy net, and weights for it such that its classes are not all alike."""
    folder = tmp_path_factory.mktemp("caffenet")
    model = slim("models_bvlc_reference_caffenet_deploy.prototxt", folder)
    net = caffe.Net(model, caffe.TEST)
    rng = np.random.default_rng(0)
    for blobs in net.params.values():
        weights = blobs[0]
        scale = np.float32(np.sqrt(2 / np.prod(weights.shape[1:])))
        weights.data[...] = rng.standard_normal(weights.shape, np.float32) * scale
    net.params["fc8"][0].data[...] *= np.float32(0.02)
    path = folder / "random.caffemodel"
    net.save(path)
    return model, path


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("photo") / "tench.jpg"
    with tarfile.open(shared("data/imagenet/train.00000.tar")) as archive:
        member = archive.extractfile("n01440764_tench.JPEG")
        assert member is not None
        path.write_bytes(member.read())
    return path


def test_classification(caffenet, photo, tmp_path) -> None:
    import cv2

    model, weights = caffenet
    lines = run("classify.py", tmp_path, model, weights, photo)
    # The same from OpenCV's own decoding and resizing of the picture, BGR and bytes from the start.
    pixels = cv2.resize(cv2.imread(str(photo)).astype(np.float32), (227, 227), interpolation=cv2.INTER_LINEAR)
    net = caffe.Net(model, caffe.TEST, weights=weights)
    net.blobs["data"].reshape(1, 3, 227, 227)
    prob = net.forward(data=[pixels.transpose(2, 0, 1) - np.array([[[104]], [[117]], [[123]]])])["prob"][0]
    want = prob.argsort()[::-1][:5]
    assert [int(line.split()[0]) for line in lines] == want.tolist()
    np.testing.assert_allclose([float(line.split()[1]) for line in lines], prob[want], rtol=1e-3)
    assert prob.max() > 2 * prob.mean()


def test_net_surgery(caffenet, photo, tmp_path) -> None:
    full_conv = slim("examples_net_surgery_bvlc_caffenet_full_conv.prototxt", tmp_path)
    result = tmp_path / "full_conv.caffemodel"
    lines = run("surgery.py", tmp_path, *caffenet, full_conv, photo, result)
    assert lines[0] == "fc6 weights are (256, 9216) dimensional and biases are (256,)"
    assert lines[3] == "(8, 8)"
    difference, largest = map(float, re.findall(r"[\d.e-]+", lines[4].removeprefix("largest difference")))
    assert difference < 1e-4 * largest
    saved = caffe.read_weights(result)
    assert saved["fc6-conv"][0].shape == (256, 256, 6, 6)
    np.testing.assert_array_equal(saved["fc6-conv"][0].ravel(), caffe.read_weights(caffenet[1])["fc6"][0].ravel())


def test_a_python_layer_trains(tmp_path) -> None:
    lines = run("linreg.py", tmp_path, shared(f"{PROTOTXT}/examples_pycaffe_linreg.prototxt"), tmp_path)
    types = ["DummyData", "DummyData", "InnerProduct", "InnerProduct", "Python"]
    assert lines[1] == f"{['x', 'y', 'ipx', 'ipy', 'loss']} {types}"
    assert lines[2:] == ["True 60", "60 True"]
