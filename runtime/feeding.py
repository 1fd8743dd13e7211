"""How rows of a shard become the values of a net's tops, batch by batch."""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .. import caffe_ext
from ..caffe_ext.images import decode
from ..caffe_ext.prefetch import Prefetcher, step_back
from ..errors import DataError, EngineError
from ..proto import caffe_pb2
from .average import Array
from .batches import batch_rows, derive
from .data import Phase

# What batches that are made ahead may take, in bytes; one is made ahead in any case, and no more than MOST_AHEAD.
AHEAD_BYTES = 128 << 20
MOST_AHEAD = 8

# The rows of batch `k`, by their indices, and the seed of what is random in it.
Choose = Callable[[int], tuple[npt.NDArray[np.intp], int]]


@dataclasses.dataclass(frozen=True)
class Feed:
    """Where a top's values come from: a column of the source, with a TransformationParameter (bytes) or without.

    `mean` is the image that `mean_file` names, shape (channels, height, width); the loop fills it in.
    """

    top: str
    column: str
    transform: bytes | None = None
    mean_file: str = ""
    mean: Array | None = None


class Images(Protocol):
    """Images as bytes, by row: a shard's, or an array's."""

    def __getitem__(self, row: int, /) -> bytes | memoryview:
        """The image of a row."""


class HasRows(Protocol):
    """Rows by column, as a Shard has them: those that are numbers, and those that are images as bytes."""

    @property
    def columns(self) -> Mapping[str, npt.NDArray[Any]]:
        """(rows, *shape of a row) each."""

    @property
    def encoded(self) -> Mapping[str, Images]:
        """An image for each row."""

    def touched(self, rows: int) -> None:
        """Is told that so many rows were read."""


def shuffled(seed: int, partition: int, rows: int, batch: int) -> Choose:
    """Batches of the endless row of a partition's shuffled epochs."""
    return lambda k: (batch_rows(seed, partition, rows, k * batch, batch), derive(seed, partition, k * batch, 1))


def in_turn(seed: int, rows: int, batch: int) -> Choose:
    """Batches of the rows in their order, around and around."""
    return lambda k: (np.arange(k * batch, (k + 1) * batch) % rows, derive(seed, k))


def once(seed: int, rows: int, batch: int) -> Choose:
    """Batches of the rows in their order, each row once: the last batch may be smaller, those behind it are empty."""
    return lambda k: (np.arange(min(k * batch, rows), min((k + 1) * batch, rows)), derive(seed, k * batch))


