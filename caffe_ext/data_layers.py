"""What data layers and HDF5Output do for a net before and after each of its passes: reading and writing files."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import DataError, EngineError, LayerError, OutputError
from ..files import atomic_path
from ..proto import caffe_pb2
from . import _native
from .hdf5 import Array
from .prefetch import Prefetcher
from .report import check_net
from .sources import open_stream, source_of
from .streams import Batch, Shape

_log = logging.getLogger(__name__)


class DataLayers:
    """The layers of a net that read or write files, and MemoryData layers.

    Files are opened here, at the net's construction, as Caffe does; those of layers that the phase, level or stages
    leave out are not touched. Each net has its own place in them. `shapes` has the shapes of the tops that are read,
    `read_tops` their places among the blobs, after `attach`. Raises LayerError, with the file, the reason and what to
    do, when a source cannot be read.

    Batches are made ahead, in a thread for each layer, which ends with this object.
    """

    def __init__(self, net: caffe_pb2.NetParameter, phase: int, level: int, stages: Sequence[str], seed: int) -> None:
        self.shapes: dict[str, Shape] = {}
        self._readers: dict[int, _Reader] = {}  # by the layer's place in the message
        self._writers: dict[int, _Writer] = {}
        self._memories: dict[int, _Memory] = {}
        self.read_tops: set[int] = set()
        # Places in the built net, with the blobs: tops of readers and memories, bottoms of writers.
        self._fed: list[tuple[int, _Reader | _Memory, list[int]]] = []
        self._written: list[tuple[int, _Writer, list[int]]] = []
        if not any(source_of(layer) or layer.type in ("HDF5Output", "MemoryData") for layer in net.layer):
            return
        report = check_net(net, phase, level=level, stages=stages)
        # What is wrong without looking at files the net's construction says.
        wrong = {problem.index for problem in report.problems}
        for index in sorted({found.index for found in report.layers} - wrong - {-1}):
            layer = net.layer[index]
            if layer.type == "HDF5Output":
                self._writers[index] = _Writer(layer.hdf5_output_param.file_name)
            elif layer.type == "MemoryData":
                self._memories[index] = _Memory(layer)
            elif source_of(layer):
                reader = _Reader(layer, layer.phase if layer.HasField("phase") else phase, seed)
                self._readers[index] = reader
                self.shapes.update(zip(layer.top, reader.shapes, strict=True))

    def attach(self, net: _native.Net) -> None:
        """Has the net fill and write its layers, once it is built."""
        feeders: dict[int, _Reader | _Memory] = {**self._readers, **self._memories}
        for place, (index, _, _, bottoms, tops, *_) in enumerate(net.layers()):
            if index in feeders:
                self._fed.append((place, feeders[index], tops))
                if index in self._readers:
                    self.read_tops.update(tops)
            elif index in self._writers:
                self._written.append((place, self._writers[index], bottoms))
        if self._fed or self._written:
            net.data_layers = self

    def fill(self, net: _native.Net, begin: int, end: int) -> None:
        """Writes the next batches into the tops of the layers [begin, end); raises LayerError."""
        for place, feeder, tops in self._fed:
            if not begin <= place < end:
                continue
            for top, values in zip(tops, feeder.batch(), strict=False):
                blob = net.blob(top)
                if blob.shape != values.shape:
                    blob.reshape(*values.shape)
                blob.data[...] = values

    def write(self, net: _native.Net, begin: int, end: int) -> None:
        """Appends the bottoms of the HDF5Output layers among [begin, end) to their files; raises OutputError."""
        for place, writer, bottoms in self._written:
            if begin <= place < end:
                writer.append([net.blob(bottom).data for bottom in bottoms])

    def set_input_arrays(self, data: Any, labels: Any) -> None:
        """Gives the first MemoryData layer what it cycles through; see Net.set_input_arrays."""
        if not self._memories:
            raise EngineError("set_input_arrays is for nets with a MemoryData layer; this one has none")
        self._memories[min(self._memories)].set(data, labels)


class _Reader:
    """A layer's stream of batches, made ahead."""

    def __init__(self, layer: caffe_pb2.LayerParameter, phase: int, seed: int) -> None:
        self._layer, self._type = layer.name, layer.type
        with self._naming():
            if layer.data_param.prefetch < 1:
                raise DataError("prefetch must be at least 1")
            stream = open_stream(layer, phase, seed)
            self.shapes = stream.shapes
            self._batches = Prefetcher(stream.batches, layer.data_param.prefetch, f"data layer {layer.name}")

    def batch(self) -> Batch:
        with self._naming():
            return next(self._batches)

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except (DataError, EngineError, MemoryError) as error:
            reason = "out of memory" if isinstance(error, MemoryError) else str(error)
            raise LayerError(self._layer, self._type, reason, "data") from error


