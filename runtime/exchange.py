"""How a round's arrays get from worker to worker, and what becomes of them: what the loop knows of either.

An Exchange (the strategies `spark` and `ring`) moves arrays and knows no rule of averaging; a Rule knows nothing of how
they move. What they have in common is small:

    rule.share   (driver)   a State as arrays that all workers start from, and arrays of each one's own
    rule.train   (worker)   a round of training: arrays to be averaged, their weight, the next arrays of its own
    the exchange            the weighted mean over the workers, summed in the partitions' order
    rule.settle  (anywhere) from what all started with, and the means, to what all start the next round with
    rule.state   (driver)   the arrays as a State again
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from . import worker
from .average import Array, Momentum
from .checkpoint import State
from .shards import Shard
from .worker import Figures, Job

# Flat arrays of float32, each of any length.
Arrays = tuple[Array, ...]


@dataclasses.dataclass(frozen=True)
class Turn:
    """What a worker has after a round of training.

    give         arrays for the mean, of the same lengths in every worker; the exchange may overwrite them
    weight       of this worker's arrays in the mean
    own          what this partition alone goes on with
    figures      for the driver
    """

    give: Arrays
    weight: float
    own: Arrays
    figures: Figures


class Rule(Protocol):
    """What becomes of the workers' arrays when a round ends. Goes to the workers pickled; keeps nothing itself."""

    def share(self, state: State) -> tuple[Arrays, Sequence[Arrays]]:
        """The state as arrays for all, and for each partition (or () where none has any of its own)."""
        ...

    def train(
        self, shard: Shard, partition: int, shared: Arrays, own: Arrays, round: int, iteration: int, steps: int
    ) -> Turn:
        """A round of `steps` iterations from `iteration` on, `round` rounds being done: a pure function."""
        ...

    def settle(self, shared: Arrays, means: Arrays) -> Arrays:
        """The arrays for all of the next round, from those of this one and the means of what was given.

        A pure function, element by element: it runs wherever the means are, on pieces, too. `means` may be overwritten.
        """
        ...

    def state(self, round: int, iteration: int, shared: Arrays, own: Sequence[Arrays]) -> State:
        """The arrays as a state: what `share` takes apart."""
        ...


class Watch(Protocol):
    """Hears how a leg goes, in the thread that called it."""

    def trained(self, done: Sequence[Figures], seconds: float) -> None:
        """The next round is over, the average included, which took `seconds`; `done` is in the partitions' order."""
        ...

    def reached(self, state: State) -> None:
        """The leg has come as far as `state`."""
        ...

    def again(self, reason: str) -> None:
        """Something was lost, for `reason`; rounds since the last state are run again, and not told of again."""
        ...


class Exchange(Protocol):
    """A strategy of averaging."""

    def leg(self, state: State, steps: Sequence[int], watch: Watch) -> None:
        """Runs rounds of as many iterations as `steps` says, from `state` on: one at least, and all where it can.

        `watch` hears of each round, and of the state after the last. Raises what workers raise, as it is, and
        ClusterError; a state after the last whole round is reached before the error goes on, where there is one.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Mean:
    """The plain mean of the weights, and what `momentum` says of the solvers' histories (see average.Momentum)."""

    job: Job
    momentum: Momentum

    def share(self, state: State) -> tuple[Arrays, Sequence[Arrays]]:
        """All start from the weights, and from the history where it is averaged; else from histories of their own."""
        if self.momentum == "LOCAL":
            return (state.weights,), [(history,) for history in state.histories]
        return (state.weights, *state.histories), ()

    def train(
        self, shard: Shard, partition: int, shared: Arrays, own: Arrays, round: int, iteration: int, steps: int
    ) -> Turn:
        """Trains, see worker.train_round."""
        weights, *histories = (*shared, *own)
        history = histories[0] if histories else None
        done = worker.train_round(shard, partition, self.job, weights, history, round, iteration, steps)
        histories = [] if done.history is None else [done.history]
        local = self.momentum == "LOCAL"
        return Turn(
            give=(done.weights, *(() if local else histories)),
            weight=1.0,
            own=tuple(histories) if local else (),
            figures=Figures(done.losses, done.rows, done.seconds),
        )

    def settle(self, shared: Arrays, means: Arrays) -> Arrays:
        """The means as they are."""
        del shared
        return means

    def state(self, round: int, iteration: int, shared: Arrays, own: Sequence[Arrays]) -> State:
        """Weights, and the histories that there are."""
        histories = tuple(history for (history,) in own) if self.momentum == "LOCAL" else shared[1:]
        return State(round, iteration, shared[0], histories)
