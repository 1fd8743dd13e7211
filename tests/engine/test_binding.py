"""What Python sees of the engine: views, their lifetime, threads, errors, memory."""

import ast
import copy
import gc
import pathlib
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from sparknet_dsl import caffe_ext, errors
from sparknet_dsl.caffe_ext import TEST, TRAIN, _native
from sparknet_dsl.errors import EngineError, LayerError
from sparknet_dsl.proto import caffe_pb2

HERE = pathlib.Path(__file__).resolve().parent
# Sixteen channels and more: oneDNN keeps such blobs in blocked layouts.
NET = text_format.Parse(
    """
    name: "blocked"
    layer { name: "x" type: "Input" top: "x" top: "t"
            input_param { shape { dim: 4 dim: 3 dim: 12 dim: 12 } shape { dim: 4 } } }
    layer { name: "c1" type: "Convolution" bottom: "x" top: "c1"
            convolution_param { num_output: 20 kernel_size: 3 weight_filler { type: "xavier" } } }
    layer { name: "r1" type: "ReLU" bottom: "c1" top: "c1" }
    layer { name: "c2" type: "Convolution" bottom: "c1" top: "c2"
            convolution_param { num_output: 32 kernel_size: 3 weight_filler { type: "xavier" } } }
    layer { name: "p" type: "Pooling" bottom: "c2" top: "p" pooling_param { kernel_size: 2 stride: 2 } }
    layer { name: "ip" type: "InnerProduct" bottom: "p" top: "ip"
            inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "t" top: "loss" }
    """,
    caffe_pb2.NetParameter(),
)
X = np.random.default_rng(0).standard_normal((4, 3, 12, 12)).astype(np.float32)
T = np.array([1, 0, 9, 4], np.float32)


def built(seed: int = 1, phase: int = TRAIN) -> caffe_ext.Net:
    return caffe_ext.Net(NET, phase, seed=seed)


def run(net: caffe_ext.Net) -> float:
    net.forward(x=X, t=T)
    net.clear_param_diffs()
    net.backward()
    return net.loss


def solver_of(net: caffe_pb2.NetParameter = NET, seed: int = 1) -> caffe_ext.Solver:
    return caffe_ext.Solver(caffe_pb2.SolverParameter(base_lr=0.01, momentum=0.9, lr_policy="fixed"), net, seed=seed)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


# ---- views ----


def test_views_are_float32_arrays_in_c_order() -> None:
    net = built()
    run(net)
    for blob in (*net.blobs.values(), *net.params["c1"]):
        for view in (blob.data, blob.diff):
            assert view.dtype == np.float32 and view.shape == blob.shape
            assert view.flags.c_contiguous and view.flags.writeable and not view.flags.owndata
    assert net.blobs["loss"].data.shape == ()
    assert [(b.num, b.channels, b.height, b.width, b.count) for b in (net.blobs["c1"], net.blobs["t"])] == [
        (4, 20, 10, 10, 8000),
        (4, 1, 1, 1, 4),
    ]
    assert repr(net.blobs["c1"]) == "<Blob c1 (4, 20, 10, 10)>"


def test_writing_takes_effect_whatever_layout_the_engine_holds() -> None:
    net, plain = built(), built()
    run(net)
    run(plain)
    # c1 lies blocked between the convolutions; from c2 on all is computed from what is written here.
    values = np.random.default_rng(1).standard_normal(net.blobs["c1"].shape).astype(np.float32)
    net.blobs["c1"].data[...] = values
    net._native.forward(3, len(net.layers))
    assert net.blobs["c2"].data.any()
    weights, bias = (blob.data for blob in net.params["c2"])
    patches = np.lib.stride_tricks.sliding_window_view(values, (3, 3), axis=(2, 3))
    want = np.einsum("nchwij,ocij->nohw", patches, weights) + bias[:, None, None]
    np.testing.assert_allclose(net.blobs["c2"].data, want, rtol=1e-4, atol=1e-4)
    # A gradient written in the middle, too.
    net.blobs["p"].diff[...] = 0
    net.clear_param_diffs()
    net._native.backward(0, 5)
    assert not net.params["c1"][0].diff.any() and not net.blobs["c1"].diff.any()


