"""Flows to layers: runs every statement of a net, blocks included."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from . import ast, budget, schema
from .diagnostics import Diagnostics, Exhausted, Failed, Fix, Label, Span, closest, did_you_mean
from .fields import Fields, LayerFields, columns_query
from .layers import GHOST, Asserted, Blob, BlockUse, Layer, Mention, Network
from .proto import caffe_pb2
from .resolve import BlockDefinition, Program, Scope, unknown_type
from .values import Names, Unknown, Value, evaluate, evaluate_args, items, text, truth

MAX_LAYERS = 100_000
MAX_BLOCK_DEPTH = 64
_MOST_PRODUCERS = 16  # of one name: as many layers as there may be phases and stages that choose among them
_PHASES = {"train": caffe_pb2.TRAIN, "test": caffe_pb2.TEST}

LoadNet = Callable[[ast.Constant], "tuple[caffe_pb2.NetParameter, pathlib.Path]"]


@dataclass
class _Frame:
    """A body under expansion: the net's, or that of one use of a block."""

    scope: Scope
    labels: dict[str, Blob] = field(default_factory=dict)
    label_spans: dict[str, Span] = field(default_factory=dict)
    prefix: str = ""
    self_name: str | None = None
    phases: tuple[ast.Phase, ...] = ()
    outer: _Frame | None = None
    trail: tuple[str, ...] = ()
    uses: tuple[BlockUse, ...] = ()

    _named: tuple[Scope, Names] | None = None  # what `names` gave for a scope

    def names(self) -> Names:
        """The values that expressions see."""
        if self.self_name is None:
            return self.scope.values
        if self._named is None or self._named[0] is not self.scope:
            here = Span(next(iter(self.scope.values.values())).span.source, 0, 0)
            self._named = self.scope, {**self.scope.values, "self": Value(here, self.self_name)}
        return self._named[1]


def expand(program: Program, load_net: LoadNet, diagnostics: Diagnostics) -> Network | None:
    """The file's net, expanded; None when the file has none."""
    if not program.nets:
        return None
    node, scope = program.nets[0]
    return _Expansion(node, scope, program, load_net, diagnostics).run()


