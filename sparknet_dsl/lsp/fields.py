"""Which message the arguments at a place fill, and what its fields are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from .. import reference, schema
from ..proto import caffe_pb2, sparknet_pb2

MESSAGES: dict[str, Descriptor] = {
    "solver": cast(Descriptor, caffe_pb2.SolverParameter.DESCRIPTOR),
    "spark": cast(Descriptor, sparknet_pb2.SparkParameter.DESCRIPTOR),
}
NET = cast(Descriptor, caffe_pb2.NetParameter.DESCRIPTOR)


def find(owner: str, records: Sequence[str], name: str) -> FieldDescriptor | None:
    """The field `name` of `owner(...)`, within the braces of `records`."""
    field: FieldDescriptor | None = None
    for index, step in enumerate((*records, name)):
        if index == 0:
            field = _first(owner, step)
        else:
            message = field.message_type if field is not None else None
            field = message.fields_by_name.get(step) if message is not None else None
    return field


def _first(owner: str, name: str) -> FieldDescriptor | None:
    if owner in MESSAGES:
        return MESSAGES[owner].fields_by_name.get(name)
    if owner in schema.FILLER_POSITIONAL:
        return schema.FILLER.fields_by_name.get(name)
    if name in schema.PARAM_FIELDS:
        return schema.message_of("param").fields_by_name.get(schema.PARAM_FIELDS[name])
    if schema.layer_type(owner) is not None or owner == schema.ANY_TYPE:
        target = schema.find_field(owner, name)
        return target.field if target is not None else None
    return NET.fields_by_name.get(name)


def names(owner: str, records: Sequence[str]) -> list[str]:
    """All that may stand before `=` there; empty where it is not known what `owner` is."""
    if records:
        field = find(owner, records[:-1], records[-1])
        message = field.message_type if field is not None else None
        return [inner.name for inner in message.fields if inner.name != "unknown_field"] if message else []
    if owner in MESSAGES:
        return [field.name for field in MESSAGES[owner].fields if field.name != "unknown_field"]
    if owner in schema.FILLER_POSITIONAL:
        return [field.name for field in schema.FILLER.fields if field.name != "type"]
    if schema.layer_type(owner) is not None or owner == schema.ANY_TYPE:
        return [name for name in dict.fromkeys(schema.all_fields(owner)) if name != "unknown_field"]
    return []


def doc(field: FieldDescriptor) -> reference.FieldDoc:
    """What is known of a field."""
    message = cast(Descriptor, field.containing_type)
    return next(found for found in reference.field_docs(message) if found.name == field.name)


def markdown(name: str, found: reference.FieldDoc) -> str:
    """A field in a line or two: what it takes, its default, what it means."""
    default = f", default `{found.default}`" if found.default else ""
    return f"**{name}**: {found.type}{default}" + (f"\n\n{found.meaning}" if found.meaning else "")
