"""Training on one machine, without Spark: one solver, fed by the rows of a source or by the net's own data layers.

Tests, display and snapshots come when the solver's fields say so, as with `caffe train`.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import caffe_ext
from ..errors import DivergedError
from ..proto import caffe_pb2
from . import checkpoint
from .batches import derive
from .data import BadPolicy
from .events import Emit, Iteration, Layers, Snapshot, Start, Test
from .feeds import Fed
from .layer_stats import layer_stats
from .plan import checkpoint_name, phase_net
from .rows import LocalRows
from .signals import Signals, uninterrupted

OWN = "the net's own"  # what feeds a net whose data layers read files themselves
# Without `display` a run tells of itself as many times.
DISPLAYS = 50


@dataclasses.dataclass(frozen=True)
class LocalPlan:
    """What is to be trained, and how.

    net, solver   the model's messages; the net has the layers of both phases
    folder        of the model's file: a mean_file is looked for there, too
    train         what feeds the train net; None: its own data layers
    tests         what feeds each of the solver's test nets (None: its own data layers); without test_iter one or none,
                  whose rows are all tested on, once, at the end
    weights       .caffemodel files to start from, by layer name
    snapshot      .solverstate to go on from; its weights and iteration take the place of those
    precision     in which nets multiply
    memory        what the nets keep between layers
    bad_records   whether records that cannot be read are skipped, or end the run
    """

    name: str
    folder: pathlib.Path
    net: caffe_pb2.NetParameter
    solver: caffe_pb2.SolverParameter
    train: Fed | None
    tests: tuple[Fed | None, ...]
    seed: int
    snapshot_dir: pathlib.Path
    weights: tuple[pathlib.Path, ...] = ()
    snapshot: pathlib.Path | None = None
    precision: caffe_ext.Precision = "float32"
    memory: caffe_ext.Memory = "reuse"
    bad_records: BadPolicy = "fail"
    notes: tuple[str, ...] = ()


def train(plan: LocalPlan, emit: Emit, signals: Signals) -> None:
    """Trains until max_iter, or until `signals` ask for a stop: then there is a snapshot, and a KeyboardInterrupt.

    A run that fails, a NaN loss among the reasons, keeps the weights of its last good iteration in a snapshot before
    the error goes on. Raises DivergedError, LayerError, WeightsError, DataError, OutputError.
    """
    solver = _Trainer(plan, emit)
    notes = _begin(plan, solver)
    with tempfile.TemporaryDirectory(prefix="sparknet-") as folder:
        rows = LocalRows(
            pathlib.Path(folder),
            plan.train,
            (pathlib.Path(), plan.folder),
            plan.snapshot_dir,
            plan.precision,
            plan.bad_records,
        )
        feed, test_feed = _feeds(plan, solver, rows)
        emit(_start(plan, solver, rows, (*plan.notes, *rows.means.notes, *notes)))
        for held in rows.held.values():
            if held.skipped is not None:
                emit(held.skipped)
        with solver.kept():
            solver.begin()
            solver.solve(feed=feed, test_feed=test_feed, action=signals.asked)
            if signals.stop:
                raise KeyboardInterrupt
            if plan.tests and not plan.solver.test_iter:
                emit(_whole_test(plan, solver, rows))
            solver.describe()


def _begin(plan: LocalPlan, solver: "_Trainer") -> tuple[str, ...]:
    if plan.snapshot is None:
        return checkpoint.start_from(plan.weights, solver.net, plan.name)
    solver.restore(plan.snapshot)
    notes = [f"goes on from {plan.snapshot}: iteration {solver.iter:,}"]
    if solver.iter >= solver.param.max_iter:
        notes.append(f"nothing is left to train: max_iter is {solver.param.max_iter:,}; --max-iter N goes further")
    return tuple(notes)


def _feeds(
    plan: LocalPlan, solver: "_Trainer", rows: LocalRows
) -> tuple[Callable[[int], None], Callable[[int, int], None]]:
    """What the solver calls before each pass, in training and in tests.

    What a pass sees, and draws at random, is a function of the seed and of the pass's number alone.
    """
    train = rows.batches(plan.train, "TRAIN", solver.net, plan.seed)
    tests = [rows.batches(fed, "TEST", net, plan.seed) for fed, net in zip(plan.tests, solver.test_nets, strict=False)]
    size = solver.param.iter_size

    def feed(k: int) -> None:
        if k % size == 0:
            solver.net.set_seed(derive(plan.seed, 0, solver.iter))
        if train is not None:
            train.feed(solver.iter * size + k % size)

    def test_feed(net: int, k: int) -> None:
        test = tests[net]
        if test is not None:
            test.feed(k)

    return feed, test_feed


def _whole_test(plan: LocalPlan, solver: "_Trainer", rows: LocalRows) -> Test:
    """The outputs over the whole test set, each row once."""
    fed = plan.tests[0]
    assert fed is not None
    began = time.perf_counter()
    params = {layer: [blob.data for blob in blobs] for layer, blobs in solver.net.params.items()}
    found = rows.test(fed, phase_net(plan.net, plan.solver, "TEST"), params, plan.seed)
    seconds = time.perf_counter() - began
    return Test(iteration=solver.iter, metrics=found.metrics, rows=found.rows, seconds=seconds)


def _start(plan: LocalPlan, solver: "_Trainer", rows: LocalRows, notes: tuple[str, ...]) -> Start:
    first = plan.tests[0] if plan.tests else None
    return Start(
        model=plan.name,
        seed=plan.seed,
        precision=plan.precision,
        iteration=solver.iter,
        max_iter=solver.param.max_iter,
        batch=solver.batch,
        parameters=solver.net.flat_data.size,
        train=plan.train.uri if plan.train else OWN,
        test=(first.uri if first else OWN) if plan.tests else None,
        train_rows=rows.of(plan.train, "TRAIN").rows if plan.train else None,
        test_rows=rows.of(first, "TEST").rows if first else None,
        notes=notes,
    )


class _Trainer(caffe_ext.Solver):
    """A solver that tells of its displays, tests and snapshots."""

    def __init__(self, plan: LocalPlan, emit: Emit) -> None:
        super().__init__(_param(plan), plan.net, seed=plan.seed, memory=plan.memory, precision=plan.precision)
        self._plan = plan
        self._emit = emit
        self._name = checkpoint_name(plan.solver, plan.name)
        self.batch = _batch(self.net, plan.train) * self.param.iter_size
        self.begin()

    def begin(self) -> None:
        """Training begins with the state that the solver has now."""
        self._saved = self._told = self._began = self.iter
        self._described = -1
        self._clock = time.perf_counter()

    def display(self) -> None:
        """Tells how far training has come; called in the middle of an iteration, and after the last."""
        rows = (self.iter - self._told) * self.batch
        now = time.perf_counter()
        self._emit(
            Iteration(
                iteration=self.iter,
                max_iter=self.param.max_iter,
                loss=self.smoothed_loss,
                rate=self.coming_rate,
                rows=rows,
                seconds=now - self._clock,
            )
        )
        self._told, self._clock = self.iter, time.perf_counter()

    def describe(self) -> None:
        """Tells of the weights, and of the gradient of the last iteration."""
        if self._described != self.iter:
            self._described = self.iter
            layers = layer_stats(self.net, gradients=self.iter > self._began)
            self._emit(Layers(iteration=self.iter, layers=layers))

    def test_all(self, feed: Callable[[int, int], None] | None = None) -> list[dict[str, Any]]:
        """Tests every test net, and tells the outputs of one number."""
        results = []
        with self._aside():
            for index, net in enumerate(self.test_nets):
                began = time.perf_counter()
                found = self.test(index, None if feed is None else functools.partial(feed, index))
                results.append(found)
                numbers = {name: value for name, value in found.items() if isinstance(value, float)}
                rows = self.param.test_iter[index] * _batch(net, self._plan.tests[index])
                seconds = time.perf_counter() - began
                self._emit(Test(net=index, iteration=self.iter, metrics=numbers, rows=rows, seconds=seconds))
            self.describe()
        return results

    def snapshot(self, prefix: str | os.PathLike[str] | None = None) -> tuple[str, str]:
        """Writes a snapshot and tells of it; raises DivergedError, and writes none, where a weight is not finite."""
        if prefix is not None:
            return super().snapshot(prefix)
        if not np.isfinite(self.net.flat_data).all():
            raise DivergedError(
                f"training diverged: after iteration {self.iter} a weight is no longer finite; earlier snapshots stay "
                "what they were; lower base_lr, or set clip_gradients"
            )
        with self._aside():
            settings = {"round": 0, "seed": self._plan.seed, "workers": 1, "precision": self._plan.precision}
            files = checkpoint.write(self._plan.snapshot_dir, self._name, self, settings)
            self._saved = self.iter
            self._emit(Snapshot(iteration=self.iter, files=tuple(map(str, files))))
            self.describe()
        return str(files[0]), str(files[1])

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """When the block fails, writes what was learnt before the error goes on."""
        try:
            yield
        except BaseException:
            if self.iter > self._saved and np.isfinite(self.net.flat_data).all():
                with uninterrupted():
                    self.snapshot()
            raise

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        """The time of this block is not training's."""
        began = time.perf_counter()
        yield
        self._clock += time.perf_counter() - began


def _param(plan: LocalPlan) -> caffe_pb2.SolverParameter:
    """The plan's solver, its nets and weights left to the plan."""
    param = caffe_pb2.SolverParameter()
    param.CopyFrom(plan.solver)
    left = ["net", "net_param", "train_net", "train_net_param", "test_net", "test_net_param", "weights"]
    if not plan.tests:
        left += ["test_iter", "test_interval", "test_state"]
    for field in left:
        param.ClearField(field)
    param.display = param.display or max(1, param.max_iter // DISPLAYS)
    return param


def _batch(net: caffe_ext.Net, fed: Fed | None) -> int:
    """Rows of a pass: the first axis of what is fed, or of the net's first blob."""
    shape = net.blobs[fed.feeds[0].top if fed else net.blob_names[0]].shape
    return shape[0] if shape else 1
