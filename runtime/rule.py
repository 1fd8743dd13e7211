"""The rule of averaging: what becomes of the workers' arrays when a round ends. It knows nothing of how they travel.

    rule.share    (driver)   a State as arrays that all workers start from, and arrays of each one's own
    rule.train    (worker)   a round of training: what the worker gives to the average, and its own next arrays
    the exchange             the weighted mean over the workers, summed in the partitions' order; of messages that of
                             the changes in them, in codec.RETURN
    rule.settle   (anywhere) from what all started with, and the means, to what all start the next round with
    rule.state    (driver)   the arrays as a State again

Arrays are flat and in a fixed order, which `shared` and `own` name:

    weights      what the workers start from; with elastic averaging the centre, and each worker's own
    history      the solver's: shared with momentum AVERAGE, each worker's own with LOCAL
    statistics   BatchNorm's, which are parts of the weights, apart: they take the mean whatever becomes of the others,
                 and travel in float32. An outer step or a rounded message might make a variance negative.
    velocity     the outer optimiser's; of the weights' length
    residual, history_residual: what a worker's messages have lost so far
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from . import worker
from .average import Array, mean
from .averaging import Averaging, moved, outer_step, residual_of
from .checkpoint import State
from .codec import Message, opened, pack, returned
from .shards import Shard
from .worker import Figures, Job, Trained

Arrays = tuple[Array, ...]
# Arrays, and messages in the place of others.
Given = tuple[Array | Message, ...]


@dataclasses.dataclass(frozen=True)
class Turn:
    """What a worker has after a round of training.

    give         what it gives to the mean, of the same lengths in every worker; the exchange may overwrite it
    weight       of this worker's arrays in the mean
    own          what this partition alone goes on with
    figures      for the driver
    """

    give: Given
    weight: float
    own: Arrays
    figures: Figures


@dataclasses.dataclass(frozen=True)
class Rule:
    """Goes to the workers pickled, and keeps nothing itself.

    workers, rows   partitions, and the rows of all of them
    history         length of a solver's history
    statistics      where they lie in the weights: ranges, each its begin and its end
    """

    job: Job
    averaging: Averaging
    workers: int
    rows: int
    history: int
    statistics: tuple[tuple[int, int], ...] = ()

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the arrays that are averaged; `shared` begins with them."""
        averaging = self.averaging
        apart = self.statistics and (averaging.outer or averaging.messages)
        return (*averaging.packed, *(["statistics"] if apart else []))

    @property
    def shared(self) -> tuple[str, ...]:
        """Names of the arrays that all workers have in common."""
        return (*self.given, *(["velocity"] if self.averaging.outer_momentum else []))

    @property
    def own(self) -> tuple[str, ...]:
        """Names of the arrays that each worker has of its own."""
        return self.averaging.own

    def title(self, round: int, steps: Sequence[int]) -> str:
        """What rounds of as many iterations as `steps` says, after round `round`, are called in Spark's UI."""
        rounds = f"round {round + 1}" if len(steps) == 1 else f"rounds {round + 1} to {round + len(steps)}"
        taus = f"{steps[0]}" if len(set(steps)) == 1 else f"{min(steps)} to {max(steps)}"
        return f"{rounds}: tau={taus}"

    def share(self, state: State) -> tuple[Arrays, Sequence[Arrays]]:
        """The state as arrays for all, and for each partition (() where none has any of its own, or not yet)."""
        arrays = dict(state.common)
        if "statistics" in self.shared:
            arrays["statistics"], arrays["weights"] = self._taken_apart(arrays["weights"])
        for name, size in (("history", self.history), ("velocity", arrays["weights"].size)):
            if name in self.shared and name not in arrays:
                arrays[name] = np.zeros(size, np.float32)
        shared = tuple(arrays[name] for name in self.shared)
        return shared, [tuple(mine[name] for name in self.own) for mine in state.own]

    def train(
        self, shard: Shard, partition: int, shared: Arrays, own: Arrays, round: int, iteration: int, steps: int
    ) -> Turn:
        """A round of `steps` iterations from `iteration` on, `round` rounds being done: a pure function."""
        arrays = {**dict(zip(self.shared, shared, strict=True)), **dict(zip(self.own, own, strict=bool(own)))}
        weights = arrays["weights"]
        if "statistics" in arrays:
            weights = self._with_statistics(weights, arrays["statistics"])
        done = worker.train_round(shard, partition, self.job, weights, arrays.get("history"), round, iteration, steps)
        return self.turn(shared, own, done, shard.rows)

    def turn(self, shared: Arrays, own: Arrays, done: Trained, rows: int) -> Turn:
        """What a worker with `rows` rows, which trained to `done`, gives, and goes on with."""
        averaging = self.averaging
        common = dict(zip(self.shared, shared, strict=True))
        mine = dict(zip(self.own, own, strict=True)) if own else {}
        new: dict[str, Array | Message] = {"weights": done.weights}
        next_own: dict[str, Array] = {}
        if averaging.elastic:
            share = rows / self.rows if averaging.weighting == "ROWS" else 1 / self.workers
            next_own["weights"] = moved(done.weights, common["weights"], averaging.moving_rate * share)
        if "statistics" in self.given:
            new["statistics"], new["weights"] = self._taken_apart(done.weights)
        if averaging.momentum == "LOCAL" and done.history is not None:
            next_own["history"] = done.history
        elif done.history is not None:
            new["history"] = done.history
        for name in averaging.packed if averaging.messages else ():
            values, residual, kept = opened(new[name]), None, residual_of(name)
            if kept in self.own:
                residual = next_own[kept] = mine[kept].copy() if mine else np.zeros_like(values)
            new[name] = pack(averaging.exchange, values, common[name], residual)
        return Turn(
            give=tuple(new[name] for name in self.given),
            # Workers with equally many rows count exactly 1: the plain mean, to the bit.
            weight=rows * self.workers / self.rows if averaging.weighting == "ROWS" else 1.0,
            own=tuple(next_own[name] for name in self.own),
            figures=Figures(done.losses, done.rows, done.seconds, done.partition),
        )

    def kept(self, shared: Arrays, own: Arrays) -> Arrays:
        """What a worker goes on with that had `own` (() for none yet) and is left out of a round: the same."""
        if own:
            return own
        sizes = {"history": self.history, "history_residual": self.history, "residual": shared[0].size}
        return tuple(shared[0] if name == "weights" else np.zeros(sizes[name], np.float32) for name in self.own)

    def average(self, shared: Arrays, turns: Sequence[Turn]) -> Arrays:
        """The arrays for all of the next round, from the turns of all workers: what an exchange and `settle` do."""
        weights = [turn.weight for turn in turns]
        means = []
        for given in zip(*[turn.give for turn in turns], strict=True):
            arrays = [opened(each) for each in given]
            means.append(mean(arrays, weights))
            if isinstance(given[0], Message):
                means[-1] = returned(means[-1])
        return self.settle(shared, tuple(means))

    def settle(self, shared: Arrays, means: Arrays) -> Arrays:
        """The arrays for all of the next round, from those of this one and the means of what was given.

        A pure function, element by element: it runs wherever the means are, on pieces, too, in which the velocity
        is cut where the weights are. `means` may be overwritten.
        """
        averaging, weights = self.averaging, shared[0]
        if averaging.messages:
            packed = len(averaging.packed)
            means = (
                *(common + change for common, change in zip(shared, means[:packed], strict=False)),
                *means[packed:],
            )
        if averaging.elastic:
            return (moved(weights, means[0], averaging.moving_rate), *means[1:])
        if averaging.outer:
            velocity = shared[-1] if averaging.outer_momentum else None
            weights, velocity = outer_step(weights, velocity, means[0], averaging)
            return (weights, *means[1:], *(() if velocity is None else (velocity,)))
        return means

    def state(self, round: int, iteration: int, shared: Arrays, own: Sequence[Arrays]) -> State:
        """The arrays as a state: what `share` takes apart."""
        common = dict(zip(self.shared, shared, strict=True))
        if "statistics" in common:
            common["weights"] = self._with_statistics(common["weights"], common.pop("statistics"))
        each = tuple(dict(zip(self.own, mine, strict=True)) for mine in own) if self.own else ()
        return State(round, iteration, common, each)

    def _taken_apart(self, weights: Array) -> tuple[Array, Array]:
        """Statistics, and the weights with zeros in their places: those stay zeros, whatever becomes of the weights."""
        others = weights.copy()
        for begin, end in self.statistics:
            others[begin:end] = 0
        return np.concatenate([weights[begin:end] for begin, end in self.statistics]), others

    def _with_statistics(self, weights: Array, statistics: Array) -> Array:
        result, at = weights.copy(), 0
        for begin, end in self.statistics:
            result[begin:end] = statistics[at : at + end - begin]
            at += end - begin
        return result
