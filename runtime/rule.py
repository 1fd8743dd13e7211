"""The rule of averaging: what becomes of the workers' arrays, and of those they have in common, when a round ends.

Arrays go by name, all of them flat float32. In common are

    weights    what the workers begin a round with; with `moving_rate` the centre that they are pulled to
    history    momentum AVERAGE: the solver's history
    velocity   outer_momentum: that of the outer optimiser

and a worker has of its own

    weights    with `moving_rate`: those that it goes on with
    history    momentum LOCAL
    residual, history_residual   what its messages in `exchange` have lost so far

An array that is not there yet counts as zeros, a worker's weights as those in common. All is elementwise: the same
functions may be applied to whole arrays by a driver, to its slice by each member of a ring, or by all to all, with the
same bits.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from ..errors import UsageError
from .average import Array, Momentum, mean
from .codec import CHUNK, CODECS, Exchange, Positions, pack, unpack

Weighting = Literal["EQUAL", "ROWS"]
Arrays = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class Standing:
    """The arrays between two rounds: those in common, and each worker's own (() while none has any)."""

    common: dict[str, Array]
    own: tuple[dict[str, Array], ...] = ()

    def of(self, worker: int) -> dict[str, Array]:
        """The worker's own arrays."""
        return self.own[worker] if self.own else {}


@dataclasses.dataclass(frozen=True)
class Rule:
    """How the workers' arrays are averaged; raises UsageError for settings that make no sense.

    weighting      EQUAL: each worker counts the same; ROWS: as many times as its partition has rows
    momentum       of the solver's history: AVERAGE with the weights, LOCAL each worker goes on with its own, RESET zero
    outer_rate, outer_momentum, outer_nesterov: SGD on the averaged change, as in DiLoCo; 1 and 0 take the mean as it is
    moving_rate    of the centre in elastic averaging (EASGD's beta); 0: no elastic averaging, all take the mean
    exchange       the format in which weights (and, with momentum AVERAGE, history) travel
    """

    weighting: Weighting = "EQUAL"
    momentum: Momentum = "AVERAGE"
    outer_rate: float = 1.0
    outer_momentum: float = 0.0
    outer_nesterov: bool = True
    moving_rate: float = 0.0
    exchange: Exchange = "float32"

    def __post_init__(self) -> None:
        if not 0 < self.outer_rate < np.inf:
            raise UsageError(f"outer_rate {self.outer_rate}: a number above 0 is wanted; 1 is the plain mean")
        if not 0 <= self.outer_momentum < 1:
            raise UsageError(f"outer_momentum {self.outer_momentum}: a number from 0 to below 1 is wanted")
        if not 0 <= self.moving_rate <= 1:
            raise UsageError(f"moving_rate {self.moving_rate}: a number from 0 to 1 is wanted; 0.9 is usual")
        if self.moving_rate and self.outer:
            raise UsageError(
                "moving_rate (elastic averaging) and outer_rate, outer_momentum (an outer optimiser) are two rules: "
                "give one of them"
            )
        if self.moving_rate and self.exchange != "float32":
            raise UsageError(
                f"elastic averaging keeps every worker's weights, which {self.exchange} would blur: leave out "
                "exchange, or moving_rate"
            )

    @property
    def outer(self) -> bool:
        """Whether there is an outer optimiser, beyond the plain mean."""
        return self.outer_rate != 1 or self.outer_momentum != 0

    @property
    def averaged(self) -> tuple[str, ...]:
        """The arrays that travel at an average."""
        return ("weights", "history") if self.momentum == "AVERAGE" else ("weights",)

    def start(self, common: Arrays, own: Arrays) -> tuple[Array, Array | None]:
        """The weights and the history (None: zeros) with which a worker that has `own` begins a round."""
        return own.get("weights", common["weights"]), own.get("history", common.get("history"))

    def weights(self, rows: Sequence[int]) -> list[float] | None:
        """What the workers, with partitions of `rows` rows, count in a mean; None: all the same."""
        return None if self.weighting == "EQUAL" or len(set(rows)) == 1 else [float(each) for each in rows]

    def share(self, rows: Sequence[int], worker: int) -> float:
        """The worker's share of a mean."""
        weights = self.weights(rows)
        return 1 / len(rows) if weights is None else weights[worker] / sum(weights)

    def pull(self, weights: Array, centre: Array, share: float) -> None:
        """Elastic averaging in a worker: draws its `weights` to the centre, as that was in the round, in place.

        S. Zhang, A. Choromanska, Y. LeCun, "Deep learning with elastic averaging SGD", NIPS 2015, with alpha =
        moving_rate × share.
        """
        for part in _chunks(weights.size):
            weights[part] -= np.float32(self.moving_rate * share) * (weights[part] - centre[part])

    def step(self, common: dict[str, Array], means: Arrays, exact: Positions | None = None) -> None:
        """Takes the arrays in common from one round to the next, in place; `means` are those of `averaged`.

        exact: positions of weights that no optimiser moves, but the net's own forward pass (statistics of BatchNorm):
        they become the mean under every rule.
        """
        weights, means_of_weights = common["weights"], means["weights"]
        if self.moving_rate:
            for part in _chunks(weights.size):
                weights[part] += np.float32(self.moving_rate) * (means_of_weights[part] - weights[part])
        elif self.outer:
            self._outer_step(common, means_of_weights)
        else:
            weights[...] = means_of_weights
        if exact is not None:
            weights[exact] = means_of_weights[exact]
        if self.momentum == "AVERAGE":
            common["history"] = means["history"]

    def _outer_step(self, common: dict[str, Array], average: Array) -> None:
        """A step of SGD, whose gradient is what the weights were less their mean now.

        A. Douillard et al., "DiLoCo: Distributed low-communication training of language models", 2023.
        """
        weights = common["weights"]
        rate, momentum = np.float32(self.outer_rate), np.float32(self.outer_momentum)
        if momentum and "velocity" not in common:
            common["velocity"] = np.zeros_like(weights)
        for part in _chunks(weights.size):
            change = average[part] - weights[part]
            if momentum:
                velocity = common["velocity"][part]
                velocity *= momentum
                velocity += change
                change = change + momentum * velocity if self.outer_nesterov else velocity
            weights[part] += rate * change


