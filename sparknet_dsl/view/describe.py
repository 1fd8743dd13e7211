"""What the page shows of a model, as plain values: nodes, edges, and the blocks around them, for each phase."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..emit import to_text
from ..layers import BlockUse
from ..table import dims, learned, totals_of

if TYPE_CHECKING:
    from ..check import LayerReport, NetReport
    from ..compile import Model
    from ..proto import caffe_pb2

FLOAT = 4  # bytes
# A net without blocks, as Caffe's files are, has those that its layers' names tell: inception_3a/1x1.
_PREFIX = re.compile(r"(.+?)/")


def describe(model: Model) -> dict[str, Any]:
    """The model by phase (TRAIN, TEST, DEPLOY): see `_Graph.plain`."""
    phases = []
    uses = {layer.name: uses for layer, uses in zip(model.net.layer, model.uses, strict=False)}
    for phase, report in model.reports.items():
        net = model.deploy if phase == "DEPLOY" and model.deploy is not None else model.net
        phases.append({"phase": phase, **_Graph(net, report, _named_blocks(net, uses)).plain()})
    return {"name": model.name, "phases": phases}


def _named_blocks(
    net: caffe_pb2.NetParameter, uses: Mapping[str, tuple[BlockUse, ...]]
) -> Mapping[str, tuple[BlockUse, ...]]:
    """The blocks of each layer, by its name; where the model has none at all, those that names make."""
    if any(uses.values()):
        return uses
    found: dict[str, tuple[BlockUse, ...]] = {}
    for prefix, layers in itertools.groupby(net.layer, lambda layer: (_PREFIX.match(layer.name) or [""])[0][:-1]):
        names = [layer.name for layer in layers]
        if prefix and len(names) > 1:
            found |= dict.fromkeys(names, (BlockUse("", prefix),))
    return found


class _Graph:
    """One phase of a net."""

    def __init__(
        self, net: caffe_pb2.NetParameter, report: NetReport, uses: Mapping[str, tuple[BlockUse, ...]]
    ) -> None:
        self._net = net
        self._report = report
        self._nodes: list[dict[str, Any]] = []
        self._edges: list[dict[str, Any]] = []
        self._groups: list[dict[str, Any]] = []
        self._known: dict[int, int] = {}  # the number of a use's group, by its identity
        self._writers: dict[str, int] = {}  # the node that wrote a blob last
        self._sources: set[str] = set()  # blobs that come from outside
        layers = [(net.layer[each.index], each) for each in report.layers if each.index >= 0]
        # A block of one layer, and those in place on it, is no more to look at than that layer.
        sizes = Counter(use for layer, _ in layers if not _in_place(layer) for use in uses.get(layer.name, ()))
        for layer, each in layers:
            self._add(layer, each, [use for use in uses.get(layer.name, ()) if sizes[use] > 1])

    def _add(self, layer: caffe_pb2.LayerParameter, report: LayerReport, uses: Sequence[BlockUse]) -> None:
        # The report has what is inserted where several layers read a blob; the net has its own names.
        tops, bottoms = list(layer.top), list(layer.bottom)
        group = self._group(uses)
        in_place = _in_place(layer) and tops[0] in self._writers
        part = self._part(layer, report, in_place=in_place)
        if in_place and self._nodes[self._writers[tops[0]]]["group"] == group:
            self._nodes[self._writers[tops[0]]]["parts"].append(part)
            return
        number = len(self._nodes)
        # Labels go to many places, and would be lines across everything.
        tags = [bottom for bottom in bottoms[1:] if bottom in self._sources]
        for bottom in bottoms:
            if bottom in self._writers and bottom not in tags:
                shape = dims(self._report.blobs.get(bottom))
                self._edges.append({"from": self._writers[bottom], "to": number, "blob": bottom, "shape": shape})
        self._nodes.append({"group": group, "parts": [part], "tags": tags})
        self._writers.update(dict.fromkeys(tops, number))
        if not bottoms:
            self._sources.update(tops)
        for use in uses:
            if use.label is None:
                # Of a block without a name of its own, that of its last layer, which others read.
                self._groups[self._known[id(use)]]["label"] = layer.name

    def plain(self) -> dict[str, Any]:
        """The graph as JSON has it.

        nodes       each a layer and those that work in place on its top (`parts`), the number of its group (-1: none),
                    and the sources that it reads beside its first bottom (`tags`)
        edges       from node to node, with blob and shape
        groups      uses of blocks, each in its parent (-1: none)
        parameters, work, memory    of all layers: learned numbers, multiply-adds of a forward pass, bytes of blobs and
                    parameters
        """
        parameters, work = totals_of(self._report, self._net)
        memory = sum(part["memory"] for node in self._nodes for part in node["parts"])
        return {
            "nodes": self._nodes,
            "edges": self._edges,
            "groups": self._groups,
            "parameters": parameters,
            "work": work,
            "memory": memory,
        }

    def _group(self, uses: Sequence[BlockUse]) -> int:
        """The number of the innermost of `uses`, -1 for none."""
        parent = -1
        for use in uses:
            number = self._known.setdefault(id(use), len(self._groups))
            if number == len(self._groups):
                self._groups.append({"label": use.label, "block": use.block, "parent": parent})
            parent = number
        return parent

    def _part(self, layer: caffe_pb2.LayerParameter, report: LayerReport, *, in_place: bool) -> dict[str, Any]:
        tops = [] if in_place else [math.prod(shape) for shape in report.top_shapes if shape is not None]
        parameters = sum(math.prod(shape) for shape in learned(report))
        return {
            "name": layer.name,
            "type": layer.type,
            "what": _what(layer),
            "shapes": [dims(shape) for shape in report.top_shapes],
            "parameters": parameters,
            "work": report.multiply_adds,
            "memory": FLOAT * (sum(tops) + sum(map(math.prod, report.param_shapes))),
            "text": to_text(layer).strip(),
        }


def _in_place(layer: caffe_pb2.LayerParameter) -> bool:
    return len(layer.top) == 1 and list(layer.top) == list(layer.bottom)


def _what(layer: caffe_pb2.LayerParameter) -> str:
    """The fields that tell most of a layer, in few characters: `3×3 / 2, 64`; "" for most types."""
    convolution, pooling = layer.convolution_param, layer.pooling_param
    if layer.HasField("convolution_param"):
        kernel = _window(convolution.kernel_size, convolution.kernel_h, convolution.kernel_w)
        stride = _window(convolution.stride, convolution.stride_h, convolution.stride_w)
        groups = f", {convolution.group} groups" if convolution.group > 1 else ""
        return f"{kernel}{_behind(stride)}, {convolution.num_output}{groups}"
    if layer.HasField("pooling_param"):
        method = type(pooling).PoolMethod.Name(pooling.pool)
        if pooling.global_pooling:
            return f"{method}, global"
        kernel = _window([pooling.kernel_size], pooling.kernel_h, pooling.kernel_w)
        return f"{method} {kernel}{_behind(_window([pooling.stride], pooling.stride_h, pooling.stride_w))}"
    if layer.HasField("inner_product_param"):
        return str(layer.inner_product_param.num_output)
    if layer.HasField("dropout_param"):
        return f"{layer.dropout_param.dropout_ratio:g}"
    if layer.HasField("eltwise_param"):
        return type(layer.eltwise_param).EltwiseOp.Name(layer.eltwise_param.operation)
    return ""


def _window(sizes: Sequence[int], height: int, width: int) -> str:
    """A kernel or a stride: one size for all axes, one for each, or height and width."""
    each = [height, width] if height or width else list(sizes) or [1]
    return "×".join(map(str, each * 2 if len(each) == 1 else each))


def _behind(stride: str) -> str:
    return "" if set(stride) <= {"1", "×"} else f" / {stride.partition('×')[0]}"
