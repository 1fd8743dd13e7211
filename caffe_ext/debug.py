"""What `debug_info` logs: the mean absolute value of every array, as each layer leaves it.

The same numbers as in Caffe's log, in its order.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from . import _native
from .weights import Array

if TYPE_CHECKING:
    from .net import Net

_log = logging.getLogger(__name__)


def log_passes(net: "Net") -> None:
    """From here on `net` logs tops and parameters after each layer's forward pass, gradients after its backward one."""
    plan = net._native.gradients()

    def forward(index: int) -> None:
        layer = net.layers[index]
        for top in net.top_names[layer.name]:
            _log.info("[forward] layer %s, top %s data: %g", layer.name, top, _mean(net.blobs[top].data))
        for number, blob in enumerate(layer.blobs):
            _log.info("[forward] layer %s, parameter %d data: %g", layer.name, number, _mean(blob.data))

    def backward(index: int) -> None:
        layer, (bottoms, params) = net.layers[index], plan[index]
        for bottom, wanted in zip(net.bottom_names[layer.name], bottoms, strict=True):
            if wanted:
                _log.info("[backward] layer %s, bottom %s diff: %g", layer.name, bottom, _mean(net.blobs[bottom].diff))
        for number, (blob, wanted) in enumerate(zip(layer.blobs, params, strict=True)):
            if wanted:
                _log.info("[backward] layer %s, parameter %d diff: %g", layer.name, number, _mean(blob.diff))

    net.after_forward(forward)
    net.after_backward(backward)


@contextlib.contextmanager
def passes_logged(net: "Net") -> Iterator[None]:
    """`log_passes` within the block."""
    before = {when: list(callbacks) for when, callbacks in net._callbacks.items()}
    log_passes(net)
    try:
        yield
    finally:
        net._callbacks = before


def log_norms(net: "Net") -> None:
    """Logs the norms of all parameters and of their gradients."""
    l1 = [np.abs(values).sum(dtype=np.float64) for values in (net.flat_data, net.flat_diff)]
    l2 = [np.sqrt(np.square(values, dtype=np.float64).sum()) for values in (net.flat_data, net.flat_diff)]
    _log.info("[backward] all parameters (data, diff): L1 norm = (%g, %g), L2 norm = (%g, %g)", *l1, *l2)


def update(net: "Net", solver: _native.Solver) -> None:
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
