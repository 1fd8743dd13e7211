"""What becomes of the workers' arrays when a round ends: plain numpy, in the order of the partitions."""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Real = TypeVar("Real", bound=np.floating[Any])
Momentum = Literal["AVERAGE", "LOCAL", "RESET"]


def mean(arrays: Sequence[npt.NDArray[Real]], weights: Sequence[float] | None = None) -> npt.NDArray[Real]:
    """The mean of `arrays` (of one shape and type, which the result has too), weighted where `weights` is given.

    Summed from the first to the last, so that the same arrays in the same order give the same bits; the plain mean
    of one array is that array.
    """
    if weights is None:
        total = arrays[0].copy()
        for array in arrays[1:]:
            total += array
        total /= total.dtype.type(len(arrays))
    else:
        total = arrays[0] * arrays[0].dtype.type(weights[0])
        for array, weight in zip(arrays[1:], weights[1:], strict=True):
            total += array * array.dtype.type(weight)
        total /= total.dtype.type(sum(weights))
    return total


def next_histories(histories: Sequence[Array], momentum: Momentum) -> tuple[Array, ...]:
    """The solver histories (momentum) that the workers start the next round with, from those they ended this one with.

    AVERAGE: one for all, the mean. LOCAL: each partition's own, as in SparkNet. RESET: none, every worker starts from
    zero.
    """
    if momentum == "RESET":
        return ()
    if momentum == "LOCAL":
        return tuple(histories)
    return (mean(histories),)
