"""Hover in Caffe's own files: fields by the messages around them, layer types, blobs with their shapes."""

from __future__ import annotations

import re
from typing import cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from lsprotocol import types

from .. import schema
from ..prototxt import kind_of
from . import fields
from .document import Document
from .hover import shapes, type_markdown

_TOKEN = re.compile(r"""\#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[A-Za-z_]\w*|[{}<>]""")


def hover(document: Document, offset: int) -> types.Hover | None:
    """What is known of the field's name or the string at a place."""
    text = document.source.text
    opened: list[str] = []
    before = ""
    for match in _TOKEN.finditer(text):
        word = match[0]
        if match.start() <= offset <= match.end() and word[0] not in "#{}<>":
            said = _string(document, word[1:-1], before) if word[0] in "\"'" else _field(kind_of(text), opened, word)
            said = said or _value(kind_of(text), opened, before, word)
            content = types.MarkupContent(types.MarkupKind.Markdown, "\n\n".join(said))
            return types.Hover(content, document.range(*match.span())) if said else None
        if match.start() > offset:
            break
        if word in "{<":
            opened.append(before)
        elif word in "}>":
            opened = opened[:-1]
        elif word[0] not in "#\"'":
            before = word
    return None


def _message(kind: type[Message], opened: list[str]) -> Descriptor | None:
    descriptor: Descriptor | None = cast(Descriptor, kind.DESCRIPTOR)
    for name in opened:
        field = descriptor.fields_by_name.get(name) if descriptor is not None else None
        descriptor = field.message_type if field is not None else None
    return descriptor


def _field(kind: type[Message], opened: list[str], name: str) -> list[str]:
    message = _message(kind, opened)
    field = message.fields_by_name.get(name) if message is not None else None
    return [fields.markdown(name, fields.doc(field))] if field is not None else []


def _value(kind: type[Message], opened: list[str], name: str, word: str) -> list[str]:
    """The name of an enum's value: what is said of its field."""
    message = _message(kind, opened)
    field = message.fields_by_name.get(name) if message is not None else None
    known = field is not None and field.enum_type is not None and word in schema.enum_names(field)
    return _field(kind, opened, name) if known else []


def _string(document: Document, text: str, field: str) -> list[str]:
    network = document.analysis.network
    if field == "type" and text in schema.layer_types():
        return [type_markdown(text)]
    if field in ("top", "bottom"):
        return shapes(document, [text])
    if field == "name" and network is not None:
        layers = [layer for layer in network.layers if layer.message.name == text]
        return shapes(document, list(dict.fromkeys(top for layer in layers for top in layer.message.top)))
    return []
