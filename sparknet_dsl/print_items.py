"""Layers as the language would write them: labels, values, arguments; for printing messages as `.snet`."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from . import schema
from .layers import PHASES, active
from .parse import KEYWORDS
from .proto import caffe_pb2

if TYPE_CHECKING:
    from .print_blocks import Block

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ZIPPED = {inner: sugar for sugar, inner in schema.PARAM_FIELDS.items()}
_ESCAPED = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", '"': '\\"'}


@dataclass(frozen=True)
class Hole:
    """A block's parameter (or `self`) inside a string or a name."""

    name: str


Text = tuple[str | Hole, ...]  # a string, with holes where it stands in a block


@dataclass(frozen=True)
class Quoted:
    """A string value."""

    text: Text


Value = str | Quoted  # a str is an expression as it is written


@dataclass
class Item:
    """One stage of a flow: a layer, or the use of a block.

    `inputs` and `results` name values by their labels; the last labels of layers without tops name no value.
    """

    callee: str
    labels: list[Text]
    inputs: list[Text]
    args: list[tuple[str | None, Value]]
    results: list[Text]
    bang: bool = False
    phases: tuple[str, ...] = ()
    positional: tuple[str, ...] = ()
    block: Block | None = None

    def named(self, index: int) -> str:
        """The name of an argument, also of one given by position."""
        return self.args[index][0] or (self.positional[index] if index < len(self.positional) else "value")


# Writing


def quote(text: str) -> str:
    """A string constant of the language."""
    return '"' + "".join(_ESCAPED.get(char) or (char if char.isprintable() else _code(char)) for char in text) + '"'


