"""Spark, rows, nets and the rule of averaging, ready for rounds: what a run and a plan have in common."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator

from .. import caffe_ext
from . import checkpoint, worker
from .checkpoint import State
from .config import RunConfig
from .data import Phase
from .feeds import Fed
from .ingest import Ingested
from .means import Means
from .plan import Plan, checkpoint_name, phase_net, plain_solver
from .remote import RemoteFolder
from .rule import Rule
from .spark import Cluster, Rows, SparkContext
from .worker import Job


@dataclasses.dataclass(frozen=True)
class Session:
    """What is ready.

    config       with the seed of a run that is gone on with
    state        where it starts
    train, test  what the sources turned out to hold
    batch        rows of an iteration of one worker
    solver       the driver's own, for snapshots and rates
    remote       where snapshots go, if that is no local folder
    notes        what the user should know
    """

    cluster: Cluster
    config: RunConfig
    state: State
    rows: Rows
    tests: Rows | None
    train: Ingested
    test: Ingested | None
    job: Job
    rule: Rule
    batch: int
    solver: caffe_ext.Solver
    remote: RemoteFolder | None
    notes: tuple[str, ...]


@contextlib.contextmanager
def session(plan: Plan, config: RunConfig, context: SparkContext | None = None) -> Iterator[Session]:
    """Starts Spark, unless `context` is one that runs already, reads the rows and builds the workers' nets.

    Raises ClusterError, DataError, OutputError, WeightsError, and what the engine raises.
    """
    # Whatever can be wrong here is found before Spark starts.
    train_net = phase_net(plan.net, plan.solver, "TRAIN")
    solver = caffe_ext.Solver(plain_solver(plan.solver), train_net, seed=config.seed, precision=config.precision)
    began = _begin(plan, config, solver, None) if config.snapshot_url is None else None
    with (
        Cluster(config.master, config.workers, context, config.conf, config.deadline) as cluster,
        _remote(cluster, config) as remote,
    ):
        state, config, started = began or _begin(plan, config, solver, remote)
        rows, held = _ingest(cluster, plan.train, "TRAIN", config)
        held.check_workers()
        tests, tested = _ingest(cluster, plan.test, "TEST", config) if plan.test else (None, None)
        means = Means(
            rows.source.columns,
            lambda column: cluster.each(rows, worker.column_sum, column, what=f"mean of {column}"),
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
            send_history=config.averaging.momentum != "RESET",
            precision=config.precision,
            memory=config.memory,
        )
        if remote is not None:
            remote.put(means.files)
        # Starting processes, reading rows and building nets are no part of a round, nor of averaging.
        cluster.each(rows, worker.prepare, job, what="building nets")
        batch = solver.net.blobs[job.train[0].top].shape[0] * max(1, solver.param.iter_size)
        rule = Rule(
            job=job,
            averaging=config.averaging,
            workers=config.workers,
            rows=held.total,
            history=solver.flat_history.size,
            statistics=solver.net.statistics,
        )
        notes = (*plan.notes, *means.notes, *started)
        yield Session(cluster, config, state, rows, tests, held, tested, job, rule, batch, solver, remote, notes)


def _begin(
    plan: Plan, config: RunConfig, solver: caffe_ext.Solver, remote: RemoteFolder | None
) -> tuple[State, RunConfig, tuple[str, ...]]:
    if remote is not None:
        config = dataclasses.replace(config, snapshot_dir=remote.local)
    if config.resume:
        name = checkpoint_name(plan.solver, plan.name)
        lost = remote.get(name) if remote else ()
        path, wrong = checkpoint.newest(config.snapshot_dir, name, remote.fetch if remote else None)
        state, config = checkpoint.load(path, solver, config)
        return (
            state,
            config,
            (*lost, *wrong, f"goes on from {path}: round {state.round}, iteration {state.iteration:,}"),
        )
    paths = [config.weights] if config.weights else [pathlib.Path(path) for path in plan.solver.weights]
    notes = checkpoint.start_from(paths, solver.net, plan.name)
    return State(0, 0, {"weights": solver.net.flat_data.copy()}), config, notes


def _ingest(cluster: Cluster, fed: Fed, phase: Phase, config: RunConfig) -> tuple[Rows, Ingested]:
    """Has the workers read the rows, each its partition."""
    rows = cluster.rows(phase.lower(), fed.source, config.bad_records)
    held = cluster.each(rows, worker.held, what=f"reading {rows.name} rows")
    return rows, Ingested.of(fed.uri, phase, held)


def _remote(cluster: Cluster, config: RunConfig) -> contextlib.AbstractContextManager[RemoteFolder | None]:
    if config.snapshot_url is None:
        return contextlib.nullcontext()
    return RemoteFolder(cluster.context, config.snapshot_url)
