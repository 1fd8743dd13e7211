"""What names mean: where each is defined and where it is read, and what becomes of a text when one is renamed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from .. import ast
from ..diagnostics import Span
from ..parse import KEYWORDS
from .document import Document


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """A name that cannot be changed, and why."""


@dataclass(eq=False)
class Symbol:
    """One thing that has a name: its definitions (a value may have one in each phase) and where it is read."""

    kind: str  # let, option, parameter, loop variable, block, import, label
    name: str
    definitions: list[Span] = field(default_factory=list)
    references: list[Span] = field(default_factory=list)
    node: ast.Node | None = None

    @property
    def spans(self) -> list[Span]:
        """All of its places, in the order of the text."""
        found = {(span.file, span.start): span for span in (*self.definitions, *self.references)}
        return [found[key] for key in sorted(found)]


def symbols(document: Document) -> list[Symbol]:
    """Everything in the file that has a name of its own."""
    tree = document.analysis.tree
    if tree is None:
        return []
    walk = _Walk()
    walk.body(tree.items, {})
    return [*walk.found, *_labels(document)]


def symbol_at(document: Document, offset: int) -> Symbol | None:
    """The one whose name stands there; an expression within a label in back-ticks goes before the label."""
    best: tuple[int, Symbol] | None = None
    for symbol in symbols(document):
        for span in symbol.spans:
            if document.holds(span) and span.start <= offset <= span.end:
                length = span.end - span.start
                if best is None or length < best[0]:
                    best = length, symbol
    return best[1] if best else None


# Values, blocks and imports: looked up lexically


class _Walk:
    """Goes through the tree with what is defined at each place: values by name, blocks as `b()`, imports as `i.`."""

    def __init__(self) -> None:
        self.found: list[Symbol] = []

    def _define(self, kind: str, name: str, span: Span, node: ast.Node) -> Symbol:
        symbol = Symbol(kind, name, [span], [], node)
        self.found.append(symbol)
        return symbol

    def body(self, statements: Iterable[ast.Item | ast.Statement], scope: dict[str, Symbol]) -> None:
        """Statements in order; what they define ends with the brace around them."""
        scope = dict(scope)
        for statement in statements:
            if isinstance(statement, ast.Let | ast.Option):
                self._read(statement.value, scope)
                kind = "let" if isinstance(statement, ast.Let) else "option"
                scope[statement.name] = self._define(kind, statement.name, statement.name_span, statement)
            elif isinstance(statement, ast.Import):
                scope[f"{statement.name}."] = self._define("import", statement.name, statement.name_span, statement)
            elif isinstance(statement, ast.Block):
                inner = dict(scope)
                for parameter in statement.parameters:
                    self._read(parameter.value, inner)
                    inner[parameter.name] = self._define("parameter", parameter.name, parameter.name_span, parameter)
                self.body(statement.body, inner)
                scope[f"{statement.name}()"] = self._define("block", statement.name, statement.name_span, statement)
            elif isinstance(statement, ast.Net | ast.Replace):
                self._read(statement.args if isinstance(statement, ast.Net) else statement.names, scope)
                self.body(statement.body, scope)
            else:
                self._read(statement, scope)

    def _read(self, part: object, scope: dict[str, Symbol]) -> None:
        waiting: list[tuple[object, dict[str, Symbol]]] = [(part, scope)]
        while waiting:
            node, scope = waiting.pop()
            if isinstance(node, tuple):
                waiting += ((item, scope) for item in node)
            if not isinstance(node, ast.Node):
                continue
            if isinstance(node, ast.Variable):
                self._refer(node.name, node.span, scope)
            elif isinstance(node, ast.Call) and node.module is None:
                self._refer(f"{node.callee}()", node.callee_span, scope)
            elif isinstance(node, ast.Call) and node.module is not None:
                start = node.callee_span.start
                module = Span(node.span.source, start, start + len(node.module))
                self._refer(f"{node.module}.", module, scope)
            elif isinstance(node, ast.Shapes):
                for word in re.finditer(r"\b(?!is\b)[A-Za-z_]\w*", node.span.text):
                    at = node.span.start
                    self._refer(word[0], Span(node.span.source, at + word.start(), at + word.end()), scope)
            elif isinstance(node, ast.For):
                waiting.append((node.values, scope))
                inner = dict(scope)
                for name, span in zip(node.names, node.name_spans, strict=False):
                    inner[name] = self._define("loop variable", name, span, node)
                waiting.append((node.body, inner))
                continue
            waiting += ((getattr(node, name), scope) for name in type(node).__slots__)

    def _refer(self, key: str, span: Span, scope: dict[str, Symbol]) -> None:
        if key in scope:
            scope[key].references.append(span)


# Values of flows: as the expansion found them


def _labels(document: Document) -> list[Symbol]:
    """Mentions that are linked, through a definition or through phases that share a name, are one symbol."""
    group: dict[tuple[str, int], tuple[str, int]] = {}

    def root(key: tuple[str, int]) -> tuple[str, int]:
        while group.setdefault(key, key) != key:
            key = group[key]
        return key

    places: dict[tuple[str, int], tuple[Span, bool]] = {}
    for mention in document.mentions:
        here, there = ((span.file, span.start) for span in (mention.span, mention.defined))
        places.setdefault(there, (mention.defined, True))
        known = places.get(here)
        defines = (mention.defined is mention.span) or (known is not None and known[1]) or _defines(mention.span)
        places[here] = mention.span, defines
        group[root(here)] = root(there)
    found: dict[tuple[str, int], Symbol] = {}
    for key, (span, defines) in sorted(places.items()):
        symbol = found.setdefault(root(key), Symbol("label", span.text.strip("`")))
        (symbol.definitions if defines else symbol.references).append(span)
        if defines:
            symbol.name = symbol.definitions[0].text.strip("`")
    return list(found.values())


def _defines(span: Span) -> bool:
    """Whether a name stands before a colon, alone or with others."""
    return re.match(r"(?:\s*,\s*(?:\w+|`[^`\n]+`))*\s*:", span.source.text[span.end : span.end + 500]) is not None


# Renaming


def rename(document: Document, offset: int, new: str) -> list[tuple[Span, str]]:
    """The edits that give the thing at `offset` another name; raises Refused.

    The renamed text is compiled: every name in it must mean what it did.
    """
    symbol = symbol_at(document, offset)
    if symbol is None:
        raise Refused("nothing here has a name of its own")
    edits = _edits(document, symbol, new)
    text = document.source.text
    for span, replacement in sorted(edits, key=lambda edit: -edit[0].start):
        text = text[: span.start] + replacement + text[span.end :]
    renamed = Document(text, document.path, document.codec)
    said = {diagnostic.message for diagnostic in document.analysis.diagnostics}
    before, after = (
        [found for found in one.analysis.diagnostics if found.severity == "error"] for one in (document, renamed)
    )
    if len(after) > len(before):
        raise Refused(next((found.message for found in after if found.message not in said), after[0].message))
    if _meaning(document) != _meaning(renamed):
        raise Refused(f"`{new}` is taken: names would mean something else")
    return edits


def _edits(document: Document, symbol: Symbol, new: str) -> list[tuple[Span, str]]:
    old = symbol.name
    if old == "self" or not all(document.holds(span) for span in symbol.spans):
        raise Refused(f"`{old}` is defined elsewhere")
    if symbol.kind != "label":
        if not re.fullmatch(r"[A-Za-z_]\w*", new) or new in KEYWORDS:
            raise Refused(f"`{new}` is no name for a {symbol.kind}")
        return [(span, new) for span in symbol.spans]
    if not new or re.search(r"[`\n{}]", new):
        raise Refused("a label has no back-ticks, braces or line breaks")
    edits = []
    for span in symbol.spans:
        written = span.text.strip("`")
        if written != old and not written.endswith(f"/{old}"):
            raise Refused(f"`{written}` is put together from other names")
        edits.append((span, _quoted(written[: len(written) - len(old)] + new)))
    # What is made inside of a block's use is read by the use's label, a slash and its own name.
    edited = {span.start for span, _ in edits}
    homes = {id(document.item_at(span.start)) for span in symbol.definitions}
    for mention in document.mentions:
        written = mention.span.text.strip("`")
        inside = written.startswith(f"{old}/") and id(document.item_at(mention.span.start)) in homes
        if inside and mention.span.start not in edited and mention.defined is not mention.span:
            edited.add(mention.span.start)
            edits.append((mention.span, _quoted(new + written[len(old) :])))
    return edits


def _quoted(name: str) -> str:
    plain = re.fullmatch(r"[A-Za-z_]\w*", name) and name not in KEYWORDS
    return name if plain else f"`{name}`"


def _meaning(document: Document) -> object:
    """Which places of names belong together, whatever they are called, and how the layers are wired."""
    found = [[span for span in symbol.spans if document.holds(span)] for symbol in symbols(document)]
    order = {start: index for index, start in enumerate(sorted({span.start for spans in found for span in spans}))}
    network = document.analysis.network
    layers = network.layers if network else []
    number = {id(layer): index for index, layer in enumerate(layers)}
    wires = [
        (layer.message.type, [[number.get(id(made)) for made in blob.producers] for blob in layer.bottoms])
        for layer in layers
    ]
    return sorted([order[span.start] for span in spans] for spans in found if spans), wires
