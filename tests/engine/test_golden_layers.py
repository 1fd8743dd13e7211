"""The engine against what BVLC Caffe 1.0 computed: layers, small nets, published models, refused configurations.

The protocol stands in golden/README.md of the shared material. No case is left out.
"""

import json
import pathlib
from typing import Any

import numpy as np
import pytest
from shared import shared, shared_names

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import EngineError

PHASES = {"TRAIN": caffe_ext.TRAIN, "TEST": caffe_ext.TEST}


def meta_of(folder: pathlib.Path) -> dict[str, Any]:
    return json.loads((folder / "meta.json").read_text())


def assert_close(got: np.ndarray, want: np.ndarray, tolerance: dict[str, float], what: str) -> None:
    """The comparison of golden/README.md."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, what
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want), err_msg=what)
    got, want = np.nan_to_num(got, nan=0.0), np.nan_to_num(want, nan=0.0)
    bound = tolerance["atol"] * max(1.0, np.abs(want).max(initial=0.0)) + tolerance["rtol"] * np.abs(want)
    wrong = ~(np.abs(got - want) <= bound)
    worst = np.abs(got - want).max(initial=0.0)
    assert not wrong.any(), f"{what}: {wrong.sum()} of {want.size} values differ, by up to {worst:g}"


def assert_loss(net: caffe_ext.Net, want: np.ndarray, tolerance: dict[str, float]) -> None:
    loose = {key: max(value, 1e-6) for key, value in tolerance.items()}
    assert_close(np.float32(net.loss), want, loose, "loss")


def keys(case: Any, kind: str) -> list[tuple[str, str]]:
    """(key, rest of the key) of the arrays of one kind, in the file's order."""
    return [(key, key.split(":", 1)[1]) for key in case.files if key.startswith(f"{kind}:")]


def param_of(net: caffe_ext.Net, name: str) -> caffe_ext.Blob:
    layer, index = name.rsplit(":", 1)
    return net.params[layer][int(index)]


def write_inputs(net: caffe_ext.Net, case: Any, kind: str) -> None:
    for key, blob in keys(case, kind):
        net.blobs[blob].data[...] = case[key]


@pytest.mark.parametrize("name", shared_names("golden/layers"))
def test_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared(f"golden/layers/{name}")
    monkeypatch.chdir(folder)
    meta = meta_of(folder)
    tolerance = meta["tolerance"]
    case = np.load("case.npz")
    net = caffe_ext.Net("net.prototxt", PHASES[meta["phase"]], level=meta["level"], stages=meta["stages"])
    assert list(net.layer_names) == meta["layer_names"]
    assert list(net.blob_names) == meta["blob_names"]
    assert list(net.inputs) == meta["inputs"]
    assert list(net.outputs) == meta["outputs"]

    for key, param in keys(case, "param"):
        param_of(net, param).data[...] = case[key]
    write_inputs(net, case, "in")
    net.clear_param_diffs()
    net.forward()
    assert_loss(net, case["loss"], tolerance)
    for key, blob in keys(case, "out"):
        assert_close(net.blobs[blob].data, case[key], tolerance, key)
    for key, param in keys(case, "paramafter"):
        assert_close(param_of(net, param).data, case[key], tolerance, key)

    if meta["backward"]:
        net.clear_param_diffs()
        for key, blob in keys(case, "topdiff"):
            assert blob not in net.blob_loss_weights or net.blob_loss_weights[blob] == 0
            net.blobs[blob].diff[...] = case[key]
        net.backward()
        for key, blob in keys(case, "indiff") + keys(case, "diff"):
            assert_close(net.blobs[blob].diff, case[key], tolerance, key)
        for key, param in keys(case, "pardiff"):
            assert_close(param_of(net, param).diff, case[key], tolerance, key)

    if "loss2" in case.files:
        shapes = {blob: case[key].shape for key, blob in keys(case, "in2")}
        if any(tuple(net.blobs[blob].shape) != shape for blob, shape in shapes.items()):
            for blob, shape in shapes.items():
                net.blobs[blob].reshape(*shape)
            net.reshape()
        write_inputs(net, case, "in2")
        net.forward()
        assert_loss(net, case["loss2"], tolerance)
        for key, blob in keys(case, "out2"):
            assert_close(net.blobs[blob].data, case[key], tolerance, key)


