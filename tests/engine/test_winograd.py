"""Convolutions that save multiplications: near what their definition gives in double precision, by stated bounds."""

from dataclasses import dataclass

import numpy as np
import pytest
from one_layer import message_of

from sparknet_dsl import caffe_ext
from sparknet_dsl.proto import caffe_pb2

pytestmark = pytest.mark.skipif(not caffe_ext.isa().startswith("avx512"), reason="taken with AVX-512 only")

# Most that a value may be off, in root mean squares of all values, for operands from a normal distribution: three times
# what was found. By the definition (winograd=False) it is 2e-5.
BOUND = {3: 3e-5, 5: 1.2e-4}
FILLERS = 'weight_filler { type: "gaussian" std: 0.3 } bias_filler { type: "gaussian" }'
WINOGRAD, DEFINITION = True, False


@dataclass(frozen=True)
class Case:
    shape: tuple[int, int, int, int]  # of the bottom
    outputs: int
    kernel: int
    pads: tuple[int, int]
    groups: int = 1
    settings: str = ""

    def layer(self, kind: str) -> str:
        return (
            f'type: "{kind}" convolution_param {{ num_output: {self.outputs} kernel_size: {self.kernel} '
            f"pad_h: {self.pads[0]} pad_w: {self.pads[1]} group: {self.groups} {self.settings} {FILLERS} }}"
        )


# Whole tiles and parts of them, an odd number of blocks of 16 channels, several groups, no and the most padding.
CASES = {
    "3x3": Case((4, 32, 13, 13), 48, 3, (1, 1)),
    "3x3-groups": Case((8, 64, 12, 9), 96, 3, (1, 1), 2),
    "3x3-no-pad": Case((4, 16, 18, 14), 16, 3, (0, 0), settings="bias_term: false"),
    "3x3-pads": Case((9, 48, 7, 10), 16, 3, (2, 0)),
    "3x3-many": Case((2, 16, 40, 61), 32, 3, (1, 1)),
    "5x5": Case((4, 32, 13, 15), 48, 5, (2, 2)),
    "5x5-groups": Case((8, 96, 8, 9), 64, 5, (2, 2), 2, "bias_term: false"),
    "5x5-no-pad": Case((4, 16, 20, 21), 16, 5, (0, 0)),
    "5x5-pads": Case((4, 16, 9, 16), 80, 5, (4, 1)),
}


def net_of(case: Case, kind: str, winograd: bool, phase: int = caffe_ext.TRAIN) -> caffe_ext.Net:
    return caffe_ext.Net(message_of(case.layer(kind), case.shape, force=True), phase, seed=5, winograd=winograd)


def operands(net: caffe_ext.Net) -> dict[str, np.ndarray]:
    """Fills the net; the top's gradient among them."""
    rng = np.random.default_rng(3)
    arrays = {"x": net.blobs["x0"].data, "dy": net.blobs["y"].diff}
    arrays |= {f"w{i}": blob.data for i, blob in enumerate(net.params["l"])}
    for values in arrays.values():
        values[...] = rng.standard_normal(values.shape)
    return {name: values.copy() for name, values in arrays.items()}


def passes(net: caffe_ext.Net, times: int = 1) -> list[np.ndarray]:
    """Output, the bottom's gradient, the parameters' gradients."""
    dy = net.blobs["y"].diff.copy()
    net.clear_param_diffs()
    for _ in range(times):
        net.forward()
        net.blobs["y"].diff[...] = dy
        net.backward()
    arrays = [net.blobs["y"].data, net.blobs["x0"].diff, *(blob.diff for blob in net.params["l"])]
    return [values.copy() for values in arrays]