class _Memory:
    """The arrays of a MemoryData layer."""

    def __init__(self, layer: caffe_pb2.LayerParameter) -> None:
        self._layer = layer
        self._data: Array | None = None
        self._labels = np.empty(0, np.float32)
        self._next = 0

    def set(self, data: Any, labels: Any) -> None:
        fields = self._layer.memory_data_param
        row = (fields.channels, fields.height, fields.width)
        data, labels = np.asarray(data, np.float32), np.asarray(labels, np.float32)
        if data.ndim != 4 or data.shape[1:] != row:
            raise self._refusal(f"data of shape {data.shape} were given; it takes (rows, {', '.join(map(str, row))})")
        if labels.shape not in ((len(data),), (len(data), 1, 1, 1)):
            raise self._refusal(
                f"labels of shape {labels.shape} were given for {len(data)} rows; it takes one for each"
            )
        if len(data) == 0 or len(data) % fields.batch_size != 0:
            raise self._refusal(f"{len(data)} rows were given; it takes a multiple of batch_size {fields.batch_size}")
        if self._layer.HasField("transform_param"):
            _log.warning(
                "layer `%s`: its transform_param is not applied to input arrays, as in Caffe", self._layer.name
            )
        self._data, self._labels, self._next = data, labels.reshape(len(data)), 0

    def batch(self) -> Batch:
        """The next rows, views; none before there are arrays: then whoever writes into the tops feeds them."""
        if self._data is None:
            return []
        rows = slice(self._next, self._next + self._layer.memory_data_param.batch_size)
        self._next = rows.stop % len(self._data)
        # Labels have four axes, as in Caffe, though it says one at construction.
        return [self._data[rows], self._labels[rows].reshape(-1, 1, 1, 1)]

    def _refusal(self, reason: str) -> LayerError:
        return LayerError(self._layer.name, self._layer.type, reason, "shape")


class _Writer:
    """The file of an HDF5Output layer: datasets `data` and `label`, to which each pass appends its rows.

    The first pass makes the file, in place of an older one. Caffe's own layer fails in its second pass.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._made = False

    def append(self, values: Sequence[Array]) -> None:
        import h5py

        if not self._made:
            with atomic_path(self._path) as temporary, h5py.File(temporary, "w") as file:
                for name, rows in zip(("data", "label"), values, strict=True):
                    file.create_dataset(name, data=_four_axes(rows), maxshape=(None, *_four_axes(rows).shape[1:]))
            self._made = True
            return
        try:
            with h5py.File(self._path, "r+") as file:
                for name, rows in zip(("data", "label"), values, strict=True):
                    new = _four_axes(rows)
                    dataset = file[name]
                    dataset.resize(len(dataset) + len(new), axis=0)
                    dataset[len(dataset) - len(new) :] = new
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise OutputError(f"cannot write {self._path}: {error}") from error


def _four_axes(values: Array) -> Array:
    """`values` with the trailing axes of extent 1 that Caffe's file has."""
    return values.reshape(values.shape + (1,) * (4 - values.ndim))
