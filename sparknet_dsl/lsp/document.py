"""A file that an editor shows: its text, what the compiler found of it, and places in either's terms."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator

from lsprotocol import types
from pygls.workspace import PositionCodec

from .. import ast
from ..compile import Analysis, analyse
from ..diagnostics import Source, Span
from ..layers import Layer, Mention
from ..table import dims


class Document:
    """One version of a file; `before` is the one that it was made from."""

    def __init__(self, text: str, path: pathlib.Path, codec: PositionCodec, before: Document | None = None) -> None:
        self.source = Source(str(path), text)
        self.path = path
        self.codec = codec
        same_file = before is not None and before.path == path
        self.analysis: Analysis = analyse(text, path, before.analysis if before is not None and same_file else None)

    # Places

    @functools.cached_property
    def lines(self) -> list[str]:
        """The lines with their breaks."""
        return self.source.text.splitlines(keepends=True)

    def position(self, offset: int) -> types.Position:
        """A character, as the protocol names it."""
        line, column = self.source.position(offset)
        before = self.source.text[offset - column + 1 : offset]
        return types.Position(line - 1, self.codec.client_num_units(before))

    def range(self, start: int, end: int) -> types.Range:
        """The characters from `start` up to `end`, not included."""
        return types.Range(self.position(start), self.position(end))

    def range_of(self, span: Span) -> types.Range:
        """A span of this file."""
        return self.range(span.start, span.end)

    def offset(self, position: types.Position) -> int:
        """The character at a position; one behind the end of its line counts as that end."""
        text, at = self.source.text, 0
        for _ in range(position.line):
            following = text.find("\n", at)
            if following < 0:
                return len(text)
            at = following + 1
        end = text.find("\n", at)
        units = 0
        for index in range(at, len(text) if end < 0 else end):
            if units >= position.character:
                return index
            units += self.codec.client_num_units(text[index])
        return len(text) if end < 0 else end

    def holds(self, span: Span | None) -> bool:
        """Whether a span is of this file, and of no imported one."""
        return span is not None and span.source.name == self.source.name

    # Values and their shapes

    @functools.cached_property
    def mentions(self) -> list[Mention]:
        """The names of values in this file."""
        network = self.analysis.network
        return [mention for mention in network.mentions if self.holds(mention.span)] if network else []

    @functools.cached_property
    def layers(self) -> dict[int, list[Layer]]:
        """The layers by where their type stands; one in a block is made by each of its uses."""
        found: dict[int, list[Layer]] = {}
        for layer in self.analysis.network.layers if self.analysis.network else ():
            span = layer.type_span
            if span is not None and self.holds(span):
                found.setdefault(span.start, []).append(layer)
        return found

    @functools.cached_property
    def blobs(self) -> dict[int, list[str]]:
        """The blobs that are meant at a place: where a type stands, what it makes, where a name stands, its value."""
        found: dict[int, dict[str, None]] = {}
        for start, layers in self.layers.items():
            for layer in layers:
                found.setdefault(start, {}).update(dict.fromkeys(layer.message.top))
        for mention in self.mentions:
            if mention.blob.name:
                found.setdefault(mention.span.start, {})[mention.blob.name] = None
        return {start: list(names) for start, names in found.items()}

    def shapes(self, blob: str) -> dict[str, str]:
        """The shape of a blob by phase, as far as it is known."""
        found = {}
        for phase, report in self.analysis.reports.items():
            shape = report.blobs.get(blob)
            if shape is not None:
                found[phase] = dims(shape)
        return found

    # The tree

    def calls(self) -> Iterator[tuple[ast.Call, tuple[ast.Name, ...]]]:
        """Every use of a layer type or block, with its labels."""
        waiting: list[object] = list(self.analysis.tree.items) if self.analysis.tree else []
        while waiting:
            node = waiting.pop()
            if isinstance(node, tuple):
                waiting += node
            elif isinstance(node, ast.Labelled):
                yield node.call, node.labels
            elif isinstance(node, ast.Call):
                yield node, ()
            elif isinstance(node, ast.Net | ast.Block | ast.Replace | ast.For):
                waiting += node.body
            elif isinstance(node, ast.Flow):
                waiting += node.stages
            elif isinstance(node, ast.If):
                waiting += (*node.then, *(node.otherwise or ()))

    def item_at(self, offset: int) -> ast.Item | None:
        """The net, block or other item that holds a character."""
        items = self.analysis.tree.items if self.analysis.tree else ()
        return next((item for item in items if item.span.start <= offset <= item.span.end), None)
