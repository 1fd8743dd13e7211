"""The loop's workers one after the other in this process: what a run on Spark computes, without Spark."""

import time
from collections.abc import Sequence

from .checkpoint import State
from .exchange import Watch
from .rule import Rule
from .shards import Shard


class InTurn:
    """See exchange.Exchange: a worker for each of `shards`. A leg has a state after each round."""

    def __init__(self, shards: Sequence[Shard], rule: Rule) -> None:
        self._shards = shards
        self._rule = rule

    def leg(self, state: State, steps: Sequence[int], watch: Watch) -> None:
        """Runs all rounds."""
        rule = self._rule
        for count in steps:
            started = time.perf_counter()
            shared, own = rule.share(state)
            turns = [
                rule.train(shard, partition, shared, own[partition] if own else (), state.round, state.iteration, count)
                for partition, shard in enumerate(self._shards)
            ]
            settled = rule.average(shared, turns)
            state = rule.state(state.round + 1, state.iteration + count, settled, [turn.own for turn in turns])
            watch.trained([turn.figures for turn in turns], time.perf_counter() - started)
            watch.reached(state)
