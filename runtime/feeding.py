"""How rows of a shard become the values of a net's tops, batch by batch."""

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .. import caffe_ext
from ..caffe_ext.images import decode
from ..errors import DataError, EngineError
from ..proto import caffe_pb2
from .average import Array
from .batches import batch_rows, derive


class Images(Protocol):
    """Images as bytes, by row: a shard's, or an array's."""

    def __getitem__(self, row: int, /) -> bytes | memoryview:
        """The image of a row."""


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


class HasRows(Protocol):
    """Rows by column, as a Shard has them: those that are numbers, and those that are images as bytes."""

    @property
    def columns(self) -> Mapping[str, npt.NDArray[Any]]:
        """(rows, *shape of a row) each."""

    @property
    def encoded(self) -> Mapping[str, Images]:
        """An image for each row."""


class Feeder:
    """Writes rows of a shard's column into a net's top, transformed; encoded images are decoded in threads."""

    def __init__(self, feed: Feed, shard: HasRows, phase: int) -> None:
        self.feed = feed
        self.encoded = shard.encoded.get(feed.column)
        self.values = None if self.encoded is not None else shard.columns[feed.column]
        self.transformer = None
        if feed.transform is not None or self.encoded is not None:
            parameter = caffe_pb2.TransformationParameter.FromString(feed.transform or b"")
            self.transformer = caffe_ext.Transformer(parameter, phase, feed.mean)

    def __call__(self, net: caffe_ext.Net, rows: npt.NDArray[np.intp], seed: int) -> None:
        """Feeds the rows with the indices `rows`; `seed` decides crops and mirrors. Raises DataError."""
        out = net.blobs[self.feed.top].data
        if self.encoded is not None:
            assert self.transformer is not None
            _decode(self.encoded, self.transformer, rows, out, seed, self.feed)
            return
        assert self.values is not None
        values = self.values[rows]
        if self.transformer is None:
            out[...] = values.reshape(out.shape)
        else:
            if values.dtype not in (np.uint8, np.float32):
                values = values.astype(np.float32)
            self.transformer(values, out, seed)


def feed_batch(
    net: caffe_ext.Net, feeders: Sequence[Feeder], seed: int, partition: int, rows: int, start: int, batch: int
) -> None:
    """Feeds the batch that begins at position `start` of the endless row of a partition's shuffled epochs."""
    chosen = batch_rows(seed, partition, rows, start, batch)
    for feeder in feeders:
        feeder(net, chosen, derive(seed, partition, start, 1))


def _decode(
    images: Images,
    transformer: caffe_ext.Transformer,
    rows: npt.NDArray[np.intp],
    out: Array,
    seed: int,
    feed: Feed,
) -> None:
    """Decodes and transforms the images of `rows` into `out`, in as many threads as the engine has."""

    def one(place: int) -> None:
        row = int(rows[place])
        try:
            pixels = decode(images[row], color=out.shape[1] == 3 if out.shape[1] in (1, 3) else None)
            shape = transformer.output_shape(pixels.shape)
            if shape != out.shape[1:]:
                raise DataError(
                    f"it is {_times(shape)}, and the top `{feed.top}` {_times(out.shape[1:])}: crop (crop_size), or "
                    "resize (?resize=HxW behind the source)"
                )
            transformer(pixels[None], out[place : place + 1], derive(seed, place))
        except (DataError, EngineError) as error:
            raise DataError(f"image {row} of the column `{feed.column}`: {error}") from error

    with ThreadPoolExecutor(caffe_ext.num_threads(), "decode") as pool:
        for _ in pool.map(one, range(len(rows))):
            pass


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
