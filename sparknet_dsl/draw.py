"""The net as a graph in the languages of Graphviz and Mermaid: blocks as clusters, shapes on the edges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .compile import Model
from .layers import BlockUse, active
from .table import dims

_EVERYWHERE = ("TRAIN", "TEST")


@dataclass(frozen=True)
class _Edge:
    """Layer `source` writes what layer `target` reads."""

    source: int
    target: int
    blob: str
    shape: str


def _edges(model: Model) -> list[_Edge]:
    """Who reads what of whom, in any phase; a layer that works in place writes what follows it reads."""
    found: dict[tuple[int, int, str], str] = {}
    for phase in _EVERYWHERE:
        if phase not in model.reports:
            continue
        blobs = model.reports[phase].blobs
        writers: dict[str, int] = {}
        state = model.net.state
        for index, layer in enumerate(model.net.layer):
            if not active(layer, phase, state.level, tuple(state.stage)):
                continue
            for bottom in layer.bottom:
                if bottom in writers:
                    found.setdefault((writers[bottom], index, bottom), dims(blobs.get(bottom)))
            writers.update(dict.fromkeys(layer.top, index))
    return [_Edge(*ends, shape) for ends, shape in sorted(found.items(), key=lambda item: (item[0][1], item[0][0]))]


def _phase(model: Model, index: int) -> str:
    layer = model.net.layer[index]
    state = model.net.state
    where = [phase for phase in _EVERYWHERE if active(layer, phase, state.level, tuple(state.stage))]
    return "" if len(where) != 1 else f" @{where[0].lower()}"


def _nodes(
    model: Model, node: Callable[[int], str], opening: Callable[[int, BlockUse], str], closing: str
) -> list[str]:
    """The layers in order, those of a block's use between its opening and its closing line; indented."""
    lines: list[str] = []
    inside: tuple[BlockUse, ...] = ()
    clusters = 0
    for index in range(len(model.net.layer)):
        uses = model.uses[index] if index < len(model.uses) else ()
        common = 0
        while common < min(len(uses), len(inside)) and uses[common] is inside[common]:
            common += 1
        lines += _indented([closing] * (len(inside) - common), len(inside), -1)
        for depth in range(common, len(uses)):
            lines.append("  " * (depth + 1) + opening(clusters, uses[depth]))
            clusters += 1
        inside = uses
        lines.append("  " * (len(uses) + 1) + node(index))
    return lines + _indented([closing] * len(inside), len(inside), -1)


def _indented(lines: Sequence[str], depth: int, step: int) -> list[str]:
    return ["  " * (depth + step * number) + line for number, line in enumerate(lines)]


def _title(use: BlockUse) -> str:
    return f"{use.label}: {use.block}" if use.label else use.block


def dot(model: Model) -> str:
    """The graph for Graphviz: `dot -Tsvg`."""

    def node(index: int) -> str:
        layer = model.net.layer[index]
        style = ", style=dashed" if _phase(model, index) else ""
        return f"n{index} [label={_dot_text(layer.name, layer.type + _phase(model, index))}{style}];"

    def opening(number: int, use: BlockUse) -> str:
        return f"subgraph cluster_{number} {{ label={_dot_text(_title(use))};"

    lines = [f"digraph {_dot_text(model.name)} {{", "  node [shape=box];", *_nodes(model, node, opening, "}")]
    lines += [f"  n{edge.source} -> n{edge.target} [label={_dot_text(edge.shape)}];" for edge in _edges(model)]
    return "\n".join([*lines, "}"]) + "\n"


def _dot_text(*lines: str) -> str:
    escaped = [line.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for line in lines]
    return '"' + "\\n".join(escaped) + '"'


def mermaid(model: Model) -> str:
    """The graph for Mermaid, which many web pages of Markdown draw."""

    def node(index: int) -> str:
        layer = model.net.layer[index]
        return f"n{index}[{_mermaid_text(layer.name, layer.type + _phase(model, index))}]"

    def opening(number: int, use: BlockUse) -> str:
        return f"subgraph b{number}[{_mermaid_text(_title(use))}]"

    lines = ["flowchart TD", *_nodes(model, node, opening, "end")]
    lines += [f"  n{edge.source} -->|{_mermaid_text(edge.shape)}| n{edge.target}" for edge in _edges(model)]
    return "\n".join(lines) + "\n"


def _mermaid_text(*lines: str) -> str:
    def plain(line: str) -> str:
        return "".join(char if char.isalnum() or char in " _-/.:@×,?" else f"#{ord(char)};" for char in line)

    return '"' + "<br/>".join(map(plain, lines)) + '"'
