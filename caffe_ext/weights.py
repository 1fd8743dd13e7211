"""Weights files: `.caffemodel`, a NetParameter whose layers hold their parameters, in V2, V1 or V0 form; and HDF5."""

import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from google.protobuf.message import DecodeError

from ..errors import WeightsError
from ..files import atomic_path, write_atomic
from ..proto import caffe_pb2, weights_pb2
from .hdf5 import SIGNATURE, floats, is_hdf5, reading, write_floats
from .hdf5 import Array as Array

# Field lengths of protobuf are signed 32-bit numbers.
_MOST_BYTES = 2**31 - 1


def read_bytes(path: str | os.PathLike[str], what: str) -> bytes:
    """The whole file; WeightsError when it cannot be read or is an HDF5 file. `what` names the kind for the message."""
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read the {what} {path}: {error.strerror or error}") from error
    if content.startswith(SIGNATURE):
        raise WeightsError(f"{path} is an HDF5 file; a {what} in Caffe's binary format is needed")
    return content


def blob_array(blob: weights_pb2.Blob, where: str) -> Array:
    """The values of a BlobProto as float32 in its shape (four axes where it has only the legacy fields).

    Raises WeightsError, beginning with `where`, when the number of values does not fit the shape.
    """
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim)
    elif any(blob.HasField(field) for field in ("num", "channels", "height", "width")):
        shape = (blob.num, blob.channels, blob.height, blob.width)
    else:
        shape = (1, 1, 1, 1)
    if any(extent < 0 for extent in shape):
        raise WeightsError(f"{where}: negative extent in shape {shape}")
    # The engine's own limits: also an array without elements cannot have any shape.
    if len(shape) > 32 or math.prod(max(extent, 1) for extent in shape) >= 2**31:
        raise WeightsError(f"{where}: shape {shape} is too large: at most 32 axes, and 2^31 - 1 elements")
    count = 1
    for extent in shape:
        count *= extent  # Python's own integers: no overflow, whatever the file says
    values: Array
    if len(blob.data) == 4 * count and count:
        values = np.frombuffer(blob.data, "<f4").astype(np.float32, copy=False)
    elif len(blob.double_data) == 8 * count and count:
        values = np.frombuffer(blob.double_data, "<f8").astype(np.float32)
    else:
        # Values that are not packed, or packed in several pieces, are rare: the full message reads them.
        try:
            full = caffe_pb2.BlobProto.FromString(blob.SerializeToString())
        except DecodeError as error:
            raise WeightsError(f"{where}: damaged values ({error})") from error
        values = np.array(full.data or full.double_data, np.float32)
        if values.size != count:
            raise WeightsError(f"{where}: {values.size} values for shape {shape}, which takes {count}")
    return values.reshape(shape)


def read_weights(path: str | os.PathLike[str]) -> dict[str, list[Array]]:
    """The parameters of each layer that has any, by the layer's name, in the file's order.

    Reads what Caffe reads: `layer` (V2), `layers` (V1) and `layers { layer }` (V0), float and double values, and HDF5
    files, whatever their names. Blobs of files without shapes have four axes; `fit` brings them to the net's shape.
    Raises WeightsError, naming the file, when it cannot be read, is not such a file or is cut short.
    """
    if is_hdf5(path):
        found = {}
        for name, params in read_hdf5_weights(path).items():
            if set(params) != set(range(len(params))):
                raise WeightsError(
                    f"{path}: layer `{name}` has but the parameters {', '.join(map(str, sorted(params)))}"
                )
            if params:
                found[name] = [params[i] for i in range(len(params))]
        return found
    content = read_bytes(path, "weights file")
    try:
        net = weights_pb2.Net.FromString(content)
    except DecodeError as error:
        raise WeightsError(f"{path} is not a .caffemodel, or is cut short") from error
    if not net.layer and not net.layers:
        raise WeightsError(f"{path} holds no layers: it is not a .caffemodel")
    found = {}

    def add(name: str, blobs: Sequence[weights_pb2.Blob]) -> None:
        if blobs:
            found[name] = [blob_array(blob, f"{path}: layer `{name}`, parameter {i}") for i, blob in enumerate(blobs)]

    for old in net.layers:
        add(old.name or old.layer.name, old.blobs or old.layer.blobs)
    for layer in net.layer:
        add(layer.name, layer.blobs)
    return found