def _code(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\U{ord(char):08x}"


def write_name(text: Text) -> str:
    """A label, in back-ticks where it is no identifier."""
    if all(isinstance(part, str) for part in text):
        whole = "".join(str(part) for part in text)
        return whole if _IDENTIFIER.match(whole) and whole not in KEYWORDS else f"`{whole}`"
    if text == (Hole("self"),):
        return "self"
    return "`" + "".join(part if isinstance(part, str) else f"{{{part.name}}}" for part in text) + "`"


def write_value(value: Value) -> str:
    """An argument's value."""
    if isinstance(value, str):
        return value
    return " + ".join(quote(part) if isinstance(part, str) else part.name for part in value.text) or '""'


def write_stage(item: Item) -> str:
    """`conv1: Convolution(20, 5)! @train`."""
    labels = ", ".join(write_name(label) for label in item.labels)
    shown = [f"{name}={write_value(value)}" if name else write_value(value) for name, value in _shown(item)]
    args = f"({', '.join(shown)})" if shown or item.block is not None else ""
    phases = "".join(f" @{phase}" for phase in item.phases)
    return f"{labels}: {item.callee}{args}{'!' * item.bang}{phases}" if labels else f"{item.callee}{args}{phases}"


def _shown(item: Item) -> Iterable[tuple[str | None, Value]]:
    """The arguments to write: a block's use leaves out those that are the parameter's default."""
    if item.block is None:
        yield from item.args
        return
    left_out = False
    for (name, value), (parameter, default) in zip(item.args, item.block.parameters, strict=True):
        if value == default:
            left_out = True
        else:
            yield (parameter if left_out else name), value


def can_be_label(name: str) -> bool:
    """Whether the name can stand before a colon, in back-ticks if need be."""
    return bool(name) and name != "self" and not re.search(r"[`\n\r{}]", name) and name.isprintable()


# Values


def scalar(spec: FieldDescriptor, value: Any) -> Value:
    """A number, a string, an enum's value, `true` or `false`."""
    if spec.enum_type is not None:
        return str(spec.enum_type.values_by_number[value].name)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return Quoted((value,))
    if isinstance(value, float):
        return number(value, spec.cpp_type == FieldDescriptor.CPPTYPE_FLOAT)
    return str(value)


def number(value: float, single: bool = True) -> str:
    """The fewest digits that give the same float32 (or float64), or `1/n` where that says more."""
    if math.isinf(value) or math.isnan(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if value == 0:
        return "0" if math.copysign(1, value) > 0 else "-0.0"
    shortest = repr(value)
    if single:
        shortest = next(
            repr(near) for digits in range(1, 18) if _single(near := float(f"{value:.{digits}g}")) == _single(value)
        )
    shortest = shortest.removesuffix(".0")
    shortest = re.sub(r"e([-+])0*", r"e\1", shortest).replace("e+", "e")
    if len(shortest) > 7 and 0 < abs(value) < 1:
        whole = round(1 / value)
        if abs(whole) < 10_000 and (_single(1 / whole) == _single(value) if single else 1 / whole == value):
            return f"1/{whole}" if whole > 0 else f"-1/{-whole}"
    return shortest


def _single(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return b""


def field_value(spec: FieldDescriptor, value: Any) -> Value:
    """The content of a field, sugar for fillers and shapes included."""
    if not spec.is_repeated:
        return _one(spec, value)
    if spec.message_type is schema.SHAPE and len(value) == 1 and value[0].dim:
        return _one(spec, value[0])
    parts = [_one(spec, item) for item in value]
    single = len(parts) == 1 and spec.message_type is None and spec.name not in ("top", "bottom")
    return parts[0] if single else _bracketed(parts)


def _bracketed(parts: Iterable[Value]) -> str:
    return f"[{', '.join(write_value(part) for part in parts)}]"


def _one(spec: FieldDescriptor, value: Any) -> Value:
    if not isinstance(value, Message):
        return scalar(spec, value)
    if spec.message_type is schema.FILLER:
        filler = _filler(value)
        if filler is not None:
            return filler
    if spec.message_type is schema.SHAPE:
        return _bracketed(str(dim) for dim in value.dim)  # type: ignore[attr-defined]
    return record(value)


def record(message: Message, without: Iterable[str] = ()) -> str:
    """`{phase=TEST, stage="val"}`."""
    return "{" + ", ".join(f"{name}={write_value(value)}" for name, value in fields(message, without)) + "}"


def fields(message: Message, without: Iterable[str] = ()) -> list[tuple[str, Value]]:
    """Every field that is set, in the order of their numbers."""
    return [(spec.name, field_value(spec, value)) for spec, value in message.ListFields() if spec.name not in without]


def _filler(message: Message) -> str | None:
    assert isinstance(message, caffe_pb2.FillerParameter)
    positional = schema.FILLER_POSITIONAL.get(message.type)
    if positional is None or not message.HasField("type"):
        return None
    given = dict(fields(message, ("type",)))
    args = []
    for name in positional:
        if name not in given:
            break
        args.append(write_value(given.pop(name)))
    args += [f"{name}={write_value(value)}" for name, value in given.items()]
    return f"{message.type}({', '.join(args)})" if args else message.type


# Layers


@dataclass
class Layers:
    """Turns the layers of a net into items, one by one, knowing which label means which blob by now.

    `plain` are the indices of layers that are written by the escape alone: sugar did not give them back.
    """

    layers: Sequence[caffe_pb2.LayerParameter]
    plain: Callable[[int], bool]
    current: dict[str, Text] = field(default_factory=dict)  # blob: the label that means it
    bound: dict[str, str] = field(default_factory=dict)  # label: the blob that it means
    writers: dict[str, caffe_pb2.LayerParameter] = field(default_factory=dict)
    names: dict[str, list[caffe_pb2.LayerParameter]] = field(default_factory=dict)

    def items(self) -> list[Item]:
        """One item for each layer."""
        result = []
        for index, layer in enumerate(self.layers):
            by_hand = self.plain(index) or self._shares_name(layer)
            result.append(self._plain(index) if by_hand else self._item(index))
            self.names.setdefault(layer.name, []).append(layer)
        return result

    def _shares_name(self, layer: caffe_pb2.LayerParameter) -> bool:
        """Whether a layer above has its name in the same phase, and one of them has weights: Caffe lets them."""
        info = schema.layer_type(layer.type)
        return any(
            info is None or info.has_params or (other := schema.layer_type(one.type)) is None or other.has_params
            for one in self.names.get(layer.name, ())
            if any(active(one, phase) and active(layer, phase) for phase in PHASES)
        )

    def _plain(self, index: int) -> Item:
        layer = self.layers[index]
        label = f"layer{index + 1}"
        args: list[tuple[str | None, Value]] = [] if layer.HasField("name") else [("name", "none")]
        args += [(name, value) for name, value in fields(layer, ("param",)) if name != "type"]
        args += _zipped(layer)
        if not layer.top:
            args.append(("top", "[]"))
        callee = self._callee(layer, args)
        self.current.update(dict.fromkeys(layer.top, (label,)))
        return Item(callee, [(label,)], [], args, [(label,)] * bool(layer.top))

    def _callee(self, layer: caffe_pb2.LayerParameter, args: list[tuple[str | None, Value]]) -> str:
        if layer.HasField("type") and _IDENTIFIER.match(layer.type) and schema.layer_type(layer.type):
            return layer.type
        args.insert(0, ("type", Quoted((layer.type,)) if layer.HasField("type") else "none"))
        return schema.ANY_TYPE

    def _item(self, index: int) -> Item:
        layer = self.layers[index]
        escape: list[tuple[str | None, Value]] = []
        callee = self._callee(layer, escape)
        fed = callee == "Input" and layer.HasField("data_param") and _fed_source(layer)
        if fed:
            callee = schema.RDD_TYPE
        args = _arguments(layer, callee)
        info = schema.layer_type(callee)
        phases = _phases(layer)
        inputs = [self.current.get(bottom, ()) for bottom in layer.bottom]
        if not all(inputs):
            inputs = []
            escape.append(("bottom", _bracketed(Quoted((bottom,)) for bottom in layer.bottom)))
        top = list(layer.top)
        in_place = bool(inputs) and len(top) == 1 and top[0] == layer.bottom[0] and bool(info and info.in_place)
        bang = in_place and can_be_label(layer.name) and not self._corrupts(layer)
        no_top = not top and info is not None and info.max_tops == 0
        if bang or no_top or not top:
            labels = [layer.name if can_be_label(layer.name) else f"layer{index + 1}"]
        elif all(map(can_be_label, top)) and len(set(top)) == len(top) and not set(top) & set(layer.bottom):
            labels = top
        else:
            labels = [layer.name if len(top) == 1 and can_be_label(layer.name) else f"layer{index + 1}"]
        if not bang and not no_top and labels != top:
            escape.append(("top", _bracketed(Quoted((name,)) for name in top)))
        if layer.name != labels[0] or not layer.HasField("name"):
            escape.append(("name", Quoted((layer.name,)) if layer.HasField("name") else "none"))
        if layer.include and not phases:
            spec = schema.field_of(schema.LAYER, "include")
            assert spec is not None
            escape.append(("include", field_value(spec, layer.include)))
        for blob in top:
            self.current.pop(blob, None)
        for blob, label in zip(top, labels, strict=False):
            if self.bound.setdefault(label, blob) != blob:
                # One label for two blobs: what it meant before can no longer be said by it.
                self.current = {known: text for known, text in self.current.items() if text != (label,)}
                self.bound[label] = blob
            self.current[blob] = (label,)
        results: list[Text] = [(label,) for label in labels[: len(top)]]
        results += [()] * (len(top) - len(results))  # tops without a label
        self.writers.update(dict.fromkeys(top, layer))
        positional = info.positional if info else ()
        return Item(callee, [(label,) for label in labels], inputs, args + escape, results, bang, phases, positional)

    def _corrupts(self, layer: caffe_pb2.LayerParameter) -> bool:
        """Whether `!` would be an error here: Caffe lets a net write over what a backward pass needs."""
        victim = self.writers.get(layer.top[0])
        info = schema.layer_type(victim.type) if victim is not None else None
        return bool(info and info.reads_top and victim is not None and victim.bottom)


def _fed_source(layer: caffe_pb2.LayerParameter) -> bool:
    """Whether an Input layer is what RDDData becomes."""
    return [spec.name for spec, _ in layer.data_param.ListFields()] == ["source"] and len(
        layer.input_param.shape
    ) == len(layer.top)


def _phases(layer: caffe_pb2.LayerParameter) -> tuple[str, ...]:
    """The include rules as `@train`, `@test`; none when a rule says more."""
    rules = list(layer.include)
    if any([spec.name for spec, _ in rule.ListFields()] != ["phase"] for rule in rules):
        return ()
    return tuple(caffe_pb2.Phase.Name(rule.phase).lower() for rule in rules)


def _arguments(layer: caffe_pb2.LayerParameter, callee: str) -> list[tuple[str | None, Value]]:
    """The settings of a layer, by position as far as they stand in that order."""
    info = schema.layer_type(callee)
    given: dict[str, Value] = {}
    whole: list[tuple[str, Value]] = []
    for spec, value in layer.ListFields():
        if spec.name in ("name", "type", "bottom", "top", "include", "param"):
            continue
        if info is None or spec.name not in info.messages or spec.message_type is None or spec.is_repeated:
            whole.append((spec.name, field_value(spec, value)))
            continue
        beyond = []
        for inner, content in value.ListFields():
            target = schema.find_field(callee, inner.name)
            if target is not None and target.message == spec.name and inner.name not in schema.PARAM_FIELDS:
                given[inner.name] = field_value(inner, content)
            else:
                beyond.append(inner.name)
        if beyond or not value.ListFields():
            sugared = [inner.name for inner, _ in value.ListFields() if inner.name not in beyond]
            whole.append((spec.name, record(value, sugared)))
    args: list[tuple[str | None, Value]] = []
    for name in info.positional if info else ():
        if name not in given:
            break
        args.append((None, given.pop(name)))
    return args + list(given.items()) + _zipped(layer) + list(whole)


def _zipped(layer: caffe_pb2.LayerParameter) -> list[tuple[str | None, Value]]:
    """The list `param` as one list for each of its fields."""
    result: list[tuple[str | None, Value]] = []
    covered = 0
    for inner, sugar in _ZIPPED.items():
        spec = schema.field_of(schema.message_of("param"), inner)
        assert spec is not None
        entries = [scalar(spec, getattr(one, inner)) if one.HasField(inner) else "_" for one in layer.param]
        while entries and entries[-1] == "_":
            entries.pop()
        if entries:
            result.append((sugar, _bracketed(entries)))
            covered = max(covered, len(entries))
    if covered < len(layer.param):
        missing = ["_"] * len(layer.param)
        if not result or result[0][0] != "lr_mult":
            return [("lr_mult", _bracketed(missing)), *result]
        first = str(result[0][1])[1:-1]
        tail = ", ".join(missing[first.count(",") + 1 :])
        result[0] = ("lr_mult", f"[{first}, {tail}]")
    return result
