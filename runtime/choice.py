"""Which strategy of averaging a run takes, and why: the one that was asked for, or the faster one of a probe."""

from collections.abc import Sequence
from typing import Self

import numpy as np

from ..errors import ClusterError
from .averaging import Averaging
from .checkpoint import State
from .config import Average, Late
from .exchange import Exchange
from .ring import Ring
from .rule import Arrays, Rule, Turn
from .shards import Shard
from .shuffle import Shuffle
from .spark import Cluster, Rows
from .worker import Figures, Job

# The probe averages as many numbers at most (16 MB), and waits as long for connections.
PROBE_NUMBERS = 1 << 22
PROBE_SECONDS = 15.0


def choose(
    average: Average, cluster: Cluster, rows: Rows, rule: Rule, parameters: int, late: Late = "AGAIN"
) -> tuple[Exchange, Average, tuple[str, ...]]:
    """The strategy for weights of `parameters` numbers, its name, and what the user should know of it.

    Raises ClusterError where `ring` is asked for but Spark's connections are to be secured, which its own are not.
    """
    spark, ring = Shuffle(cluster, rows, rule, late), Ring(cluster, rows, rule, cluster.deadline)
    secured = cluster.secured()
    if average == "SPARK":
        return spark, "SPARK", ()
    if average == "RING":
        if secured:
            raise ClusterError(
                f"--average ring has workers connect in the open, but {secured} is set: take spark, or auto"
            )
        return ring, "RING", ()
    if secured:
        return spark, "SPARK", (f"averages through Spark, since {secured} is set",)
    if late == "DROP":
        return spark, "SPARK", ("averages through Spark, which can do without a worker that is late",)
    if cluster.workers == 1:
        return ring, "RING", ()
    size = min(parameters, PROBE_NUMBERS)
    still = Still.among(cluster.workers)
    try:
        own = seconds(Ring(cluster, rows, still, PROBE_SECONDS, attempts=1), size, 3)
    except ClusterError as error:
        return spark, "SPARK", (f"averages through Spark, since the workers do not reach each other: {error}",)
    through = seconds(Shuffle(cluster, rows, still), size, 2)
    told = f"{size:,} numbers took {own:.2g} s among the workers, {through:.2g} s through Spark"
    if own <= through:
        return ring, "RING", (f"averages by ring: {told}",)
    return spark, "SPARK", (f"averages through Spark: {told}",)


def seconds(exchange: Exchange, size: int, rounds: int) -> float:
    """The seconds that the last of `rounds` averages of `size` numbers takes."""
    watch = _Clock()
    state = State(0, 0, {"weights": np.zeros(size, np.float32)})
    while state.round < rounds:
        exchange.leg(state, [1] * (rounds - state.round), watch)
        state = watch.state or state
    return watch.seconds[-1]


class Still(Rule):
    """A rule by which nobody trains: a round is its average."""

    @classmethod
    def among(cls, workers: int) -> Self:
        """For as many workers."""
        nothing = Job("", b"", b"", b"", (), (), seed=0, threads=1, send_history=False)
        return cls(nothing, Averaging(momentum="RESET"), workers, workers, 0)

    def title(self, round: int, steps: Sequence[int]) -> str:
        """What is done here."""
        del round, steps
        return "measuring"

    def train(
        self, shard: Shard, partition: int, shared: Arrays, own: Arrays, round: int, iteration: int, steps: int
    ) -> Turn:
        """Gives the weights as they are."""
        del shard, round, iteration
        return Turn(shared, 1.0, own, Figures([0.0] * steps, 0, 0.0, partition))


class _Clock:
    """A watch (exchange.Watch) that keeps the seconds of each round, and the last state."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.state: State | None = None

    def trained(self, done: Sequence[Figures], seconds: float) -> None:
        """A round took `seconds`."""
        del done
        self.seconds.append(seconds)

    def reached(self, state: State) -> None:
        """The leg has come as far as `state`."""
        self.state = state

    def again(self, reason: str) -> None:
        """Rounds are run again."""

    def dropped(self, reason: str) -> None:
        """A worker is left out."""