def test_a_view_that_is_kept_stays_live() -> None:
    net, other = built(), built()
    views = {name: (blob.data, blob.diff) for name, blob in net.blobs.items()}
    weights = net.params["c2"][0].data
    for step in range(3):
        net.blobs["x"].data[...] = other.blobs["x"].data[...] = X * (step + 1)
        assert run(net) == run(other)
        for name, (data, diff) in views.items():
            np.testing.assert_array_equal(data, other.blobs[name].data)
            np.testing.assert_array_equal(diff, other.blobs[name].diff)
        weights *= 0.5
        other.params["c2"][0].data[...] *= 0.5
    views["x"][0][...] = 0
    net._native.forward(0, 2)
    bias = net.params["c1"][1].data[:, None, None]
    np.testing.assert_array_equal(net.blobs["c1"].data, np.broadcast_to(bias, (4, 20, 10, 10)))


def test_parameters_written_between_passes_are_seen() -> None:
    # The layer keeps a copy in oneDNN's layout, which must follow.
    net = built()
    before = run(net)
    for write in (lambda: net.params["c2"][0].data, lambda: net.flat_data):
        view = write()
        saved = view.copy()
        view[...] = 0
        del view
        assert run(net) != before
        write()[...] = saved
        assert run(net) == before
    kept = net.params["c2"][0].data
    saved = kept.copy()
    for scale in (0, 2, 1):
        kept[...] = saved * scale
        assert (run(net) == before) == (scale == 1)


def test_flat_views() -> None:
    net = built()
    flat, diff = net.flat_data, net.flat_diff
    assert flat.shape == (sum(blob.count for blobs in net.params.values() for blob in blobs),)
    at = 0
    run(net)
    for blobs in net.params.values():
        for blob in blobs:
            np.testing.assert_array_equal(flat[at : at + blob.count], blob.data.ravel())
            np.testing.assert_array_equal(diff[at : at + blob.count], blob.diff.ravel())
            at += blob.count
    assert diff.any()
    net.clear_param_diffs()
    assert not diff.any()
    flat[:] = 0
    assert not net.params["ip"][0].data.any()
    run(net)
    assert net.loss == pytest.approx(np.log(10))


def test_training_through_views_equals_training_without() -> None:
    one, other = solver_of(), solver_of()
    flat, history = one.net.flat_data, one.flat_history
    watched = [one.net.blobs[name].data for name in one.net.blobs]
    for k in range(5):
        for solver in (one, other):
            solver.net.blobs["x"].data[...] = X + k
            solver.net.blobs["t"].data[...] = T
        assert one.step(1) == other.step(1)
    np.testing.assert_array_equal(flat, other.net.flat_data)
    np.testing.assert_array_equal(history, other.flat_history)
    np.testing.assert_array_equal(watched[2], other.net.blobs["c1"].data)


def test_views_outlive_their_net() -> None:
    net = built()
    run(net)
    views = [net.blobs["c1"].data, net.params["ip"][0].data, net.flat_data, net.flat_diff]
    copies = [view.copy() for view in views]
    blob = net.blobs["c2"]
    del net
    gc.collect()
    [built(seed) for seed in range(3)]  # somebody else takes what memory was freed
    for view, values in zip(views, copies, strict=True):
        np.testing.assert_array_equal(view, values)
    views[2][:] = 1
    assert (views[1] == 1).all()  # still the same memory
    assert blob.data.shape == (4, 32, 8, 8)


def test_a_view_from_before_a_reshape_is_harmless() -> None:
    net = built()
    run(net)
    old = net.blobs["c1"].data
    net.blobs["x"].reshape(64, 3, 12, 12)
    net.blobs["t"].reshape(64)
    net.reshape()
    net.forward()
    old[...] = 5
    assert old.shape == (4, 20, 10, 10) and net.blobs["c1"].data.shape == (64, 20, 10, 10)
    assert not (net.blobs["c1"].data == 5).all()


def test_blobs_of_no_elements() -> None:
    net = caffe_ext.Net(
        text_format.Parse(
            'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } }', caffe_pb2.NetParameter()
        ),
        TEST,
    )
    net.blobs["x"].reshape(0, 3)
    assert net.blobs["x"].data.shape == (0, 3)
    net.blobs["x"].reshape()
    assert net.blobs["x"].data.shape == ()


