"""Puts values into the fields of messages, with a clear word where they do not fit."""

import contextlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from . import budget, schema
from .diagnostics import Diagnostics, Failed, Fix, Label, Span, closest, did_you_mean
from .proto import caffe_pb2
from .values import Field, Filler, Names, Record, Symbol, Value, describe, unknown_name

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_SHAPE_DIM = schema.SHAPE.fields_by_name["dim"]
_MOST_PARAMS = 1000  # far more than any layer has
_FLOAT_MAX = 3.4028235677973366e38  # what rounds to the largest float32


@dataclass(frozen=True)
class Fields:
    """Assigns evaluated arguments; `names` are those in scope, for guesses at what was meant."""

    diagnostics: Diagnostics
    names: Names

    # Whole calls

    def bind(
        self, args: Iterable[Field], positional: tuple[str, ...], what: str, defaults: Mapping[str, Field] | None = None
    ) -> dict[str, Field]:
        """Arguments by name: defaults, then those given by position, then those given by name; raises Failed."""
        bound = dict(defaults or {})
        given: dict[str, Field] = {}
        count = 0
        for arg in args:
            name = arg.name
            if name is None:
                if count >= len(positional):
                    accepts = ", ".join(positional) or "none"
                    raise self.diagnostics.fail(
                        "S108",
                        f"{what} takes {len(positional) or 'no'} value{'s' * (len(positional) != 1)} by position",
                        arg.value.span,
                        "write name=value" if positional else "",
                        notes=[f"by position, in this order: {accepts}"],
                    )
                name = positional[count]
                count += 1
            if name in given:
                before = given[name].value.span
                raise self.diagnostics.fail(
                    "S109",
                    f"`{name}` is given twice",
                    arg.name_span,
                    secondary=[Label(before, f"first here, as {name}")],
                )
            given[name] = Field(name, arg.name_span, arg.value)
            bound.pop(name, None)
        return {**bound, **given}

    def set_all(self, message: Message, args: Iterable[Field], what: str) -> None:
        """Sets fields of a message that is no layer: a net's, a solver's, a record's. Raises Failed."""
        descriptor = schema.descriptor_of(message)
        before = self.diagnostics.errors
        for arg in self.bind(args, (), what).values():
            assert arg.name is not None
            field = schema.field_of(descriptor, arg.name)
            if field is None:
                near = closest(arg.name, descriptor.fields_by_name)
                self.diagnostics.error(
                    "S104",
                    f"{what} has no field `{arg.name}`",
                    arg.name_span,
                    did_you_mean(near),
                    notes=[f"{what} accepts: {_listing(descriptor.fields_by_name)}"],
                    fix=Fix(arg.name_span, near[0]) if near else None,
                )
                continue
            with contextlib.suppress(Failed):
                self.assign(message, field, arg.value)
        if self.diagnostics.errors > before:
            raise Failed

    # One field

    def assign(self, message: Message, field: FieldDescriptor, value: Value) -> None:
        """Makes `value` the field's whole content; `none` clears it. Raises Failed."""
        self.diagnostics.spend(budget.FIELD, value.span)
        message.ClearField(field.name)
        if isinstance(value.data, Symbol) and value.data.name == "none":
            return
        if not field.is_repeated:
            if field.message_type is not None:
                getattr(message, field.name).SetInParent()
                self._fill(getattr(message, field.name), field, value)
            else:
                setattr(message, field.name, self._scalar(field, value))
            return
        target = getattr(message, field.name)
        for item in self._several(field, value):
            if field.message_type is not None:
                self._fill(target.add(), field, item)
            else:
                target.append(self._scalar(field, item))

    def _several(self, field: FieldDescriptor, value: Value) -> tuple[Value, ...]:
        if not isinstance(value.data, tuple):
            return (value,)
        if field.message_type is schema.SHAPE and any(not isinstance(item.data, tuple | Record) for item in value.data):
            return (value,)  # one shape: [64, 1, 28, 28] for [[64, 1, 28, 28]]
        each = budget.FIELD if field.message_type is not None else budget.ITEM
        self.diagnostics.spend(each * len(value.data), value.span)
        return value.data

    def _fill(self, message: Message, field: FieldDescriptor, value: Value) -> None:
        """Fills a message from a record, or from what stands for one: a filler's name, a shape's list."""
        descriptor = schema.descriptor_of(message)
        data = value.data
        if isinstance(data, Record):
            self.set_all(message, data.fields, descriptor.name)
        elif descriptor is schema.FILLER and isinstance(data, Symbol | Filler):
            self._filler(message, data, value.span)
        elif descriptor is schema.SHAPE and isinstance(data, tuple):
            self.assign(message, _SHAPE_DIM, value)
        else:
            example = {
                schema.FILLER: "a filler: xavier, gaussian(0.01), constant(0)",
                schema.SHAPE: "a shape: [64, 1, 28, 28]",
            }.get(descriptor, f"a record: {{{descriptor.fields[0].name}=...}}")
            raise self.diagnostics.fail(
                "S105", f"`{field.name}` wants {example}", value.span, f"this is {describe(value)}"
            )

    def _filler(self, message: Message, data: Symbol | Filler, span: Span) -> None:
        assert isinstance(message, caffe_pb2.FillerParameter)
        known = schema.FILLER_POSITIONAL
        if data.name not in known:
            near = closest(data.name, [*known, *self.names])
            name_span = Span(span.source, span.start, span.start + len(data.name))
            raise self.diagnostics.fail(
                "S106",
                f"no filler `{data.name}`",
                name_span,
                did_you_mean(near),
                notes=[f"fillers: {', '.join(known)}"],
                fix=Fix(name_span, near[0]) if near else None,
            )
        message.type = data.name
        if isinstance(data, Filler):
            bound = self.bind(data.fields, known[data.name], data.name)
            self.set_all(message, bound.values(), "FillerParameter")

    def _scalar(self, field: FieldDescriptor, value: Value) -> Any:
        data = value.data
        if isinstance(data, Symbol) and data.name == "_":
            raise self._wrong(
                field, value, "a value", "`_` leaves entries of lr_mult, decay_mult, param_name unset only"
            )
        if isinstance(data, Symbol) and data.name == "none":
            raise self._wrong(field, value, "a value", "`none` removes a whole field only")
        kind = field.cpp_type
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            if isinstance(data, bool):
                return data
            fix = Fix(value.span, str(bool(data)).lower()) if data in (0, 1) else None
            said = f"write `{field.name}={fix.replacement}`" if fix else f"this is {describe(value)}"
            raise self._wrong(field, value, "true or false", said, fix)
        if kind == FieldDescriptor.CPPTYPE_ENUM:
            return self._enum(field, value)
        if kind == FieldDescriptor.CPPTYPE_STRING:
            return self._string(field, value)
        if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
            return self._float(field, value)
        return self._integer(field, value)

    def _integer(self, field: FieldDescriptor, value: Value) -> int:
        data = value.data
        if isinstance(data, bool) or not isinstance(data, int | float) or data != data // 1:
            said = self._said(value)
            if isinstance(data, float) and math.isfinite(data) and "/" in value.span.text:
                said += "; `//` divides without remainder"
            raise self._wrong(field, value, "a whole number", said)
        least, most = _INTEGERS[field.cpp_type]
        if not least <= data <= most:
            wants = "a whole number that is not negative" if data < least == 0 else f"a number from {least} to {most}"
            raise self._wrong(field, value, wants, f"this is {data}")
        return int(data)

    def _float(self, field: FieldDescriptor, value: Value) -> float:
        data = value.data
        if isinstance(data, bool) or not isinstance(data, int | float):
            raise self._wrong(field, value, "a number", self._said(value))
        if abs(data) >= _FLOAT_MAX and math.isfinite(data) and field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
            raise self._wrong(field, value, "a number that float32 can hold", f"this is {data}")
        return float(data)

    def _string(self, field: FieldDescriptor, value: Value) -> str:
        if isinstance(value.data, str):
            self.diagnostics.spend(len(value.data) // budget.CHARACTERS, value.span)
            return value.data
        fix = None
        if isinstance(value.data, Symbol):
            fix = Fix(value.span, f'"{value.data.name}"')
        said = f"write {fix.replacement}" if fix else self._said(value)
        raise self._wrong(field, value, "a string", said, fix)

    def _enum(self, field: FieldDescriptor, value: Value) -> int:
        allowed = schema.enum_names(field)
        data = value.data
        listing = f"one of {', '.join(allowed)}"
        if isinstance(data, Symbol):
            if data.name in allowed:
                assert field.enum_type is not None
                return int(field.enum_type.values_by_name[data.name].number)
            near = closest(data.name, allowed)
            raise self._wrong(
                field, value, listing, did_you_mean(near), Fix(value.span, near[0]) if near else None, "S106"
            )
        fix = Fix(value.span, data) if isinstance(data, str) and data in allowed else None
        raise self._wrong(field, value, listing, "without quotes" if fix else self._said(value), fix, "S106")

    def _said(self, value: Value) -> str:
        if isinstance(value.data, Symbol):
            return unknown_name(value.data.name, self.names)
        return f"this is {describe(value)}"

    def _wrong(
        self, field: FieldDescriptor, value: Value, wants: str, label: str, fix: Fix | None = None, code: str = "S105"
    ) -> Failed:
        verb = "is" if wants.startswith("one of") else "wants"
        return self.diagnostics.fail(code, f"`{field.name}` {verb} {wants}", value.span, label, fix=fix)


def _listing(names: Iterable[str], most: int = 12) -> str:
    shown = list(names)
    return ", ".join(shown[:most]) + (", …" if len(shown) > most else "")


@dataclass(frozen=True)
class LayerFields:
    """Sets the fields of layers, by the names that a type gives them."""

    fields: Fields

    @property
    def _diagnostics(self) -> Diagnostics:
        return self.fields.diagnostics

    def bind(self, type_name: str, args: Iterable[Field], defaults: Mapping[str, Field]) -> dict[str, Field]:
        """Arguments of `Type(...)` by name."""
        info = schema.layer_type(type_name)
        return self.fields.bind(args, info.positional if info else (), type_name, defaults)

    def apply(self, layer: caffe_pb2.LayerParameter, type_name: str, bound: Mapping[str, Field]) -> None:
        """Sets every field; reports each that does not fit, then raises Failed if there was one."""
        before = self._diagnostics.errors
        sugar = {name: field for name, field in bound.items() if name in schema.PARAM_FIELDS}
        # Whole messages first: assigning one replaces what it held.
        for name, field in sorted(bound.items(), key=lambda item: not item[0].endswith("_param")):
            if name in sugar or (name == "columns" and type_name == schema.RDD_TYPE):
                continue
            with contextlib.suppress(Failed):
                self._apply_one(layer, type_name, name, field)
        if "param" in bound and sugar:
            clash = next(iter(sugar.values()))
            self._diagnostics.error(
                "S109",
                f"`{clash.name}` and `param` both fill the list `param`",
                clash.name_span,
                secondary=[Label(bound["param"].name_span, "and here")],
            )
        for field in sugar.values():
            with contextlib.suppress(Failed):
                self._zip(layer, field)
        if self._diagnostics.errors > before:
            raise Failed

    def _apply_one(self, layer: caffe_pb2.LayerParameter, type_name: str, name: str, arg: Field) -> None:
        target = schema.find_field(type_name, name)
        if target is None:
            raise self._unknown(type_name, name, arg)
        if target.message is None:
            self._warn_foreign(type_name, name, arg)
            self.fields.assign(layer, target.field, arg.value)
            return
        removes = isinstance(arg.value.data, Symbol) and arg.value.data.name == "none"
        if not removes or layer.HasField(target.message):
            self.fields.assign(getattr(layer, target.message), target.field, arg.value)

    def _unknown(self, type_name: str, name: str, arg: Field) -> Failed:
        accepted = schema.own_fields(type_name)
        near = closest(name, schema.all_fields(type_name))
        notes = [f"{type_name} accepts: {_listing(accepted, 8)}"] if accepted else []
        owners = [owner for owner in schema.types_with_field(name) if owner != type_name]
        if owners:
            notes.insert(0, f"`{name}` belongs to {_listing(owners, 5)}")
            if name == "num_output":
                notes[0] += f"; {type_name} keeps its bottom's channels"
        return self._diagnostics.fail(
            "S104",
            f"{type_name} has no field `{name}`",
            arg.name_span,
            did_you_mean(near),
            notes=notes,
            fix=Fix(arg.name_span, near[0]) if near else None,
        )

    def _warn_foreign(self, type_name: str, name: str, arg: Field) -> None:
        info = schema.layer_type(type_name)
        if info is None or not name.endswith("_param") or name in info.messages:
            return
        own = [message for message in info.messages if message.endswith("_param")]
        reads = f"{type_name} reads {', '.join(own)}" if own else f"{type_name} has no settings"
        self._diagnostics.warn("S110", f"{type_name} ignores `{name}`", arg.name_span, notes=[reads])

    def _zip(self, layer: caffe_pb2.LayerParameter, arg: Field) -> None:
        """One of the lists that fill `param` entry by entry; a new list replaces what the old one had set."""
        assert arg.name is not None
        inner = schema.PARAM_FIELDS[arg.name]
        field = schema.field_of(schema.message_of("param"), inner)
        assert field is not None
        for spec in layer.param:
            spec.ClearField(inner)
        data = arg.value.data
        if isinstance(data, Symbol) and data.name == "none":
            return
        if not isinstance(data, tuple):
            shown = arg.value.span.text if isinstance(data, int | float) else "…"
            raise self._diagnostics.fail(
                "S105",
                f"`{arg.name}` wants a list, one entry for each parameter",
                arg.value.span,
                f"for weights and bias: {arg.name}=[{shown}, {shown}]",
            )
        if len(data) > _MOST_PARAMS:
            raise self._diagnostics.fail(
                "S105", f"`{arg.name}` has {len(data):,} entries, one for each parameter", arg.value.span
            )
        for index, item in enumerate(data):
            while len(layer.param) <= index:
                layer.param.add()
            if not (isinstance(item.data, Symbol) and item.data.name == "_"):
                self.fields.assign(layer.param[index], field, item)


def columns_query(arg: Field | None, diagnostics: Diagnostics) -> str:
    """`columns=["image", "label"]` as a source URI's query; empty without columns. Raises Failed."""
    if arg is None:
        return ""
    items = arg.value.data if isinstance(arg.value.data, tuple) else ()
    names = [item.data for item in items if isinstance(item.data, str)]
    if not names or len(names) != len(items) or any(re.search(r"[,&#?]", name) for name in names):
        raise diagnostics.fail(
            "S105",
            '`columns` wants a list of names: ["image", "label"]',
            arg.value.span,
            f"this is {describe(arg.value)}",
        )
    return "?columns=" + ",".join(names)
