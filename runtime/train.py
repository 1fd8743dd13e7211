"""The training loop: rounds of tau steps in every worker, and an average between two of them.

SparkNet's algorithm (Moritz, Nishihara, Stoica, Jordan: "SparkNet: Training Deep Networks in Spark", ICLR 2016).
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .. import caffe_ext
from ..errors import OutputError
from . import checkpoint, worker
from .average import mean
from .checkpoint import State
from .choice import choose
from .config import RunConfig
from .events import Again, Dropped, Emit, Layers, Round, Snapshot, Start, Tau, Test, Worker
from .exchange import Exchange
from .layer_stats import layer_stats
from .plan import Plan, checkpoint_name
from .remote import RemoteFolder
from .session import Session, session
from .signals import uninterrupted
from .spark import Cluster, Rows, SparkContext
from .tau import AUTO, AutoTau
from .worker import Figures, Job, Tested


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run leaves: rounds and iterations done, the last test's metrics ({}: none), the last snapshot's files.

    files        paths, or URLs of a Hadoop filesystem
    """

    round: int
    iteration: int
    metrics: dict[str, float]
    files: tuple[pathlib.Path | str, ...]


def run(
    plan: Plan,
    config: RunConfig,
    emit: Emit,
    context: SparkContext | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Trains on Spark as `config` says, telling `emit` what happens; `context` is a Spark that runs already.

    Ends early, as if all rounds were done, after a leg at whose end `stop` says so.

    When it fails or is interrupted, the weights of the last whole round are kept in a snapshot before the error
    goes on. Raises what workers raise (DivergedError, LayerError, DataError), ClusterError, OutputError,
    WeightsError.
    """
    with session(plan, config, context) as ready:
        cluster, config, state = ready.cluster, ready.config, ready.state
        exchange, average, chosen = choose(
            config.average, cluster, ready.rows, ready.rule, state.weights.size, config.late
        )
        config = dataclasses.replace(config, average=average)
        name = checkpoint_name(plan.solver, plan.name)
        tests = ready.tests
        overlap, notes = _overlap(config, cluster)
        loop = _Loop(cluster, ready.job, exchange, ready.solver, config, tests, ready.remote, emit, name, state)
        emit(_start(plan, config, ready, loop.rounds, (*ready.notes, *chosen, *notes)))
        for held in (ready.train, ready.test):
            if held is not None and held.skipped is not None:
                emit(held.skipped)
        with loop.kept(), loop.testing:
            last = False
            while not (last or loop.done):
                loop.leg()
                last = loop.done or stop()
                if tests and (last or (config.test_every and loop.state.round % config.test_every == 0)):
                    loop.test()
                    if last or not overlap:
                        loop.tested()
                if last or (config.snapshot_every and loop.state.round % config.snapshot_every == 0):
                    loop.snapshot()
            if tests and not loop.metrics:
                loop.test()
                loop.tested()
    return Result(loop.state.round, loop.state.iteration, loop.metrics, loop.files)


class _Loop:
    """The steps of the loop, and what passes from one to the next."""

    def __init__(
        self,
        cluster: Cluster,
        job: Job,
        exchange: Exchange,
        solver: caffe_ext.Solver,
        config: RunConfig,
        tests: Rows | None,
        remote: RemoteFolder | None,
        emit: Emit,
        name: str,
        state: State,
    ) -> None:
        self.cluster = cluster
        self.job = job
        self.exchange = exchange
        self.solver = solver
        self.config = config
        self.tests = tests
        self.remote = remote
        self.emit = emit
        self.name = name
        self.state = state
        self.metrics: dict[str, float] = {}
        self.files: tuple[pathlib.Path | str, ...] = ()
        # The test that goes on, if any: an error in the rounds cancels it.
        self.testing = contextlib.ExitStack()
        self._tested: Callable[[], None] = lambda: None
        self._saved = self._round = state.round
        self._described = -1
        self._iteration = state.iteration
        share = config.averaging_share
        self._auto = None if share is None else AutoTau(config.tau, share)

    @property
    def rounds(self) -> int:
        """The whole number of rounds; with tau "auto" as it looks now."""
        config, state = self.config, self.state
        ends = [] if config.rounds is None else [config.rounds]
        if config.max_iter is not None:
            ends.append(state.round + config.tau.rounds(config.max_iter, state.iteration))
        return min(ends)

    @property
    def done(self) -> bool:
        """Whether the last round is over."""
        return self.state.round >= self.rounds

    def leg(self) -> None:
        """Trains until the weights are wanted here, for a test, for a snapshot or at the end, or a part of the way."""
        self._choose_tau()
        config = self.config
        every = (config.test_every if self.tests else 0, config.snapshot_every)
        until = min([self.rounds, *((self.state.round // n + 1) * n for n in every if n)])
        if self._auto is not None:
            until = min(until, self.state.round + self._auto.after)
        steps: list[int] = []
        for _ in range(until - self.state.round):
            begin = self.state.iteration + sum(steps)
            steps.append(config.tau.at(begin))
            if config.max_iter is not None:
                steps[-1] = min(steps[-1], config.max_iter - begin)
        self.exchange.leg(self.state, steps, self)

    def _choose_tau(self) -> None:
        auto, state = self._auto, self.state
        if auto is not None and auto.choose(state.iteration):
            self.config = dataclasses.replace(self.config, tau=auto.tau)
            tau, schedule = auto.tau.at(state.iteration), str(auto.tau)
            self.emit(Tau(round=state.round, iteration=state.iteration, tau=tau, schedule=schedule))

    def trained(self, done: Sequence[Figures], seconds: float) -> None:
        """A round is over."""
        self._round += 1
        steps = len(done[0].losses)
        self._iteration += steps
        training = min(seconds, max(each.seconds for each in done))
        if self._auto is not None:
            self._auto.measure(steps, training, seconds - training, self._round == self.state.round + 1)
        self.solver.iter = self._iteration - 1
        self.emit(
            Round(
                round=self._round,
                rounds=self.rounds,
                tau=steps,
                iteration=self._iteration,
                loss=float(np.mean([each.losses for each in done])),
                rate=self.solver.lr,
                rows=sum(each.rows for each in done),
                seconds=seconds,
                averaging=1 - training / seconds,
                each=_each(done, self.config.workers),
            )
        )

    def reached(self, state: State) -> None:
        """The weights of a whole round are here."""
        self.state = state

    def again(self, reason: str) -> None:
        """Rounds since the last state are run again."""
        self.emit(Again(round=self.state.round, iteration=self.state.iteration, reason=reason))

    def dropped(self, reason: str) -> None:
        """A worker is left out of the next round."""
        self.emit(Dropped(round=self._round, iteration=self._iteration, reason=reason))

    def test(self) -> None:
        """Begins to compute the metrics of the averaged weights over the whole test set."""
        self.tested()
        if self.tests is None:
            return
        started, state = time.perf_counter(), self.state
        checkpoint.put(self.solver, state)
        params = {layer: [blob.data.copy() for blob in blobs] for layer, blobs in self.solver.net.params.items()}
        job = self.testing.enter_context(
            self.cluster.begin(self.tests, worker.test, self.job, params, what=f"test after round {state.round}")
        )
        # While the workers test.
        self._describe()
        ended: list[float] = []
        job.add_done_callback(lambda _: ended.append(time.perf_counter()))
        self._tested = lambda: self._tell(state, self.cluster.results(job), ended[0] - started)

    def _describe(self) -> None:
        """Tells of the weights in the solver, the state's."""
        state = self.state
        if self._described != state.iteration:
            self._described = state.iteration
            self.emit(Layers(round=state.round, iteration=state.iteration, layers=layer_stats(self.solver.net)))

    def tested(self) -> None:
        """Waits for the end of the test that goes on, and tells of it."""
        tested, self._tested = self._tested, lambda: None
        tested()
        self.testing.close()

    def _tell(self, state: State, done: Sequence[Tested], seconds: float) -> None:
        done = [result for result in done if result.rows]
        names = list(done[0].metrics)
        values = [np.array([result.metrics[name] for name in names]) for result in done]
        total = mean(values, [result.rows for result in done])
        self.metrics = dict(zip(names, total.tolist(), strict=True))
        self.emit(
            Test(
                round=state.round,
                iteration=state.iteration,
                metrics=self.metrics,
                rows=sum(result.rows for result in done),
                seconds=seconds,
            )
        )

    def snapshot(self) -> None:
        """Writes the state to the snapshot folder."""
        config = self.config
        written = checkpoint.save(config.snapshot_dir, self.name, self.solver, self.state, config)
        self.files = written if self.remote is None else self.remote.put(written)
        self._saved = self.state.round
        files = tuple(str(path) for path in self.files)
        self.emit(Snapshot(round=self.state.round, iteration=self.state.iteration, files=files))
        self._describe()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """When the block fails, writes what the rounds so far have learnt before the error goes on."""
        try:
            yield
        except BaseException as error:
            # A snapshot that could not be written cannot be written now.
            if self.state.round > self._saved and not isinstance(error, OutputError):
                with uninterrupted():
                    try:
                        self.snapshot()
                    except OutputError as second:
                        # A lost cluster takes its filesystem along; either matters.
                        raise OutputError(f"{str(error) or 'interrupted'}; then {second}") from error
            raise


def _each(done: Sequence[Figures], workers: int) -> tuple[Worker, ...]:
    """What each of `workers` did in a round, of whom those that were left out told nothing."""
    came = {figures.partition: Worker(figures.seconds, figures.rows) for figures in done}
    return tuple(came.get(partition, Worker(0.0, 0)) for partition in range(workers))


def _overlap(config: RunConfig, cluster: Cluster) -> tuple[bool, tuple[str, ...]]:
    """Whether tests run while the next rounds train, and what the user should know of that."""
    wanted = 2 * config.workers
    if not config.overlap_tests or (found := cluster.slots) >= wanted:
        return config.overlap_tests, ()
    return False, (f"tests do not overlap with training: that takes {wanted} slots, but {cluster.master} has {found}",)


def _start(
    plan: Plan,
    config: RunConfig,
    ready: Session,
    rounds: int,
    notes: tuple[str, ...],
) -> Start:
    return Start(
        model=plan.name,
        workers=config.workers,
        tau=_shown(config),
        rounds=rounds,
        seed=config.seed,
        master=ready.cluster.master,
        average=config.average,
        rule=dataclasses.asdict(config.averaging),
        precision=config.precision,
        round=ready.state.round,
        iteration=ready.state.iteration,
        batch=ready.batch,
        parameters=ready.state.weights.size,
        train=plan.train.uri,
        test=plan.test.uri if plan.test else None,
        train_rows=ready.train.total,
        test_rows=ready.test.total if ready.test else 0,
        notes=notes,
    )


def _shown(config: RunConfig) -> int | str:
    """The setting tau, as it was given."""
    if config.averaging_share is not None:
        return AUTO
    return config.tau.pairs[0][1] if len(config.tau.pairs) == 1 else str(config.tau)
