"""What the parameters of a net look like: mean, spread and histogram of each, and of its gradient."""

import math

import numpy as np

from .. import caffe_ext
from .average import Array
from .events import LayerStats, Spread

BINS = 32
# Numbers at a time: sums are in double precision, and a copy of a large array in that would be twice the array.
PIECE = 1 << 20


def layer_stats(net: caffe_ext.Net, gradients: bool = False) -> tuple[LayerStats, ...]:
    """A LayerStats for each parameter of `net`, in its order; with `gradients`, of the diffs, too.

    Takes some 10 ns for each number.
    """
    return tuple(
        LayerStats(
            layer=layer,
            param=index,
            shape=tuple(blob.data.shape),
            gradient=spread(blob.diff) if gradients else None,
            **vars(spread(blob.data)),
        )
        for layer, blobs in net.params.items()
        for index, blob in enumerate(blobs)
    )


def spread(values: Array) -> Spread:
    """How the numbers of an array are spread."""
    flat = values.ravel()
    pieces = [flat[at : at + PIECE] for at in range(0, flat.size, PIECE)]
    mean = sum(float(piece.sum(dtype=np.float64)) for piece in pieces) / flat.size if flat.size else math.nan
    if not math.isfinite(mean):
        mean, std = math.nan, math.nan
        pieces = [piece[np.isfinite(piece)] for piece in pieces]
    else:
        std = math.sqrt(sum(float(np.square(piece - np.float64(mean)).sum()) for piece in pieces) / flat.size)
    some = [piece for piece in pieces if piece.size]
    low = min((float(piece.min()) for piece in some), default=0.0)
    high = max((float(piece.max()) for piece in some), default=0.0)
    edges = np.linspace(low, high, BINS + 1)
    # Seven digits, as shown below, must tell the edges apart.
    if high - low < 4e-5 * max(abs(low), abs(high)) or low == high:
        reach = 2e-5 * max(abs(low), abs(high)) or 0.5
        edges = np.linspace(low - reach, high + reach, BINS + 1)
    counts = np.zeros(BINS, np.int64)
    for piece in some:
        # In single precision the edges of a narrow range are the same number, which numpy refuses.
        counts += np.histogram(piece.astype(np.float64), BINS, (edges[0], edges[-1]))[0]
    # Float32 has seven digits; more would double the size of a run's events.
    shown = tuple(float(f"{edge:.7g}") for edge in edges)
    return Spread(mean=mean, std=std, min=low, max=high, counts=tuple(counts.tolist()), edges=shown)
