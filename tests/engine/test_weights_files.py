"""Weights and solver state files: Caffe's own, ours, and damaged ones."""

import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from shared import shared

from sparknet_dsl.caffe_ext.state import read_state, write_state
from sparknet_dsl.caffe_ext.weights import fit, read_weights, write_weights
from sparknet_dsl.errors import OutputError, WeightsError
from sparknet_dsl.proto import caffe_pb2

NET = caffe_pb2.NetParameter(
    name="n",
    layer=[
        caffe_pb2.LayerParameter(name="conv", type="Convolution", bottom=["x"], top=["y"]),
        caffe_pb2.LayerParameter(name="relu", type="ReLU", bottom=["y"], top=["y"]),
    ],
)
PARAMS = {"conv": [np.arange(12, dtype=np.float32).reshape(3, 4), np.ones(3, np.float32)]}


@pytest.mark.parametrize(
    ("file", "layers"),
    [
        ("weights_v0", {"conv", "ip"}),
        ("weights_v1", {"conv", "ip"}),
        ("weights_v1.upgraded", {"conv", "ip"}),
        ("weights_v2", {"conv", "ip"}),
        ("weights_v2_partial", {"ip"}),
        ("weights_saved", {"conv", "prelu", "ip"}),
    ],
)
def test_reads_what_caffe_wrote(file: str, layers: set[str]) -> None:
    legacy = shared("golden/interop/legacy")
    got = read_weights(legacy / f"{file}.caffemodel")
    with np.load(legacy / "weights_expected.npz") as want:
        for layer in layers - {"prelu"}:
            for index, values in enumerate(got[layer]):
                expected = want[f"param:{layer}:{index}"]
                np.testing.assert_array_equal(fit(values, expected.shape, layer), expected)
    # The partial file also holds a layer that the net does not have.
    assert layers <= set(got)


def test_reads_caffes_solver_state() -> None:
    folder = shared("golden/solvers/snapshot_sgd_binaryproto")
    state = read_state(folder / "snap_iter_10.solverstate")
    assert (state.iter, state.current_step, state.learned_net) == (10, 2, "snap_iter_10.caffemodel")
    with np.load(folder / "case.npz") as case:
        assert len(state.history) == 4
        for index, values in enumerate(state.history):
            np.testing.assert_array_equal(values, case[f"history:{index}"])


def test_round_trip_keeps_settings_and_values(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "n.caffemodel"
    write_weights(path, NET, PARAMS)
    parsed = caffe_pb2.NetParameter.FromString(path.read_bytes())
    assert [list(blob.shape.dim) for blob in parsed.layer[0].blobs] == [[3, 4], [3]]
    assert list(parsed.layer[0].blobs[0].data) == list(range(12))
    for layer in parsed.layer:
        layer.ClearField("blobs")
    assert parsed == NET
    got = read_weights(path)
    assert list(got) == ["conv"]
    for ours, theirs in zip(got["conv"], PARAMS["conv"], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@given(
    arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=0, max_dims=5, max_side=4),
        elements=st.floats(width=32, allow_nan=False),
    )
)
@settings(max_examples=100)
def test_any_array_survives_a_state_file(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("state") / "s.solverstate"
    write_state(path, iter=7, learned_net="n.caffemodel", history=[values, values], current_step=1)
    state = read_state(path)
    assert (state.iter, state.learned_net, state.current_step) == (7, "n.caffemodel", 1)
    for read in state.history:
        assert read.shape == values.shape
        np.testing.assert_array_equal(read, values)


def test_values_that_are_not_packed(tmp_path: pathlib.Path) -> None:
    # Field 5 as separate 32-bit numbers (tag 0x2d), as writers without [packed] leave them; shape {dim: 2}.
    blob = b"\x2d" + np.float32(1.5).tobytes() + b"\x2d" + np.float32(-2).tobytes() + b"\x3a\x03\x0a\x01\x02"
    layer = b"\x0a\x01w" + b"\x3a" + bytes([len(blob)]) + blob
    path = tmp_path / "w.caffemodel"
    path.write_bytes(b"\xa2\x06" + bytes([len(layer)]) + layer)
    np.testing.assert_array_equal(read_weights(path)["w"][0], [1.5, -2.0])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no layers"),
        (b"not a protobuf at all", "is not a .caffemodel"),
        (b"\x89HDF\r\n\x1a\n", "is no HDF5 file that can be read, or is damaged"),
    ],
)
def test_damaged_weights_are_refused(tmp_path: pathlib.Path, content: bytes, says: str) -> None:
    path = tmp_path / "bad.caffemodel"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=says) as raised:
        read_weights(path)
    assert str(path) in str(raised.value)


def test_truncated_weights_are_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "n.caffemodel"
    write_weights(path, NET, PARAMS)
    whole = path.read_bytes()
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        try:
            got = read_weights(path)
        except WeightsError as error:
            assert str(path) in str(error)
        else:  # cut between two fields: what is left is whole
            for values in got.get("conv", []):
                assert values.size in (3, 12)


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_give_weights_or_a_clear_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "x"
    path.write_bytes(content)
    for read in (read_weights, read_state):
        try:
            read(path)
        except WeightsError as error:
            assert str(path) in str(error)


def test_missing_file_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        read_weights(tmp_path / "absent.caffemodel")


def test_shapes_that_disagree_are_both_named() -> None:
    assert fit(np.zeros((1, 1, 3, 4), np.float32), (3, 4), "ip").shape == (3, 4)
    with pytest.raises(WeightsError, match=r"ip: the file has shape 3 × 4, the net wants 4 × 3"):
        fit(np.zeros((3, 4), np.float32), (4, 3), "ip")


def test_a_failed_write_leaves_the_old_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        write_weights(tmp_path / "no" / "such" / "folder.caffemodel", NET, PARAMS)
    path = tmp_path / "n.caffemodel"
    path.mkdir()  # stands in the way of the replacement
    with pytest.raises(OutputError, match="cannot write"):
        write_weights(path, NET, PARAMS)
    assert list(tmp_path.iterdir()) == [path]
