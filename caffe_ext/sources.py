"""Caffe's data layers as streams of batches, made from the files that they name.

What a stream gives is a function of the layer, the files and a seed: records in the order of the source, wrapping
around at its end, also in the middle of a batch; shuffled anew in each round through them where the layer says so.
"""

import functools
import itertools
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..errors import DataError
from ..proto import caffe_pb2
from .database import open_database, pixels_of, read_datum
from .hdf5 import floats, reading
from .image_stream import Record, image_stream, naming, times
from .images import read_image
from .registry import layer_types
from .streams import Batch, Shape, Stream, derive, permutation

_log = logging.getLogger(__name__)


def open_stream(layer: caffe_pb2.LayerParameter, phase: int, seed: int) -> Stream:
    """The stream of a data layer, one that names a source (`source_of`).

    Opens the files and looks at the first record, as Caffe does. Raises DataError, which names the file (and, from the
    batches on, the record), or EngineError for a transform_param that does not fit.
    """
    return _OPENERS[layer.type](layer, phase, derive(seed, layer.name))


def source_of(layer: caffe_pb2.LayerParameter) -> str:
    """The file or database that a data layer names; empty when it names none, or is no data layer."""
    if layer.type not in _OPENERS:
        return ""
    return str(getattr(layer, layer_types()[layer.type].messages[0]).source)