def write_weights(
    path: str | os.PathLike[str], net: caffe_pb2.NetParameter, params: Mapping[str, Sequence[Array]]
) -> None:
    """Writes `net` with `params` (by layer name) in its layers, as Caffe's snapshots are; whole or not at all.

    Raises OutputError when the file cannot be written, WeightsError when it would pass protobuf's limit of 2 GB.
    """
    content = weights_pb2.Net(name=net.name)
    # All but the arrays is carried over as it stands on the wire.
    bare = caffe_pb2.NetParameter()
    bare.CopyFrom(net)
    bare.ClearField("layer")
    content.MergeFromString(bare.SerializeToString())
    for layer in net.layer:
        settings = caffe_pb2.LayerParameter()
        settings.CopyFrom(layer)
        settings.ClearField("blobs")
        saved = content.layer.add()
        saved.MergeFromString(settings.SerializeToString())
        saved.blobs.extend(array_blob(values) for values in params.get(layer.name, ()))
    write_message(path, content)


def read_hdf5_weights(path: str | os.PathLike[str]) -> dict[str, dict[int, Array]]:
    """The parameters of each layer in an HDF5 file of Caffe's, by name and by their places in the layer.

    Of parameters that layers share only the owner's is in the file, so a layer may lack some, or have none. Raises
    WeightsError, naming the file, when it is missing, damaged or something else.
    """
    import h5py

    found: dict[str, dict[int, Array]] = {}
    with reading(path, WeightsError) as file:
        if not isinstance(file.get("data"), h5py.Group):
            raise WeightsError(f"{path} has no group `data`: it holds no weights of Caffe's")

        def visit(name: str, item: object) -> None:
            if not isinstance(item, h5py.Group):
                return
            blobs = {key: blob for key, blob in item.items() if not isinstance(blob, h5py.Group)}
            # A group of groups is the first part of names with a slash.
            if blobs or not len(item):
                if not all(key.isdecimal() for key in blobs):
                    raise WeightsError(f"{path}: layer `{name}` has a parameter that is no number: {', '.join(blobs)}")
                found[name] = {
                    int(key): floats(blob, f"{path}: layer `{name}`, parameter {key}", WeightsError)
                    for key, blob in blobs.items()
                }

        file["data"].visititems(visit)
    return found


def write_hdf5_weights(path: str | os.PathLike[str], layers: Mapping[str, Mapping[int, Array]]) -> None:
    """Writes parameters, by layer and place, as Caffe's HDF5 snapshots have them; whole or not at all.

    Raises OutputError when the file cannot be written.
    """
    import h5py

    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        data = file.create_group("data")
        for name, params in layers.items():
            group = data.require_group(name)
            for index, values in params.items():
                write_floats(group, str(index), values)


def array_blob(values: Array) -> weights_pb2.Blob:
    """A BlobProto with the shape and the values of `values`."""
    data = np.ascontiguousarray(values, "<f4").tobytes()
    return weights_pb2.Blob(shape=weights_pb2.BlobShape(dim=values.shape), data=data)


def write_message(path: str | os.PathLike[str], message: weights_pb2.Net | weights_pb2.State) -> None:
    """Writes `message` in binary form, whole or not at all; WeightsError past protobuf's limit, OutputError else."""
    size = message.ByteSize()
    if size > _MOST_BYTES:
        raise WeightsError(f"{path} would take {size / 2**30:.1f} GiB; Caffe's binary format ends at 2 GiB")
    write_atomic(path, message.SerializeToString())


def fit(values: Array, shape: Sequence[int], where: str) -> Array:
    """`values` in `shape`: as they are, or without the leading ones of legacy four-axis shapes.

    Raises WeightsError, beginning with `where` and giving both shapes, for any other difference.
    """
    want = tuple(shape)
    if values.shape == want:
        return values
    if values.ndim == 4 and len(want) < 4 and values.shape == (1,) * (4 - len(want)) + want:
        return values.reshape(want)
    raise WeightsError(
        f"{where}: the file has shape {_times(values.shape)}, the net wants {_times(want)}; "
        "to train this layer anew, give it another name"
    )


def _times(shape: Sequence[int]) -> str:
    return " × ".join(str(extent) for extent in shape) or "scalar"