class _Expansion:
    def __init__(
        self, node: ast.Net, scope: Scope, program: Program, load_net: LoadNet, diagnostics: Diagnostics
    ) -> None:
        self.node = node
        self.frame = _Frame(scope)
        self.program = program
        self.load_net = load_net
        self.diagnostics = diagnostics
        self.message = caffe_pb2.NetParameter()
        self.layers: list[Layer] = []
        self.assertions: list[tuple[Blob, Span, tuple[int | None, ...]]] = []
        self.mentions: list[Mention] = []
        self.counts: dict[str, int] = {}
        self.inserting: list[Layer] | None = None  # `replace` collects here

    def run(self) -> Network:
        try:
            if self.node.base is not None:
                self._load_base(self.node.base)
            self.message.name = self.node.name
            fields = Fields(self.diagnostics, self.frame.names())
            args = evaluate_args(self.node.args, self.frame.names(), self.diagnostics)
            fields.set_all(self.message, args, "NetParameter")
        except Failed:
            self.frame.labels = _Anything(self.frame.labels)
        with contextlib.suppress(Failed):  # said already; what stands is still checked
            self._body(self.frame, self.node.body)
        return Network(
            self.message, self.layers, self.node.span, self.node, self.assertions, self.mentions, self.frame.labels
        )

    # Statements

    def _body(self, frame: _Frame, body: Iterable[ast.Statement]) -> list[Blob]:
        """Runs statements in order; the result is that of the last. A statement that fails does not stop the others."""
        result: list[Blob] | None = []
        for statement in body:
            self._spend(budget.STEP, statement.span, frame)
            try:
                result = self._statement(frame, statement)
            except Failed:
                result = None
                if isinstance(statement, ast.Let):
                    frame.scope = frame.scope.with_value(statement.name, Value(statement.name_span, Unknown()))
                for name in _labels_in(statement):
                    self._bind_ghost(frame, name)
        if result is None:
            raise Failed
        return result

    def _statement(self, frame: _Frame, statement: ast.Statement) -> list[Blob]:
        if isinstance(statement, ast.Flow):
            return self._flow(frame, statement)
        if isinstance(statement, ast.Let):
            value = evaluate(statement.value, frame.names(), self.diagnostics)
            frame.scope = frame.scope.with_value(statement.name, value)
        elif isinstance(statement, ast.Default):
            scope = dataclasses.replace(frame.scope, values=frame.names())
            frame.scope = dataclasses.replace(
                frame.scope, defaults=scope.with_default(statement, self.diagnostics).defaults
            )
        elif isinstance(statement, ast.Replace):
            self._replace(frame, statement)
        elif isinstance(statement, ast.Drop):
            for name in statement.names:
                for layer in self._layers_named(frame, name):
                    self.layers.remove(layer)
        else:
            self._set(frame, statement)
        return []

    def _flow(self, frame: _Frame, node: ast.Flow) -> list[Blob]:
        values = [self._lookup(frame, name) for name in node.inputs]
        spans = [name.span for name in node.inputs]
        for stage in node.stages:
            values, spans = self._stage(frame, stage, values, spans), []
        if node.capture:
            if GHOST in values:
                values = [GHOST] * len(node.capture)
            if len(node.capture) != len(values):
                raise self.diagnostics.fail(
                    "S203", f"{len(node.capture)} names for {len(values)} values", node.capture[0].span
                )
            for name, value in zip(node.capture, values, strict=True):
                self._bind(frame, self._text(frame, name), value, name.span)
        return values

    # Stages

    def _stage(self, frame: _Frame, node: ast.Stage, inputs: list[Blob], spans: list[Span]) -> list[Blob]:
        self._spend(budget.STEP, node.span, frame)
        if isinstance(node, ast.Labelled | ast.Call):
            call, labels = (node.call, node.labels) if isinstance(node, ast.Labelled) else (node, ())
            try:
                return self._call(frame, call, labels, inputs, spans)
            except Failed:  # the rest of the flow is still checked
                for label in labels:
                    self._bind_ghost(frame, label)
                return [GHOST] * max(1, len(labels))
        if isinstance(node, ast.If):
            holds = truth(evaluate(node.condition, frame.names(), self.diagnostics), self.diagnostics)
            return self._chain(frame, node.then if holds else node.otherwise or (), inputs, spans)
        scope = frame.scope
        try:
            for item in items(evaluate(node.values, frame.names(), self.diagnostics), self.diagnostics):
                self._spend(budget.STEP + len(scope.values) // 20, node.span, frame)
                frame.scope = self._loop_scope(scope, node, item)
                inputs, spans = self._chain(frame, node.body, inputs, spans), []
        finally:
            frame.scope = scope
        return inputs

    def _chain(self, frame: _Frame, stages: tuple[ast.Stage, ...], values: list[Blob], spans: list[Span]) -> list[Blob]:
        for stage in stages:
            values, spans = self._stage(frame, stage, values, spans), []
        return values

    def _loop_scope(self, scope: Scope, node: ast.For, item: Value) -> Scope:
        if len(node.names) == 1:
            return scope.with_value(node.names[0], item)
        parts = items(item, self.diagnostics)
        if len(parts) != len(node.names):
            raise self.diagnostics.fail(
                "S114", f"{len(node.names)} names for {len(parts)} values", item.span, "this item does not fit"
            )
        return dataclasses.replace(scope, values={**scope.values, **dict(zip(node.names, parts, strict=True))})

    def _call(
        self, frame: _Frame, node: ast.Call, labels: tuple[ast.Name, ...], inputs: list[Blob], spans: list[Span]
    ) -> list[Blob]:
        for phase in node.phases:
            if phase.name not in ("train", "test", "deploy"):
                near = did_you_mean(closest(phase.name, ("train", "test", "deploy")))
                raise self.diagnostics.fail(
                    "S107",
                    f"no phase `@{phase.name}`",
                    phase.span,
                    near or "phases are @train, @test and @deploy",
                    help=f'a stage is written include=[{{stage="{phase.name}"}}]',
                )
        block = self._find_block(frame, node)
        if block is not None:
            return self._use(frame, block, node, labels, inputs)
        return self._layer(frame, node, labels, inputs, spans)

    def _find_block(self, frame: _Frame, node: ast.Call) -> BlockDefinition | None:
        if node.module is not None:
            module = frame.scope.modules.get(node.module)
            if module is None:
                near = closest(node.module, frame.scope.modules)
                raise self.diagnostics.fail(
                    "S101", f"nothing is imported as `{node.module}`", node.callee_span, did_you_mean(near)
                )
            if node.callee not in module:
                near = closest(node.callee, module)
                raise self.diagnostics.fail(
                    "S101", f"`{node.module}` has no block `{node.callee}`", node.callee_span, did_you_mean(near)
                )
            return module[node.callee]
        block = frame.scope.blocks.get(node.callee)
        if block is None and node.callee in self.program.blocks:
            later = self.program.blocks[node.callee].node
            raise self.diagnostics.fail(
                "S113",
                f"block `{node.callee}` is used above its definition",
                node.callee_span,
                secondary=[Label(later.name_span, "defined here")],
                notes=["a block sees only the blocks above it: blocks cannot be recursive"],
            )
        if block is None and schema.layer_type(node.callee) is None and node.callee != schema.ANY_TYPE:
            if node.callee in self.program.broken:
                raise Failed
            raise unknown_type(node.callee, node.callee_span, tuple(frame.scope.blocks), self.diagnostics)
        return block

    # Blocks

    def _use(
        self, frame: _Frame, block: BlockDefinition, node: ast.Call, labels: tuple[ast.Name, ...], inputs: list[Blob]
    ) -> list[Blob]:
        definition = block.node
        self._spend(budget.BLOCK + len(block.scope.values), node.callee_span, frame)
        if node.bang is not None:
            raise self.diagnostics.fail("S205", "a block does not run in place", node.bang, "leave out the `!`")
        if len(frame.trail) >= MAX_BLOCK_DEPTH:
            raise self.diagnostics.fail("S003", f"blocks nested more than {MAX_BLOCK_DEPTH} deep", node.callee_span)
        if GHOST in inputs and len(inputs) != len(definition.inputs):
            raise Failed
        if len(inputs) != len(definition.inputs):
            wanted = ", ".join(name.literal or "…" for name in definition.inputs)
            raise self.diagnostics.fail(
                "S202",
                f"`{definition.name}` takes {_count(len(definition.inputs), 'input')} ({wanted}), got {len(inputs)}",
                node.callee_span,
                secondary=[Label(definition.name_span, "defined here")],
            )
        texts = [self._text(frame, label) for label in labels]
        name = self._full(frame, texts[0], labels[0].span) if texts else None
        line = node.callee_span.line
        inner = _Frame(
            self._arguments(frame, block, node),
            prefix=f"{name}/" if name else frame.prefix,
            self_name=name or frame.self_name,
            phases=node.phases or frame.phases,
            outer=frame,
            trail=(*frame.trail, f"{definition.name} used at line {line}"),
            uses=(*frame.uses, BlockUse(definition.name, name)),
        )
        for parameter, value in zip(definition.inputs, inputs, strict=True):
            self._bind(inner, parameter.literal or "", value, parameter.span)
        result = self._body(inner, definition.body)
        own = {parameter.literal for parameter in definition.inputs} | {"self"}
        for made, inner_value in inner.labels.items():
            if made not in own:
                outside = f"{texts[0]}/{made}" if texts else made
                frame.labels.setdefault(outside, inner_value)
                if made in inner.label_spans:
                    frame.label_spans.setdefault(outside, inner.label_spans[made])
        if GHOST in result and len(labels) > len(result):
            raise Failed
        if labels and len(labels) > len(result):
            raise self.diagnostics.fail(
                "S203",
                f"{len(labels)} labels, but `{definition.name}` gives {_count(len(result), 'value')}",
                labels[0].span.to(labels[-1].span),
                notes=["a block's result is that of its last statement"],
            )
        for label_text, label, value in zip(texts, labels, result, strict=False):
            self._bind(frame, label_text, value, label.span)
        if node.shapes is not None:
            asserted = self._asserted(frame, node.shapes)
            for value, shape in zip(result, asserted.shapes, strict=False):
                self.assertions.append((value, asserted.span, shape))
        return result

    def _arguments(self, frame: _Frame, block: BlockDefinition, node: ast.Call) -> Scope:
        """The scope of a block's body: what stands above the block, and its parameters."""
        definition = block.node
        names = tuple(parameter.name for parameter in definition.parameters)
        args = evaluate_args(node.args, frame.names(), self.diagnostics)
        bound = Fields(self.diagnostics, frame.names()).bind(args, names, f"`{definition.name}`")
        for name, arg in bound.items():
            if name not in names:
                near = closest(name, names)
                raise self.diagnostics.fail(
                    "S103",
                    f"`{definition.name}` has no parameter `{name}`",
                    arg.name_span,
                    did_you_mean(near),
                    secondary=[Label(definition.name_span, f"its parameters: {', '.join(names) or 'none'}")],
                    fix=Fix(arg.name_span, near[0]) if near else None,
                )
        values = dict(block.scope.values)
        for parameter in definition.parameters:
            if parameter.name in bound:
                values[parameter.name] = bound[parameter.name].value
            elif parameter.value is not None:
                values[parameter.name] = evaluate(parameter.value, values, self.diagnostics)
            else:
                raise self.diagnostics.fail(
                    "S103",
                    f"`{definition.name}` needs a value for `{parameter.name}`",
                    node.span,
                    secondary=[Label(parameter.span, "it has no default")],
                )
        return dataclasses.replace(block.scope, values=values)

    # Layers

    def _layer(
        self, frame: _Frame, node: ast.Call, labels: tuple[ast.Name, ...], inputs: list[Blob], spans: list[Span]
    ) -> list[Blob]:
        type_name = node.callee
        info = schema.layer_type(type_name)
        names = frame.names()
        args = evaluate_args(node.args, names, self.diagnostics)
        fields = LayerFields(Fields(self.diagnostics, names))
        bound = fields.bind(type_name, args, frame.scope.defaults.get(type_name, {}))
        texts = [self._text(frame, label) for label in labels]
        full = [self._full(frame, name, label.span) for name, label in zip(texts, labels, strict=True)] or [
            self._automatic(frame, type_name)
        ]
        message = caffe_pb2.LayerParameter(name=full[0], type=type_name)
        message.bottom.extend(blob.name for blob in inputs)
        if node.bang is not None:
            self._check_bang(node, node.bang, full, inputs)
            message.top.append(inputs[0].name)
        elif info is None or info.max_tops != 0:
            message.top.extend(full)
        given = set(bound)
        fields.apply(message, type_name, bound)
        if type_name == schema.ANY_TYPE and "type" not in given:
            raise self.diagnostics.fail("S309", '`Layer` needs a type: Layer(type="…")', node.callee_span)
        if GHOST in inputs:
            raise Failed
        phases = node.phases or frame.phases
        for phase in phases:
            if phase.name in _PHASES:
                message.include.add(phase=_PHASES[phase.name])
        first = labels[0].span if labels else node.callee_span
        layer = Layer(
            message,
            schema.layer_type(message.type),
            first.to(node.span),
            node.callee_span,
            first,
            bottoms=list(inputs) if "bottom" not in given else [Blob(name) for name in message.bottom],
            bottom_spans=list(spans),
            field_spans={name: arg.value.span for name, arg in bound.items()},
            bang=node.bang,
            shapes=self._asserted(frame, node.shapes) if node.shapes else None,
            in_net=not phases or any(phase.name in _PHASES for phase in phases),
            in_deploy=any(phase.name == "deploy" for phase in phases),
            columns=columns_query(bound.get("columns") if type_name == schema.RDD_TYPE else None, self.diagnostics),
            trail=frame.trail,
            uses=frame.uses,
        )
        self._add(layer)
        result = [Blob(top, (layer,)) for top in message.top]
        for index, (label_text, label) in enumerate(zip(texts, labels, strict=True)):
            if index < len(result):
                result[index] = self._bind(frame, label_text, result[index], label.span)
            else:
                frame.label_spans[label_text] = label.span
        return result

    def _check_bang(self, node: ast.Call, bang: Span, full: list[str], inputs: list[Blob]) -> None:
        if not inputs:
            raise self.diagnostics.fail("S205", "`!` without a bottom to write over", bang)
        if len(full) > 1:
            raise self.diagnostics.fail("S205", "`!` gives one value", bang, f"there are {len(full)} labels")

    def _add(self, layer: Layer) -> None:
        target = self.layers if self.inserting is None else self.inserting
        if len(self.layers) + len(self.inserting or ()) >= MAX_LAYERS:
            self.diagnostics.error(
                "S006",
                f"the net has more than {MAX_LAYERS:,} layers",
                layer.span,
                "no more here",
                notes=[f"in {step}" for step in layer.trail[-5:]],
            )
            raise Exhausted
        blobs = len(layer.message.bottom) + len(layer.message.top)
        self.diagnostics.spend(budget.LAYER + budget.BLOB * blobs, layer.place() or self.node.span, layer.trail)
        target.append(layer)

    def _spend(self, work: int, span: Span, frame: _Frame) -> None:
        self.diagnostics.spend(work, span, frame.trail)

    def _automatic(self, frame: _Frame, type_name: str) -> str:
        stem = frame.prefix + type_name.lower()
        self.counts[stem] = self.counts.get(stem, 0) + 1
        return f"{stem}{self.counts[stem]}"

    def _asserted(self, frame: _Frame, node: ast.Shapes) -> Asserted:
        return Asserted(node.span, tuple(tuple(self._dim(frame, node, dim) for dim in shape) for shape in node.shapes))

    def _dim(self, frame: _Frame, node: ast.Shapes, dim: int | str) -> int | None:
        if isinstance(dim, int):
            return dim
        if dim == "_":
            return None
        value = frame.names().get(dim)
        if value is not None and isinstance(value.data, Unknown):
            raise Failed
        if value is None or isinstance(value.data, bool) or not isinstance(value.data, int):
            raise self.diagnostics.fail(
                "S307", f"`{dim}` is no whole number", node.span, "a dimension is a number, a name or `_`"
            )
        return value.data

    # Names

    def _text(self, frame: _Frame, name: ast.Name) -> str:
        result = name.literal
        if result is None:
            result = "".join(
                part
                if isinstance(part, str)
                else text(evaluate(part, frame.names(), self.diagnostics), self.diagnostics)
                for part in name.parts
            )
        self._spend((len(frame.prefix) + len(result)) // budget.CHARACTERS, name.span, frame)
        return result

    def _full(self, frame: _Frame, label: str, span: Span) -> str:
        if label == "self" and frame.outer is not None:
            if frame.self_name is None:
                raise self.diagnostics.fail(
                    "S116",
                    "`self` is the name of the block's use, and the use has none",
                    span,
                    notes=[f"in {frame.trail[-1]}"],
                    help="label the use: name: block(…)",
                )
            return frame.self_name
        return frame.prefix + label

    def _bind(self, frame: _Frame, label: str, value: Blob, span: Span) -> Blob:
        """Gives a value a name; one that was taken should be another phase's, which the graph check looks into."""
        known = frame.labels.get(label)
        if known is not None and known.name == value.name:
            producers = dict.fromkeys((*known.producers, *value.producers))
            value = Blob(value.name, tuple(producers)[-_MOST_PRODUCERS:])
        frame.labels[label] = value
        self.mentions.append(Mention(span, label, value, frame.label_spans.get(label, span)))
        frame.label_spans[label] = span
        return value

    def _bind_ghost(self, frame: _Frame, name: ast.Name) -> None:
        """Takes note of a name whose value failed."""
        if name.literal is None:  # any later name may have been one that it would have made
            frame.labels = _Anything(frame.labels)
        elif name.literal not in frame.labels:
            self._bind(frame, name.literal, GHOST, name.span)

    def _lookup(self, frame: _Frame, name: ast.Name) -> Blob:
        label = self._text(frame, name)
        if label in frame.labels:
            blob = frame.labels[label]
            self.mentions.append(Mention(name.span, label, blob, frame.label_spans.get(label, name.span)))
            return blob
        if isinstance(frame.labels, _Anything) or set(re.findall(r"\w+", label)) & self.program.broken:
            return GHOST
        raise self._unknown(frame, label, name.span)

    def _unknown(self, frame: _Frame, label: str, span: Span) -> Failed:
        near = closest(label, frame.labels)
        hint = ""
        if near:
            line = f" (line {frame.label_spans[near[0]].line})" if near[0] in frame.label_spans else ""
            hint = f"did you mean `{near[0]}`{line}?"
        notes = []
        if frame.outer is not None:
            notes.append("a block does not see labels outside of it, only its own and its inputs")
        elif label in schema.layer_types():
            notes.append(f"`{label}` is a layer type: a source is written  label: {label}(…)")
        return self.diagnostics.fail(
            "S201", f"no value `{label}` here", span, hint, notes=notes, fix=Fix(span, near[0]) if near else None
        )

    # Nets from text format

    def _load_base(self, base: ast.Constant) -> None:
        message, _ = self.load_net(base)
        self.layers = layers_of(message, base.span)
        del message.layer[:]
        self.message.CopyFrom(message)
        self._relabel()

    def _relabel(self) -> None:
        """Names of a net from text format: every top, and the layers that work in place."""
        for layer in self.layers:
            for top in layer.message.top:
                self.frame.labels[top] = Blob(top)
            if len(layer.message.top) == 1:
                self.frame.labels.setdefault(layer.message.name, Blob(layer.message.top[0]))

    def _layers_named(self, frame: _Frame, name: ast.Name) -> list[Layer]:
        wanted = self._text(frame, name)
        found = [layer for layer in self.layers if layer.message.name == wanted]
        if not found:
            if isinstance(self.frame.labels, _Anything):
                raise Failed
            near = closest(wanted, {layer.message.name for layer in self.layers})
            raise self.diagnostics.fail(
                "S201",
                f"no layer `{wanted}` above",
                name.span,
                did_you_mean(near),
                fix=Fix(name.span, near[0]) if near else None,
            )
        return found

    def _replace(self, frame: _Frame, node: ast.Replace) -> None:
        gone = [layer for name in node.names for layer in self._layers_named(frame, name)]
        at = self.layers.index(gone[0])
        self.inserting = []
        try:
            self._body(frame, node.body)
        finally:
            added, self.inserting = self.inserting, None
            self.layers[at:at] = added
            for layer in gone:
                self.layers.remove(layer)

    def _set(self, frame: _Frame, node: ast.Set) -> None:
        args = evaluate_args(node.args, frame.names(), self.diagnostics)
        fields = LayerFields(Fields(self.diagnostics, frame.names()))
        for name in node.names:
            for layer in self._layers_named(frame, name):
                type_name = layer.message.type
                bound = fields.bind(type_name, args, {})
                fields.apply(layer.message, type_name, bound)
                layer.field_spans.update({name: arg.value.span for name, arg in bound.items()})
                layer.type_span = node.span
                if "bottom" in bound:
                    layer.bottoms = [Blob(bottom) for bottom in layer.message.bottom]


class _Anything(dict[str, Blob]):
    """Labels of a body that failed in part: any name that it lacks may have been defined there."""


def layers_of(message: caffe_pb2.NetParameter, span: Span | None) -> list[Layer]:
    """The layers of a net that no flow describes."""
    return [
        Layer(
            caffe_pb2.LayerParameter.FromString(layer.SerializePartialToString()),
            schema.layer_type(layer.type),
            span,
            None,
            None,
            bottoms=[Blob(bottom) for bottom in layer.bottom],
        )
        for layer in message.layer
    ]


def _labels_in(statement: ast.Statement) -> Iterator[ast.Name]:
    """The labels that a statement would have defined."""
    if isinstance(statement, ast.Flow):
        yield from statement.capture
        yield from _labels_of(statement.stages)
    elif isinstance(statement, ast.Replace):
        for inner in statement.body:
            yield from _labels_in(inner)


def _labels_of(stages: Iterable[ast.Stage]) -> Iterator[ast.Name]:
    for stage in stages:
        if isinstance(stage, ast.Labelled):
            yield from stage.labels
        elif isinstance(stage, ast.For):
            yield from _labels_of(stage.body)
        elif isinstance(stage, ast.If):
            yield from _labels_of((*stage.then, *(stage.otherwise or ())))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