class Batches:
    """Feeds the tops of a net from rows of a shard: batch `k` has the rows that `choose` says.

    Where images are to be decoded, or changed as Caffe does not (`color_jitter`), batches are made ahead, in as many
    threads as the engine has. These threads leave the processor to a step that wants it: they take what it leaves, and
    all of it while the net waits for them or for other workers. Rows that need no more than a crop go straight
    into the net's arrays, which takes no longer than copying what was prepared. What a batch holds depends on neither.
    """

    def __init__(self, net: caffe_ext.Net, feeds: Sequence[Feed], shard: HasRows, phase: Phase, choose: Choose) -> None:
        self._net = net
        self._choose = choose
        self._feeders = [_Feeder(feed, shard, phase, net.blobs[feed.top].shape[1:]) for feed in feeds]
        self._shard = shard
        self._slow = any(feeder.slow for feeder in self._feeders)
        self._spare: collections.deque[list[Array]] = collections.deque()
        self._ahead: Prefetcher[list[Array]] | None = None
        self._next = 0

    def feed(self, k: int) -> None:
        """Writes batch `k` into the net's tops, whose first axis has its size; in turn is fastest. Raises DataError."""
        outs = [self._net.blobs[feeder.feed.top].data for feeder in self._feeders]
        if not self._slow:
            rows, seed = self._choose(k)
            for feeder, out in zip(self._feeders, outs, strict=True):
                feeder.fill(rows, seed, out)
            self._shard.touched(len(rows))
            return
        if self._ahead is None or self._next != k:
            size = sum(out.nbytes for out in outs)
            made = _made(self._feeders, self._choose, k, self._spare)
            self._ahead = Prefetcher(made, max(1, min(AHEAD_BYTES // size, MOST_AHEAD)), "feed")
        try:
            values = next(self._ahead)
        except BaseException:
            self._ahead = None
            raise
        self._next = k + 1
        self._shard.touched(len(outs[0]))
        for out, value in zip(outs, values, strict=True):
            out[...] = value
        self._spare.append(values)


class _Feeder:
    """Makes a top's values, rows of `shape`."""

    def __init__(self, feed: Feed, shard: HasRows, phase: Phase, shape: tuple[int, ...]) -> None:
        self.feed = feed
        self.shape = shape
        self._encoded = shard.encoded.get(feed.column)
        self._values = None if self._encoded is not None else shard.columns[feed.column]
        self._transformer = None
        if feed.transform is not None or self._encoded is not None:
            parameter = caffe_pb2.TransformationParameter.FromString(feed.transform or b"")
            number = caffe_ext.TRAIN if phase == "TRAIN" else caffe_ext.TEST
            self._transformer = caffe_ext.Transformer(parameter, number, feed.mean)

    @property
    def slow(self) -> bool:
        """Whether this takes much longer than copying rows."""
        return self._encoded is not None or (self._transformer is not None and self._transformer.augments)

    def fill(self, rows: npt.NDArray[np.intp], seed: int, out: Array, pool: ThreadPoolExecutor | None = None) -> None:
        """Writes the rows with the indices `rows` into `out`; in the threads of `pool` what is slow."""
        if pool is None or not self.slow:
            assert self._values is not None
            values = self._values[rows]
            if self._transformer is None:
                out[...] = values.reshape(out.shape)
            else:
                self._transformer(_pixels(values), out, seed)
            return
        assert self._transformer is not None
        for _ in pool.map(lambda place: self._put(int(rows[place]), out, place, seed), range(len(rows))):
            pass
        self._transformer.finish(out, seed)

    def _put(self, row: int, out: Array, place: int, seed: int) -> None:
        """Makes one row of a batch, the one at `place`."""
        assert self._transformer is not None
        try:
            if self._values is not None:
                pixels = _pixels(self._values[row])
            else:
                assert self._encoded is not None
                pixels = decode(self._encoded[row], self.shape[0] == 3 if self.shape[0] in (1, 3) else None)
            shape = self._transformer.output_shape(pixels.shape)
            if shape != self.shape:
                raise DataError(
                    f"it is {_times(shape)}, and the top `{self.feed.top}` {_times(self.shape)}: crop (crop_size), or "
                    "resize (?resize=HxW behind the source)"
                )
            self._transformer(pixels[None], out[place : place + 1], seed, place)
        except (DataError, EngineError) as error:
            raise DataError(f"image {row} of the column `{self.feed.column}`: {error}") from error


def _made(
    feeders: Sequence[_Feeder], choose: Choose, first: int, spare: collections.deque[list[Array]]
) -> Iterator[list[Array]]:
    """Batches from number `first` on, in `spare` arrays where there are any; the rest of `choose` is empty batches."""
    with ThreadPoolExecutor(caffe_ext.num_threads(), "decode", step_back) as pool:
        k = first
        while len((chosen := choose(k))[0]):
            rows, seed = chosen
            outs = spare.pop() if spare else []
            if not outs or len(outs[0]) != len(rows):
                outs = [np.empty((len(rows), *feeder.shape), np.float32) for feeder in feeders]
            for feeder, out in zip(feeders, outs, strict=True):
                feeder.fill(rows, seed, out, pool)
            yield outs
            k += 1


def _pixels(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`values` as transformations take them: bytes, or float32."""
    return values if values.dtype in (np.uint8, np.float32) else values.astype(np.float32)


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
