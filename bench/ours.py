"""What bench/engine.py measures of our engine. PyTorch is not imported here: memory is measured, too."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from workloads import Workload, inputs

from sparknet_dsl import caffe_ext
from sparknet_dsl.proto import caffe_pb2

SGD = {"lr_policy": "fixed", "momentum": 0.9, "weight_decay": 0.0005, "max_iter": 1 << 30}
Measured = tuple[Callable[[], Any], int]  # a step, and the floating-point operations that it takes


def write_weights(workload: Workload, path: pathlib.Path) -> None:
    """The weights that all start from; with the statistics of a batch, for without them activations would overflow."""
    message = workload.training()
    net = caffe_ext.Net(message, caffe_ext.TRAIN, seed=1)
    if any(layer.type == "BatchNorm" for layer in message.layer):
        fill(net, inputs(message, caffe_ext.TRAIN))
        net.forward()
    np.savez(path, **{f"{name}:{i}": blob.data for name, blobs in net.params.items() for i, blob in enumerate(blobs)})


def training(
    workload: Workload, weights: pathlib.Path, lr: float, precision: caffe_ext.Precision, winograd: bool
) -> Measured:
    """A step of SGD, which gives the loss."""
    net = workload.training()
    solver = caffe_ext.Solver(
        caffe_pb2.SolverParameter(base_lr=lr, **SGD),
        net,
        seed=1,
        memory="reuse",
        precision=precision,
        winograd=winograd,
    )
    read(solver.net, weights)
    fill(solver.net, inputs(net, caffe_ext.TRAIN))
    return lambda: float(solver.step(1)[0]), operations(net, solver.net)


def inference(
    workload: Workload, weights: pathlib.Path, batch: int, precision: caffe_ext.Precision, winograd: bool
) -> Measured:
    """A forward pass of the deploy net, which gives its output."""
    message = workload.inference(batch)
    net = caffe_ext.Net(message, caffe_ext.TEST, seed=1, memory="reuse", precision=precision, winograd=winograd)
    read(net, weights)
    fill(net, inputs(message, caffe_ext.TEST))
    (top,) = net.outputs
    return lambda: net.forward()[top], operations(message, net)


def product(size: int, kind: str) -> Measured:
    """A product of two square matrices: as an inner product, or as a 1 × 1 convolution of as many channels."""
    net = caffe_pb2.NetParameter()
    source = net.layer.add(name="x", type="Input", top=["x"])
    layer = net.layer.add(name="y", type=kind, bottom=["x"], top=["y"])
    if kind == "InnerProduct":
        source.input_param.shape.add(dim=[size, size])
        param: Any = layer.inner_product_param
    else:
        source.input_param.shape.add(dim=[1, size, 64, size // 64])
        param = layer.convolution_param
        param.kernel_size.append(1)
    param.num_output, param.bias_term, param.weight_filler.type = size, False, "xavier"
    built = caffe_ext.Net(net, caffe_ext.TEST, seed=1)
    fill(built, inputs(net, caffe_ext.TEST))
    native = built._native
    return lambda: native.forward(0, 2), operations(net, built)


def fill(net: caffe_ext.Net, values: dict[str, Any]) -> None:
    for name, array in values.items():
        net.blobs[name].data[...] = array


def read(net: caffe_ext.Net, weights: pathlib.Path) -> None:
    with np.load(weights) as arrays:
        for name, blobs in net.params.items():
            for index, blob in enumerate(blobs):
                blob.data[...] = arrays[f"{name}:{index}"]


def operations(message: caffe_pb2.NetParameter, net: caffe_ext.Net) -> int:
    """Two for each multiply-add, forward, and, where there are gradients, for the parameters' and the bottoms'."""
    report = caffe_ext.check_net(message, net.phase)
    gradients = net._native.gradients() if net.phase == caffe_ext.TRAIN else [([], [])] * len(report.layers)
    return sum(
        2 * layer.multiply_adds * (1 + any(bottoms) + any(params))
        for layer, (bottoms, params) in zip(report.layers, gradients, strict=True)
    )
