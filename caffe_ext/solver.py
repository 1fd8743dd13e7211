"""Solvers, with pycaffe's names."""

import contextlib
import functools
import logging
import math
import os
import pathlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

from ..errors import DivergedError, EngineError, WeightsError
from ..files import exists
from ..proto import caffe_pb2
from . import _native, debug
from .messages import net_message, solver_message
from .net import TEST, TRAIN, Net, pick_seed
from .report import Memory, Precision
from .state import read_state, write_state
from .weights import Array, fit

_log = logging.getLogger(__name__)

Feed = Callable[[int], None]
TestFeed = Callable[[int, int], None]
# What `solve` asks after each iteration: go on (None), write a snapshot and go on, or stop.
Action = Callable[[], Literal["snapshot", "stop"] | None]


class Solver:
    """Trains a net as BVLC Caffe 1.0 does: `param` is a solver prototxt or a SolverParameter.

    `net` replaces the net that `param` names. `seed` replaces `random_seed`; without either, weights are filled by
    chance. Paths inside `param` are relative to the working directory, as in Caffe. Nets for tests are built where
    `test_iter` asks for them; they get the train net's weights before each test. `memory`, `fusion`, `precision`
    and `winograd` are those of all nets (see Net); weights, gradients and the update are float32 in any case.

    Raises EngineError for settings that make no sense, LayerError for what a layer refuses.
    """

    _type: str | None = None  # of a subclass

    def __init__(
        self,
        param: str | os.PathLike[str] | caffe_pb2.SolverParameter,
        net: str | os.PathLike[str] | caffe_pb2.NetParameter | None = None,
        *,
        seed: int | None = None,
        memory: Memory = "all",
        fusion: bool = True,
        precision: Precision = "float32",
        winograd: bool = True,
    ) -> None:
        self.param = solver_message(param)
        if self._type is not None:
            self.param.type = self._type
        self._path = None if isinstance(param, caffe_pb2.SolverParameter) else pathlib.Path(param)
        if seed is None and self.param.random_seed >= 0:
            seed = self.param.random_seed
        self._seed = pick_seed(seed)

        def build(message: caffe_pb2.NetParameter, phase: int, state: caffe_pb2.NetState) -> Net:
            # The solver's state adds to the net's own, which adds to the phase.
            merged = caffe_pb2.NetState(phase=caffe_pb2.Phase.Name(phase))
            merged.MergeFrom(message.state)
            merged.MergeFrom(state)
            message.ClearField("state")
            return Net(
                message,
                int(merged.phase),
                level=merged.level,
                stages=merged.stage,
                seed=self._seed,
                memory=memory,
                fusion=fusion,
                precision=precision,
                winograd=winograd,
            )

        train_net = net_message(net) if net is not None else _train_net(self.param)
        self.net = build(train_net, TRAIN, self.param.train_state)
        self.test_nets = [build(message, TEST, state) for message, state in _test_nets(self.param, net)]
        self._native = _native.Solver(self.param, self.net._native)
        self._callbacks: list[tuple[Callable[[], object], Callable[[], object]]] = []
        self._losses: deque[float] = deque(maxlen=max(1, self.param.average_loss))
        for paths in self.param.weights:
            for path in paths.split(","):
                self.net.copy_from(path.strip())

    @property
    def iter(self) -> int:
        """The number of iterations done. Setting it sets the learning rate's place; parameters and history stay."""
        return self._native.iter

    @iter.setter
    def iter(self, iter: int) -> None:
        self._native.iter = iter

    @property
    def lr(self) -> float:
        """The learning rate of the current iteration, before lr_mult."""
        return self._native.rate()

    @property
    def coming_rate(self) -> float:
        """What `lr` is; but with policy "multistep" reading `lr` may take a step, as in Caffe, and this does not."""
        step = self._native.current_step
        try:
            return self._native.rate()
        finally:
            self._native.restore(self.iter, step)

    @property
    def smoothed_loss(self) -> float:
        """The mean of the last `average_loss` iterations' losses; NaN before the first."""
        return sum(self._losses) / len(self._losses) if self._losses else math.nan

    @property
    def history(self) -> list[Array]:
        """The update rule's memory (SGD's momentum): live views in the parameters' shapes, in the snapshot's order.

        AdaDelta and Adam have two for each parameter: all first ones, then all second ones.
        """
        return self._native.history()

    @property
    def flat_history(self) -> Array:
        """`history` one after the other: a live view of one axis."""
        return self._native.flat_history

    def step(
        self, n: int, feed: Feed | None = None, *, test_feed: TestFeed | None = None, finite: bool = False
    ) -> list[float]:
        """Runs `n` iterations and gives the loss of each, the mean over its `iter_size` passes.

        `feed(k)` is called before every forward pass, `k` counting the passes of this call; it may write into the net's
        inputs. An exception in it ends the call, and the parameters are those after the last whole iteration. Where
        `param` asks for tests, display and snapshots they are made as in Caffe; `test_feed(net, k)` is called before
        pass `k` of a test. `finite` raises DivergedError, before the update, when the loss is NaN or infinite.
        """
        losses: list[float] = []
        size = self.param.iter_size
        for done in range(n):
            if self._test_is_due() and (self.iter > 0 or self.param.test_initialization):
                self.test_all(test_feed)
            displayed = self._display_is_due()
            loud = displayed and self.param.debug_info
            for on_start, _ in self._callbacks:
                on_start()
            self.net.clear_param_diffs()
            loss = 0.0
            for each in range(size):
                if feed is not None:
                    feed(done * size + each)
                loss += self._pass(loud)
            losses.append(loss / size)
            if finite and not math.isfinite(losses[-1]):
                raise DivergedError(
                    f"training diverged: the loss is {losses[-1]} in iteration {self.iter}; lower base_lr, scale the "
                    "inputs (transform_param's scale, mean), or set clip_gradients"
                )
            self._losses.append(losses[-1])
            if displayed:
                self.display()
            for _, on_gradients in self._callbacks:
                on_gradients()
            if loud:
                debug.update(self.net, self._native)
            else:
                self.apply_update()
            if self.param.snapshot and self.iter % self.param.snapshot == 0:
                self.snapshot()
        return losses

    def _pass(self, loud: bool) -> float:
        """A forward and a backward pass, without Net's own, which would make views of all outputs."""
        last = len(self.net.layers) - 1
        with debug.passes_logged(self.net) if loud else contextlib.nullcontext():
            loss = self.net._forward(0, last)
            self.net._backward(last, 0)
        if loud:
            debug.log_norms(self.net)
        return loss

    def apply_update(self) -> None:
        """Updates the parameters by the gradients that are there, and counts an iteration."""
        self._native.apply_update()

    def add_callback(self, on_start: Callable[[], object], on_gradients: Callable[[], object]) -> None:
        """From here on each iteration calls `on_start()` at its start, `on_gradients()` before its update."""
        self._callbacks.append((on_start, on_gradients))

    def solve(
        self,
        resume: str | os.PathLike[str] | None = None,
        feed: Feed | None = None,
        *,
        test_feed: TestFeed | None = None,
        action: Action | None = None,
    ) -> None:
        """Trains until `max_iter`, from the solver state `resume` if given; tests and snapshots as `param` says.

        `action()` is asked after every iteration. At the end, also that of a "stop", there is a snapshot, unless one
        was just made or `snapshot_after_train` is off; then, but not after a "stop", the last display (which feeds and
        runs the net once more) and the last test, where they are due. Other arguments as for `step`. Raises
        DivergedError when the loss is NaN or infinite; the parameters are then those before that iteration's update.
        """
        if resume is not None:
            self.restore(resume)
        size = self.param.iter_size
        first = self.iter
        wanted = None
        while self.iter < self.param.max_iter and wanted != "stop":
            offset = (self.iter - first) * size

            def feed_from(k: int, offset: int = offset) -> None:
                if feed is not None:
                    feed(offset + k)

            self.step(1, feed_from, test_feed=test_feed, finite=True)
            wanted = action() if action is not None else None
            if wanted == "snapshot":
                self.snapshot()
        every = self.param.snapshot
        if self.param.snapshot_after_train and (not every or self.iter % every != 0) and self.iter > first:
            self.snapshot()
        if wanted == "stop":
            return
        if self._display_is_due() and self.iter > first:
            if feed is not None:
                feed((self.iter - first) * size)
            self._losses.append(self.net._forward(0, len(self.net.layers) - 1))
            self.display()
        if self._test_is_due():
            self.test_all(test_feed)

    def display(self) -> None:
        """Logs the smoothed loss, the rate and the train net's outputs, where `step` and `solve` find it due."""
        _log.info("iteration %d: loss %.6g, rate %.6g", self.iter, self.smoothed_loss, self.coming_rate)
        for name in self.net.outputs:
            _log.info("iteration %d, train net: %s = %s", self.iter, name, _plain(self.net.blobs[name].data))

    def _display_is_due(self) -> bool:
        return self.param.display > 0 and self.iter % self.param.display == 0

    def _test_is_due(self) -> bool:
        interval = self.param.test_interval
        return bool(self.test_nets) and interval > 0 and self.iter % interval == 0

    def test_all(self, feed: TestFeed | None = None) -> list[dict[str, Any]]:
        """`test` for each test net; the results are logged."""
        results = []
        for index in range(len(self.test_nets)):
            results.append(self.test(index, None if feed is None else functools.partial(feed, index)))
            for name, value in results[-1].items():
                _log.info("iteration %d, test net %d: %s = %s", self.iter, index, name, value)
        return results

    def test(self, index: int = 0, feed: Feed | None = None) -> dict[str, Any]:
        """Runs test net `index` with the current weights over its `test_iter` batches.

        Gives the mean of each output over the batches: a float, or an array for outputs of more than one value. With
        `test_compute_loss`, "loss" has the mean objective where no output has that name.
        """
        net = self.test_nets[index]
        for name, blobs in net.params.items():
            trained = self.net.params.get(name)
            if trained is None:
                continue  # a layer of the test net alone keeps its own
            if [to.shape for to in blobs] != [source.shape for source in trained]:
                raise EngineError(f"layer `{name}` has other parameters in the test net than in the train net")
            for to, source in zip(blobs, trained, strict=True):
                to.data[...] = source.data
        passes = self.param.test_iter[index]
        sums: dict[str, Any] = {}
        loss = 0.0
        for k in range(passes):
            if feed is not None:
                feed(k)
            for name, values in net.forward().items():
                sums[name] = sums.get(name, 0.0) + values.astype("f8")
            loss += net.loss
        means = {name: _plain(total / passes) for name, total in sums.items()}
        if self.param.test_compute_loss:
            means.setdefault("loss", loss / passes)
        return means

    def snapshot(self, prefix: str | os.PathLike[str] | None = None) -> tuple[str, str]:
        """Writes `<prefix>_iter_<n>.caffemodel` and `.solverstate` and gives their paths.

        With `snapshot_format: HDF5` both are HDF5 files, and their names end with `.h5`.

        Without `prefix`, `snapshot_prefix` counts, or the solver's file name without its extension. Each file is
        written whole or not at all; raises OutputError when that fails, EngineError without any prefix.
        """
        if self.param.snapshot_diff:
            raise EngineError("snapshot_diff: gradients cannot be written; leave it out")
        if prefix is None:
            prefix = self.param.snapshot_prefix or (None if self._path is None else self._path.with_suffix(""))
        if prefix is None:
            raise EngineError("a snapshot needs a prefix for its files: set snapshot_prefix")
        base = f"{os.fspath(prefix)}_iter_{self.iter}"
        model, state = f"{base}.caffemodel", f"{base}.solverstate"
        if self.param.snapshot_format == caffe_pb2.SolverParameter.HDF5:
            model, state = f"{model}.h5", f"{state}.h5"
            self.net.save_hdf5(model)
        else:
            self.net.save(model)
        write_state(
            state, iter=self.iter, learned_net=model, history=self.history, current_step=self._native.current_step
        )
        return model, state

    def restore(self, state: str | os.PathLike[str]) -> None:
        """Goes on where the snapshot `state` was taken: iteration, history, and the weights that it names.

        The weights' path is relative to the working directory, as in Caffe, or else to the state's own folder. Raises
        WeightsError, and changes nothing, when a file is missing, damaged or made by another net.
        """
        saved = read_state(state)
        history = self.history
        if len(saved.history) != len(history):
            raise WeightsError(f"{state} has {len(saved.history)} history arrays; this solver has {len(history)}")
        fitted = [
            fit(values, mine.shape, f"{state}: history {i}")
            for i, (values, mine) in enumerate(zip(saved.history, history, strict=True))
        ]
        if saved.iter < 0 or saved.current_step < 0:
            raise WeightsError(f"{state}: iteration {saved.iter}, step {saved.current_step} does not exist")
        if saved.learned_net:
            beside = pathlib.Path(state).parent / pathlib.Path(saved.learned_net).name
            named = pathlib.Path(saved.learned_net)
            self.net.copy_from(beside if not exists(named) and exists(beside) else named)
        for mine, values in zip(history, fitted, strict=True):
            mine[...] = values
        self._native.restore(saved.iter, saved.current_step)
        self._losses.clear()


