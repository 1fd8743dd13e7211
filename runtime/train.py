"""The training loop: rounds of tau steps in every worker, and an average between two of them.

SparkNet's algorithm (Moritz, Nishihara, Stoica, Jordan: "SparkNet: Training Deep Networks in Spark", ICLR 2016).
"""

import contextlib
import dataclasses
import math
import pathlib
import re
import signal
import threading
import time
from collections.abc import Iterator

import numpy as np

from .. import caffe_ext
from ..errors import DataError, WeightsError
from ..files import write_atomic
from ..proto import caffe_pb2
from . import checkpoint, worker
from .average import Array, mean, next_histories
from .checkpoint import State
from .config import RunConfig
from .data import Phase
from .events import Emit, Round, Snapshot, Start, Test
from .feeds import Fed
from .spark import Cluster, Own, Rows
from .worker import Feed, Job, Tested, Trained


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be trained, looked at as far as that goes without Spark.

    name          of the net
    folder        of the model's file: a mean_file is looked for there, too
    net, solver   the model's messages; the net has the layers of both phases
    train, test   what feeds them; test None: no tests
    notes         what the user should know of it
    """

    name: str
    folder: pathlib.Path
    net: caffe_pb2.NetParameter
    solver: caffe_pb2.SolverParameter
    train: Fed
    test: Fed | None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run leaves: rounds and iterations done, the last test's metrics ({}: none), the last snapshot's files."""

    round: int
    iteration: int
    metrics: dict[str, float]
    files: tuple[pathlib.Path, ...]


def run(plan: Plan, config: RunConfig, cluster: Cluster, emit: Emit) -> Result:
    """Trains on `cluster` as `config` says, telling `emit` what happens.

    When it fails or is interrupted, the weights of the last whole round are kept in a snapshot before the error
    goes on. Raises what workers raise (DivergedError, LayerError, DataError), ClusterError, OutputError,
    WeightsError.
    """
    rows = cluster.rows("train", plan.train.source)
    job, notes = _job(plan, config, cluster, rows)
    solver = worker.make_solver(job)
    state, config, note = _begin(plan, config, solver)
    if config.seed != job.seed:
        job = dataclasses.replace(job, seed=config.seed)
    rounds = config.rounds
    if config.max_iter is not None:
        rounds = state.round + max(0, math.ceil((config.max_iter - state.iteration) / config.tau))
    tests = cluster.rows("test", plan.test.source) if plan.test else None
    batch = solver.net.blobs[job.train[0].top].shape[0] * max(1, solver.param.iter_size)
    emit(_start(plan, config, cluster, state, rounds, batch, (*plan.notes, *notes, *note)))

    # Starting processes, reading rows and building nets are no part of a round, nor of averaging.
    cluster.each(rows, worker.prepare, job)
    loop = _Loop(cluster, job, solver, config, rows, tests, emit, checkpoint_name(plan), state)
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
                with _uninterrupted():
                    self.snapshot()
            raise


def checkpoint_name(plan: Plan) -> str:
    """The name that a run's snapshots begin with: the solver's snapshot_prefix without folder, else the net's name."""
    name = pathlib.PurePath(plan.solver.snapshot_prefix).name or plan.name or "net"
    return re.sub(r"[^\w.+-]+", "_", name)


def phase_net(net: caffe_pb2.NetParameter, solver: caffe_pb2.SolverParameter, phase: Phase) -> caffe_pb2.NetParameter:
    """`net` in `phase`, with the levels and stages that the solver's train_state or (first) test_state adds."""
    result = caffe_pb2.NetParameter()
    result.CopyFrom(net)
    if phase == "TRAIN":
        result.state.MergeFrom(solver.train_state)
        result.state.phase = caffe_pb2.TRAIN
    else:
        result.state.MergeFrom(solver.test_state[0] if solver.test_state else caffe_pb2.NetState())
        result.state.phase = caffe_pb2.TEST
    return result


