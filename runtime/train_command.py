"""`sparknet-train`: from the command line's words to a run on one machine and an exit status."""

import logging
import os
import pathlib
import secrets
from collections.abc import Mapping, Sequence

from .. import Model, caffe_ext
from ..errors import DataError, ModelError, UsageError
from ..proto import caffe_pb2
from .checkpoint import check_folder, seed_of
from .command import check_counts, command, compile_model, reading_itself, solver_of
from .console import ConsoleReport
from .data import BadPolicy
from .feeds import Fed, data_layers, feed_net, feed_tests, no_source
from .local import OWN, LocalPlan, train
from .plan import phase_net
from .report import Report
from .reports.folder import Subject
from .reports.recording import Where, record
from .signals import Effect, Signals
from .trackers import follow, trackers


def main(
    model: str,
    *,
    train_source: str | None = None,
    test_source: str | None = None,
    weights: Sequence[str] = (),
    snapshot: str | None = None,
    max_iter: int | None = None,
    threads: int | None = None,
    precision: caffe_ext.Precision = "float32",
    memory: caffe_ext.Memory = "reuse",
    bad_records: BadPolicy = "fail",
    seed: int | None = None,
    snapshot_dir: str | None = None,
    sigint: Effect = "stop",
    sighup: Effect = "snapshot",
    defines: Mapping[str, str] = {},
    json: str | None = None,
    tensorboard: str | None = None,
    mlflow: str | None = None,
    mlflow_experiment: str | None = None,
    report: Where = None,
    ui: str | None = None,
) -> int:
    """Trains the model in the file `model` (.snet, or a solver's .prototxt); None stands for an option not given.

    Returns the exit status: 0 done, 1 the model or the data is wrong or training diverged, 2 the command line is wrong,
    130 stopped by a signal.
    """
    show = ConsoleReport()

    def body(run: Report) -> None:
        tracked = trackers(tensorboard, mlflow, mlflow_experiment)
        if weights and snapshot is not None:
            raise UsageError("--weights starts from weights, --snapshot goes on from a run's state: give one of them")
        check_counts(max_iter=max_iter, threads=threads)
        if seed is not None and not 0 <= seed < 2**63:
            raise UsageError(f"--seed {seed}: a seed is a whole number from 0 to 2^63 - 1")
        # A source on the command line replaces data layers; otherwise the net keeps those that read files.
        # They end at the first record that they cannot read.
        keep = train_source is None and test_source is None and bad_records == "fail"
        compiled = compile_model(model, defines, train_source, test_source, keep_data_layers=keep)
        solver = solver_of(compiled)
        if max_iter is not None:
            solver.max_iter = max_iter
        if solver.max_iter <= 0:
            raise ModelError("the solver has no max_iter: give it one, or say --max-iter N")
        state = pathlib.Path(snapshot) if snapshot is not None else None
        train_fed, tests, notes = _sources(model, compiled, solver, train_source, test_source)
        plan = LocalPlan(
            name=compiled.name or pathlib.Path(model).stem,
            folder=pathlib.Path(model).parent,
            net=compiled.net,
            solver=solver,
            train=train_fed,
            tests=tests,
            seed=_seed(seed, solver, state),
            snapshot_dir=_snapshot_dir(snapshot_dir, solver),
            weights=tuple(map(pathlib.Path, weights or _split(solver.weights))),
            snapshot=state,
            precision=precision,
            memory=memory,
            bad_records=bad_records,
            notes=notes,
        )
        check_folder(plan.snapshot_dir)
        if threads is not None:
            caffe_ext.set_num_threads(threads)
        if solver.debug_info:
            _show_debug_info(show)
        kept = record(run, _subject(compiled, plan, defines), report, ui, show.say)
        follow(run, tracked, compiled, kept)
        with Signals(sigint, sighup) as signals, reading_itself("--train SRC --test SRC"):
            train(plan, run, signals)

    return command(body, show, json)


