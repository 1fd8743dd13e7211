"""What a worker does with its partition: a round of training, or a test. Neither knows of Spark.

Both are pure functions of their arguments, so that Spark may run them anywhere and again. The engine's objects stay
in the process between calls only because making them takes time.
"""

import dataclasses
import math
import pathlib
import time
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from .. import caffe_ext
from ..caffe_ext.images import decode
from ..errors import DataError, DivergedError, EngineError, LayerError, WeightsError
from ..proto import caffe_pb2
from .average import Array, mean
from .batches import derive
from .cores import pin
from .data import BadRecords
from .data.encoded import in_threads
from .feeding import Batches, Feed, once, shuffled
from .shards import Shard

# Weights by layer name, as they travel to nets of another phase.
Params = Mapping[str, Sequence[Array]]


@dataclasses.dataclass(frozen=True)
class Job:
    """What all tasks of a run have in common: plain values, sent to the workers.

    run          names the run
    train_net, test_net: NetParameter, serialised, with the phase in its state; test_net is not read without a test
    solver       SolverParameter, serialised; it names no net
    train, test  feeds of either phase
    threads      of the engine, in each worker
    send_history whether a round gives back the solver's history
    precision    in which nets multiply
    memory       what the train net keeps between layers
    neighbours   workers that share a machine, each on cores of its own; 1: workers run where the system puts them
    """

    run: str
    train_net: bytes
    test_net: bytes
    solver: bytes
    train: tuple[Feed, ...]
    test: tuple[Feed, ...]
    seed: int
    threads: int
    send_history: bool
    precision: caffe_ext.Precision = "float32"
    memory: caffe_ext.Memory = "reuse"
    neighbours: int = 1


@dataclasses.dataclass(frozen=True)
class Figures:
    """What `partition` tells of a round: a loss for each iteration, rows trained on, seconds of its own work."""

    losses: list[float]
    rows: int
    seconds: float
    partition: int


@dataclasses.dataclass(frozen=True)
class Trained(Figures):
    """What a partition gives back after a round: weights and history (None unless sent), each one flat array."""

    weights: Array
    history: Array | None


@dataclasses.dataclass(frozen=True)
class Tested:
    """Outputs of the net over a partition's `rows` rows, means over the rows; {} where there are no rows."""

    metrics: dict[str, float]
    rows: int


def held(shard: Shard, partition: int) -> tuple[int, BadRecords]:
    """The partition's rows, and the records that could not be read."""
    del partition
    return shard.rows, shard.bad


def prepare(shard: Shard, partition: int, job: Job) -> None:
    """Makes what a round of training needs besides its arguments."""
    del shard
    _take_cores(partition, job)
    _engines.solver(job)


def train_round(
    shard: Shard,
    partition: int,
    job: Job,
    weights: Array,
    history: Array | None,
    round: int,
    iteration: int,
    steps: int,
) -> Trained:
    """Trains `steps` iterations on the partition's rows, from iteration `iteration` on, `round` rounds being done.

    history: the solver's, None to start from zero. Raises DivergedError, which names round, worker and iteration, when
    the loss or a weight is no longer finite, and whatever the engine raises.
    """
    started = time.perf_counter()
    _take_cores(partition, job)
    solver = _engines.solver(job)
    net = solver.net
    net.flat_data[:] = weights
    if history is None:
        solver.flat_history[:] = 0
    else:
        solver.flat_history[:] = history
    solver.iter = iteration
    net.clear_param_diffs()
    net.set_seed(derive(job.seed, partition, iteration))

    batch = net.blobs[job.train[0].top].shape[0]
    passes = max(1, solver.param.iter_size)
    batches = _engines.batches(job, shard, partition)
    try:
        losses = solver.step(steps, lambda number: batches.feed(iteration * passes + number))
    except EngineError:
        _engines.forget()
        raise
    _check_finite(losses, net.flat_data, round, partition, iteration)
    return Trained(
        weights=net.flat_data.copy(),
        history=solver.flat_history.copy() if job.send_history else None,
        losses=losses,
        rows=steps * passes * batch,
        seconds=time.perf_counter() - started,
        partition=partition,
    )


