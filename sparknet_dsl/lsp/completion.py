"""What may come next: layer types, blocks, fields, their values, names of values and of blobs."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator

from google.protobuf.descriptor import FieldDescriptor
from lsprotocol import types

from .. import ast, schema
from ..parse import KEYWORDS
from ..settings import LR_POLICIES, SOLVER_TYPES
from ..values import FUNCTIONS
from . import fields
from .context import Context, context_at
from .document import Document
from .names import Symbol, symbols

_Kind = types.CompletionItemKind
_ITEMS = ("import", "option", "let", "default", "block", "net", "solver", "spark")
_STATEMENTS = ("let", "default", "replace", "drop", "set")
_STRINGS = {"lr_policy": tuple(LR_POLICIES), "regularization_type": ("L1", "L2"), "average": ("auto", "ring", "spark")}


def complete(document: Document, offset: int) -> types.CompletionList:
    """The candidates at a place of a `.snet` file."""
    context = context_at(document.source.text, offset)
    where = document.range(context.start, offset)
    items = []
    for name, kind, detail in _candidates(document, context, offset):
        edit = types.TextEdit(where, name)
        items.append(types.CompletionItem(name.strip("`").removesuffix("="), kind=kind, detail=detail, text_edit=edit))
    return types.CompletionList(is_incomplete=False, items=items)


def _candidates(
    document: Document, context: Context, offset: int
) -> Iterator[tuple[str, types.CompletionItemKind, str]]:
    """What to insert, of what kind it is, and a word on it."""
    kind = context.kind
    if kind == "item":
        yield from ((word, _Kind.Keyword, "") for word in _ITEMS)
        yield from _types()
    elif kind == "statement":
        yield from _blobs(document, offset)
        yield from ((word, _Kind.Keyword, "") for word in _STATEMENTS)
        yield from _types()
    elif kind == "stage":
        yield from _types()
        yield from _blocks(document, offset)
        yield from ((word, _Kind.Keyword, "") for word in ("for", "if"))
    elif kind == "module":
        yield from ((name, _Kind.Function, "block") for name in _module(document, context.owner))
    elif kind == "phase":
        yield from ((phase, _Kind.Keyword, "phase") for phase in ("train", "test", "deploy"))
    elif kind == "field":
        yield from _fields(document, context, offset)
    elif kind == "value":
        field = fields.find(context.owner, context.records, context.field)
        yield from _values(field)
        yield from _names(document, offset)
    elif kind == "string":
        yield from _strings(context)


@functools.cache
def _types() -> tuple[tuple[str, types.CompletionItemKind, str], ...]:
    return tuple((name, _Kind.Class, info.summary) for name, info in schema.layer_types().items())


def _visible(document: Document, offset: int, *kinds: str) -> Iterator[Symbol]:
    """What is defined above a place, in the braces around it or outside of all."""
    tree = document.analysis.tree
    around = document.item_at(offset)
    items = {id(item) for item in tree.items} if tree else set()
    for symbol in symbols(document):
        home = document.item_at(symbol.definitions[0].start) if symbol.definitions else None
        own = symbol.node is not None and id(symbol.node) in items
        if symbol.kind in kinds and symbol.definitions[0].start < offset and (own or home is around):
            yield symbol


def _blocks(document: Document, offset: int) -> Iterator[tuple[str, types.CompletionItemKind, str]]:
    for symbol in _visible(document, offset, "block", "import"):
        if isinstance(symbol.node, ast.Block):
            text = symbol.node.span.text
            yield symbol.name, _Kind.Function, " ".join(text[: text.find("{")].split())
        else:
            yield symbol.name, _Kind.Module, "import"


def _module(document: Document, name: str) -> list[str]:
    """The blocks of an import, as the resolver found them."""
    return list(document.analysis.modules.get(name, ()))


def _blobs(document: Document, offset: int) -> Iterator[tuple[str, types.CompletionItemKind, str]]:
    """The values that a statement may begin with."""
    around = document.item_at(offset)
    seen: dict[str, str] = {}
    for mention in document.mentions:
        if mention.span.end < offset and document.item_at(mention.span.start) is around:
            seen[mention.name] = next(iter(document.shapes(mention.blob.name).values()), "")
    network = document.analysis.network
    if isinstance(around, ast.Net) and network is not None:
        for name, blob in network.labels.items():
            made = [span for layer in blob.producers if (span := layer.span) is not None and document.holds(span)]
            if name not in seen and all(document.item_at(span.start) is not around for span in made):
                seen[name] = next(iter(document.shapes(blob.name).values()), "")
    for name, shape in seen.items():
        plain = re.fullmatch(r"[A-Za-z_]\w*", name) and name not in KEYWORDS
        yield name if plain else f"`{name}`", _Kind.Variable, shape


def _names(document: Document, offset: int) -> Iterator[tuple[str, types.CompletionItemKind, str]]:
    for symbol in _visible(document, offset, "let", "option", "parameter", "loop variable"):
        yield (
            symbol.name,
            _Kind.Constant,
            symbol.node.span.text if symbol.kind in ("let", "option") and symbol.node else symbol.kind,
        )
    yield from ((name, _Kind.Function, "function") for name in FUNCTIONS)


def _fields(document: Document, context: Context, offset: int) -> Iterator[tuple[str, types.CompletionItemKind, str]]:
    block = next((one for one in _visible(document, offset, "block") if one.name == context.owner), None)
    if block is not None and isinstance(block.node, ast.Block) and not context.records:
        for parameter in block.node.parameters:
            if parameter.name not in context.given:
                yield f"{parameter.name}=", _Kind.Field, parameter.span.text
        yield from _names(document, offset)
        return
    owner = context.owner
    info = schema.layer_type(owner)
    if info is not None and not context.records and context.index < len(info.positional):
        yield from _values(fields.find(owner, (), info.positional[context.index]))
    for name in fields.names(owner, context.records):
        field = fields.find(owner, context.records, name)
        if name not in context.given:
            doc = fields.doc(field) if field is not None else None
            yield f"{name}=", _Kind.Field, f"{doc.type}{' = ' + doc.default if doc.default else ''}" if doc else ""
    yield from _names(document, offset)


def _values(field: FieldDescriptor | None) -> Iterable[tuple[str, types.CompletionItemKind, str]]:
    if field is None:
        return
    if field.enum_type is not None:
        yield from ((name, _Kind.EnumMember, field.name) for name in schema.enum_names(field))
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        yield from ((name, _Kind.Value, field.name) for name in ("true", "false"))
    elif field.message_type is schema.FILLER:
        yield from ((name, _Kind.EnumMember, "filler") for name in schema.FILLER_POSITIONAL)
    elif field.name in _STRINGS:
        yield from ((f'"{name}"', _Kind.Value, field.name) for name in _STRINGS[field.name])


def _strings(context: Context) -> Iterator[tuple[str, types.CompletionItemKind, str]]:
    known = _STRINGS.get(context.field, ())
    if context.owner == "solver" and context.field == "type":
        known = SOLVER_TYPES
    elif context.owner == schema.ANY_TYPE and context.field == "type":
        known = tuple(schema.layer_types())
    yield from ((name, _Kind.Value, context.field) for name in known)
