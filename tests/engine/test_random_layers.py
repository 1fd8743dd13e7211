"""Dropout while training: what it may give, how often, and that it is a pure function of the seed."""

import json
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from shared import ROOT, shared

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import EngineError
from sparknet_dsl.proto import caffe_pb2

GOLDEN = ROOT / "golden" / "random_layers.json"
CASES: list[dict[str, Any]] = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else []


def dropout_net(shape: list[int], ratio: float, in_place: bool = False) -> caffe_ext.Net:
    dims = " ".join(f"dim: {extent}" for extent in shape)
    text = f"""
        force_backward: true
        layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}
        layer {{ name: "d" type: "Dropout" bottom: "x" top: "{"x" if in_place else "y"}"
                 dropout_param {{ dropout_ratio: {ratio} }} }}
    """
    return caffe_ext.Net(text_format.Parse(text, caffe_pb2.NetParameter()), caffe_ext.TRAIN)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['layer']}-{case['dropout_ratio']}")
def test_golden(case: dict[str, Any], in_place: bool) -> None:
    net = dropout_net(case["shape"], case["dropout_ratio"], in_place)
    top = net.blobs["x" if in_place else "y"]
    net.set_seed(1)
    masks = []
    for _ in range(2):
        net.blobs["x"].data[...] = case["input_value"]
        net.forward()
        output = top.data.copy()
        top.diff[...] = case["topdiff_value"]
        net.backward()
        gradient = net.blobs["x"].diff.copy()
        np.testing.assert_allclose(np.unique(output), case["output_values"], rtol=1e-6)
        np.testing.assert_allclose(np.unique(gradient), case["gradient_values"], rtol=1e-6)
        np.testing.assert_array_equal(output == 0, gradient == 0)
        assert np.mean(output == 0) == pytest.approx(case["zero_fraction"], abs=case["zero_fraction_tol"])
        masks.append(output == 0)
    assert np.mean(masks[0] != masks[1]) > 0.1, "each forward pass draws a new mask"


def test_golden_is_there() -> None:
    shared("golden/random_layers.json")
    assert CASES


def test_mask_is_a_function_of_the_seed() -> None:
    def draw(seed: int, threads: int) -> np.ndarray:
        caffe_ext.set_num_threads(threads)
        net = dropout_net([64, 2000], 0.5)
        net.set_seed(seed)
        net.blobs["x"].data[...] = 1
        net.forward()
        return net.blobs["y"].data.copy()

    before = caffe_ext.num_threads()
    try:
        first = draw(7, 1)
        np.testing.assert_array_equal(first, draw(7, 1))
        np.testing.assert_array_equal(first, draw(7, 3))
        assert np.mean(first != draw(8, 1)) == pytest.approx(0.5, abs=0.02)
    finally:
        caffe_ext.set_num_threads(before)


def test_neighbours_are_independent() -> None:
    net = dropout_net([1000, 1000], 0.5)
    net.set_seed(3)
    net.blobs["x"].data[...] = 1
    net.forward()
    kept = (net.blobs["y"].data.ravel() > 0).astype(np.float64) - 0.5
    for distance in (1, 2, 3, 4, 5, 1000):
        correlation = np.mean(kept[distance:] * kept[:-distance]) / 0.25
        assert abs(correlation) < 5e-3, distance


@pytest.mark.parametrize("ratio", [1.0, -0.1, 1.5])
def test_ratio_out_of_range(ratio: float) -> None:
    with pytest.raises(EngineError, match="dropout_ratio must be at least 0 and less than 1"):
        dropout_net([2, 3], ratio)


def test_ratio_zero_changes_nothing() -> None:
    net = dropout_net([4, 5], 0.0)
    values = np.random.default_rng(0).standard_normal((4, 5), dtype=np.float32)
    net.blobs["x"].data[...] = values
    net.forward()
    np.testing.assert_array_equal(net.blobs["y"].data, values)
