"""Nets and files that ask for too much, or make no sense, end in an error of the tree and never in a crash.

What does not end so is for tools/fuzz_engine.py to find; a slice of it runs here.
"""

import importlib
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest
from google.protobuf import text_format
from shared import ROOT as SHARED

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import EngineError, LayerError, WeightsError
from sparknet_dsl.proto import caffe_pb2

INPUT = 'force_backward: true layer { name: "x" type: "Input" top: "x" input_param { shape { SHAPE } } }\n'


def net(shape: tuple[int, ...], *layers: str) -> caffe_pb2.NetParameter:
    text = INPUT.replace("SHAPE", " ".join(f"dim: {extent}" for extent in shape))
    text += "\n".join(f"layer {{ {layer} }}" for layer in layers)
    return text_format.Parse(text, caffe_pb2.NetParameter())


def layer(type: str, fields: str = "", bottom: str = "x", top: str = "y") -> str:
    return f"name: '{top}' type: '{type}' bottom: '{bottom}' top: '{top}' {fields}"


@pytest.fixture
def limit() -> Iterator[int]:
    """The engine may take 16 MiB more than it holds now."""
    before = caffe_ext.memory_limit()
    allowed = caffe_ext.memory_used() + (16 << 20)
    caffe_ext.set_memory_limit(allowed)
    yield allowed
    caffe_ext.set_memory_limit(before)


