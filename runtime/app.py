"""`sparknet-run`: from the command line's words to a finished run and an exit status."""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping

from .. import Model, compile_file
from ..diagnostics import Diagnostic, render_diagnostics
from ..errors import DataError, ModelError, SparkNetError
from ..proto import caffe_pb2
from .checkpoint import check_folder
from .config import RunConfig
from .console import ConsoleReport
from .data import Phase, open_source, parse_uri
from .events import Emit, JsonLines
from .feeds import data_layers, feed_net, no_source
from .plan import Plan, phase_net
from .report import Report
from .train import run

INTERRUPTED = 130


def main(
    model: str,
    *,
    workers: int | None = None,
    master: str | None = None,
    train: str | None = None,
    test: str | None = None,
    tau: int | None = None,
    rounds: int | None = None,
    seed: int | None = None,
    snapshot_dir: str | None = None,
    weights: str | None = None,
    resume: bool = False,
    defines: Mapping[str, str] = {},
    json: str | None = None,
) -> int:
    """Trains the model in the file `model` (.snet, or a solver's .prototxt); None stands for an option not given.

    Prints progress to standard output and errors to standard error, one message each. Returns the exit status: 0
    done, 1 the model or the data is wrong, 2 the command line is wrong, 3 the cluster failed, 130 interrupted.
    """
    show = ConsoleReport()
    try:
        with contextlib.ExitStack() as stack:
            sinks: list[Emit] = [show]
            if json is not None:
                sinks.append(stack.enter_context(JsonLines(json)))
            report = stack.enter_context(Report(sinks))
            compiled = _compile(model, defines, train, test)
            solver = compiled.solver
            if solver is None:
                raise ModelError(
                    f"{model} has no solver: write a `solver (...)` beside the net, or run the solver's file"
                )
            config = RunConfig.resolve(
                compiled.spark,
                solver,
                workers=workers,
                master=master,
                tau=tau,
                rounds=rounds,
                seed=seed,
                snapshot_dir=snapshot_dir,
                train=train,
                test=test,
                weights=weights,
                resume=resume,
            )
            check_folder(config.snapshot_dir)
            plan = _plan(model, compiled, solver, config)
            show.wait("starting Spark, reading rows")
            run(plan, config, report)
    except SparkNetError as error:
        diagnostics = error.diagnostics if isinstance(error, ModelError) else ()
        print(_rendered(diagnostics) if diagnostics else f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def _rendered(diagnostics: Iterable[Diagnostic]) -> str:
    return render_diagnostics(diagnostics, color=sys.stderr.isatty() and "NO_COLOR" not in os.environ)


def _compile(path: str, defines: Mapping[str, str], train: str | None, test: str | None) -> Model:
    """Compiles the model; its data layers take their shapes from the sources that the command line names."""
    shapes: dict[str, list[tuple[int, ...]]] = {}
    phases: dict[Phase, str | None] = {"TRAIN": train, "TEST": test}
    for phase, name in phases.items():
        if name is not None:
            columns = {column.name: column.shape for column in open_source(name, phase).columns}
            uri = parse_uri(name)
            asked = [column for column in (uri.columns if uri else ()) if column in columns]
            shapes[phase] = [columns[column] for column in asked or columns]
    model = compile_file(path, defines=defines, data_shapes=shapes or None)
    if model.diagnostics:
        print(_rendered(model.diagnostics), file=sys.stderr)
    return model


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