def plain_solver(solver: caffe_pb2.SolverParameter) -> caffe_pb2.SolverParameter:
    """`solver` without nets, tests, display and snapshots: those are the loop's."""
    result = caffe_pb2.SolverParameter()
    result.CopyFrom(solver)
    for field in (
        *("net", "net_param", "train_net", "train_net_param", "test_net", "test_net_param"),
        *("train_state", "test_state", "test_iter", "test_interval", "test_initialization"),
        *("display", "average_loss", "snapshot", "snapshot_prefix", "snapshot_after_train"),
        *("snapshot_format", "snapshot_diff", "weights"),
        *("solver_mode", "device_id"),
    ):
        result.ClearField(field)
    return result


def _job(plan: Plan, config: RunConfig, cluster: Cluster, rows: Rows) -> tuple[Job, tuple[str, ...]]:
    images = _Means(plan, config, cluster, rows)
    tested = plan.test.feeds if plan.test else ()
    job = Job(
        run=cluster.run,
        train_net=phase_net(plan.net, plan.solver, "TRAIN").SerializeToString(),
        test_net=phase_net(plan.net, plan.solver, "TEST").SerializeToString(),
        solver=plain_solver(plan.solver).SerializeToString(),
        train=tuple(map(images.fill, plan.train.feeds)),
        test=tuple(map(images.fill, tested)),
        seed=config.seed,
        threads=cluster.threads,
        send_history=config.momentum != "RESET",
    )
    return job, tuple(images.notes)


class _Means:
    """The mean images that feeds name by file: read, or computed where the file does not exist, each once."""

    def __init__(self, plan: Plan, config: RunConfig, cluster: Cluster, rows: Rows) -> None:
        self.plan = plan
        self.config = config
        self.cluster = cluster
        self.rows = rows
        self.notes: list[str] = []
        self._known: dict[str, Array] = {}

    def fill(self, feed: Feed) -> Feed:
        if not feed.mean_file:
            return feed
        if feed.mean_file not in self._known:
            self._known[feed.mean_file] = self._find(feed)
        return dataclasses.replace(feed, mean=self._known[feed.mean_file])

    def _find(self, feed: Feed) -> Array:
        for path in (pathlib.Path(feed.mean_file), self.plan.folder / feed.mean_file):
            if path.is_file():
                found: Array = caffe_ext.read_mean(path)
                return found
        if feed.column not in (column.name for column in self.rows.source.columns):
            raise DataError(
                f"{feed.mean_file} does not exist, and the training data has no column `{feed.column}` to "
                "compute it from"
            )
        parts = self.cluster.each(self.rows, worker.column_sum, feed.column)
        count = sum(rows for _, rows in parts)
        total = np.sum([part for part, _ in parts], axis=0)
        image: Array = (total / count).astype(np.float32)
        # Beside the weights: whoever uses them needs it.
        kept = self.config.snapshot_dir / pathlib.PurePath(feed.mean_file).name
        blob = caffe_pb2.BlobProto(data=image.ravel().tolist())
        if image.ndim == 3:
            blob.num = 1
            blob.channels, blob.height, blob.width = image.shape
        write_atomic(kept, blob.SerializeToString())
        self.notes.append(
            f"mean image: {feed.mean_file} does not exist, so it was computed from the {count:,} training rows and "
            f"kept in {kept.absolute()}"
        )
        return image


def _begin(plan: Plan, config: RunConfig, solver: caffe_ext.Solver) -> tuple[State, RunConfig, tuple[str, ...]]:
    if config.resume:
        path = checkpoint.newest(config.snapshot_dir, checkpoint_name(plan))
        state, config = checkpoint.load(path, solver, config)
        return state, config, (f"goes on from {path}: round {state.round}, iteration {state.iteration:,}",)
    notes = []
    for path in [config.weights] if config.weights else map(pathlib.Path, plan.solver.weights):
        known = caffe_ext.read_weights(path)
        taken = [layer for layer in solver.net.params if layer in known]
        if not taken:
            raise WeightsError(
                f"{path} has weights for the layers {', '.join(known) or '(none)'}, none of which is in {plan.name}: "
                "weights are taken by the layers' names"
            )
        solver.net.copy_from(path)
        notes.append(f"starts from {path}: weights of {', '.join(taken)}")
    return State(0, 0, solver.net.flat_data.copy(), ()), config, tuple(notes)


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


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C has no effect in this block: it is writing what an earlier one asked to keep."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
