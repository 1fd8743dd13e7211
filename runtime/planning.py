"""`sparknet-run --plan`: how fast workers and tau would make a run, from a short probe of training and of averaging.

SparkNet's own model (Moritz et al., ICLR 2016, section 3): with C seconds for an iteration and S for an average, tau
iterations of each worker and an average take tau C + S; the naive scheme, in which K workers share every batch and
average after each iteration, takes C / K + S for one.
"""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import statistics
import tempfile
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ..errors import ClusterError
from ..files import write_atomic
from . import worker
from .choice import Still, seconds
from .config import RunConfig
from .plan import Plan
from .ring import Ring
from .session import Session, session
from .shuffle import Shuffle
from .spark import SparkContext
from .worker import Trained

WORKERS = (1, 2, 4, 8, 16)
TAUS = (1, 5, 10, 20, 50, 100, 500)
# A probe trains so many iterations in each worker: some for caches and layouts to settle, then those that count.
WARM_UP, ITERATIONS = 2, 8


@dataclasses.dataclass(frozen=True)
class Probe:
    """What was measured with `workers` workers.

    iteration    seconds of an iteration of one worker with `batch` rows, the median of the workers
    skew         the slowest worker's time over the median
    averages     seconds of an average of the model's `parameters` numbers, by strategy
    here         whether the workers share one machine, so that more of them have fewer cores each
    """

    workers: int
    batch: int
    parameters: int
    iteration: float
    skew: float
    averages: dict[str, float]
    here: bool

    @property
    def strategy(self) -> str:
        """The faster one; "" where none was measured."""
        return min(self.averages, key=lambda name: self.averages[name], default="")


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What is to be expected of `workers` workers and `tau`.

    share        of the time that averaging takes
    speedup      rows in a second, over those of one worker alone
    naive        the same for the naive scheme
    """

    workers: int
    tau: int
    images: float
    share: float
    speedup: float
    naive: float


def probe_of(plan: Plan, config: RunConfig, context: SparkContext | None = None) -> Probe:
    """Starts what a run would start, and measures; leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="sparknet-") as folder:
        # Where a mean image goes that has to be computed.
        aside = dataclasses.replace(config, snapshot_dir=pathlib.Path(folder), snapshot_url=None)
        with session(plan, aside, context) as ready:
            return measure(ready)


def show(probe: Probe, share: float, json_path: str | None) -> None:
    """Prints the table and what follows for averaging to take `share` of the time; writes `json_path`, one object."""
    predictions = predict(probe)
    console = Console(highlight=False)
    console.print(table(probe, predictions))
    advice = advise(probe, predictions, share)
    for line in advice:
        console.print(line, soft_wrap=True)
    if json_path is not None:
        found = {
            "probe": dataclasses.asdict(probe),
            "strategy": probe.strategy,
            "predictions": [dataclasses.asdict(each) for each in predictions],
            "advice": advice,
        }
        write_atomic(json_path, json.dumps(found, indent=2) + "\n")


def measure(ready: Session) -> Probe:
    """Trains a few iterations everywhere, and averages the model's number of zeros by each strategy that works."""
    state, cluster = ready.state, ready.cluster
    done: list[Trained] = []
    for steps in (WARM_UP, ITERATIONS):
        done = cluster.each(
            *(ready.rows, worker.train_round, ready.job, state.weights, None, state.round, state.iteration, steps),
            what="measuring iterations",
        )
    iterations = [each.seconds / ITERATIONS for each in done]
    still = Still.among(cluster.workers)
    averages = {}
    if cluster.workers > 1:
        size = state.weights.size
        averages["spark"] = seconds(Shuffle(cluster, ready.rows, still), size, 3)
        if not cluster.secured():
            # Where the workers do not reach each other there is none.
            with contextlib.suppress(ClusterError):
                ring = Ring(cluster, ready.rows, still, ready.config.deadline, attempts=1)
                averages["ring"] = seconds(ring, size, 3)
    middle = statistics.median(iterations)
    return Probe(
        workers=cluster.workers,
        batch=ready.batch,
        parameters=state.weights.size,
        iteration=middle,
        skew=max(iterations) / middle,
        averages=averages,
        here=cluster.here,
    )


