"""Semantic tokens: what each name of a `.snet` file is, as the compiler sees it."""

from __future__ import annotations

from .. import ast, schema
from ..diagnostics import Span
from .document import Document
from .names import symbols

TYPES = ["namespace", "class", "function", "variable", "parameter", "property", "enumMember", "decorator"]
_OF_SYMBOLS = {
    "let": "variable",
    "option": "variable",
    "loop variable": "variable",
    "label": "variable",
    "parameter": "parameter",
    "block": "function",
    "import": "namespace",
}


def semantic_tokens(document: Document) -> list[int]:
    """As the protocol has them: five numbers for each, places relative to the one before."""
    found: dict[int, tuple[Span, str]] = {}
    waiting: list[object] = list(document.analysis.tree.items) if document.analysis.tree else []
    while waiting:
        node = waiting.pop()
        if isinstance(node, tuple):
            waiting += node
        if not isinstance(node, ast.Node):
            continue
        for span, kind in _own(node):
            found[span.start] = span, kind
        waiting += [getattr(node, name) for name in type(node).__slots__]
    for symbol in symbols(document):
        for span in symbol.spans:
            if document.holds(span):
                found[span.start] = span, _OF_SYMBOLS[symbol.kind]
    data: list[int] = []
    line = column = end = 0
    for start in sorted(found):
        span, kind = found[start]
        if start < end or not span.text:
            continue  # an expression within a label
        here = document.position(start)
        length = document.codec.client_num_units(span.text)
        data += [here.line - line, here.character - (column if here.line == line else 0), length, TYPES.index(kind), 0]
        line, column, end = here.line, here.character, span.end
    return data


def _own(node: ast.Node) -> list[tuple[Span, str]]:
    if isinstance(node, ast.Call):
        if node.module is not None:
            at = node.callee_span.start + len(node.module) + 1
            return [(Span(node.span.source, at, node.callee_span.end), "function")]
        return [(node.callee_span, "class" if schema.layer_type(node.callee) else "function")]
    if isinstance(node, ast.Name):
        return [(node.span, "variable")]
    if isinstance(node, ast.Argument) and node.name is not None:
        return [(node.name_span, "property")]
    if isinstance(node, ast.Variable):
        return [(node.span, "enumMember")]
    if isinstance(node, ast.FunctionCall):
        return [(Span(node.span.source, node.span.start, node.span.start + len(node.name)), "function")]
    if isinstance(node, ast.Phase):
        return [(node.span, "decorator")]
    if isinstance(node, ast.Net):
        return [(node.name_span, "class")]
    if isinstance(node, ast.Default):
        return [(span, "class") for _, span in node.types]
    return []
