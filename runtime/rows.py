"""All rows of a run's sources on this machine, and how they are fed to the nets of one process."""

import functools
import pathlib
import uuid
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from .. import caffe_ext
from ..proto import caffe_pb2
from . import worker
from .data import BadPolicy, BadRecords, Columns, Phase
from .feeding import Batches, Feed, in_turn, shuffled
from .feeds import Fed
from .ingest import Ingested
from .means import Means
from .progress import Bar, progress
from .shards import Reading, Shard, shard
from .worker import Job, Params, Tested


class LocalRows:
    """The rows of sources, read when they are first asked for and kept in `folder`.

    `means` finds the mean images, in `folders`, or from the rows of `train`, which are then kept in `kept`; tests
    multiply in `precision`; `bad_records` says what becomes of those that cannot be read.
    `held` has what sources and phases that were read turned out to hold.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        train: Fed | None,
        folders: Sequence[pathlib.Path],
        kept: pathlib.Path,
        precision: caffe_ext.Precision,
        bad_records: BadPolicy = "fail",
    ) -> None:
        self._folder = folder
        self._precision = precision
        self._bad_records = bad_records
        self._known: dict[tuple[str, Phase], Shard] = {}
        self.held: dict[tuple[str, Phase], Ingested] = {}

        def sums(column: str) -> Sequence[tuple[npt.NDArray[np.float64], int]]:
            return [worker.column_sum(self.of(train, "TRAIN"), 0, column)] if train else []

        self.means = Means(train.source.columns if train else (), sums, folders, kept)

    def of(self, fed: Fed, phase: Phase) -> Shard:
        """The rows of the source of `fed`; raises DataError, OutputError."""
        key = (fed.uri, phase)
        if key not in self._known:
            source = fed.source
            name = f"{phase.lower()}{len(self._known)}"
            with progress(f"reading {fed.uri}") as bar:
                reading = functools.partial(_told, functools.partial(source.read, 0, 1), bar)
                found = shard("local", name, source.columns, reading, self._folder, self._bad_records)
            self.held[key] = Ingested.of(fed.uri, phase, [worker.held(found, 0)])
            self._known[key] = found
        return self._known[key]

    def feeds(self, fed: Fed) -> tuple[Feed, ...]:
        """The feeds of `fed`, mean images filled in."""
        return tuple(map(self.means.fill, fed.feeds))

    def batches(self, fed: Fed | None, phase: Phase, net: caffe_ext.Net, seed: int) -> Batches | None:
        """What feeds `net` from the rows of `fed`; None for None: the net's own data layers do.

        In TRAIN shuffled, as a run of one worker takes them, else in their order.
        """
        if fed is None:
            return None
        rows, feeds = self.of(fed, phase), self.feeds(fed)
        size = net.blobs[feeds[0].top].shape[0]
        choose = shuffled(seed, 0, rows.rows, size) if phase == "TRAIN" else in_turn(seed, rows.rows, size)
        return Batches(net, feeds, rows, phase, choose)

    def test(
        self,
        fed: Fed,
        net: caffe_pb2.NetParameter,
        params: Params,
        seed: int,
        done: Callable[[int], None] = lambda rows: None,
    ) -> Tested:
        """The outputs of the TEST net `net` with the weights `params` over all rows of `fed`, each once.

        `done` is told the rows of each batch.
        """
        job = Job(
            run=uuid.uuid4().hex,
            train_net=b"",
            test_net=net.SerializeToString(),
            solver=b"",
            train=(),
            test=self.feeds(fed),
            seed=seed,
            threads=caffe_ext.num_threads(),
            send_history=False,
            precision=self._precision,
        )
        return worker.test(self.of(fed, "TEST"), 0, job, params, done)


def _told(reading: Reading, bar: Bar, bad: BadRecords) -> Iterator[Columns]:
    """What `reading` gives; `bar` is told of it."""
    for rows in reading(bad):
        bar.advance(len(next(iter(rows.values()))))
        yield rows
