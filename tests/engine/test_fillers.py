"""Initial values of parameters: equal to Caffe's where they are fixed, alike in distribution where they are random."""

import json
import math
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from shared import ROOT, shared

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import EngineError
from sparknet_dsl.proto import caffe_pb2

GOLDEN = ROOT / "golden" / "fillers.json"
CASES: dict[str, Any] = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {"deterministic": [], "random": []}

# Caffe's statistics come from 400,000 samples a case; a quarter of them needs twice the tolerance.
FEWER = 4
LAYERS_PER_NET = 100


def filled(filler: str, shape: list[int], draws: int = 1, seed: int = 1) -> list[np.ndarray]:
    """`draws` parameters of that shape, each filled with a seed of its own."""
    arrays: list[np.ndarray] = []
    while len(arrays) < draws:
        net = filler_net(filler, shape, min(LAYERS_PER_NET, draws - len(arrays)))
        engine_net = caffe_ext.Net(net, caffe_ext.TRAIN, seed=seed + len(arrays))
        which = 1 if len(shape) == 1 else 0
        arrays += [blobs[which].data.copy() for blobs in engine_net.params.values()]
    for array in arrays:
        assert list(array.shape) == shape
    return arrays


def filler_net(filler: str, shape: list[int], layers: int) -> caffe_pb2.NetParameter:
    """Layers of which each has one parameter of that shape: a bias, or weights of InnerProduct or Convolution."""
    net = caffe_pb2.NetParameter()
    source = net.layer.add(name="x", type="Input", top=["x"])
    source.input_param.shape.add(
        dim=[1, shape[1], 7, 7] if len(shape) == 4 else [1, shape[1] if len(shape) == 2 else 3]
    )
    for i in range(layers):
        layer = net.layer.add(name=f"l{i}", bottom=["x"], top=[f"y{i}"])
        if len(shape) == 4:
            layer.type = "Convolution"
            settings = layer.convolution_param
            settings.kernel_h, settings.kernel_w, settings.bias_term = shape[2], shape[3], False
        else:
            layer.type = "InnerProduct"
            settings = layer.inner_product_param
            settings.bias_term = len(shape) == 1
        settings.num_output = shape[0]
        text_format.Parse(filler, settings.bias_filler if len(shape) == 1 else settings.weight_filler)
    return net


def test_golden_is_there() -> None:
    shared("golden/fillers.json")
    assert CASES["deterministic"] and CASES["random"]


@pytest.mark.parametrize("case", CASES["deterministic"], ids=lambda case: case["name"])
def test_fixed_values(case: dict[str, Any]) -> None:
    got = filled(case["filler"], case["shape"])[0]
    np.testing.assert_array_equal(got.ravel(), np.array(case["values"], np.float32))


@pytest.mark.parametrize("case", CASES["random"], ids=lambda case: f"{case['filler']} {case['shape']}")
def test_statistics(case: dict[str, Any]) -> None:
    arrays = filled(case["filler"], case["shape"], math.ceil(case["draws"] / FEWER))
    values = np.stack(arrays).astype(np.float64)
    wider = math.sqrt(FEWER)
    assert values.mean() == pytest.approx(case["mean"], abs=wider * case["mean_tol"])
    assert values.std() == pytest.approx(case["std"], abs=wider * case["std_tol"])
    if "analytic_std" in case:
        assert values.std() == pytest.approx(case["analytic_std"], abs=wider * case["std_tol"])
    if "bounds" in case:
        low, high = np.array(case["bounds"], np.float32)
        assert low <= values.min() and values.max() <= high
        if values.std() > 0 and "row_sum" not in case:
            assert values.min() < low + 0.01 * (high - low) and values.max() > high - 0.01 * (high - low)
    if "n" in case and "xavier" in case["filler"]:
        assert np.abs(values).max() == pytest.approx(math.sqrt(3 / case["n"]), rel=1e-3)
    if "zero_fraction" in case:
        assert np.mean(values == 0) == pytest.approx(case["zero_fraction"], abs=wider * case["zero_fraction_tol"])
    if "row_sum" in case:
        sums = values.reshape(len(arrays), case["shape"][0], -1).sum(axis=2)
        np.testing.assert_allclose(sums, case["row_sum"], rtol=1e-5)
        assert values.min() >= 0


RANDOM = [
    'type: "uniform" min: -2 max: 3',
    'type: "gaussian" std: 0.1',
    'type: "gaussian" std: 0.1 sparse: 20',
    'type: "positive_unitball"',
    'type: "xavier"',
    'type: "msra"',
]


@pytest.mark.parametrize("filler", RANDOM)
def test_values_are_a_function_of_the_seed(filler: str) -> None:
    before = caffe_ext.num_threads()
    shape = [301, 1003]  # more than one thread's share, and no multiple of anything
    try:
        caffe_ext.set_num_threads(1)
        alone = filled(filler, shape, seed=5)[0]
        np.testing.assert_array_equal(alone, filled(filler, shape, seed=5)[0])
        other = filled(filler, shape, seed=6)[0]
        caffe_ext.set_num_threads(3)
        np.testing.assert_array_equal(alone, filled(filler, shape, seed=5)[0])
    finally:
        caffe_ext.set_num_threads(before)
    differ = np.mean(alone != other)
    assert differ > (0.1 if "sparse" in filler else 0.99)


@pytest.mark.parametrize("filler", RANDOM)
def test_layers_get_different_values(filler: str) -> None:
    first, second = filled(filler, [40, 50], draws=2)
    assert np.any(first != second)
    if "sparse" not in filler:
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1


def test_neighbours_are_independent() -> None:
    values = filled('type: "gaussian"', [1000, 1000])[0].ravel().astype(np.float64)
    for distance in (1, 2, 3, 4, 1000):
        assert abs(np.mean(values[distance:] * values[:-distance])) < 5e-3, distance
    # The tails and the middle have the weights that a normal distribution gives them.
    for limit, share in [(0.5, 0.38292), (1, 0.68269), (2, 0.95450), (3, 0.99730)]:
        assert np.mean(np.abs(values) < limit) == pytest.approx(share, abs=3e-3)


@pytest.mark.parametrize(
    ("filler", "shape", "reason"),
    [
        ('type: "gausian"', [2, 3], 'unknown filler type "gausian"; there are constant, uniform, gaussian'),
        ('type: "gaussian" std: 0', [2, 3], "std must be greater than 0, not 0"),
        ('type: "gaussian" std: -1', [2, 3], "std must be greater than 0, not -1"),
        ('type: "gaussian" sparse: 3', [2, 3], "sparse 3 does not lie between 0 and the first extent"),
        ('type: "uniform" min: 2 max: 1', [2, 3], "min 2 is greater than max 1"),
        ('type: "uniform" sparse: 1', [2, 3], "does not know `sparse`"),
        ('type: "bilinear"', [2, 3], "square kernels of 4 axes, not for 2 × 3"),
        ('type: "bilinear"', [1, 1, 3, 2], "square kernels of 4 axes, not for 1 × 1 × 3 × 2"),
    ],
)
def test_refused(filler: str, shape: list[int], reason: str) -> None:
    with pytest.raises(EngineError) as error:
        filled(filler, shape)
    assert reason in str(error.value)
    assert "l0" in str(error.value)
