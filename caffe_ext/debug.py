"""What `debug_info` logs of an iteration: the mean absolute value of every array, as each layer leaves it.

The same numbers as in Caffe's log, in its order. Layers run one by one, so random layers draw other numbers than
without it.
"""

import logging

import numpy as np

from . import _native
from .net import Net
from .weights import Array

_log = logging.getLogger(__name__)


def forward(net: Net) -> float:
    """A forward pass that logs each top and parameter; gives the objective."""
    loss = 0.0
    for index, layer in enumerate(net.layers):
        loss += net._native.forward(index, index + 1)
        for top in net.top_names[layer.name]:
            _log.info("[forward] layer %s, top %s data: %g", layer.name, top, _mean(net.blobs[top].data))
        for number, blob in enumerate(layer.blobs):
            _log.info("[forward] layer %s, parameter %d data: %g", layer.name, number, _mean(blob.data))
    return loss


def backward(net: Net) -> None:
    """A backward pass that logs each gradient, and at last the norms of all parameters and of their gradients."""
    plan = net._native.gradients()
    for index in reversed(range(len(net.layers))):
        layer, (bottoms, params) = net.layers[index], plan[index]
        net._native.backward(index, index + 1)
        for bottom, wanted in zip(net.bottom_names[layer.name], bottoms, strict=True):
            if wanted:
                _log.info("[backward] layer %s, bottom %s diff: %g", layer.name, bottom, _mean(net.blobs[bottom].diff))
        for number, (blob, wanted) in enumerate(zip(layer.blobs, params, strict=True)):
            if wanted:
                _log.info("[backward] layer %s, parameter %d diff: %g", layer.name, number, _mean(blob.diff))
    l1 = [np.abs(values).sum(dtype=np.float64) for values in (net.flat_data, net.flat_diff)]
    l2 = [np.sqrt(np.square(values, dtype=np.float64).sum()) for values in (net.flat_data, net.flat_diff)]
    _log.info("[backward] all parameters (data, diff): L1 norm = (%g, %g), L2 norm = (%g, %g)", *l1, *l2)


def update(net: Net, solver: _native.Solver) -> None:
    """An update that logs each parameter before it, and what it takes off."""
    before = net.flat_data.copy()
    solver.apply_update()
    steps = before - net.flat_data
    start = 0
    for layer, index, shape, _, _ in net._native.learnable():
        end = start + int(np.prod(shape))
        values = (_mean(before[start:end]), _mean(steps[start:end]))
        _log.info("[update] layer %s, parameter %d data: %g; diff: %g", layer, index, *values)
        start = end


def _mean(values: Array) -> float:
    return float(np.abs(values).mean(dtype=np.float64)) if values.size else 0.0
