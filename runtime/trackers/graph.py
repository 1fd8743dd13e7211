"""A net as TensorBoard draws it: a node for each layer of phase TRAIN, in TensorFlow's GraphDef."""

from collections.abc import Mapping, Sequence
from typing import Any

from ... import Model
from ...layers import active

PHASE = "TRAIN"


def graph(model: Model) -> Any:
    """The GraphDef (tensorboardX's) of `model`: names, types, who reads whom, the shapes of the tops.

    TensorBoard groups nodes by the parts of their names before a slash, as `inception_3a/3x3` has one. What a layer
    that works in place writes, those after it read.
    """
    from tensorboardX.proto.graph_pb2 import GraphDef

    result = GraphDef()
    result.versions.producer = 22
    shapes = model.shapes.get(PHASE, {})
    state = model.net.state
    writers: dict[str, str] = {}
    names: set[str] = set()
    for layer in model.net.layer:
        if not active(layer, PHASE, state.level, tuple(state.stage)):
            continue
        name = layer.name
        while name in names:  # Caffe allows it, TensorBoard does not
            name += "_"
        names.add(name)
        outputs = _shapes(layer.top, shapes)
        node = result.node.add(
            name=name, op=layer.type, input=[writers[each] for each in layer.bottom if each in writers]
        )
        node.attr["_output_shapes"].list.shape.extend(outputs)
        for index, top in enumerate(layer.top):
            writers[top] = name if index == 0 else f"{name}:{index}"
    return result


def _shapes(blobs: Sequence[str], shapes: Mapping[str, Sequence[int] | None]) -> list[Any]:
    from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto

    found = []
    for blob in blobs:
        shape = shapes.get(blob)
        dims = [TensorShapeProto.Dim(size=size) for size in shape or ()]
        found.append(TensorShapeProto(dim=dims, unknown_rank=shape is None))
    return found
