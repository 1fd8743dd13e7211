"""Equal seeds and numbers of threads give equal bits, and a net goes on as if nothing had been after an error.

The net has what could break either: random numbers, statistics, sums over the batch, oneDNN's layouts, shared storage,
recurrent state.
"""

import gc
import hashlib
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from google.protobuf import text_format

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import LayerError
from sparknet_dsl.proto import caffe_pb2

HERE = pathlib.Path(__file__).resolve().parent
BATCH, CLASSES = 16, 5
NET = text_format.Parse(
    """
    layer { name: "in" type: "Input" top: "x" top: "t"
            input_param { shape { dim: 16 dim: 3 dim: 12 dim: 12 } shape { dim: 16 } } }
    layer { name: "c1" type: "Convolution" bottom: "x" top: "c1"
            convolution_param { num_output: 20 kernel_size: 3 weight_filler { type: "xavier" } } }
    layer { name: "bn" type: "BatchNorm" bottom: "c1" top: "bn" }
    layer { name: "sc" type: "Scale" bottom: "bn" top: "bn" scale_param { bias_term: true } }
    layer { name: "r1" type: "ReLU" bottom: "bn" top: "bn" }
    layer { name: "n1" type: "LRN" bottom: "bn" top: "n1" }
    layer { name: "p1" type: "Pooling" bottom: "n1" top: "p1" pooling_param { kernel_size: 3 stride: 2 } }
    layer { name: "c2" type: "Convolution" bottom: "p1" top: "c2"
            convolution_param { num_output: 20 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
    layer { name: "sum" type: "Eltwise" bottom: "p1" bottom: "c2" top: "sum" }
    layer { name: "d1" type: "Dropout" bottom: "sum" top: "sum" }
    layer { name: "up" type: "Deconvolution" bottom: "sum" top: "up"
            convolution_param { num_output: 4 kernel_size: 2 stride: 2 weight_filler { type: "xavier" } } }
    layer { name: "flat" type: "Reshape" bottom: "up" top: "flat" reshape_param { shape { dim: 2 dim: 8 dim: -1 } } }
    layer { name: "cont" type: "DummyData" top: "cont"
            dummy_data_param { shape { dim: 2 dim: 8 } data_filler { type: "constant" value: 1 } } }
    layer { name: "lstm" type: "LSTM" bottom: "flat" bottom: "cont" top: "h"
            recurrent_param { num_output: 9 weight_filler { type: "uniform" min: -0.1 max: 0.1 } } }
    layer { name: "rows" type: "Reshape" bottom: "h" top: "rows" reshape_param { shape { dim: 16 dim: 9 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "rows" top: "ip"
            inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "t" top: "loss" }
    """,
    caffe_pb2.NetParameter(),
)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = caffe_ext.num_threads()
    caffe_ext.set_num_threads(2)
    yield
    caffe_ext.set_num_threads(before)


def feed(net: caffe_ext.Net, batch: int) -> None:
    random = np.random.default_rng(batch)
    net.blobs["x"].data[...] = random.standard_normal((BATCH, 3, 12, 12))
    net.blobs["t"].data[...] = random.integers(0, CLASSES, BATCH)


def solver_of(seed: int) -> caffe_ext.Solver:
    param = caffe_pb2.SolverParameter(base_lr=0.05, lr_policy="fixed", momentum=0.9, weight_decay=0.001)
    return caffe_ext.Solver(param, NET, seed=seed)


def digest(solver: caffe_ext.Solver, losses: list[float]) -> str:
    arrays = [np.array(losses), solver.net.flat_data, solver.flat_history]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def train(seed: int, steps: int = 8) -> str:
    solver = solver_of(seed)
    return digest(solver, solver.step(steps, lambda k: feed(solver.net, k)))


def test_training_twice_gives_equal_bits() -> None:
    assert train(1) == train(1)
    assert train(1) != train(2)


def test_two_processes_give_equal_bits() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); import test_determinism as t\n"
        "t.caffe_ext.set_num_threads(2); print(t.train(1))"
    )
    # -P: a checkout in the working directory holds the package without its engine.
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == train(1)


def test_two_solvers_in_two_threads_give_the_bits_of_each_alone() -> None:
    alone = {seed: train(seed) for seed in (1, 2)}
    together: dict[int, str] = {}
    threads = [threading.Thread(target=lambda seed=seed: together.update({seed: train(seed)})) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_restoring_goes_on_bit_for_bit(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics and history are in the files; what the net draws, and a sequence's state, are set by the caller."""
    monkeypatch.chdir(tmp_path)
    whole = solver_of(3)
    whole.step(3, lambda k: feed(whole.net, k))
    whole.net.set_seed(7)
    _, state = whole.snapshot("snap")
    again = solver_of(4)
    again.restore(state)
    again.net.set_seed(7)
    # cont is 1 throughout: the streams begin where the last pass has ended.
    for solver in (whole, again):
        solver.net.blobs["cont"].data[0] = 0
    results = [
        digest(solver, solver.step(4, lambda k, solver=solver: feed(solver.net, 3 + k))) for solver in (whole, again)
    ]
    assert results[0] == results[1]


def test_an_error_in_the_middle_leaves_the_net_as_a_new_one() -> None:
    """Of the values, not of what is meant to change with each pass: statistics, and a sequence's state."""
    nets = [caffe_ext.Net(NET, caffe_ext.TEST, seed=1) for _ in range(2)]
    for net in nets:
        net.params["bn"][2].data[...] = 1
        net.params["bn"][1].data[...] = 1
        net.blobs["cont"].data[0] = 0
    broken, whole = nets
    feed(broken, 0)
    broken.blobs["t"].data[3] = CLASSES
    with pytest.raises(LayerError, match=r"label 5 .* is not one of the 5 classes"):
        broken.forward()
    with pytest.raises(LayerError, match="backward needs a forward pass"):
        broken.backward()
    broken.blobs["x"].reshape(15, 3, 12, 12)
    with pytest.raises(LayerError, match=r"layer `lstm` .*: the weights are for"):
        broken.forward()
    broken.blobs["x"].reshape(BATCH, 3, 12, 12)
    for net in nets:
        net.clear_param_diffs()
        feed(net, 1)
        net.forward()
        net.backward()
    assert broken.loss == whole.loss
    np.testing.assert_array_equal(broken.flat_diff, whole.flat_diff)
    for name, blob in whole.blobs.items():
        np.testing.assert_array_equal(broken.blobs[name].data, blob.data, err_msg=name)


def test_nets_give_all_their_memory_back() -> None:
    gc.collect()
    held = caffe_ext.memory_used()
    for seed in range(5):
        solver = solver_of(seed)
        solver.step(1, lambda k, net=solver.net: feed(net, k))
    view = solver.net.blobs["c1"].data
    expected = view.copy()
    del solver
    gc.collect()
    # The view holds its array, and what the engine kept of it in its own layout.
    assert 4 * view.size <= caffe_ext.memory_used() - held < 3 * 4 * view.size
    np.testing.assert_array_equal(view, expected)
    del view
    assert caffe_ext.memory_used() == held
