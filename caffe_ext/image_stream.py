"""Batches of images: decoded in several threads, transformed as Caffe's data layers do."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from ..errors import DataError, EngineError
from ..proto import caffe_pb2
from ._native import Transformer, num_threads
from .images import Pixels
from .mean import read_mean
from .prefetch import step_back
from .streams import Batch, Stream, derive


class Record(NamedTuple):
    """An image that is still to be read: `read` does it, in any thread; `encoded` says that it takes a while."""

    name: str
    read: Callable[[], Pixels]
    label: int
    encoded: bool


def image_stream(
    records: Iterator[Record], layer: caffe_pb2.LayerParameter, phase: int, size: int, seed: int
) -> Stream:
    """The batches of `size` of the records, which have no end, for the layer's tops; reads the first record.

    They are read in as many threads as the engine has if the first one is encoded; what comes out does not depend on
    their number. Raises DataError, which begins with the record's name.
    """
    transformer = Transformer(
        layer.transform_param,
        phase,
        read_mean(layer.transform_param.mean_file) if layer.transform_param.HasField("mean_file") else None,
    )
    first = next(records)
    with naming(first.name):
        shape = transformer.output_shape(first.read().shape)
    tops = len(layer.top)
    batches = _batches(itertools.chain([first], records), transformer, size, seed, parallel=first.encoded)
    return Stream([(size, *shape), (size,)][:tops], (batch[:tops] for batch in batches))


def _batches(
    records: Iterator[Record], transformer: Transformer, size: int, seed: int, parallel: bool
) -> Iterator[Batch]:
    # Where workers share the machine, the engine has a part of its cores, and so has decoding.
    threads = num_threads() if parallel else 1
    pool = ThreadPoolExecutor(threads, "decode", step_back) if threads > 1 else None
    try:
        for start in itertools.count(step=size):
            batch = _Batch(list(itertools.islice(records, size)), transformer, seed, start)
            # Of what is wrong with several records, both raise the first one's.
            for _ in (pool.map if pool else map)(batch.put, range(1, size)):
                pass
            transformer.finish(batch.data, derive(seed, "batch", start))
            yield [batch.data, batch.labels]
    finally:
        if pool:
            # Without waiting, since this may run in a finalizer.
            pool.shutdown(wait=False, cancel_futures=True)


class _Batch:
    """A batch in the making: the first record is in, and has decided about the shape.

    The next batch may have another one, as in Caffe.
    """

    def __init__(self, records: Sequence[Record], transformer: Transformer, seed: int, start: int) -> None:
        self._records = records
        self._transformer = transformer
        self._seed = seed
        self._start = start
        self.labels = np.array([record.label for record in records], np.float32)
        with naming(records[0].name):
            pixels = records[0].read()
            self.data = np.empty((len(records), *transformer.output_shape(pixels.shape)), np.float32)
            self._transform(0, pixels)

    def put(self, i: int) -> None:
        """Reads record `i` and transforms it into its row."""
        with naming(self._records[i].name):
            pixels = self._records[i].read()
            shape = self._transformer.output_shape(pixels.shape)
            if shape != self.data.shape[1:]:
                raise DataError(
                    f"it is {times(shape)}, and the first of its batch {times(self.data.shape[1:])}: crop (crop_size), "
                    "resize (new_height, new_width of ImageData), or take batch_size 1"
                )
            self._transform(i, pixels)

    def _transform(self, i: int, pixels: Pixels) -> None:
        self._transformer(pixels[None], self.data[i : i + 1], derive(self._seed, self._start + i))


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Errors of the block begin with `name`."""
    try:
        yield
    except (DataError, EngineError) as error:
        raise DataError(f"{name}: {error}") from error


def times(shape: Sequence[int]) -> str:
    """`shape` for messages."""
    return " × ".join(map(str, shape)) or "one number"
