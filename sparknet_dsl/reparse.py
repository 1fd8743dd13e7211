"""A text after a change: only the statements around the change are parsed again, the others keep their nodes.

Where a statement ends is decided by the token behind it, and strings, names and comments end on their line. So all that
a change can touch is the statement that it stands in, the one before, which it may go on with, and the one behind,
which it may take in. If that one comes out as it was, so do all that follow it.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from . import ast
from .diagnostics import Diagnostics, Source, Span
from .parse import SCAN, parse

N = TypeVar("N", bound=ast.Node)


def reparse(before: ast.File, source: Source, diagnostics: Diagnostics) -> ast.File | None:
    """The tree that parse would give; None where the change reaches too far for this. `before` is the old text's."""
    try:
        return _Change(before, source).apply(diagnostics)
    except RecursionError:  # a chain of `else` may be deeper than moved() can go; parse can
        return None


class _Change:
    def __init__(self, before: ast.File, source: Source) -> None:
        self.before, self.source = before, source
        old, new = before.span.source.text, source.text
        self.old = old
        shared = min(len(old), len(new))
        first = _longest(shared, lambda count: old[:count] == new[:count])
        rest = shared - first
        last = len(old) - _longest(rest, lambda count: old[len(old) - count :] == new[len(new) - count :])
        self.by = len(new) - len(old)
        # Whole lines: a comment or a quote may have begun or ended on one.
        self.first = old.rfind("\n", 0, first) + 1
        self.last = old.find("\n", last) if "\n" in old[last:] else len(old)
        self.kept: list[ast.Statement] = []
        self.behind: list[ast.Node] = []  # the first behind the change, which has to come out again

    def apply(self, diagnostics: Diagnostics) -> ast.File | None:
        kept_items = list(self._keep(self.before.items))
        everything = [*self.kept, *kept_items]
        if not everything:
            return None
        text = self._blanked(everything)
        if not _braces_match(text):
            return None
        found = Diagnostics()
        tree = parse(self.source, found, text)
        again = {(type(node), node.span.start, node.span.end) for node in _nodes(tree)}
        moved_behind = [(type(node), node.span.start + self.by, node.span.end + self.by) for node in self.behind]
        if not again.issuperset(moved_behind):
            return None
        items = self._with_kept(tree.items, kept_items)
        if items is None:
            return None
        for diagnostic in found.found:
            diagnostics.add(diagnostic)
        diagnostics.budget.characters += len(self.source.text)
        return dataclasses.replace(tree, items=items)

    def _keep(self, nodes: Sequence[N]) -> Iterator[N]:
        """The nodes that stay as they are; those in the body of a net or block that does not are put into `kept`."""
        ahead = [node for node in nodes if node.span.end <= self.first]
        behind = [node for node in nodes if node.span.start >= self.last]
        self.behind += behind[:1]
        kept = {id(node) for node in (*ahead[:-1], *behind[1:])}
        for gone in self.before.skipped:  # it is parsed again, and so is what it stands in, or beside
            kept -= {id(node) for node in nodes if node.span.start < gone.end and gone.start < node.span.end}
            kept -= {id(node) for node in [node for node in nodes if node.span.end <= gone.start][-1:]}
            kept -= {id(node) for node in [node for node in nodes if node.span.start >= gone.end][:1]}
        for node in nodes:
            if id(node) in kept:
                yield node
            elif isinstance(node, ast.Net | ast.Block):
                self.kept += self._keep(node.body)

    def _blanked(self, nodes: Sequence[ast.Node]) -> str:
        pieces, at = [], 0
        for node in sorted(nodes, key=lambda node: node.span.start):
            by = self.by if node.span.start >= self.last else 0
            pieces += [self.source.text[at : node.span.start + by], " " * (node.span.end - node.span.start)]
            at = node.span.end + by
        return "".join([*pieces, self.source.text[at:]])

    def _with_kept(self, items: Sequence[ast.Item], kept_items: Sequence[ast.Item]) -> tuple[ast.Item, ...] | None:
        """The items that were parsed and those that were kept, and so for their bodies."""
        waiting = [self._moved(node) for node in self.kept]
        result: list[ast.Item] = [self._moved(node) for node in kept_items]
        for item in items:
            if isinstance(item, ast.Net | ast.Block):
                inside = [node for node in waiting if item.span.start < node.span.start < item.span.end]
                waiting = [node for node in waiting if not item.span.start < node.span.start < item.span.end]
                body = sorted([*item.body, *inside], key=lambda node: node.span.start)
                item = dataclasses.replace(item, body=tuple(body))
            result.append(item)
        return None if waiting else tuple(sorted(result, key=lambda item: item.span.start))

    def _moved(self, node: N) -> N:
        # What stands before the change keeps its old source, of which it sees equal characters, lines and columns.
        return _moved(node, self.source, self.by) if node.span.start >= self.last else node


def _longest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `most` that fits; all below it do."""
    least = 0
    while least < most:
        middle = (least + most + 1) // 2
        if fits(middle):
            least = middle
        else:
            most = middle - 1
    return least


def _braces_match(text: str) -> bool:
    depth = 0
    for match in SCAN.finditer(text):
        bracket = match.group()
        depth += (bracket == "{") - (bracket == "}")
        if depth < 0:
            return False
    return depth == 0


def _nodes(tree: ast.File) -> Iterator[ast.Node]:
    """Items, and the statements of their bodies."""
    for item in tree.items:
        yield item
        if isinstance(item, ast.Net | ast.Block):
            yield from item.body


_FIELDS: dict[type, Callable[[Any], Any]] = {}


def _moved(part: Any, source: Source, by: int) -> Any:
    """A part of a tree, copied with its spans moved into another source."""
    kind = type(part)
    if kind is Span:
        return Span(source, part.start + by, part.end + by)
    if kind is tuple:
        return tuple([_moved(item, source, by) for item in part])
    if not isinstance(part, ast.Node):
        return part
    if kind not in _FIELDS:
        _FIELDS[kind] = operator.attrgetter(*[field.name for field in dataclasses.fields(part)])
    return kind(*[_moved(value, source, by) for value in _FIELDS[kind](part)])