def correlation(wide: np.ndarray, weights: np.ndarray, narrow: np.ndarray, case: Case) -> list[np.ndarray]:
    """By the definition, in double precision: the narrow array (without bias), the gradients of `wide` and `weights`.

    `narrow`: the gradient that comes in.
    """
    (images, _, height, width), (h, w) = wide.shape, case.pads
    padded = np.pad(wide, ((0, 0), (0, 0), (h, h), (w, w)))
    parts = [values.reshape(images, case.groups, -1, *values.shape[2:]) for values in (padded, narrow)]
    kernels = weights.reshape(case.groups, -1, *weights.shape[1:])
    result, spread, gradient = np.zeros_like(parts[1]), np.zeros_like(parts[0]), np.zeros_like(kernels)
    for i, j in np.ndindex(case.kernel, case.kernel):
        window = (..., slice(i, i + narrow.shape[2]), slice(j, j + narrow.shape[3]))
        result += np.einsum("ngchw,goc->ngohw", parts[0][window], kernels[..., i, j], optimize=True)
        spread[window] += np.einsum("ngohw,goc->ngchw", parts[1], kernels[..., i, j], optimize=True)
        gradient[..., i, j] = np.einsum("ngohw,ngchw->goc", parts[1], parts[0][window], optimize=True)
    spread = spread.reshape(padded.shape)[..., h : h + height, w : w + width]
    return [result.reshape(narrow.shape), spread, gradient.reshape(weights.shape)]


