"""Training on Spark from Python, for notebooks and programs; `sparknet-run` is its face on the command line."""

import contextlib
import html
import inspect
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from .. import Model, caffe_ext
from ..errors import DataError, ModelError, UsageError
from ..notebook import LiveChart, history, in_notebook
from ..proto import caffe_pb2
from . import planning
from .checkpoint import check_folder
from .command import compile_model, solver_of
from .config import RunConfig
from .console import ConsoleReport
from .data.dataframe import as_source
from .events import Emit, Event
from .feeds import data_layers, feed_net, feed_tests, no_source
from .plan import Plan, phase_net
from .progress import waiting
from .report import Report
from .reports.folder import Subject, config_settings
from .reports.recording import Where, record
from .tau import SHARE
from .trackers import Tracker, follow
from .train import Result, run


class Trainer:
    """Trains a model by parameter averaging on Spark.

        trainer = Trainer("lenet.snet", spark, workers=4, tau=50)
        result = trainer.fit("mnist:data/mnist", "mnist:data/mnist")
        trainer.net().forward(data=images)

    model       a .snet file, a solver's .prototxt, a model of the library ("lenet"), or a compiled Model
    spark       a SparkSession or SparkContext that runs already, and goes on running; None: each `fit` starts its own
    callbacks   called with every event (runtime.events) as it happens, after the progress is shown; trackers
                (runtime.trackers) are such
    show        whether progress is shown: in a notebook as a chart that grows (notebook.LiveChart), else in lines
    defines     values for the model's options
    report      the folder that tells of the run (docs/report.md); None: a new one in ./runs; False: none
    ui          a port, or HOST:PORT, that shows the report while it trains
    settings    those of RunConfig.resolve but train, test and resume: workers, master, tau, rounds, seed,
                snapshot_dir, weights, precision, memory, pin, conf, ship_env, average, averaging (a mapping),
                averaging_share, bad_records

    `history` has all events of the last `fit`. Raises UsageError for a setting that there is not.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Model,
        spark: Any = None,
        *,
        callbacks: Sequence[Emit] = (),
        show: bool = True,
        defines: Mapping[str, str] = {},
        report: Where = None,
        ui: str | int | None = None,
        **settings: Any,
    ) -> None:
        unknown = sorted(settings.keys() - SETTINGS)
        if unknown:
            raise UsageError(f"Trainer has no setting {', '.join(unknown)}; there are {', '.join(sorted(SETTINGS))}")
        self.history: list[Event] = []
        self.result: Result | None = None
        self._model = model
        self._context = getattr(spark, "sparkContext", spark)
        self._callbacks = tuple(callbacks)
        self._show: ConsoleReport | LiveChart | None = None
        if show and not any(isinstance(each, LiveChart) for each in callbacks):
            self._show = LiveChart() if in_notebook() else ConsoleReport()
        self._defines = defines
        self._report = report
        self._ui = None if ui is None else str(ui)
        self._settings = settings
        self._compiled: Model | None = None
        self._stopped = False

    def fit(self, train: Any = None, test: Any = None, *, resume: bool = False) -> Result:
        """Trains to the end, on `train` and `test` in place of the model's sources.

        Each is a URI, or a DataFrame of the Spark that the trainer was given (`runtime.data.DataFrame` takes options).
        `resume` goes on from the newest snapshot. When training fails or is interrupted, what the rounds so far have
        learnt is kept in a snapshot first. A report that can no longer be written is an OutputError when all else is
        done: `result` is there. Raises ModelError, DataError, UsageError, ClusterError, OutputError, and
        what the engine raises.
        """
        self.history = []
        self._stopped = False
        tracked = [callback for callback in self._callbacks if isinstance(callback, Tracker)]
        others = [callback for callback in self._callbacks if callback not in tracked]
        sinks = (self.history.append, *([self._show] if self._show else []), *others)
        with Report(sinks) as report:
            plan, config = self._planned(train, test, resume)
            if config.snapshot_url is None:
                check_folder(config.snapshot_dir)
            subject = self._subject(plan, config)
            follow(report, tracked, subject.model, record(report, subject, self._report, self._ui, self._say))
            for shown in sinks:
                if isinstance(shown, ConsoleReport | LiveChart):
                    shown.wait("starting Spark, reading rows")
            self.result = run(plan, config, report, self._context, lambda: self._stopped)
        return self.result

    def plan(self, train: Any = None, test: Any = None, json: str | None = None) -> None:
        """Trains nothing: measures a few iterations and averages, and prints what other workers and tau would bring.

        `train` and `test` are as for `fit`. Writes the same to the file `json`, one object. Raises what `fit` raises.
        """
        plan, config = self._planned(train, test, False)
        with waiting("starting Spark, reading rows, measuring") if self._show else contextlib.nullcontext():
            probe = planning.probe_of(plan, config, self._context)
        planning.show(probe, SHARE if config.averaging_share is None else config.averaging_share, json)

    def _repr_html_(self) -> str:
        return (
            history(self.history) if self.history else f"<code>{html.escape(repr(self))}</code>: nothing is trained yet"
        )

    def stop(self) -> None:
        """Ends `fit` early, from a callback or another thread: after the leg at hand, with a test and a snapshot."""
        self._stopped = True

    def net(self, phase: int = caffe_ext.TEST) -> caffe_ext.Net:
        """The net, without its data layers (the deploy net where the model has one and `phase` is TEST), as trained.

        Raises ModelError before `fit`, and where the weights lie on a filesystem that only Spark reaches.
        """
        if self.result is None or self._compiled is None or not self.result.files:
            raise ModelError("nothing is trained yet: call fit() first")
        weights = self.result.files[0]
        if not isinstance(weights, pathlib.Path):
            raise ModelError(f"the weights are in {weights}: copy them here, and give them to caffe_ext.Net")
        deploy = self._compiled.deploy if phase == caffe_ext.TEST else None
        return caffe_ext.Net(deploy or self._compiled.net, phase, weights=weights)

    def _subject(self, plan: Plan, config: RunConfig) -> Subject:
        """What the report tells of."""
        assert self._compiled is not None
        return Subject(
            name=plan.name,
            model=self._compiled,
            solver=plan.solver,
            settings={**config_settings(config), **{f"-D {name}": value for name, value in self._defines.items()}},
            test=plan.test,
            folders=(pathlib.Path(), plan.folder, config.snapshot_dir),
            precision=config.precision,
            bad_records=config.bad_records,
            spark=True,
        )

    def _say(self, text: str) -> None:
        if isinstance(self._show, ConsoleReport):
            self._show.say(text)

    def _planned(self, train: Any, test: Any, resume: bool) -> tuple[Plan, RunConfig]:
        train, test = as_source(train), as_source(test)
        if isinstance(self._model, Model):
            compiled, path = self._model, str(self._model.path or self._model.name)
        else:
            path = os.fspath(self._model)
            compiled = compile_model(path, self._defines, train, test)
        self._compiled = compiled
        solver = solver_of(compiled)
        config = RunConfig.resolve(compiled.spark, solver, train=train, test=test, resume=resume, **self._settings)
        return plan_of(path, compiled, solver, config), config


SETTINGS = frozenset(inspect.signature(RunConfig.resolve).parameters) - {
    *("spark", "solver"),
    *("train", "test", "resume"),
}


def plan_of(path: str, model: Model, solver: caffe_pb2.SolverParameter, config: RunConfig) -> Plan:
    """Finds what feeds the net; raises DataError where nothing does."""
    train_net, test_net = phase_net(model.net, solver, "TRAIN"), phase_net(model.net, solver, "TEST")
    file = pathlib.Path(path)
    train = feed_net(train_net, "TRAIN", config.train, str(file.parent))
    if train is None:
        raise DataError(no_source(path, data_layers(train_net, "TRAIN"), "TRAIN"))
    test, why = feed_tests(path, test_net, config.train, config.test, str(file.parent))
    notes = () if test else (f"no tests: {why}",)
    return Plan(model.name or file.stem, file.parent, model.net, solver, train, test, notes)