def generated(net: caffe_ext.Net, meta: dict[str, Any]) -> None:
    """Fills parameters and inputs with the numbers that the recipe in golden/README.md gives."""
    for param in meta["params"]:
        blob = net.params[param["layer"]][param["index"]]
        assert list(blob.shape) == param["shape"]
        numbers = np.random.default_rng(meta["seed"] + param["k"]).standard_normal(blob.count, dtype=np.float32)
        values = numbers * np.float32(param["scale"])
        np.testing.assert_allclose(values[:4], param["first4"], rtol=1e-6)
        blob.data[...] = values.reshape(blob.shape)
    data = net.blobs["data"]
    numbers = np.random.default_rng(meta["seed"] + 100000).standard_normal(data.count, dtype=np.float32)
    shift = np.float32(meta["input_shift"])
    data.data[...] = (numbers * np.float32(meta["input_scale"]) + shift).reshape(data.shape)
    if "label" in net.blobs:
        labels = np.random.default_rng(meta["seed"] + 200000).integers(0, meta["classes"], size=meta["batch"])
        net.blobs["label"].data[...] = labels


@pytest.mark.parametrize("settings", [{}, {"fusion": False}, {"winograd": False}], ids=["", "alone", "definition"])
@pytest.mark.parametrize("name", shared_names("golden/models"))
def test_model(name: str, settings: dict[str, bool]) -> None:
    folder = shared(f"golden/models/{name}")
    meta = meta_of(folder)
    tolerance = meta["tolerance"]
    case = np.load(folder / "case.npz")
    net = caffe_ext.Net(folder / "net.prototxt", PHASES[meta.get("phase", "TEST")], **settings)
    generated(net, meta)
    net.clear_param_diffs()
    net.forward()
    assert_loss(net, case["loss"], tolerance)
    for blob in meta["blobs"]:
        got = net.blobs[blob].data
        assert list(got.shape) == meta["shapes"][blob]
        assert_close(got.reshape(-1)[case[f"idx:{blob}"]], case[f"out:{blob}"].reshape(-1), tolerance, blob)
        exact = got.astype(np.float64)
        sums = np.array([np.abs(exact).sum(), np.abs(exact).max()])
        np.testing.assert_allclose(sums, case[f"sum:{blob}"][1:], rtol=max(tolerance["rtol"], 1e-5), err_msg=blob)
    if not meta["backward"]:
        return
    net.clear_param_diffs()
    net.backward()
    tolerance = meta["grad_tolerance"]
    for key, param in keys(case, "grad"):
        got = param_of(net, param).diff
        assert_close(got.reshape(-1)[case[f"gradidx:{param}"]], case[key].reshape(-1), tolerance, key)
        norm = np.linalg.norm(got.astype(np.float64))
        np.testing.assert_allclose(norm, case[f"gradnorm:{param}"], rtol=tolerance["rtol"], err_msg=key)


def rejects() -> list[dict[str, str]]:
    if "rejects.json" not in shared_names("golden"):
        return []
    return json.loads(shared("golden/rejects.json").read_text())


@pytest.mark.parametrize("reject", [pytest.param(r, id=r["name"]) for r in rejects()])
def test_rejected(reject: dict[str, str], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(reject["prototxt"])
    phase = PHASES[reject["phase"]]
    if reject["fails_at"] == "init":
        with pytest.raises(EngineError) as caught:
            caffe_ext.Net(path, phase)
        assert str(caught.value)
        return
    net = caffe_ext.Net(path, phase)
    if reject["fails_at"] == "backward":
        net.forward()
        with pytest.raises(EngineError):
            net.backward()
        return
    with pytest.raises(EngineError):
        net.forward()