REFUSED = {
    "elements": (net((2**20, 2**12)), "more than 2\\^31 - 1 elements"),
    "elements beside an extent of 0": (net((0, 2**40, 2**40)), "more than 2\\^31 - 1 elements"),
    "axes": (net((1,) * 33), "at most 32 axes, not 33"),
    "negative": (net((2, -3)), "negative extent"),
    "num_output": (
        net((2, 40), layer("InnerProduct", "inner_product_param { num_output: 4294967295 }")),
        "more than 2\\^31 - 1 elements",
    ),
    "kernel": (
        net((1, 1, 4, 4), layer("Convolution", "convolution_param { num_output: 1 kernel_size: 4294967295 }")),
        "kernel_size must be at most 2147483647",
    ),
    "kernel times dilation": (
        net(
            (1, 1, 4, 4),
            layer("Im2col", "convolution_param { kernel_size: 2147483647 dilation: 2147483647 pad: 2147483647 }"),
        ),
        "kernel .* is larger than the padded input",
    ),
    "pad": (
        net((1, 1, 4, 4), layer("Pooling", "pooling_param { kernel_size: 3 pad: 4294967295 }")),
        "pad must be at most 2147483647",
    ),
    "stride": (
        net((1, 1, 2, 2), layer("Deconvolution", "convolution_param { num_output: 1 kernel_size: 1 stride: 2000000 }")),
        "more than 2\\^31 - 1 elements",
    ),
    "tiles": (net((2, 3), layer("Tile", "tile_param { tiles: 2147483647 }")), "more than 2\\^31 - 1 elements"),
    "pyramid": (net((1, 1, 4, 4), layer("SPP", "spp_param { pyramid_height: 60 }")), "pyramid_height must be between"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_too_large_is_refused_by_name(case: str) -> None:
    message, reason = REFUSED[case]
    with pytest.raises(LayerError, match=reason) as caught:
        caffe_ext.Net(message)
    assert caught.value.layer == message.layer[-1].name
    [problem, *_] = caffe_ext.check_net(message, caffe_ext.TEST).problems
    assert problem.reason == caught.value.reason


def test_net_beyond_the_memory_limit_is_refused_before_it_takes_any(limit: int) -> None:
    held = caffe_ext.memory_used()
    message = net((1025, 1024), layer("ReLU"), layer("ReLU", bottom="y", top="z"), layer("TanH", bottom="z", top="w"))
    for top in ("y", "z", "w"):
        assert caffe_ext.check_net(message, caffe_ext.TEST).blobs[top] == (1025, 1024)  # asks for none
    with pytest.raises(
        LayerError, match=r"the values take .* MiB, and the engine may use .* take a smaller batch"
    ) as why:
        caffe_ext.Net(message)
    assert (why.value.layer, why.value.kind) == ("w", "memory")
    assert caffe_ext.memory_used() == held


def test_array_beyond_the_memory_limit_is_refused_and_the_net_goes_on(limit: int) -> None:
    built = caffe_ext.Net(net((256, 1024), layer("InnerProduct", "inner_product_param { num_output: 1 }")), seed=1)
    before = built.forward()["y"].copy()
    built.blobs["x"].reshape(8192, 1024)
    with pytest.raises(EngineError, match=r"an array of 32\.0 MiB is too much: the engine holds"):
        built.forward()
    built.blobs["x"].reshape(256, 1024)
    built.blobs["x"].data[...] = 0
    np.testing.assert_array_equal(built.forward()["y"], before)


def test_memory_is_given_back() -> None:
    held = caffe_ext.memory_used()
    built = caffe_ext.Net(net((64, 1024), layer("InnerProduct", "inner_product_param { num_output: 10 }")), seed=1)
    built.forward()
    built.backward()
    assert caffe_ext.memory_used() >= held + 4 * (2 * 64 * 1024 + 2 * 10 * 1025 + 2 * 64 * 10)
    del built
    assert caffe_ext.memory_used() == held


@pytest.mark.parametrize("wrong", [0, -1])
def test_memory_limit_is_checked(wrong: int) -> None:
    with pytest.raises(EngineError, match="memory limit must be at least 1 byte"):
        caffe_ext.set_memory_limit(wrong)


@pytest.mark.parametrize("type", ["MVN", "ReLU", "Scale", "InnerProduct", "Embed", "LRN", "Reduction"])
def test_backward_wants_a_forward_pass_with_these_shapes(type: str) -> None:
    fields = {
        "InnerProduct": "inner_product_param { num_output: 2 }",
        "Embed": "embed_param { num_output: 2 input_dim: 3 }",
    }
    built = caffe_ext.Net(net((2, 3, 4, 5), layer(type, fields.get(type, ""))), seed=1)
    with pytest.raises(LayerError, match="backward needs a forward pass before it, with the same shapes"):
        built.backward()
    built.forward()
    built.blobs["x"].reshape(1, 1, 1, 1)  # values that backward would write beyond
    with pytest.raises(LayerError, match="backward needs a forward pass before it, with the same shapes"):
        built.backward()


@pytest.mark.parametrize("pool", ["MAX", "AVE"])
@pytest.mark.parametrize("settings", ["stride: 1073741824 pad: 1073741823", "stride: 1073741824"])
def test_windows_far_beyond_the_input_take_no_time(pool: str, settings: str) -> None:
    """Found by hand: oneDNN went through all of the 2^60 places of such a window."""
    fields = f"pooling_param {{ pool: {pool} kernel_size: 1073741824 {settings} }}"
    built = caffe_ext.Net(net((1, 2, 4, 4), layer("Pooling", fields)))
    built.blobs["x"].data[...] = 1
    total = built.forward()["y"].astype(np.float64)
    built.backward(y=np.ones_like(total))
    assert np.isfinite(total).all()
    if pool == "MAX":
        # Every window has its maximum somewhere in the input.
        np.testing.assert_array_equal(built.blobs["x"].diff.sum((2, 3)), [[total[0, 0].size] * 2])


def test_labels_written_after_the_forward_pass_do_no_harm() -> None:
    """Found by the fuzzer: Embed added gradients at whatever row the bottom named by then."""
    message = net(
        (3,), layer("Embed", "loss_weight: 1 propagate_down: false embed_param { num_output: 2 input_dim: 4 }")
    )
    message.force_backward = False
    built = caffe_ext.Net(message, seed=1)
    built.blobs["x"].data[...] = [0, 3, 3]
    built.forward()
    built.blobs["x"].data[...] = [1e9, -5, np.nan]
    built.backward()
    np.testing.assert_array_equal(built.params["y"][0].diff, [[1, 1], [0, 0], [0, 0], [2, 2]])


def test_reshaping_what_shares_values_does_no_harm() -> None:
    """Found by reading: x's view was as large as its shape, the memory as large as y's."""
    built = caffe_ext.Net(net((4, 5000), layer("Flatten")))
    for extent in (1, 40_000):
        built.blobs["y"].reshape(extent)
        with pytest.raises(EngineError, match=r"another blob too, which has been reshaped: call Net\.reshape\(\)"):
            _ = built.blobs["x"].data
        built.reshape()
        built.blobs["x"].data[...] = extent
        np.testing.assert_array_equal(built.forward()["y"], np.full((4, 5000), extent))


def test_inputs_written_after_a_reshape_stay() -> None:
    """Clearing gradients looks at all blobs, of which some still have the old number of elements."""
    built = caffe_ext.Net(net((4, 3), layer("Flatten"), layer("ReLU", bottom="y", top="z")))
    kept = [blob.data for blob in built.blobs.values()]
    for rows in (2, 9):
        built.blobs["x"].reshape(rows, 3)
        built.blobs["x"].data[...] = rows
        built.clear_param_diffs()
        np.testing.assert_array_equal(built.forward()["z"], np.full((rows, 3), rows))
    assert kept[0].shape == (4, 3)


def test_parameters_cannot_change_their_size_through_a_blob() -> None:
    message = text_format.Parse(
        "layer { name: 'p' type: 'Parameter' top: 'y' parameter_param { shape { dim: 3 } } }", caffe_pb2.NetParameter()
    )
    built = caffe_ext.Net(message)
    with pytest.raises(EngineError, match="these values are a parameter's, of 3 elements, and cannot become 5"):
        built.blobs["y"].reshape(5)
    assert built.blobs["y"].shape == built.blobs["y"].data.shape == (3,)


def test_device_as_a_matrix_is_refused() -> None:
    message = net(
        (2, 1), "name: 'l' type: 'InfogainLoss' bottom: 'x' bottom: 'x' infogain_loss_param { source: '/dev/zero' }"
    )
    with pytest.raises(LayerError, match="cannot read /dev/zero"):
        caffe_ext.Net(message)


@pytest.mark.parametrize("type", ["Convolution", "Deconvolution"])
def test_kernels_without_end_are_refused(type: str) -> None:
    fields = "convolution_param { num_output: 2 kernel_size: 65536 pad: 65536 }"
    with pytest.raises(LayerError, match="kernel 65536 is larger than 32767"):
        caffe_ext.Net(net((4, 3, 3), layer(type, fields)))


@pytest.mark.parametrize("shape", [(1,) * 33, (0, 2**31 - 1, 2**31 - 1, 2**31 - 1), (0, 2**62), (2**16, 2**15)])
def test_shapes_in_files_have_the_same_limits(shape: tuple[int, ...], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(caffe_pb2.BlobProto(shape={"dim": shape}).SerializeToString())
    with pytest.raises(WeightsError, match=r"mean\.binaryproto: shape .* is too large"):
        caffe_ext.read_mean(path)


def test_long_names_are_refused_soon() -> None:
    message = net((1,), *(layer("Split", top=f"{'a' * 20_000}{i}") for i in range(50)))
    message.layer[-1].bottom[0] = "b" * 20_000
    with pytest.raises(LayerError, match="no layer above it makes its bottom"):
        caffe_ext.Net(message)


@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_nets_and_files_end_in_errors(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(pathlib.Path(__file__).resolve().parents[2] / "tools")
    fuzz = importlib.import_module("fuzz_engine")
    golden = SHARED / "golden" / "layers"
    wrong = fuzz.run(3, seed, golden if golden.is_dir() else None, report=False)
    assert not wrong, "\n\n".join(wrong)