def test(shard: Shard, partition: int, job: Job, params: Params) -> Tested:
    """The outputs of the TEST net with the weights `params`, over each of the partition's rows exactly once.

    Outputs of one number count (accuracies, losses), each a mean over its batch; the last batch, which may be
    smaller, is computed at its own size.
    """
    _take_cores(partition, job)
    net = _engines.test_net(job)
    for layer, blobs in net.params.items():
        for blob, trained in zip(blobs, params.get(layer, ()), strict=False):
            if blob.data.shape != trained.shape:
                raise WeightsError(
                    f"layer `{layer}` has weights of shape {trained.shape} in phase TRAIN but {blob.data.shape} in TEST"
                )
            blob.data[...] = trained
    net.set_seed(derive(job.seed))
    names: list[str] = []
    values: list[npt.NDArray[np.float64]] = []
    sizes: list[int] = []
    batch = _engines.test_batch
    batches = Batches(net, job.test, shard, "TEST", once(job.seed, shard.rows, batch))
    for k in range(-(-shard.rows // batch)):
        rows = min(batch, shard.rows - k * batch)
        _resize(net, job, rows)
        batches.feed(k)
        outputs = {name: value for name, value in net.forward().items() if value.size == 1}
        names = list(outputs)
        values.append(np.array([value.item() for value in outputs.values()]))
        sizes.append(rows)
    _resize(net, job, batch)
    metrics = dict(zip(names, mean(values, sizes).tolist(), strict=True)) if values else {}
    return Tested(metrics, shard.rows)


def column_sum(shard: Shard, partition: int, column: str) -> tuple[npt.NDArray[np.float64], int]:
    """The sum of the partition's rows in `column`, exact for bytes, and their number."""
    del partition
    if column in shard.encoded:
        return _encoded_sum(shard, column), shard.rows
    values = shard.columns[column]
    total = np.zeros(values.shape[1:], np.float64)
    for start in range(0, shard.rows, 1024):
        total += values[start : start + 1024].sum(axis=0, dtype=np.float64)
        shard.touched(1024)
    return total, shard.rows


def _encoded_sum(shard: Shard, column: str) -> npt.NDArray[np.float64]:
    total: npt.NDArray[np.float64] | None = None
    images = shard.encoded[column]
    for _, pixels in in_threads(lambda row: decode(images[row]), range(shard.rows)):
        if total is None:
            total = np.zeros(pixels.shape, np.float64)
        elif pixels.shape != total.shape:
            raise DataError(
                f"the images of `{column}` differ in size, so they have no mean image: resize them (?resize=HxW behind "
                "the source), or take mean_value"
            )
        total += pixels
        shard.touched(1)
    assert total is not None
    return total


class _Engines:
    """The engine's objects of the run at hand: a cache, nothing more."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.run = ""
        self._solver: caffe_ext.Solver | None = None
        self._test_net: caffe_ext.Net | None = None
        self._batches: tuple[tuple[int, pathlib.Path], Batches] | None = None
        self.test_batch = 0

    def solver(self, job: Job) -> caffe_ext.Solver:
        self._enter(job)
        if self._solver is None:
            solver = caffe_pb2.SolverParameter.FromString(job.solver)
            net = caffe_pb2.NetParameter.FromString(job.train_net)
            self._solver = caffe_ext.Solver(solver, net, seed=job.seed, memory=job.memory, precision=job.precision)
        return self._solver

    def batches(self, job: Job, shard: Shard, partition: int) -> Batches:
        """What feeds the solver's net: those of the next round are being made while the workers average."""
        net, of = self.solver(job).net, (partition, shard.folder)
        if self._batches is None or self._batches[0] != of:
            batch = net.blobs[job.train[0].top].shape[0]
            choose = shuffled(job.seed, partition, shard.rows, batch)
            self._batches = (of, Batches(net, job.train, shard, "TRAIN", choose))
        return self._batches[1]

    def test_net(self, job: Job) -> caffe_ext.Net:
        self._enter(job)
        if self._test_net is None:
            net = caffe_pb2.NetParameter.FromString(job.test_net)
            self._test_net = caffe_ext.Net(
                net,
                caffe_ext.TEST,
                level=net.state.level,
                seed=job.seed,
                memory="reuse",
                precision=job.precision,
            )
            self.test_batch = self._test_net.blobs[job.test[0].top].shape[0]
        return self._test_net

    def _enter(self, job: Job) -> None:
        if self.run != job.run:
            self.forget()
            self.run = job.run


_engines = _Engines()


def _take_cores(partition: int, job: Job) -> None:
    caffe_ext.set_num_threads(job.threads)
    if job.neighbours > 1:
        pin(partition, job.neighbours)


def _resize(net: caffe_ext.Net, job: Job, rows: int) -> None:
    blobs = [net.blobs[feed.top] for feed in job.test]
    if blobs[0].shape[0] == rows:
        return
    for blob in blobs:
        blob.reshape(rows, *blob.shape[1:])
    try:
        net.reshape()
    except LayerError as error:
        _engines.forget()
        reason = f"{error.reason} (with a batch of {rows} rows: the rest of the test set must pass, too)"
        raise LayerError(error.layer, error.type, reason, error.kind) from error


def _check_finite(losses: list[float], weights: Array, round: int, partition: int, iteration: int) -> None:
    bad = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
    if bad is None and np.isfinite(weights).all():
        return
    what = f"the loss is {losses[bad]}" if bad is not None else "a weight is no longer finite"
    at = iteration + (len(losses) - 1 if bad is None else bad)
    raise DivergedError(
        f"training diverged: {what} in round {round + 1}, worker {partition + 1}, iteration {at + 1}; lower "
        "base_lr, or scale the inputs (transform_param's scale, mean)"
    )