@pytest.mark.parametrize("shape", [(-1,), (2**31,), (2**20, 2**20)])
def test_shapes_that_are_none(shape: tuple[int, ...]) -> None:
    net = built()
    with pytest.raises(EngineError):
        net.blobs["x"].reshape(*shape)
    assert net.blobs["x"].shape == (4, 3, 12, 12)
    with pytest.raises(EngineError, match="cannot be reshaped"):
        net.params["ip"][0].reshape(3)
    run(net)


def test_objects_cannot_be_copied_or_made_by_hand() -> None:
    for thing in (built().blobs["x"], built()._native, solver_of()._native):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
        with pytest.raises(TypeError):
            copy.copy(thing)
    with pytest.raises(TypeError, match="made by a Net"):
        caffe_ext.Blob()


# ---- threads ----


def test_two_solvers_in_two_threads() -> None:
    def train(seed: int, out: dict[int, Any]) -> None:
        solver = solver_of(seed=seed)

        def feed(k: int) -> None:
            solver.net.blobs["x"].data[...] = X + k
            solver.net.blobs["t"].data[...] = T

        losses = solver.step(20, feed)
        out[seed] = losses, solver.net.flat_data.copy()

    alone: dict[int, Any] = {}
    for seed in (1, 2):
        train(seed, alone)
    together: dict[int, Any] = {}
    threads = [threading.Thread(target=train, args=(seed, together)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in (1, 2):
        assert together[seed][0] == alone[seed][0]
        np.testing.assert_array_equal(together[seed][1], alone[seed][1])


def slow_net() -> caffe_ext.Net:
    message = caffe_pb2.NetParameter()
    message.CopyFrom(NET)
    message.layer[0].input_param.shape[0].dim[:] = [256, 3, 64, 64]
    message.layer[0].input_param.shape[1].dim[:] = [256]
    return caffe_ext.Net(message, TRAIN, seed=1)


def test_a_net_serves_one_thread_and_leaves_the_others_running() -> None:
    net = slow_net()
    refused: list[str] = []
    ticks = 0
    thread = threading.Thread(target=net.forward)
    thread.start()
    while thread.is_alive():
        ticks += 1  # the GIL is free meanwhile
        if not refused:
            for call in (net.forward, net.reshape, lambda: net.blobs["c1"].data, lambda: net.flat_data):
                try:
                    call()
                except EngineError as error:
                    refused.append(str(error))
    thread.join()
    assert ticks > 10
    assert refused and "computing in another thread" in refused[0]
    net.forward()


def test_dropping_views_while_another_thread_computes() -> None:
    net = slow_net()
    views = [blob.data for blob in net.blobs.values()] + [net.flat_data]
    thread = threading.Thread(target=net.forward)
    thread.start()
    views.clear()
    gc.collect()
    thread.join()
    first = net.loss
    net.forward()
    assert net.loss == first


def test_number_of_threads() -> None:
    before = caffe_ext.num_threads()
    try:
        caffe_ext.set_num_threads(1)
        assert caffe_ext.num_threads() == 1
        one = solver_of().step(3)
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(caffe_ext.num_threads()))
        thread.start()
        thread.join()
        assert seen == [1]
        caffe_ext.set_num_threads(2)
        assert solver_of().step(3) == pytest.approx(one, rel=1e-5)
        for wrong in (0, -1):
            with pytest.raises(EngineError, match="at least 1"):
                caffe_ext.set_num_threads(wrong)
    finally:
        caffe_ext.set_num_threads(before)
    assert caffe_ext.isa()


def test_same_seed_same_numbers_in_two_processes() -> None:
    code = (
        f"import sys, hashlib; sys.path[:0] = {[str(HERE), str(HERE.parent)]!r}; import test_binding as t\n"
        "s = t.solver_of(); s.net.blobs['x'].data[...] = t.X; s.net.blobs['t'].data[...] = t.T; s.step(5)\n"
        "print(hashlib.sha256(s.net.flat_data.tobytes()).hexdigest())"
    )
    # -P: a checkout in the working directory holds the package without its engine.
    command = [sys.executable, "-P", "-c", code]
    outputs = {subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(outputs) == 1 and len(outputs.pop()) == 65


# ---- errors ----


def test_errors_name_layer_type_and_reason() -> None:
    net = built()
    net.blobs["t"].data[...] = 99
    with pytest.raises(LayerError) as raised:
        net.forward()
    error = raised.value
    assert (error.layer, error.type, error.kind) == ("loss", "SoftmaxWithLoss", "data")
    assert str(error) == f"layer `loss` (SoftmaxWithLoss): {error.reason}"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert isinstance(error, errors.EngineError) and error.exit_code == 1
    run(net)  # still usable


def test_texts_of_any_language() -> None:
    message = caffe_pb2.NetParameter(name="нейросеть", layer=[caffe_pb2.LayerParameter(name="слой", type="キ")])
    with pytest.raises(LayerError, match="layer `слой`"):
        caffe_ext.Net(message, TEST)


def test_an_enum_and_defaults_reach_the_layer() -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" top: "y" input_param { shape { dim: 3 } } }
    layer { name: "e" type: "Eltwise" bottom: "x" bottom: "y" top: "z" %s }
    """
    for extra, want in [
        ("", 7.0),
        ("eltwise_param { operation: PROD }", 12.0),
        ("eltwise_param { operation: MAX }", 4.0),
    ]:
        net = caffe_ext.Net(text_format.Parse(text % extra, caffe_pb2.NetParameter()), TEST)
        assert (net.forward(x=np.full(3, 3.0), y=np.full(3, 4.0))["z"] == want).all()


def test_scalars_through_layers() -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" top: "y" input_param { shape { } } }
    layer { name: "s" type: "Scale" bottom: "x" bottom: "y" top: "z" }
    """
    net = caffe_ext.Net(text_format.Parse(text, caffe_pb2.NetParameter()), TEST)
    assert net.forward(x=3, y=5)["z"] == 15


def test_public_names() -> None:
    assert len(set(caffe_ext.__all__)) == len(caffe_ext.__all__)
    for name in caffe_ext.__all__:
        assert getattr(caffe_ext, name) is not None


def test_the_native_modules_interface_is_described() -> None:
    """Every public name of the compiled module stands in its .pyi, and nothing else."""
    stub = ast.parse((pathlib.Path(caffe_ext.__file__).parent / "_native.pyi").read_text())
    described = {node.name: node for node in stub.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    internal = {"View", "Schema", "Guard", "Script"}
    public = {
        name
        for name, value in vars(_native).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == _native.__name__
    }
    assert public - internal - {"EngineError", "LayerError"} == set(described)
    for name, node in described.items():
        if isinstance(node, ast.ClassDef):
            members = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            real = {member for member in vars(getattr(_native, name)) if not member.startswith("_")}
            assert {member for member in members if not member.startswith("_")} <= real, name


# ---- memory ----


def resident() -> int:
    """KiB of memory that this process has now."""
    fields = pathlib.Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4


@pytest.mark.usefixtures("one_thread")
def test_a_hundred_nets_do_not_leak() -> None:
    def once(seed: int) -> None:
        solver = solver_of(seed=seed)
        solver.net.blobs["x"].reshape(32, 3, 12, 12)
        solver.net.blobs["t"].reshape(32)
        solver.step(1)
        kept = [blob.data for blob in solver.net.blobs.values()]
        assert kept
        with pytest.raises(LayerError):
            solver.net.blobs["t"].data[...] = 99
            solver.step(1)

    for seed in range(20):
        once(seed)
    gc.collect()
    before = resident()
    for seed in range(100):
        once(seed)
    gc.collect()
    # A net of this size takes 4 MiB; without its memory returned a hundred would take 400.
    assert resident() - before < 40 * 1024


@pytest.mark.usefixtures("one_thread")
def test_steps_do_not_leak() -> None:
    solver = solver_of()
    solver.step(50)
    before = resident()
    for _ in range(500):
        solver.step(1)
        solver.net.flat_data[:] = solver.net.flat_data
        solver.flat_history[:] = 0
        solver.net.forward()
    assert resident() - before < 8 * 1024