class SGDSolver(Solver):
    """SGD with momentum, whatever type `param` names."""

    _type = "SGD"


class NesterovSolver(Solver):
    """Nesterov's accelerated gradient, whatever type `param` names."""

    _type = "Nesterov"


class AdaGradSolver(Solver):
    """AdaGrad, whatever type `param` names."""

    _type = "AdaGrad"


class RMSPropSolver(Solver):
    """RMSProp, whatever type `param` names."""

    _type = "RMSProp"


class AdaDeltaSolver(Solver):
    """AdaDelta, whatever type `param` names."""

    _type = "AdaDelta"


class AdamSolver(Solver):
    """Adam, whatever type `param` names."""

    _type = "Adam"


def get_solver(
    param: str | os.PathLike[str] | caffe_pb2.SolverParameter, *, precision: Precision = "float32"
) -> Solver:
    """The solver of the type that `param` names, as an instance of its class; `precision` as for Solver."""
    message = solver_message(param)
    kinds = {kind._type: kind for kind in Solver.__subclasses__()}
    return kinds.get(message.type, Solver)(param, precision=precision)


def _plain(values: Any) -> Any:
    """One number as a float, more as they are."""
    return float(values.item()) if values.size == 1 else values


def _train_net(param: caffe_pb2.SolverParameter) -> caffe_pb2.NetParameter:
    given = [field for field in ("net", "net_param", "train_net", "train_net_param") if param.HasField(field)]
    if len(given) != 1:
        raise EngineError(
            "a solver names its net by exactly one of net, net_param, train_net, train_net_param; "
            f"this one has {', '.join(given) or 'none'}"
        )
    return net_message(getattr(param, given[0]))


def _test_nets(
    param: caffe_pb2.SolverParameter, net: str | os.PathLike[str] | caffe_pb2.NetParameter | None
) -> Sequence[tuple[caffe_pb2.NetParameter, caffe_pb2.NetState]]:
    own: list[Any] = [*param.test_net_param, *param.test_net]
    shared: Any = net
    if shared is None and param.HasField("net_param"):
        shared = param.net_param
    elif shared is None and param.HasField("net"):
        shared = param.net
    wanted = len(param.test_iter)
    if wanted < len(own) or (shared is None and wanted != len(own)):
        raise EngineError(f"test_iter must be given once for each test net: {len(own)} times, not {wanted}")
    sources = [*own, *[shared] * (wanted - len(own))]
    if param.test_state and len(param.test_state) != wanted:
        raise EngineError(
            f"test_state must be given once for each test net: {wanted} times, not {len(param.test_state)}"
        )
    if sources and param.test_interval <= 0:
        raise EngineError("test_iter asks for tests: set test_interval as well")
    states = list(param.test_state) or [caffe_pb2.NetState()] * wanted
    return [(net_message(source), state) for source, state in zip(sources, states, strict=True)]