def predict(probe: Probe, workers: Sequence[int] = WORKERS, taus: Sequence[int] = TAUS) -> list[Prediction]:
    """A prediction for each number of workers, and each tau; without a measured average, for one worker only."""
    alone = iteration_of(probe, 1)
    found = []
    for count in workers:
        if count > 1 and not probe.averages:
            continue
        iteration = iteration_of(probe, count) * (probe.skew if count > 1 else 1.0)
        average = average_of(probe, count)
        naive = alone / (alone / count + average)
        for tau in taus:
            time = tau * iteration + average
            images = count * tau * probe.batch / time
            found.append(
                Prediction(
                    workers=count,
                    tau=tau,
                    images=images,
                    share=average / time,
                    speedup=images * alone / probe.batch,
                    naive=naive,
                )
            )
    return found


def iteration_of(probe: Probe, workers: int) -> float:
    """Seconds of an iteration with so many workers: on one machine they share its cores."""
    return probe.iteration * workers / probe.workers if probe.here else probe.iteration


def average_of(probe: Probe, workers: int) -> float:
    """Seconds of an average with so many workers, by the strategy that was the faster one.

    Among workers each one sends and receives 2 (K - 1) / K times the weights; through Spark the driver's part of the
    work grows with their number.
    """
    if workers == 1:
        return 0.0
    grown = {
        "spark": workers / probe.workers,
        "ring": (workers - 1) / workers / ((probe.workers - 1) / probe.workers) if probe.workers > 1 else 1.0,
    }
    return min(time * grown[name] for name, time in probe.averages.items())


def advise(probe: Probe, predictions: Sequence[Prediction], share: float) -> list[str]:
    """What the probe found, in words, and what it would choose for averaging to take `share` of the time at most."""
    said = [
        f"measured with {probe.workers} workers: {probe.iteration * 1e3:.3g} ms an iteration of {probe.batch} rows, "
        f"the slowest worker {probe.skew:.2f} times that; {probe.parameters:,} parameters"
        + "".join(f"; an average by {name} {time:.3g} s" for name, time in sorted(probe.averages.items()))
    ]
    if not probe.averages:
        return [*said, "one worker averages nothing; say --workers 2 or more to see what others would bring"]
    mine = [each for each in predictions if each.workers == probe.workers]
    good = [each for each in mine if each.share <= share]
    if good:
        best = good[0]
        said.append(
            f"for {probe.workers} workers: --average {probe.strategy} --tau {best.tau} "
            f"({best.images:,.0f} images/s, averaging {best.share:.0%})"
        )
    else:
        said.append(
            f"for {probe.workers} workers averaging takes more than {share:.0%} of the time at any tau up to "
            f"{TAUS[-1]}: fewer workers, larger batches, or --exchange bf16 or int8"
        )
    tau = good[0].tau if good else mine[-1].tau
    column = [each for each in predictions if each.tau == tau]
    for before, after in itertools.pairwise(column):
        if after.images < before.images:
            said.append(
                f"warning: {after.workers} workers would be slower than {before.workers} "
                f"({after.images:,.0f} for {before.images:,.0f} images/s at tau {tau})"
            )
            break
    if probe.here:
        said.append("all workers are on this machine: more of them share its cores")
    return said


def table(probe: Probe, predictions: Sequence[Prediction]) -> Table:
    """Images in a second, with averaging's share of the time; and the speed-up over one worker."""
    taus = sorted({each.tau for each in predictions})
    result = Table(title="images/s (averaging's share), by workers and tau", title_justify="left", box=None)
    result.add_column("workers", justify="right")
    for tau in taus:
        result.add_column(f"tau {tau}", justify="right")
    result.add_column("naive scheme", justify="right")
    alone = next(each.images for each in predictions if each.workers == 1)
    for count in sorted({each.workers for each in predictions}):
        row = [each for each in predictions if each.workers == count]
        mark = " *" if count == probe.workers else ""
        result.add_row(
            f"{count}{mark}",
            *(f"{each.images:,.0f} ({each.share:.0%}, {each.speedup:.1f}x)" for each in row),
            f"{row[0].naive * alone:,.0f} ({row[0].naive:.1f}x)",
        )
    return result