def lines_of(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a text file that are not blank; raises DataError when it cannot be read, or has none."""
    try:
        text = os.fsdecode(pathlib.Path(path).read_bytes())
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}; the path is relative to the working directory"
        ) from error
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        raise DataError(f"{path} is empty")
    return lines


def labelled(lines: Sequence[str], name: str) -> list[tuple[str, int]]:
    """The entries of the list file `name`, whose lines are `path label`; raises DataError."""
    entries = []
    for line in lines:
        try:
            path, label = line.strip().rsplit(None, 1)
            entries.append((path, int(label)))
        except ValueError:
            raise DataError(f"{name}: `{line.strip()[:100]}` is not `path label`, the label a number") from None
    return entries


# ---- images ----


def _skipped(rand_skip: int, seed: int) -> int:
    return derive(seed, "rand_skip") % rand_skip if rand_skip else 0


def _data(layer: caffe_pb2.LayerParameter, phase: int, seed: int) -> Stream:
    fields, transform = layer.data_param, layer.transform_param
    if fields.batch_size < 1:
        raise DataError("batch_size must be at least 1")
    if transform.force_color and transform.force_gray:
        raise DataError("force_color and force_gray exclude each other")
    color = True if transform.force_color else False if transform.force_gray else None
    backend = caffe_pb2.DataParameter.DB.Name(fields.backend)
    records = _data_records(fields.source, backend, color, _skipped(fields.rand_skip, seed))
    return image_stream(records, layer, phase, fields.batch_size, seed)


def _data_records(source: str, backend: str, color: bool | None, skipped: int) -> Iterator[Record]:
    with open_database(source, backend) as database:
        seen = 0
        warned = False
        while True:
            before = seen
            for key, value in database:
                seen += 1
                if seen <= skipped:
                    continue
                name = f"record {key.decode(errors='backslashreplace')} of {source}"
                with naming(name):
                    datum = read_datum(value)
                if color is not None and not datum.encoded and datum.channels != (3 if color else 1) and not warned:
                    _log.warning("%s: force_color and force_gray change encoded images only, as in Caffe", name)
                    warned = True
                yield Record(name, functools.partial(pixels_of, datum, color), datum.label, datum.encoded)
            if seen == before:
                raise DataError(f"{source} holds no records")


def _image_data(layer: caffe_pb2.LayerParameter, phase: int, seed: int) -> Stream:
    fields = layer.image_data_param
    entries = [(fields.root_folder + path, label) for path, label in labelled(lines_of(fields.source), fields.source)]
    if fields.rand_skip > len(entries):
        raise DataError(f"rand_skip is {fields.rand_skip}, and {fields.source} lists {len(entries)} images only")
    return image_stream(_listed_images(entries, fields, seed), layer, phase, fields.batch_size, seed)


def _listed_images(
    entries: Sequence[tuple[str, int]], fields: caffe_pb2.ImageDataParameter, seed: int
) -> Iterator[Record]:
    start = _skipped(fields.rand_skip, seed)
    for epoch in itertools.count():
        order: Sequence[int] = range(len(entries))
        if fields.shuffle:
            order = permutation(len(entries), seed, epoch)
        for i in order[start:]:
            path, label = entries[i]
            read = functools.partial(
                read_image, path, color=fields.is_color, height=fields.new_height, width=fields.new_width
            )
            yield Record(path, read, label, encoded=True)
        start = 0


# ---- HDF5 ----


def _hdf5_data(layer: caffe_pb2.LayerParameter, phase: int, seed: int) -> Stream:
    del phase
    fields = layer.hdf5_data_param
    files = [file for line in lines_of(fields.source) for file in line.split()]
    first = _load(files[0], layer.top)
    shapes = [(fields.batch_size, *values.shape[1:]) for values in first]
    parts = _hdf5_parts(files, list(layer.top), first, fields.shuffle, seed)
    return Stream(shapes, _joined(parts, shapes))


def _load(path: str, tops: Sequence[str]) -> Batch:
    """All rows of a file: an array for each top, the data set of that name."""
    found = []
    with reading(path, DataError) as file:
        for top in tops:
            if top not in file:
                raise DataError(f"{path} has no dataset `{top}`; it has {', '.join(file) or 'none'}")
            found.append(floats(file[top], f"{path}: `{top}`", DataError))
    if any(values.ndim == 0 or len(values) != len(found[0]) or len(values) == 0 for values in found):
        shapes = ", ".join(f"`{top}` {times(values.shape)}" for top, values in zip(tops, found, strict=True))
        raise DataError(f"{path}: datasets need equally many rows, one at least; there are {shapes}")
    return found


def _hdf5_parts(files: Sequence[str], tops: Sequence[str], first: Batch, shuffle: bool, seed: int) -> Iterator[Batch]:
    """The rows of one file after another."""
    loaded, rows = 0, first
    for epoch in itertools.count():
        for number in permutation(len(files), seed, epoch) if shuffle else range(len(files)):
            if number != loaded:
                loaded, rows = number, _load(files[number], tops)
                for top, values, model in zip(tops, rows, first, strict=True):
                    if values.shape[1:] != model.shape[1:]:
                        raise DataError(
                            f"{files[number]}: the rows of `{top}` are {times(values.shape[1:])}, those of "
                            f"{files[0]} {times(model.shape[1:])}"
                        )
            if shuffle:
                order = permutation(len(rows[0]), seed, epoch, number)
                yield [values[order] for values in rows]
            else:
                yield rows


def _joined(parts: Iterator[Batch], shapes: Sequence[Shape]) -> Iterator[Batch]:
    """The rows of `parts`, in batches of `shapes`."""
    size = shapes[0][0]
    batch: Batch = []
    filled = 0
    for part in parts:
        start = 0
        while start < len(part[0]):
            if filled == 0:
                batch = [np.empty(shape, np.float32) for shape in shapes]
            count = min(size - filled, len(part[0]) - start)
            for to, values in zip(batch, part, strict=True):
                to[filled : filled + count] = values[start : start + count]
            filled, start = filled + count, start + count
            if filled == size:
                yield batch
                filled = 0


def _window_data(layer: caffe_pb2.LayerParameter, phase: int, seed: int) -> Stream:
    from .windows import window_batches

    fields = layer.window_data_param
    transform = caffe_pb2.TransformationParameter()
    transform.CopyFrom(layer.transform_param)
    # Older files write the transform into window_data_param.
    for name in ("scale", "mean_file", "crop_size", "mirror"):
        if fields.HasField(name) and not transform.HasField(name):
            setattr(transform, name, getattr(fields, name))
    shapes: list[Shape] = [(fields.batch_size, 3, transform.crop_size, transform.crop_size), (fields.batch_size,)]
    return Stream(shapes, window_batches(fields, transform, phase, seed))


_OPENERS: dict[str, Callable[[caffe_pb2.LayerParameter, int, int], Stream]] = {
    "Data": _data,
    "ImageData": _image_data,
    "WindowData": _window_data,
    "HDF5Data": _hdf5_data,
}
