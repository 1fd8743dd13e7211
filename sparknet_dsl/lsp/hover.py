"""What is said of the thing under the pointer: shape, documentation, defaults."""

from __future__ import annotations

import functools
import re

from lsprotocol import types

from .. import ast, reference, schema
from ..diagnostics import Span
from . import fields
from .context import context_at
from .document import Document
from .names import Symbol, symbol_at

_WORD = re.compile(r"`[^`\n]+`|[A-Za-z_]\w*")


def hover(document: Document, offset: int) -> types.Hover | None:
    """For a `.snet` file: layer types, blocks, fields, values of fields, labels, names of values."""
    word = word_at(document.source.text, offset)
    if word is None:
        return None
    span = Span(document.source, *word.span())
    parts = [*_types(document, span), *_field(document, span)]
    symbol = symbol_at(document, offset)
    if symbol is not None:
        parts += _symbol(document, symbol, span)
    if not parts:
        return None
    return types.Hover(types.MarkupContent(types.MarkupKind.Markdown, "\n\n".join(parts)), document.range_of(span))


def word_at(text: str, offset: int) -> re.Match[str] | None:
    """The name at a place, with its back-ticks."""
    line = text.rfind("\n", 0, offset) + 1
    end = text.find("\n", offset)
    for match in _WORD.finditer(text, line, len(text) if end < 0 else end):
        if match.start() <= offset <= match.end():
            return match
    return None


def _types(document: Document, span: Span) -> list[str]:
    """A layer type, where one is used."""
    name = span.text
    if name not in schema.layer_types():
        return []
    return [*shapes(document, document.blobs.get(span.start, [])), type_markdown(name)]


def shapes(document: Document, blobs: list[str]) -> list[str]:
    """The shapes of blobs as a list, phases that agree together."""
    lines = []
    for blob in blobs:
        phases: dict[str, list[str]] = {}
        for phase, shape in document.shapes(blob).items():
            phases.setdefault(shape, []).append(phase)
        said = "; ".join(
            shape + (f" ({', '.join(where)})" if len(phases) > 1 else "") for shape, where in phases.items()
        )
        if said:
            lines.append(f"`{blob}` {said}")
    if len(lines) > 12:
        lines[12:] = [f"… and {len(lines) - 12} more"]
    return ["\\\n".join(lines)] if lines else []


@functools.cache
def type_markdown(name: str) -> str:
    """The reference of a layer type, shortened: what it does, its facts, its own fields."""
    doc = reference.type_doc(name)
    lines = [f"**{name}**: {doc.summary}", "", *(f"- {fact}" for fact in doc.facts), ""]
    for message, found in doc.fields:
        lines += [f"`{message}`:", ""]
        lines += [
            f"- `{field.name}` {field.type}"
            + (f" = {field.default}" if field.default else "")
            + (f": {field.meaning}" if field.meaning else "")
            for field in found
        ]
        lines.append("")
    return "\n".join([*lines, "```snet", doc.example.rstrip(), "```"])


def _field(document: Document, span: Span) -> list[str]:
    """A field's name before `=`, or the name that is its value."""
    text = document.source.text
    context = context_at(text, span.start)
    if context.kind == "field" and re.match(r"\s*=(?!=)", text[span.end : span.end + 20]):
        field = fields.find(context.owner, context.records, span.text)
        return [fields.markdown(span.text, fields.doc(field))] if field is not None else []
    name = context.field
    info = schema.layer_type(context.owner)
    if context.kind == "field" and info is not None and context.index < len(info.positional):
        name = info.positional[context.index]
    field = fields.find(context.owner, context.records, name) if name else None
    if field is None:
        return []
    if field.enum_type is not None and span.text in schema.enum_names(field):
        return [fields.markdown(name, fields.doc(field))]
    if field.message_type is schema.FILLER and span.text in schema.FILLER_POSITIONAL:
        args = ", ".join(schema.FILLER_POSITIONAL[span.text])
        return [f"**{span.text}**({args}): a filler, for the first values of `{name}`"]
    return []


def _symbol(document: Document, symbol: Symbol, span: Span) -> list[str]:
    node = symbol.node
    if symbol.kind == "label":
        return [f"**{symbol.name}**", *shapes(document, document.blobs.get(span.start, []))]
    if isinstance(node, ast.Block):
        head = node.span.text[: node.span.text.find("{")].strip()
        uses = [call for call, _ in document.calls() if call.callee == node.name]
        return [f"```snet\n{head}\n```", f"used {len(uses)} time{'s' * (len(uses) != 1)}"]
    if isinstance(node, ast.Let | ast.Option | ast.Import | ast.Parameter):
        return [f"{symbol.kind}\n```snet\n{node.span.text}\n```"]
    return [f"{symbol.kind} `{symbol.name}`"]
