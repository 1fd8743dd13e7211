"""The training loop: rounds of tau steps in every worker, and an average between two of them.

SparkNet's algorithm (Moritz, Nishihara, Stoica, Jordan: "SparkNet: Training Deep Networks in Spark", ICLR 2016).
"""

import contextlib
import dataclasses
import math
import pathlib
import time
from collections.abc import Iterator

import numpy as np

from .. import caffe_ext
from . import checkpoint, worker
from .average import mean, next_histories
from .checkpoint import State
from .config import RunConfig
from .events import Emit, Round, Snapshot, Start, Test
from .means import Means
from .plan import Plan, checkpoint_name, phase_net, plain_solver
from .signals import uninterrupted
from .spark import Cluster, Own, Rows, SparkContext
from .worker import Job, Tested, Trained


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run leaves: rounds and iterations done, the last test's metrics ({}: none), the last snapshot's files."""

    round: int
    iteration: int
    metrics: dict[str, float]
    files: tuple[pathlib.Path, ...]


def run(plan: Plan, config: RunConfig, emit: Emit, context: SparkContext | None = None) -> Result:
    """Trains on Spark as `config` says, telling `emit` what happens; `context` is a Spark that runs already.

    When it fails or is interrupted, the weights of the last whole round are kept in a snapshot before the error
    goes on. Raises what workers raise (DivergedError, LayerError, DataError), ClusterError, OutputError,
    WeightsError.
    """
    # Whatever can be wrong here is found before Spark starts.
    train_net = phase_net(plan.net, plan.solver, "TRAIN")
    solver = caffe_ext.Solver(plain_solver(plan.solver), train_net, seed=config.seed, precision=config.precision)
    state, config, started = _begin(plan, config, solver)
    rounds = config.rounds
    if config.max_iter is not None:
        rounds = state.round + max(0, math.ceil((config.max_iter - state.iteration) / config.tau))
    with Cluster(config.master, config.workers, context) as cluster:
        rows = cluster.rows("train", plan.train.source)
        tests = cluster.rows("test", plan.test.source) if plan.test else None
        means = Means(
            rows.source.columns,
            lambda column: cluster.each(rows, worker.column_sum, column),
            (pathlib.Path(), plan.folder),
            config.snapshot_dir,
        )
        job = Job(
            run=cluster.run,
            train_net=train_net.SerializeToString(),
            test_net=phase_net(plan.net, plan.solver, "TEST").SerializeToString(),
            solver=plain_solver(plan.solver).SerializeToString(),
            train=tuple(map(means.fill, plan.train.feeds)),
            test=tuple(map(means.fill, plan.test.feeds if plan.test else ())),
            seed=config.seed,
            threads=cluster.threads,
            neighbours=cluster.workers if cluster.here and config.pin else 1,
            send_history=config.momentum != "RESET",
            precision=config.precision,
            memory=config.memory,
        )
        # Starting processes, reading rows and building nets are no part of a round, nor of averaging.
        cluster.each(rows, worker.prepare, job)
        batch = solver.net.blobs[job.train[0].top].shape[0] * max(1, solver.param.iter_size)
        notes = (*plan.notes, *means.notes, *started)
        emit(_start(plan, config, cluster, state, rounds, batch, notes))
        loop = _Loop(cluster, job, solver, config, rows, tests, emit, checkpoint_name(plan.solver, plan.name), state)
        with loop.kept():
            while loop.state.round < rounds:
                loop.round(rounds)
                last = loop.state.round == rounds
                if tests and (last or (config.test_every and loop.state.round % config.test_every == 0)):
                    loop.test()
                if last or (config.snapshot_every and loop.state.round % config.snapshot_every == 0):
                    loop.snapshot()
            if tests and not loop.metrics:
                loop.test()
    return Result(loop.state.round, loop.state.iteration, loop.metrics, loop.files)


class _Loop:
    """The steps of the loop, and what passes from one to the next."""

    def __init__(
        self,
        cluster: Cluster,
        job: Job,
        solver: caffe_ext.Solver,
        config: RunConfig,
        rows: Rows,
        tests: Rows | None,
        emit: Emit,
        name: str,
        state: State,
    ) -> None:
        self.cluster = cluster
        self.job = job
        self.solver = solver
        self.config = config
        self.rows = rows
        self.tests = tests
        self.emit = emit
        self.name = name
        self.state = state
        self.metrics: dict[str, float] = {}
        self.files: tuple[pathlib.Path, ...] = ()
        self._saved = state.round

    def round(self, rounds: int) -> None:
        """Broadcasts the state, trains tau steps on every partition and averages."""
        state, config = self.state, self.config
        steps = config.tau
        if config.max_iter is not None:
            steps = min(steps, config.max_iter - state.iteration)
        started = time.perf_counter()
        history = Own(state.histories or (None,))
        done: list[Trained] = self.cluster.each(
            self.rows,
            worker.train_round,
            self.job,
            state.weights,
            history,
            state.round,
            state.iteration,
            steps,
        )
        histories = tuple(result.history for result in done if result.history is not None)
        self.state = State(
            round=state.round + 1,
            iteration=state.iteration + steps,
            weights=mean([result.weights for result in done]),
            histories=next_histories(histories, config.momentum),
        )
        seconds = time.perf_counter() - started
        self.solver.iter = self.state.iteration - 1
        self.emit(
            Round(
                round=self.state.round,
                rounds=rounds,
                iteration=self.state.iteration,
                loss=float(np.mean([result.losses for result in done])),
                rate=self.solver.lr,
                rows=sum(result.rows for result in done),
                seconds=seconds,
                averaging=max(0.0, 1 - max(result.seconds for result in done) / seconds),
            )
        )

    def test(self) -> None:
        """Computes the metrics of the averaged weights over the whole test set."""
        if self.tests is None:
            return
        started = time.perf_counter()
        checkpoint.put(self.solver, self.state)
        params = {layer: [blob.data.copy() for blob in blobs] for layer, blobs in self.solver.net.params.items()}
        done: list[Tested] = self.cluster.each(self.tests, worker.test, self.job, params)
        done = [result for result in done if result.rows]
        names = list(done[0].metrics)
        values = [np.array([result.metrics[name] for name in names]) for result in done]
        total = mean(values, [result.rows for result in done])
        self.metrics = dict(zip(names, total.tolist(), strict=True))
        self.emit(
            Test(
                round=self.state.round,
                iteration=self.state.iteration,
                metrics=self.metrics,
                rows=sum(result.rows for result in done),
                seconds=time.perf_counter() - started,
            )
        )

    def snapshot(self) -> None:
        """Writes the state to the snapshot folder."""
        config = self.config
        self.files = checkpoint.save(config.snapshot_dir, self.name, self.solver, self.state, config)
        self._saved = self.state.round
        files = tuple(str(path) for path in self.files)
        self.emit(Snapshot(round=self.state.round, iteration=self.state.iteration, files=files))

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """When the block fails, writes what the rounds so far have learnt before the error goes on."""
        try:
            yield
        except BaseException:
            if self.state.round > self._saved:
                with uninterrupted():
                    self.snapshot()
            raise


def _begin(plan: Plan, config: RunConfig, solver: caffe_ext.Solver) -> tuple[State, RunConfig, tuple[str, ...]]:
    if config.resume:
        path, wrong = checkpoint.newest(config.snapshot_dir, checkpoint_name(plan.solver, plan.name))
        state, config = checkpoint.load(path, solver, config)
        return state, config, (*wrong, f"goes on from {path}: round {state.round}, iteration {state.iteration:,}")
    paths = [config.weights] if config.weights else [pathlib.Path(path) for path in plan.solver.weights]
    notes = checkpoint.start_from(paths, solver.net, plan.name)
    return State(0, 0, solver.net.flat_data.copy(), ()), config, notes


def _start(
    plan: Plan,
    config: RunConfig,
    cluster: Cluster,
    state: State,
    rounds: int,
    batch: int,
    notes: tuple[str, ...],
) -> Start:
    return Start(
        model=plan.name,
        workers=config.workers,
        tau=config.tau,
        rounds=rounds,
        seed=config.seed,
        master=cluster.master,
        momentum=config.momentum,
        precision=config.precision,
        round=state.round,
        iteration=state.iteration,
        batch=batch,
        parameters=state.weights.size,
        train=plan.train.uri,
        test=plan.test.uri if plan.test else None,
        train_rows=plan.train.source.rows,
        test_rows=plan.test.source.rows if plan.test else 0,
        notes=notes,
    )
