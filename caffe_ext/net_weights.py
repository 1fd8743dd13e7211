"""A net's weights from and to files and messages; Net's methods of these names tell what they do."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import WeightsError
from ..proto import caffe_pb2, weights_pb2
from ._native import Blob
from .hdf5 import Array, is_hdf5
from .python_layer import Layer
from .weights import blob_array, fit, read_hdf5_weights, read_weights, write_hdf5_weights, write_weights

if TYPE_CHECKING:
    from .net import Net

# Layers, and for each of their parameters an array, or None for one that stays.
Found = Sequence[tuple[Layer, Sequence[Array | None]]]


def load(net: "Net", path: str | os.PathLike[str]) -> None:
    """Net.copy_from."""
    if is_hdf5(path):
        load_hdf5(net, path)
        return
    saved = read_weights(path)
    _copy([(layer, saved[layer.name]) for layer in net.layers if layer.name in saved], str(path))


def save(net: "Net", path: str | os.PathLike[str]) -> None:
    """Net.save."""
    params = {layer.name: [blob.data for blob in layer.blobs] for layer in net.layers}
    write_weights(path, _layers_message(net), params)


def load_hdf5(net: "Net", path: str | os.PathLike[str]) -> None:
    """Net.load_hdf5."""
    saved = read_hdf5_weights(path)
    owned = {(layer, index) for layer, index, *_ in net._native.learnable()}
    found: list[tuple[Layer, list[Array | None]]] = []
    for layer in net.layers:
        if layer.name not in saved:
            continue
        params = saved[layer.name]
        for index in range(len(layer.blobs)):
            if index not in params and (layer.name, index) in owned:
                raise WeightsError(f"{path}: layer `{layer.name}` lacks parameter {index} there")
        found.append((layer, [params.get(i) for i in range(max([len(layer.blobs), *(i + 1 for i in params)]))]))
    _copy(found, str(path))


def save_hdf5(net: "Net", path: str | os.PathLike[str]) -> None:
    """Net.save_hdf5."""
    params: dict[str, dict[int, Array]] = {layer.name: {} for layer in net.layers}
    blobs = {layer.name: layer.blobs for layer in net.layers}
    for name, index, *_ in net._native.learnable():
        params[name][index] = blobs[name][index].data
    write_hdf5_weights(path, params)


def to_proto(net: "Net") -> caffe_pb2.NetParameter:
    """Net.to_proto."""
    message = _layers_message(net)
    for layer, saved in zip(net.layers, message.layer, strict=True):
        for blob in layer.blobs:
            saved.blobs.add(shape={"dim": blob.shape}, data=blob.data.ravel())
    return message


def take_blobs(net: "Net") -> None:
    """Moves the weights that the net's own message holds into the layers."""
    found = []
    for index, layer in zip(net._indices, net.layers, strict=True):
        if index >= 0 and net._message.layer[index].blobs:
            where = f"net {net.name}: layer `{layer.name}`"
            blobs = net._message.layer[index].blobs
            arrays = [
                blob_array(weights_pb2.Blob.FromString(blob.SerializeToString()), f"{where}, parameter {i}")
                for i, blob in enumerate(blobs)
            ]
            found.append((layer, arrays))
    _copy(found, f"net {net.name}")
    for each in net._message.layer:
        each.ClearField("blobs")


def _layers_message(net: "Net") -> caffe_pb2.NetParameter:
    """The net as it was built, without weights."""
    message = caffe_pb2.NetParameter(name=net.name)
    for index, layer in zip(net._indices, net.layers, strict=True):
        saved = message.layer.add()
        if index >= 0:
            saved.CopyFrom(net._message.layer[index])
        else:
            saved.name, saved.type = layer.name, layer.type
            saved.top.extend(net.top_names[layer.name])
        # Splits renamed some.
        saved.ClearField("bottom")
        saved.bottom.extend(net.bottom_names[layer.name])
    return message


def _copy(found: Found, where: str) -> None:
    """Copies arrays into layers, all or, when anything does not fit (WeightsError), none."""
    fitted: list[tuple[Blob, Array]] = []
    for layer, arrays in found:
        if len(arrays) != len(layer.blobs):
            raise WeightsError(
                f"{where}: layer `{layer.name}` has {len(arrays)} parameters there and {len(layer.blobs)} in this net"
            )
        for i, (values, blob) in enumerate(zip(arrays, layer.blobs, strict=True)):
            if values is not None:
                fitted.append((blob, fit(values, blob.shape, f"{where}: layer `{layer.name}`, parameter {i}")))
    for blob, values in fitted:
        blob.data[...] = values
