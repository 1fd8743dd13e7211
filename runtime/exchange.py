"""How a round's arrays get from worker to worker: what the loop knows of it.

An Exchange (the strategies `spark` and `ring`) moves arrays and knows no rule of averaging; a Rule (rule.py) says what
becomes of them and knows nothing of how they move.
"""

from collections.abc import Sequence
from typing import Protocol

from .checkpoint import State
from .worker import Figures


class Watch(Protocol):
    """Hears how a leg goes, in the thread that called it."""

    def trained(self, done: Sequence[Figures], seconds: float) -> None:
        """The next round is over, the average included, which took `seconds`; `done` is in the partitions' order."""
        ...

    def reached(self, state: State) -> None:
        """The leg has come as far as `state`."""
        ...

    def again(self, reason: str) -> None:
        """Something was lost or late; what it did since the last state is done again, and not told of again."""
        ...

    def dropped(self, reason: str) -> None:
        """A worker is left out of the next round, for `reason`: it is late."""
        ...


class Exchange(Protocol):
    """A strategy of averaging."""

    def leg(self, state: State, steps: Sequence[int], watch: Watch) -> None:
        """Runs rounds of as many iterations as `steps` says, from `state` on: one at least, and all where it can.

        `watch` hears of each round, and of the state after the last. Raises what workers raise, as it is, and
        ClusterError; a state after the last whole round is reached before the error goes on, where there is one.
        """
        ...
