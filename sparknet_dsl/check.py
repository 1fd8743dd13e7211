"""Shapes and everything else that the engine knows: its dry run, with each problem brought back to the text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .diagnostics import Diagnostics, Fix, Label, Span
from .layers import PHASES, Layer, Network, active
from .proto import caffe_pb2
from .schema import PARAM_FIELDS

if TYPE_CHECKING:
    from .caffe_ext import LayerProblem
    from .caffe_ext import LayerReport as LayerReport
    from .caffe_ext import NetReport as NetReport

# Kinds of problems that the graph check words better, and has reported.
_GRAPH_KINDS = {"bottoms", "tops", "blob", "duplicate", "phase"}


def dry_run(
    net: caffe_pb2.NetParameter,
    layers: Sequence[Layer],
    phase: str,
    diagnostics: Diagnostics,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> NetReport:
    """Every shape of the net in a phase, computed by the engine without allocating anything.

    `layers` are those of `net`, in the same order; `shapes` supplies source tops that the net leaves open. Reports what
    the engine finds wrong, at the place in the text that it comes from.
    """
    from .caffe_ext import TEST, TRAIN, check_net

    state = net.state
    report = check_net(
        net,
        TRAIN if phase == "TRAIN" else TEST,
        level=state.level,
        stages=tuple(state.stage),
        shapes=dict(shapes or {}),
    )
    for problem in report.problems:
        layer = layers[problem.index] if 0 <= problem.index < len(layers) else None
        if layer is None:
            diagnostics.error("S301", f"layer `{problem.layer}`: {problem.reason}")
        elif not layer.broken:
            _Problem(problem, layer, layers, report, diagnostics).report()
    return report


def check_assertions(network: Network, report: NetReport, phase: str, diagnostics: Diagnostics) -> None:
    """Compares what `is` states with what the dry run found."""
    stated = [(blob.name, span, shape) for blob, span, shape in network.assertions]
    for layer in network.layers:
        if layer.shapes is not None and not layer.broken and active(layer.message, phase):
            stated += [
                (top, layer.shapes.span, shape)
                for top, shape in zip(layer.message.top, layer.shapes.shapes, strict=False)
            ]
            if len(layer.shapes.shapes) > len(layer.message.top):
                diagnostics.error(
                    "S307",
                    f"`is` has {len(layer.shapes.shapes)} shapes for {len(layer.message.top)} tops",
                    layer.shapes.span,
                )
    for name, span, shape in stated:
        found = report.blobs.get(name)
        if found is None:
            continue
        fits = len(shape) == len(found) and all(a in (None, b) for a, b in zip(shape, found, strict=True))
        if not fits:
            diagnostics.error("S307", f"`{name}` is not what `is` states", span, f"it is {list(found)}")


def source_shapes(layers: Sequence[Layer], phase: str) -> dict[str, list[int]]:
    """The shapes that `is` supplies for data layers that are kept."""
    shapes: dict[str, list[int]] = {}
    for layer in layers:
        if layer.shapes is None or layer.message.bottom or not active(layer.message, phase):
            continue
        for top, shape in zip(layer.message.top, layer.shapes.shapes, strict=False):
            sizes = list(shape)
            if sizes and sizes[0] is None and layer.message.data_param.batch_size:
                sizes[0] = layer.message.data_param.batch_size
            if None not in sizes:
                shapes[top] = [size for size in sizes if size is not None]
    return shapes


class _Problem:
    """One problem of the engine's, and the words for it."""

    def __init__(
        self,
        problem: LayerProblem,
        layer: Layer,
        layers: Sequence[Layer],
        report: NetReport,
        diagnostics: Diagnostics,
    ) -> None:
        self.problem = problem
        self.layer = layer
        self.layers = layers
        self.report_ = report
        self.diagnostics = diagnostics

    @property
    def _shapes(self) -> list[tuple[str, tuple[int, ...] | None]]:
        return [(bottom, self.report_.blobs.get(bottom)) for bottom in self.layer.message.bottom]

    def report(self) -> None:
        problem, message = self.problem, self.layer.message
        title = f"`{message.name}` ({message.type}): {problem.reason}"
        if problem.kind == "type":
            # It may be meant for another engine: what cannot be trained says so when it is run.
            self.diagnostics.warn(
                "S311", f"the engine has no layer type `{message.type}`", self.layer.place("type"), "passed on as it is"
            )
            return
        if problem.kind == "param":
            place = self.layer.place("param_name", "lr_mult", "decay_mult", "param")
            shared = re.search(r"shares parameter `.*?` with layer `(.*?)`", problem.reason)
            owners = [layer for layer in self.layers if shared and layer.message.name == shared[1] and layer.span]
            secondary = [Label(layer.span, "the other layer") for layer in owners if layer.span]
            self.diagnostics.error("S306" if shared else "S305", title, place, secondary=secondary)
            return
        if problem.kind == "field":
            needed = re.match(r"(\w+) (?:is missing|must be at least 1)", problem.reason)
            if needed and needed[1] not in self.layer.field_spans:
                title = f"`{message.name}`: {message.type} needs `{needed[1]}`"
            self.diagnostics.error("S309", title, self._place_named_in_reason())
            return
        if problem.kind in _GRAPH_KINDS:
            self.diagnostics.error("S202" if problem.kind == "bottoms" else "S201", title, self.layer.place())
            return
        if message.type == "Concat" and self._concat():
            return
        if message.type == "Eltwise" and self._eltwise(title):
            return
        if message.type in ("Pooling", "Convolution") and self._window(title):
            return
        self.diagnostics.error("S301", title, self._place_named_in_reason(), notes=self._bottoms())

    def _place_named_in_reason(self) -> Span | None:
        for name in re.findall(r"[a-z_]+", self.problem.reason):
            if name in self.layer.field_spans:
                return self.layer.field_spans[name]
        return self.layer.place()

    def _bottoms(self) -> list[str]:
        return [f"`{name}` is {_dims(shape)}{self._made_at(name)}" for name, shape in self._shapes]

    def _made_at(self, blob: str) -> str:
        for index, bottom in enumerate(self.layer.message.bottom):
            if bottom == blob and index < len(self.layer.bottoms):
                for producer in self.layer.bottoms[index].producers:
                    if producer.label_span:
                        return f" (line {producer.label_span.line})"
        return ""

    def _concat(self) -> bool:
        shapes = [(name, shape) for name, shape in self._shapes if shape is not None]
        axis = self.layer.message.concat_param.axis
        rest = [shape[:axis] + shape[axis + 1 :] if 0 <= axis < len(shape) else shape for _, shape in shapes]
        if len(set(rest)) < 2:
            return False
        usual = max(set(rest), key=rest.count)
        listing = ", ".join(
            f"{_dims(other[1:])} ({name.rsplit('/', 1)[-1]}){'' if other == usual else ' ← differs'}"
            for (name, _), other in zip(shapes, rest, strict=True)
        )
        help_text = None
        for (name, _), other in zip(shapes, rest, strict=True):
            if other != usual:
                help_text = help_text or self._padding(name, other, usual)
        self.diagnostics.error(
            "S302",
            f"`{self.layer.message.name}`: along axis {axis} all else must agree: {listing}",
            self.layer.place(),
            notes=self._bottoms(),
            help=help_text,
        )
        return True

    def _padding(self, blob: str, got: tuple[int, ...], wanted: tuple[int, ...]) -> str | None:
        """The `pad` that would give the size of the other bottoms, where the blob comes from a convolution."""
        producers = [
            layer for layer in self.layers if blob in layer.message.top and layer.message.type == "Convolution"
        ]
        if not producers or len(got) < 2:
            return None
        param = producers[0].message.convolution_param
        kernel = param.kernel_size[0] if param.kernel_size else 0
        stride = param.stride[0] if param.stride else 1
        if stride == 1 and kernel % 2 and (kernel - 1) // 2 != (param.pad[0] if param.pad else 0):
            name = producers[0].message.name
            return f"pad={(kernel - 1) // 2} keeps {wanted[-1]} for `{name}`'s kernel of {kernel}"
        return None

    def _eltwise(self, title: str) -> bool:
        shapes = [(name, shape) for name, shape in self._shapes if shape is not None]
        if len(shapes) < 2 or any(len(shape) < 2 for _, shape in shapes):
            return False
        channels = [shape[1] for _, shape in shapes]
        if len(set(channels)) < 2:
            return False
        others = [shape[:1] + shape[2:] for _, shape in shapes]
        projection = (
            f"a projection makes them agree: Convolution({max(channels)}, 1)" if len(set(others)) == 1 else None
        )
        self.diagnostics.error(
            "S304",
            f"`{self.layer.message.name}` adds {' and '.join(str(count) for count in channels)} channels"
            if self.layer.message.eltwise_param.operation == caffe_pb2.EltwiseParameter.SUM
            else title,
            self.layer.place(),
            notes=self._bottoms(),
            help=projection,
        )
        return True

    def _window(self, title: str) -> bool:
        """A kernel larger than its input: the trail shows where the size went."""
        if "kernel" not in self.problem.reason:
            return False
        trail: list[str] = []
        blob = self.layer.message.bottom[0] if self.layer.message.bottom else ""
        limit = self.problem.index
        while blob and len(trail) < 8:
            trail.append(f"{blob} {_dims(self.report_.blobs.get(blob))}")
            before = [
                layer for layer in self.layers[:limit] if blob in layer.message.top and blob not in layer.message.bottom
            ]
            blob = before[-1].message.bottom[0] if before and before[-1].message.bottom else ""
            limit = self.layers.index(before[-1]) if before else 0
        self.diagnostics.error(
            "S303", title, self.layer.place("kernel_size"), notes=["it comes from " + " ← ".join(trail)]
        )
        return True


