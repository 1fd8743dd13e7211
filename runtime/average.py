"""What becomes of the workers' arrays when a round ends: plain numpy, in the order of the partitions."""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Real = TypeVar("Real", bound=np.floating[Any])
# What becomes of the solvers' histories: AVERAGE: as of the weights; LOCAL: each partition keeps its own, as in
# SparkNet; RESET: none, every round starts from zero.
Momentum = Literal["AVERAGE", "LOCAL", "RESET"]


def mean(arrays: Sequence[npt.NDArray[Real]], weights: Sequence[float] | None = None) -> npt.NDArray[Real]:
    """The mean of `arrays` (of one shape and type, which the result has too), weighted where `weights` is given.

    Summed from the first to the last, so that the same arrays in the same order give the same bits; the mean of one
    array is that array.
    """
    if len(arrays) == 1:
        return arrays[0].copy()
    dtype = arrays[0].dtype.type
    weights = [1.0] * len(arrays) if weights is None else weights
    total = arrays[0] * dtype(weights[0])
    for array, weight in zip(arrays[1:], weights[1:], strict=True):
        total += array if weight == 1 else array * dtype(weight)
    total /= dtype(sum(weights))
    return total
