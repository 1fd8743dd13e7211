"""The net that predicts: the deploy variant of a model, fed as in phase TEST, and what of it some blobs need."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

from .. import Model, caffe_ext
from ..errors import ModelError
from ..proto import caffe_pb2
from .data import Phase
from .plan import phase_net

# Layers that tell of rows with labels, or pass nothing on; those that are losses say so themselves.
TELLING = ("Accuracy", "SegAccuracy", "Silence", "HDF5Output")
# What Caffe's users put in a loss's place in a deploy net.
INSTEAD = {"SoftmaxWithLoss": "Softmax", "SigmoidCrossEntropyLoss": "Sigmoid"}


class Scores(NamedTuple):
    """The blobs of a classifier: scores, and the probabilities that Softmax makes of them; `classes` of each a row."""

    raw: str
    probability: str
    classes: int


def deploy_net(model: Model) -> caffe_pb2.NetParameter:
    """What `model` predicts with: its deploy variant or, where nothing is marked @deploy, its net without losses.

    There SoftmaxWithLoss becomes Softmax, SigmoidCrossEntropyLoss Sigmoid, with the top `prob`. Each input is a layer
    of its own, with the transform_param that it has in phase TEST (without `mirror`, where it has none but TRAIN's).
    """
    phase: Phase = "TEST" if "TEST" in model.reports else "TRAIN"
    whole = _active(phase_net(model.net, model.solver or caffe_pb2.SolverParameter(), phase), phase)
    transforms = {layer.top[0]: layer.transform_param for layer in _inputs(whole) if layer.HasField("transform_param")}
    net = caffe_pb2.NetParameter()
    net.CopyFrom(model.deploy if model.deploy is not None else _without_losses(whole))
    layers = list(net.layer)
    read = {bottom for layer in layers for bottom in layer.bottom}
    net.ClearField("layer")
    for layer in layers:
        if layer.type != "Input":
            net.layer.append(layer)
            continue
        shapes = layer.input_param.shape
        for index, top in enumerate(layer.top):
            if top not in read:
                continue
            single = net.layer.add(name=top, type="Input", top=[top])
            single.input_param.shape.append(shapes[index] if index < len(shapes) else shapes[0])
            if top in transforms:
                single.transform_param.CopyFrom(transforms[top])
                if phase == "TRAIN":
                    single.transform_param.ClearField("mirror")
    if not net.layer:
        raise ModelError(f"the net of {model.name} only tells of rows with labels: it predicts nothing")
    return net


def pruned(net: caffe_pb2.NetParameter, blobs: Sequence[str]) -> caffe_pb2.NetParameter:
    """`net` with those layers alone that the values of `blobs` need; raises ModelError for one that it has not."""
    known = blobs_of(net)
    for blob in blobs:
        if blob not in known:
            raise ModelError(f"the net has no blob `{blob}`; it has {', '.join(known)}")
    needed = set(blobs)
    kept = []
    for layer in reversed(net.layer):
        if needed.intersection(layer.top):
            kept.append(layer)
            needed.update(layer.bottom)
    result = caffe_pb2.NetParameter()
    result.CopyFrom(net)
    result.ClearField("layer")
    result.layer.extend(reversed(kept))
    return result


def blobs_of(net: caffe_pb2.NetParameter) -> list[str]:
    """All blobs, in the order of making."""
    return list(dict.fromkeys(top for layer in net.layer for top in layer.top))


def inputs(net: caffe_pb2.NetParameter) -> dict[str, tuple[int, ...]]:
    """The tops that are fed, with the shape of a row."""
    return {layer.top[0]: tuple(layer.input_param.shape[0].dim)[1:] for layer in _inputs(net)}


def outputs(net: caffe_pb2.NetParameter) -> list[str]:
    """The blobs that no layer reads, in the order of making."""
    read = {bottom for layer in net.layer for bottom in layer.bottom if bottom not in layer.top}
    return [top for top in blobs_of(net) if top not in read]


def scores(net: caffe_pb2.NetParameter) -> Scores:
    """The scores and probabilities of a classifier: bottom and top of its last Softmax.

    Raises ModelError where there is none, or where a row has not just one score for each class.
    """
    softmax = next((layer for layer in reversed(net.layer) if layer.type == "Softmax"), None)
    if softmax is None:
        raise ModelError(
            f"the net {net.name} has no Softmax, nor a SoftmaxWithLoss: it gives no probabilities of classes "
            f"(its outputs are {', '.join(outputs(net))})"
        )
    raw, probability = softmax.bottom[0], softmax.top[0]
    if raw == probability:
        raise ModelError(f"layer `{softmax.name}` (Softmax) works in place: give its top another name")
    shape = shape_of(net, probability)
    classes = shape[1] if len(shape) > 1 else 0
    if classes < 2 or any(extent != 1 for extent in shape[2:]):
        raise ModelError(
            f"`{probability}` has the shape {' × '.join(map(str, shape))}: a classifier has one probability for each "
            "of two or more classes in a row"
        )
    return Scores(raw, probability, classes)


def shape_of(net: caffe_pb2.NetParameter, blob: str) -> tuple[int, ...]:
    """The shape of a blob; raises ModelError where the net is not sound."""
    report = caffe_ext.check_net(net, caffe_ext.TEST)
    if report.problems:
        problem = report.problems[0]
        raise ModelError(f"layer `{problem.layer}` of the net {net.name}: {problem.reason}")
    return tuple(report.blobs[blob] or ())


def resized(net: caffe_pb2.NetParameter, batch: int) -> caffe_pb2.NetParameter:
    """`net` for batches of `batch` rows; raises ModelError where its inputs do not have equally many rows."""
    result = copy.deepcopy(net)
    rows = {layer.top[0]: layer.input_param.shape[0].dim[:1] for layer in _inputs(result)}
    if len({tuple(dim) for dim in rows.values()}) != 1 or not all(rows.values()):
        sizes = ", ".join(f"{top} {dim[0] if dim else 'none'}" for top, dim in rows.items())
        raise ModelError(f"the inputs of {net.name} should have equally many rows in a batch; they have {sizes}")
    for layer in _inputs(result):
        layer.input_param.shape[0].dim[0] = batch
    return result


def label_top(net: caffe_pb2.NetParameter) -> str | None:
    """The input that the losses of `net` (in one phase) compare with, else one called `label`; None: there is none."""
    tops = {top for layer in _inputs(net) for top in layer.top}
    for layer in net.layer:
        if _is_loss(layer) and (found := [bottom for bottom in layer.bottom[1:] if bottom in tops]):
            return found[0]
    return "label" if "label" in tops else None


def _inputs(net: caffe_pb2.NetParameter) -> list[caffe_pb2.LayerParameter]:
    return [layer for layer in net.layer if layer.type == "Input"]


def _active(net: caffe_pb2.NetParameter, phase: Phase) -> caffe_pb2.NetParameter:
    """The layers of `net` that are in, their rules gone."""
    number = caffe_ext.TRAIN if phase == "TRAIN" else caffe_ext.TEST
    report = caffe_ext.check_net(net, number, level=net.state.level)
    result = caffe_pb2.NetParameter()
    result.CopyFrom(net)
    result.ClearField("layer")
    result.ClearField("state")
    for found in report.layers:
        if found.index >= 0:
            layer = result.layer.add()
            layer.CopyFrom(net.layer[found.index])
            for field in ("include", "exclude", "phase"):
                layer.ClearField(field)
    return result


def _is_loss(layer: caffe_pb2.LayerParameter) -> bool:
    known = caffe_ext.layer_types().get(layer.type)
    return known is not None and known.loss


def _without_losses(net: caffe_pb2.NetParameter) -> caffe_pb2.NetParameter:
    result = caffe_pb2.NetParameter()
    result.CopyFrom(net)
    result.ClearField("layer")
    given = {layer.bottom[0] for layer in net.layer if layer.type in INSTEAD.values()}
    losses = [layer for layer in net.layer if layer.type in INSTEAD and layer.bottom[0] not in given]
    taken = {top for layer in net.layer for top in layer.top} | {layer.name for layer in net.layer}
    for layer in net.layer:
        if layer.type in TELLING:
            continue
        if not _is_loss(layer):
            result.layer.append(layer)
        elif layer in losses:
            # That of the last loss is the net's; others are of side branches.
            name = "prob" if layer is losses[-1] and "prob" not in taken else f"{layer.name}/prob"
            instead = result.layer.add(name=name, type=INSTEAD[layer.type], bottom=layer.bottom[:1], top=[name])
            if instead.type == "Softmax" and layer.HasField("softmax_param"):
                instead.softmax_param.CopyFrom(layer.softmax_param)
    return result
