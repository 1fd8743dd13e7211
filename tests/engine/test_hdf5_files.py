"""Weights and solver states in HDF5 files: Caffe's own, ours, and damaged ones."""

import pathlib

import h5py
import numpy as np
import pytest
from google.protobuf import text_format
from shared import shared

from sparknet_dsl import caffe_ext
from sparknet_dsl.caffe_ext.state import read_state, write_state
from sparknet_dsl.errors import WeightsError
from sparknet_dsl.proto import caffe_pb2

# `second` shares the weights of `part/first`, and has a bias of its own.
NET = text_format.Parse(
    """
    layer { name: "x" type: "Input" top: "x" top: "t" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "part/first" type: "InnerProduct" bottom: "x" top: "y" param { name: "w" }
            inner_product_param { num_output: 3 weight_filler { type: "xavier" } bias_filler { value: 1 } } }
    layer { name: "second" type: "InnerProduct" bottom: "y" top: "z" param { name: "w" }
            inner_product_param { num_output: 3 bias_filler { value: 2 } } }
    layer { name: "loss" type: "EuclideanLoss" bottom: "z" bottom: "t" }
    """,
    caffe_pb2.NetParameter(),
)


def layout(path: pathlib.Path) -> dict[str, object]:
    """Every group and dataset of a file, with what the dataset is."""
    found: dict[str, object] = {}

    def visit(name: str, item: object) -> None:
        kind = item.id.get_type() if isinstance(item, h5py.Dataset) else None
        found[name] = None if kind is None else (item.shape, kind)  # type: ignore[attr-defined]

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def test_caffes_weights() -> None:
    legacy = shared("golden/interop/legacy")
    net = caffe_ext.Net(legacy / "target_net.prototxt", caffe_ext.TEST)
    net.flat_data[:] = 0.125
    net.copy_from(legacy / "weights.caffemodel.h5")
    with np.load(legacy / "weights_expected.npz") as want:
        for name, blobs in net.params.items():
            for index, blob in enumerate(blobs):
                # All of PReLU's are 0.125.
                expected = 0.125 if name == "prelu" else want[f"param:{name}:{index}"]
                np.testing.assert_array_equal(blob.data, np.broadcast_to(expected, blob.shape))
        np.testing.assert_allclose(net.forward(x=want["in:x"])["ip"], want["out_ip:weights_h5"], rtol=1e-4, atol=1e-5)
    assert set(caffe_ext.read_weights(legacy / "weights.caffemodel.h5")) == {"conv", "prelu", "ip"}


def test_our_files_are_laid_out_as_caffes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared("golden/solvers/snapshot_adam_hdf5")
    monkeypatch.chdir(folder)
    solver = caffe_ext.get_solver("solver.prototxt")
    solver.restore("snap_iter_10.solverstate.h5")
    monkeypatch.chdir(tmp_path)
    written = solver.snapshot("snap")
    assert written == ("snap_iter_10.caffemodel.h5", "snap_iter_10.solverstate.h5")
    for name in written:
        assert layout(tmp_path / name) == layout(folder / name)
        with h5py.File(name) as ours, h5py.File(folder / name) as caffes:
            for key, what in layout(folder / name).items():
                if what is not None:
                    np.testing.assert_array_equal(ours[key][()], caffes[key][()])


def test_shared_parameters_are_written_once(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "n.caffemodel.h5"
    first = caffe_ext.Net(NET, caffe_ext.TRAIN, seed=1)
    first.params["second"][1].data[...] = [4, 5, 6]
    first.save_hdf5(path)
    sets = {name for name, what in layout(path).items() if what is not None}
    assert sets == {"data/part/first/0", "data/part/first/1", "data/second/1"}
    again = caffe_ext.Net(NET, caffe_ext.TEST, seed=2, weights=path)
    np.testing.assert_array_equal(again.flat_data, first.flat_data)
    with pytest.raises(WeightsError, match="layer `second` has but the parameters 1"):
        caffe_ext.read_weights(path)


def refused(path: pathlib.Path, says: str) -> None:
    net = caffe_ext.Net(NET, caffe_ext.TEST, seed=2)
    before = net.flat_data.copy()
    with pytest.raises(WeightsError, match=says) as raised:
        net.copy_from(path)
    assert str(path) in str(raised.value)
    np.testing.assert_array_equal(net.flat_data, before)


def test_weights_that_do_not_fit_change_nothing(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "n.h5"
    caffe_ext.Net(NET, caffe_ext.TRAIN, seed=1).save_hdf5(path)
    with h5py.File(path, "a") as file:
        del file["data/second/1"]
    refused(path, "layer `second` lacks parameter 1 there")
    with h5py.File(path, "a") as file:
        file["data/second/1"] = np.zeros(4, np.float32)
    refused(path, "layer `second`, parameter 1: the file has shape 4, the net wants 3")
    with h5py.File(path, "a") as file:
        del file["data/second/1"]
        file["data/second/1"] = np.zeros(3, np.float32)
        file["data/second/2"] = np.zeros(3, np.float32)
    refused(path, "layer `second` has 3 parameters there and 2 in this net")
    with h5py.File(path, "a") as file:
        del file["data/second/2"]
        file["data/second/x"] = 1
    refused(path, "layer `second` has a parameter that is no number: 1, x")
    with h5py.File(path, "a") as file:
        del file["data/second/x"], file["data/second/1"]
        file["data/second/1"] = "text"
    refused(path, "layer `second`, parameter 1 is no dataset of numbers")
    with h5py.File(path, "w") as file:
        file["weights"] = 1
    refused(path, "has no group `data`")


def test_damaged_weights_change_nothing(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "n.h5"
    net = caffe_ext.Net(NET, caffe_ext.TRAIN, seed=1)
    net.save_hdf5(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 199):
        path.write_bytes(whole[:length])
        refused(path, "damaged|is not a .caffemodel|holds no layers")
    # Single bytes: values may be others then, but nothing else happens.
    for place in range(8, len(whole), 61):
        spoilt = bytearray(whole)
        spoilt[place] ^= 0xFF
        path.write_bytes(spoilt)
        try:
            net.copy_from(path)
        except WeightsError as error:
            assert str(path) in str(error)


def test_states(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s.solverstate.h5"
    history = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(3, np.float32)] * 6  # "10" comes before "2"
    write_state(path, iter=7, learned_net="a/ü.caffemodel.h5", history=history, current_step=2)
    state = read_state(path)
    assert (state.iter, state.learned_net, state.current_step) == (7, "a/ü.caffemodel.h5", 2)
    assert len(state.history) == 12
    for got, want in zip(state.history, history, strict=True):
        np.testing.assert_array_equal(got, want)
    whole = path.read_bytes()
    for length in range(0, len(whole), 997):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"s\.solverstate\.h5"):
            read_state(path)
    for name, value, says in [
        ("iter", None, "has no number `iter`: it is no solver state"),
        ("iter", 1.5, "has no number `iter`"),
        ("current_step", np.zeros(2, int), "has no number `current_step`"),
        ("learned_net", 3, "`learned_net` is no text"),
        ("history", None, "`history` must be a group of the datasets 0, 1, ..."),
        ("history/4", None, "`history` must be a group"),
        ("history/4", "text", "history 4 is no dataset of numbers"),
    ]:
        path.write_bytes(whole)
        with h5py.File(path, "a") as file:
            del file[name]
            if value is not None:
                file[name] = value
        with pytest.raises(WeightsError, match=says):
            read_state(path)
