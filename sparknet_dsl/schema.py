"""What layer types and fields exist: asked of the engine's registry and of the messages' descriptors."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from .proto import caffe_pb2

if TYPE_CHECKING:
    from .caffe_ext import LayerType as LayerType

LAYER = cast(Descriptor, caffe_pb2.LayerParameter.DESCRIPTOR)
FILLER = cast(Descriptor, caffe_pb2.FillerParameter.DESCRIPTOR)
SHAPE = cast(Descriptor, caffe_pb2.BlobShape.DESCRIPTOR)

# `Layer(type="Odd")` names a type that the engine does not have.
ANY_TYPE = "Layer"
RDD_TYPE = "RDDData"

# Sugar for the list `param`: the language's name and the field of ParamSpec that it fills.
PARAM_FIELDS = {"lr_mult": "lr_mult", "decay_mult": "decay_mult", "param_name": "name", "share_mode": "share_mode"}

# What a filler takes by position, after its type.
FILLER_POSITIONAL: dict[str, tuple[str, ...]] = {
    "constant": ("value",),
    "uniform": ("min", "max"),
    "gaussian": ("std",),
    "xavier": (),
    "msra": (),
    "positive_unitball": (),
    "bilinear": (),
}

# Caffe's layers that read a source themselves, and the scheme of its URI.
DATA_LAYERS = {"Data": "lmdb", "ImageData": "images", "WindowData": "windows", "HDF5Data": "hdf5", "MemoryData": ""}


@dataclass(frozen=True)
class Target:
    """Where a layer's field lives: in the message `message` of the layer, or in the layer itself (None)."""

    message: str | None
    field: FieldDescriptor


@functools.cache
def layer_types() -> "Mapping[str, LayerType]":
    """The engine's layer types by name."""
    from .caffe_ext import layer_types as registry

    return registry()


def layer_type(name: str) -> "LayerType | None":
    """The engine's layer type of that name, if it has one."""
    return layer_types().get(name)


def own_message(type_name: str) -> str:
    """The field of LayerParameter that holds the settings of a type of the engine's, data_param of Data say."""
    return layer_types()[type_name].messages[0]


@functools.cache
def find_field(type_name: str, name: str) -> Target | None:
    """Where `Type(name=...)` goes: the type's messages in their order, then LayerParameter; None for no such field.

    Data layers keep deprecated copies of some fields of `transform_param`: the names mean `transform_param`.
    """
    info = layer_type(type_name)
    messages = info.messages if info else ()
    if info and info.source and "transform_param" in messages:
        messages = ("transform_param", *messages)
    for message in messages:
        field = field_of(message_of(message), name)
        if field is not None:
            return Target(message, field)
    field = field_of(LAYER, name)
    return Target(None, field) if field is not None else None


def message_of(field: str) -> Descriptor:
    """The message that a field of LayerParameter holds."""
    return cast(Descriptor, LAYER.fields_by_name[field].message_type)


def descriptor_of(message: Message) -> Descriptor:
    """A message's own description."""
    return cast(Descriptor, message.DESCRIPTOR)


def field_of(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    """The field of that name, if the message has one."""
    return descriptor.fields_by_name.get(name)


def own_fields(type_name: str) -> list[str]:
    """The names that a type takes from its own messages, positional ones first."""
    info = layer_type(type_name)
    if info is None:
        return []
    names = [field.name for message in info.messages for field in message_of(message).fields]
    return list(dict.fromkeys([*info.positional, *names]))


def all_fields(type_name: str) -> list[str]:
    """Every name that a type accepts."""
    extra = ["columns"] if type_name == RDD_TYPE else []
    return [*own_fields(type_name), *PARAM_FIELDS, *extra, *LAYER.fields_by_name]


@functools.cache
def types_with_field(name: str) -> tuple[str, ...]:
    """The layer types whose own messages have a field of that name."""
    return tuple(type_name for type_name in sorted(layer_types()) if name in own_fields(type_name))


def enum_names(field: FieldDescriptor) -> list[str]:
    """The names of an enum field's values."""
    assert field.enum_type is not None
    return [value.name for value in field.enum_type.values]