def _subject(compiled: Model, plan: LocalPlan, defines: Mapping[str, str]) -> Subject:
    """What the report tells of."""
    settings = {
        "seed": plan.seed,
        "threads": caffe_ext.num_threads(),
        "precision": plan.precision,
        "memory": plan.memory,
        "train": plan.train.uri if plan.train else OWN,
        "test": (plan.tests[0].uri if plan.tests[0] else OWN) if plan.tests else None,
        "weights": plan.weights,
        "snapshot": plan.snapshot,
        "snapshot_dir": plan.snapshot_dir,
        "bad_records": plan.bad_records,
        **{f"-D {name}": value for name, value in defines.items()},
    }
    return Subject(
        name=plan.name,
        model=compiled,
        solver=plan.solver,
        settings=settings,
        test=plan.tests[0] if plan.tests else None,
        folders=(pathlib.Path(), plan.folder, plan.snapshot_dir),
        precision=plan.precision,
        bad_records=plan.bad_records,
        spark=False,
    )


def _sources(
    model: str, compiled: Model, solver: caffe_pb2.SolverParameter, train: str | None, test: str | None
) -> tuple[Fed | None, tuple[Fed | None, ...], tuple[str, ...]]:
    """What feeds the train net and each test net (None: data layers of its own), and why there are no tests, if so."""
    net = phase_net(compiled.net, solver, "TRAIN")
    folder = os.path.dirname(model)  # noqa: PTH120
    train_fed = feed_net(net, "TRAIN", train, folder)
    if train_fed is None and (layers := data_layers(net, "TRAIN")):
        raise DataError(no_source(model, layers, "TRAIN"))
    if len(solver.test_net) + len(solver.test_net_param) > (0 if solver.HasField("net") else 1):
        raise ModelError(
            "the solver names test nets beside its net: only one train_net with one test_net can be trained here; "
            "several test nets can be told apart by test_state"
        )
    if "TEST" not in compiled.reports and not solver.test_state:  # with test_state, sources may be those of a stage
        return train_fed, (), ()
    tests: list[Fed | None] = []
    for index in range(max(1, len(solver.test_iter))):
        net = phase_net(compiled.net, solver, "TEST", index)
        fed, why = feed_tests(model, net, train, test, folder)
        if fed is None and data_layers(net, "TEST"):
            return train_fed, (), (f"no tests: {why}",)
        if fed is None and not solver.test_iter:
            return train_fed, (), ("no tests: the solver has no test_iter, so nothing says how long they are",)
        tests.append(fed)
    return train_fed, tuple(tests), ()


def _seed(given: int | None, solver: caffe_pb2.SolverParameter, state: pathlib.Path | None) -> int:
    """The seed: as given, of the run that is gone on with, of the solver, or one drawn by chance, and shown."""
    if given is not None:
        return given
    if state is not None and (before := seed_of(state)) is not None:
        return before
    return solver.random_seed if solver.random_seed >= 0 else secrets.randbelow(2**31)


def _snapshot_dir(given: str | None, solver: caffe_pb2.SolverParameter) -> pathlib.Path:
    """Where snapshots go: the folder given, that of snapshot_prefix, or `snapshots`."""
    if given is not None:
        return pathlib.Path(given)
    folder = pathlib.Path(solver.snapshot_prefix).parent
    return folder if folder.name else pathlib.Path("snapshots")


def _split(weights: Sequence[str]) -> list[str]:
    """Caffe's lists of files: separated by commas, in a repeated field."""
    return [path.strip() for paths in weights for path in paths.split(",")]


def _show_debug_info(show: ConsoleReport) -> None:
    """Prints what debug_info logs."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            show.say(record.getMessage())

    logger = logging.getLogger(caffe_ext.__name__ + ".debug")
    logger.setLevel(logging.INFO)
    logger.handlers = [Lines()]