def check_param_counts(network: Network, reports: Mapping[str, NetReport], diagnostics: Diagnostics) -> None:
    """Lists of lr_mult and the like that are longer than a layer has parameters."""
    for layer in network.layers:
        info = layer.info
        count = len(layer.message.param)
        if info is None or layer.broken or info.max_params is None or count <= info.max_params:
            continue
        layer.broken = True
        field = next((name for name in (*PARAM_FIELDS, "param") if name in layer.field_spans), "param")
        has = f"{info.max_params} parameter{'s' * (info.max_params != 1)}" if info.max_params else "no parameters"
        span = layer.place(field)
        secondary = [Label(layer.type_span, "this layer")] if layer.type_span and span != layer.type_span else []
        fix = None
        if span and field in layer.field_spans and info.max_params == 0:
            fix = Fix(span, "none")
        self_said = f"{layer.message.type} has {has}, `{field}` is for {count}"
        diagnostics.error("S305", self_said, span, secondary=secondary, fix=fix)


def phases_of(network: Network) -> list[str]:
    """The phases in which the net exists: TRAIN, and TEST where it has a source there."""
    from .graph import has_source

    return [phase for phase in PHASES if has_source(network, phase)]


def _dims(shape: Sequence[int] | None) -> str:
    if shape is None:
        return "unknown"
    return "×".join(str(dim) for dim in shape) or "a scalar"