def expected(case: Case, kind: str, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What passes() ought to give."""
    x, dy, weights = (values[name].astype(np.float64) for name in ("x", "dy", "w0"))
    if kind == "Convolution":
        y, dx, gradient = correlation(x, weights, dy, case)
    else:
        dx, y, gradient = correlation(dy, weights, x, case)
    if "w1" not in values:
        return [y, dx, gradient]
    return [y + values["w1"].astype(np.float64)[:, None, None], dx, gradient, dy.sum((0, 2, 3))]


@pytest.mark.parametrize("winograd", [WINOGRAD, DEFINITION])
@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize("name", CASES)
def test_error_is_bounded(name: str, kind: str, winograd: bool) -> None:
    case = CASES[name]
    net = net_of(case, kind, winograd)
    want = expected(case, kind, operands(net))
    bound = BOUND[case.kernel] if winograd else 2e-5
    for got, exact in zip(passes(net), want, strict=True):
        assert np.abs(got - exact).max() <= bound * np.sqrt(np.mean(exact**2))


def differs(case: Case, kind: str = "Convolution", precision: caffe_ext.Precision = "float32") -> bool:
    """Whether the layer computes in another way if it may."""
    outputs = []
    for winograd in (WINOGRAD, DEFINITION):
        message = message_of(case.layer(kind), case.shape)
        net = caffe_ext.Net(message, caffe_ext.TRAIN, seed=5, winograd=winograd, precision=precision)
        operands(net)
        net.forward()
        outputs.append(net.blobs["y"].data.copy())
    return not np.array_equal(*outputs)


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_taken(name: str, kind: str) -> None:
    assert differs(CASES[name], kind)


LARGE = (4, 32, 13, 13)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(Case(LARGE, 32, 3, (1, 1), settings="stride: 2"), id="stride"),
        pytest.param(Case(LARGE, 32, 3, (1, 1), settings="dilation: 2"), id="dilation"),
        pytest.param(Case(LARGE, 32, 1, (0, 0)), id="1x1"),
        pytest.param(Case(LARGE, 32, 7, (3, 3)), id="7x7"),
        pytest.param(Case(LARGE, 32, 3, (3, 1)), id="pad"),
        pytest.param(Case(LARGE, 24, 3, (1, 1)), id="part-of-a-block"),
        pytest.param(Case(LARGE, 32, 3, (1, 1), 32), id="depthwise"),
        pytest.param(Case((1, 32, 13, 13), 32, 3, (1, 1)), id="few-tiles"),
        pytest.param(Case((64, 32, 1, 1), 32, 3, (1, 1)), id="mostly-padding"),
    ],
)
def test_it_is_not_taken(case: Case) -> None:
    assert not differs(case)


def test_it_is_not_taken_in_bfloat16() -> None:
    assert not differs(CASES["3x3"], precision="bf16")


@pytest.mark.parametrize("name", ["3x3-groups", "5x5"])
def test_gradients_add_up(name: str) -> None:
    found = []
    for times in (1, 2):
        net = net_of(CASES[name], "Convolution", WINOGRAD)
        operands(net)
        found.append(passes(net, times))
    once, twice = found
    for one, two in zip(once[2:], twice[2:], strict=True):
        np.testing.assert_allclose(two, 2 * one, rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(twice[1], once[1])  # the bottom's is overwritten


@pytest.mark.parametrize("wanted", ["weights", "bias"])
def test_gradients_that_nobody_wants_are_left_alone(wanted: str) -> None:
    message = message_of(CASES["3x3"].layer("Convolution"), CASES["3x3"].shape)
    message.layer[-1].loss_weight.append(1)
    message.layer[-1].param.extend(caffe_pb2.ParamSpec(lr_mult=name == wanted) for name in ("weights", "bias"))
    found = []
    for winograd in (WINOGRAD, DEFINITION):
        net = caffe_ext.Net(message, caffe_ext.TRAIN, seed=5, winograd=winograd)
        operands(net)
        found.append(passes(net)[2:])
    for own, other, name in zip(*found, ("weights", "bias"), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-3)
        assert own.any() == (name == wanted)


@pytest.mark.parametrize("name", ["3x3-many", "3x3-groups", "5x5-groups"])
def test_the_number_of_threads_does_not_matter(name: str) -> None:
    threads = caffe_ext.num_threads()
    found = []
    try:
        for number in (1, 2, 5):
            caffe_ext.set_num_threads(number)
            net = net_of(CASES[name], "Convolution", WINOGRAD)
            operands(net)
            found.append(passes(net))
    finally:
        caffe_ext.set_num_threads(threads)
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


def test_kept_weights_are_made_anew_when_they_change() -> None:
    """In inference the weights are transformed once."""
    case = CASES["3x3"]
    message = message_of(case.layer("Convolution"), case.shape)
    net = caffe_ext.Net(message, caffe_ext.TEST, seed=5)
    other = caffe_ext.Net(message, caffe_ext.TEST, seed=6)
    net.blobs["x0"].data[...] = other.blobs["x0"].data[...] = 1
    first = net.forward()["y"].copy()
    np.testing.assert_array_equal(net.forward()["y"], first)
    other.forward()
    net.share_with(other)
    np.testing.assert_array_equal(net.forward()["y"], other.blobs["y"].data)
    net.params["l"][0].data[...] = 0  # the view is alive from here on
    net.params["l"][1].data[...] = 2
    np.testing.assert_array_equal(net.forward()["y"], np.full_like(first, 2))
    net.params["l"][1].data[...] = 3
    np.testing.assert_array_equal(net.forward()["y"], np.full_like(first, 3))


@pytest.mark.parametrize("name", ["3x3", "5x5"])
def test_a_relu_runs_with_it(name: str) -> None:
    case = CASES[name]
    message = message_of(case.layer("Convolution"), case.shape)
    message.layer.add(name="relu", type="ReLU", bottom=["y"], top=["y"])
    fused, apart = (caffe_ext.Net(message, caffe_ext.TEST, seed=5, fusion=fusion) for fusion in (True, False))
    assert (1, 0) in fused._native.absorbed()
    values = np.random.default_rng(0).standard_normal(case.shape)
    values[0, 3, 2, 2] = np.nan
    for net in (fused, apart):
        net.blobs["x0"].data[...] = values
        net.forward()
    np.testing.assert_array_equal(fused.blobs["y"].data, apart.blobs["y"].data)
    assert (fused.blobs["y"].data == 0).any() and (fused.blobs["y"].data > 0).any()


def test_scratch_memory_is_given_back() -> None:
    def held(winograd: bool) -> int:
        before = caffe_ext.memory_used()
        net = net_of(CASES["3x3"], "Convolution", winograd)
        operands(net)
        passes(net)
        return caffe_ext.memory_used() - before

    assert held(WINOGRAD) == held(DEFINITION) > 0


def test_solvers_pass_it_on() -> None:
    case = CASES["3x3"]
    net = message_of(case.layer("Convolution"), case.shape)
    net.layer.add(name="loss", type="Reduction", bottom=["y"], top=["loss"], loss_weight=[1])
    losses = []
    for winograd in (WINOGRAD, DEFINITION):
        param = caffe_pb2.SolverParameter(base_lr=0, lr_policy="fixed", max_iter=1)
        solver = caffe_ext.Solver(param, net, seed=5, winograd=winograd)
        solver.net.blobs["x0"].data[...] = np.random.default_rng(0).standard_normal(case.shape)
        solver.step(1)
        losses.append(solver.net.blobs["y"].data.copy())
    assert not np.array_equal(*losses)
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-3)
