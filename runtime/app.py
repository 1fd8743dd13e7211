"""`sparknet-run`: from the command line's words to a finished run and an exit status."""

import pathlib
from collections.abc import Mapping
from typing import Any

from .. import Model, caffe_ext
from ..errors import DataError
from ..proto import caffe_pb2
from .checkpoint import check_folder
from .command import command, compile_model, solver_of
from .config import RunConfig
from .console import ConsoleReport
from .feeds import data_layers, feed_net, no_source
from .plan import Plan, phase_net
from .report import Report
from .train import run


def main(
    model: str,
    *,
    workers: int | None = None,
    master: str | None = None,
    train: str | None = None,
    test: str | None = None,
    tau: str | None = None,
    averaging_share: float | None = None,
    averaging: Mapping[str, Any] = {},
    rounds: int | None = None,
    seed: int | None = None,
    snapshot_dir: str | None = None,
    weights: str | None = None,
    resume: bool = False,
    precision: caffe_ext.Precision = "float32",
    memory: caffe_ext.Memory = "reuse",
    pin: bool = True,
    average: str | None = None,
    defines: Mapping[str, str] = {},
    json: str | None = None,
) -> int:
    """Trains the model in the file `model` (.snet, or a solver's .prototxt); None stands for an option not given.

    `averaging` has those of averaging.Averaging's fields that were given.

    Prints progress to standard output and errors to standard error, one message each. Returns the exit status: 0
    done, 1 the model or the data is wrong, 2 the command line is wrong, 3 the cluster failed, 130 interrupted.
    """
    show = ConsoleReport()

    def body(report: Report) -> None:
        compiled = compile_model(model, defines, train, test)
        solver = solver_of(compiled)
        config = RunConfig.resolve(
            compiled.spark,
            solver,
            workers=workers,
            master=master,
            tau=tau,
            averaging_share=averaging_share,
            averaging=averaging,
            rounds=rounds,
            seed=seed,
            snapshot_dir=snapshot_dir,
            train=train,
            test=test,
            weights=weights,
            resume=resume,
            precision=precision,
            memory=memory,
            pin=pin,
            average=average,
        )
        check_folder(config.snapshot_dir)
        plan = _plan(model, compiled, solver, config)
        show.wait("starting Spark, reading rows")
        run(plan, config, report)

    return command(body, show, json)


def _plan(path: str, model: Model, solver: caffe_pb2.SolverParameter, config: RunConfig) -> Plan:
    """Finds what feeds the net; raises DataError where nothing does, or has fewer rows than there are workers."""
    train_net, test_net = phase_net(model.net, solver, "TRAIN"), phase_net(model.net, solver, "TEST")
    train = feed_net(train_net, "TRAIN", config.train)
    if train is None:
        raise DataError(no_source(path, data_layers(train_net, "TRAIN"), "TRAIN"))
    if train.source.rows < config.workers:
        raise DataError(f"{train.uri} has {train.source.rows} rows, too few for {config.workers} workers")
    test = feed_net(test_net, "TEST", config.test)
    notes = () if test else ("no tests: " + no_source(path, data_layers(test_net, "TEST"), "TEST"),)
    file = pathlib.Path(path)
    return Plan(model.name or file.stem, file.parent, model.net, solver, train, test, notes)
