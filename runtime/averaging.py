"""The settings of averaging, and its arithmetic: plain numpy, element by element.

The same functions may be applied to whole arrays by a driver, or to pieces of them by each of the workers, with the
same bits.
"""

import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np

from ..errors import UsageError
from .average import Array, Momentum
from .codec import CHUNK, CODECS, Format

Weighting = Literal["EQUAL", "ROWS"]


@dataclasses.dataclass(frozen=True)
class Averaging:
    """How the workers' arrays are averaged; raises UsageError for settings that make no sense.

    weighting      EQUAL: each worker counts the same; ROWS: as many times as its partition has rows
    momentum       what becomes of the solvers' histories, see average.Momentum
    outer_rate, outer_momentum, outer_nesterov: SGD on the averaged change, as in DiLoCo; 1 and 0 take the mean as it is
    moving_rate    of the centre in elastic averaging (EASGD's beta); 0: no elastic averaging, all take the mean
    exchange       the format in which weights (and, with momentum AVERAGE, histories) travel from the workers
    """

    weighting: Weighting = "EQUAL"
    momentum: Momentum = "AVERAGE"
    outer_rate: float = 1.0
    outer_momentum: float = 0.0
    outer_nesterov: bool = True
    moving_rate: float = 0.0
    exchange: Format = "float32"

    def __post_init__(self) -> None:
        if not 0 < self.outer_rate < np.inf:
            raise UsageError(f"outer_rate {self.outer_rate}: a number above 0 is wanted; 1 is the plain mean")
        if not 0 <= self.outer_momentum < 1:
            raise UsageError(f"outer_momentum {self.outer_momentum}: a number from 0 to below 1 is wanted")
        if not 0 <= self.moving_rate <= 1:
            raise UsageError(f"moving_rate {self.moving_rate}: a number from 0 to 1 is wanted; 0.9 is usual")
        if self.elastic and self.outer:
            raise UsageError(
                "moving_rate (elastic averaging) and outer_rate, outer_momentum (an outer optimiser) are two rules: "
                "give one of them"
            )
        if self.elastic and self.exchange != "float32":
            raise UsageError(
                f"elastic averaging keeps each worker's weights, and their messages in {self.exchange} would lose "
                "something for good: leave out exchange, or moving_rate"
            )

    @property
    def outer(self) -> bool:
        """Whether there is an outer optimiser, beyond the plain mean."""
        return self.outer_rate != 1 or self.outer_momentum != 0

    @property
    def elastic(self) -> bool:
        """Whether workers go on with weights of their own."""
        return self.moving_rate != 0

    @property
    def messages(self) -> bool:
        """Whether arrays travel as messages of their change."""
        return self.exchange != "float32"

    @property
    def packed(self) -> tuple[str, ...]:
        """Names of the arrays that travel in the format of `exchange`."""
        return ("weights", "history") if self.momentum == "AVERAGE" else ("weights",)

    @property
    def own(self) -> tuple[str, ...]:
        """Names of the arrays that each worker has of its own, see rule.py."""
        names = ["weights"] if self.elastic else []
        if self.momentum == "LOCAL":
            names.append("history")
        if self.messages and CODECS[self.exchange].feedback:
            names.extend(map(residual_of, self.packed))
        return tuple(names)


def residual_of(name: str) -> str:
    """The name of what messages of the array `name` have lost so far."""
    return "residual" if name == "weights" else f"{name}_residual"


def moved(values: Array, target: Array, rate: float) -> Array:
    """`values` moved towards `target`, values + rate (target - values): elastic averaging's two steps.

    A worker's weights are pulled to the centre, and the centre to the workers' mean: S. Zhang, A. Choromanska,
    Y. LeCun, "Deep learning with elastic averaging SGD", NIPS 2015, algorithm 1, steps a) and b), the latter for all
    workers at once.
    """
    result = np.empty_like(values)
    for part in _chunks(values.size):
        difference = target[part] - values[part]
        difference *= np.float32(rate)
        np.add(values[part], difference, out=result[part])
    return result


def outer_step(weights: Array, velocity: Array | None, mean: Array, settings: Averaging) -> tuple[Array, Array | None]:
    """Weights and velocity after a step of SGD whose gradient is `weights` - `mean`; without momentum no velocity.

    A. Douillard et al., "DiLoCo: Distributed low-communication training of language models", 2023.
    """
    result = np.empty_like(weights)
    next_velocity = None if velocity is None else np.empty_like(velocity)
    rate, momentum = np.float32(settings.outer_rate), np.float32(settings.outer_momentum)
    for part in _chunks(weights.size):
        change = mean[part] - weights[part]
        if velocity is not None and next_velocity is not None:
            moving = np.multiply(velocity[part], momentum, out=next_velocity[part])
            moving += change
            change = change + momentum * moving if settings.outer_nesterov else moving
        np.add(weights[part], rate * change, out=result[part])
    return result, next_velocity


def _chunks(size: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, size)) for start in range(0, size, CHUNK))
