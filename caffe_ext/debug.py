"""What `debug_info` logs: the mean magnitude of everything that a pass computes, in Caffe's words."""

import logging
from typing import TYPE_CHECKING

import numpy as np

from .weights import Array

if TYPE_CHECKING:
    from .net import Net

_log = logging.getLogger(__name__)


def log_values(net: "Net") -> None:
    """Makes `net` log mean absolute values from here on.

    Of tops and parameters after each layer's forward pass, of the gradients of bottoms and parameters after its
    backward pass.
    """

    def forward(index: int) -> None:
        layer = net.layers[index]
        for name in net.top_names[layer.name]:
            _log.info("    [Forward] Layer %s, top blob %s data: %.6g", layer.name, name, _mean(net.blobs[name].data))
        for number, blob in enumerate(layer.blobs):
            _log.info("    [Forward] Layer %s, param blob %d data: %.6g", layer.name, number, _mean(blob.data))

    def backward(index: int) -> None:
        layer = net.layers[index]
        for name in net.bottom_names[layer.name]:
            _log.info(
                "    [Backward] Layer %s, bottom blob %s diff: %.6g", layer.name, name, _mean(net.blobs[name].diff)
            )
        for number, blob in enumerate(layer.blobs):
            _log.info("    [Backward] Layer %s, param blob %d diff: %.6g", layer.name, number, _mean(blob.diff))

    net.after_forward(forward)
    net.after_backward(backward)


def _mean(values: Array) -> float:
    return float(np.abs(values).mean(dtype=np.float64)) if values.size else 0.0
