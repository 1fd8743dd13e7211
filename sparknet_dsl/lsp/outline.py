"""A file at a glance: its outline, and the shape behind every layer."""

from __future__ import annotations

from collections.abc import Iterator

from lsprotocol import types

from .. import ast
from .document import Document

_Kind = types.SymbolKind


def outline(document: Document) -> list[types.DocumentSymbol]:
    """Items, and in nets and blocks what is labelled; of a file of Caffe's its layers."""
    tree, network = document.analysis.tree, document.analysis.network
    if tree is not None:
        return [found for item in tree.items for found in _item(document, item)]
    found = []
    for layer in network.layers if network else ():
        if layer.span is not None and document.holds(layer.span):
            where = document.range_of(layer.span)
            found.append(
                types.DocumentSymbol(layer.message.name, _Kind.Variable, where, where, detail=layer.message.type)
            )
    return found


def _item(document: Document, item: ast.Item) -> Iterator[types.DocumentSymbol]:
    where = document.range_of(item.span)
    if isinstance(item, ast.Net | ast.Block):
        kind = _Kind.Class if isinstance(item, ast.Net) else _Kind.Function
        children = [
            types.DocumentSymbol(
                name.span.text.strip("`"),
                _Kind.Variable,
                document.range(min(name.span.start, call.span.start), call.span.end),
                document.range_of(name.span),
                detail=call.callee,
            )
            for call, labels in document.calls()
            for name in labels
            if item.span.start <= call.span.start < item.span.end
        ]
        children.sort(key=lambda child: (child.range.start.line, child.range.start.character))
        yield types.DocumentSymbol(item.name, kind, where, document.range_of(item.name_span), children=children)
    elif isinstance(item, ast.Let | ast.Option | ast.Import):
        kind = _Kind.Module if isinstance(item, ast.Import) else _Kind.Constant
        yield types.DocumentSymbol(item.name, kind, where, document.range_of(item.name_span))
    elif isinstance(item, ast.Solver | ast.Spark):
        name = "solver" if isinstance(item, ast.Solver) else "spark"
        head = document.range(item.span.start, item.span.start + len(name))
        yield types.DocumentSymbol(name, _Kind.Object, where, head)


def inlay_hints(document: Document, where: types.Range) -> list[types.InlayHint]:
    """The shape of what each layer or block gives, behind it; in a block that of its first use, and how many more."""
    first, last = document.offset(where.start), document.offset(where.end)
    hints = []
    for call, labels in document.calls():
        at = call.span.end
        if not first <= at <= last:
            continue
        start = labels[0].span.start if labels else call.callee_span.start
        blobs = document.blobs.get(call.callee_span.start) or document.blobs.get(start, [])
        found = [next(iter(document.shapes(blob).values()), "") for blob in blobs]
        found = list(dict.fromkeys(shape for shape in found if shape))
        if call.shapes is None and found:
            more = len(found) - max(1, len(labels))
            shown = ", ".join(found[: max(1, len(labels))]) + (f" (+{more})" if more > 0 else "")
            hints.append(types.InlayHint(document.position(at), shown, types.InlayHintKind.Type, padding_left=True))
    return sorted(hints, key=lambda hint: (hint.position.line, hint.position.character))
