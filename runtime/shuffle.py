"""Strategy `spark`: weights go out as a broadcast and come back as sums, through Spark alone."""

import time
from collections.abc import Sequence

from .checkpoint import State
from .exchange import Rule, Turn, Watch
from .spark import Cluster, Own, Rows


class Shuffle:
    """See exchange.Exchange. A leg has a state after each round."""

    def __init__(self, cluster: Cluster, rows: Rows, rule: Rule) -> None:
        self._cluster = cluster
        self._rows = rows
        self._rule = rule

    def leg(self, state: State, steps: Sequence[int], watch: Watch) -> None:
        """Runs all rounds. What is lost Spark itself runs again."""
        for count in steps:
            started = time.perf_counter()
            shared, own = self._rule.share(state)
            done: list[Turn] = self._cluster.each(
                self._rows, self._rule.train, shared, Own(own or ((),)), state.round, state.iteration, count
            )
            state = self._rule.state(
                state.round + 1,
                state.iteration + count,
                self._rule.average(shared, done),
                [turn.own for turn in done],
            )
            watch.trained([turn.figures for turn in done], time.perf_counter() - started)
            watch.reached(state)
