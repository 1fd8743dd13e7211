"""What a net's own `debug_info` logs: the mean absolute value of every array, as each layer leaves it."""

import logging
from typing import TYPE_CHECKING

import numpy as np

from .weights import Array

if TYPE_CHECKING:
    from .net import Net

_log = logging.getLogger(__name__)


def log_passes(net: "Net") -> None:
    """Makes `net` log tops and parameters after each layer's forward pass, gradients after its backward pass."""

    def forward(index: int) -> None:
        layer = net.layers[index]
        for top in net.top_names[layer.name]:
            _log.info("[forward] layer %s, top %s data: %g", layer.name, top, _mean(net.blobs[top].data))
        for number, blob in enumerate(layer.blobs):
            _log.info("[forward] layer %s, parameter %d data: %g", layer.name, number, _mean(blob.data))

    def backward(index: int) -> None:
        layer = net.layers[index]
        for bottom in net.bottom_names[layer.name]:
            _log.info("[backward] layer %s, bottom %s diff: %g", layer.name, bottom, _mean(net.blobs[bottom].diff))
        for number, blob in enumerate(layer.blobs):
            _log.info("[backward] layer %s, parameter %d diff: %g", layer.name, number, _mean(blob.diff))

    net.after_forward(forward)
    net.after_backward(backward)


def _mean(values: Array) -> float:
    return float(np.abs(values).mean(dtype=np.float64)) if values.size else 0.0