def next_standing(
    rule: Rule, standing: Standing, trained: Sequence[Arrays], rows: Sequence[int], exact: Positions | None = None
) -> Standing:
    """The whole of an average in one place: the standing after a round in which worker i trained to `trained[i]`.

    trained: weights and history of each worker, in the partitions' order. `standing` is left as it was.
    """
    codec = CODECS[rule.exchange]
    own: list[dict[str, Array]] = [{} for _ in trained]
    means: dict[str, Array] = {}
    for name in rule.averaged:
        arrived = [arrays[name] for arrays in trained]
        if codec.relative:
            before = standing.common.get(name)
            before = np.zeros_like(arrived[0]) if before is None else before
            positions = exact if name == "weights" else None
            for worker, array in enumerate(arrived):
                residual = None
                if codec.feedback:
                    lost = standing.of(worker).get(residual_name(name))
                    residual = np.zeros_like(array) if lost is None else lost.copy()
                    own[worker][residual_name(name)] = residual
                message = pack(codec, array, before, residual, positions)
                arrived[worker] = np.empty_like(array)
                unpack(codec, message, before, arrived[worker], positions)
        means[name] = mean(arrived, rule.weights(rows))
    for worker, arrays in enumerate(trained):
        if rule.momentum == "LOCAL":
            own[worker]["history"] = arrays["history"]
        if rule.moving_rate:
            own[worker]["weights"] = arrays["weights"].copy()
            rule.pull(own[worker]["weights"], standing.common["weights"], rule.share(rows, worker))
    common = {name: array.copy() for name, array in standing.common.items()}
    rule.step(common, means, exact)
    return Standing(common, tuple(own) if own[0] else ())


def residual_name(array: str) -> str:
    """The name of what messages of `array` have lost."""
    return "residual" if array == "weights" else f"{array}_residual"


def _chunks(size: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, size)) for start in range(0, size, CHUNK))
