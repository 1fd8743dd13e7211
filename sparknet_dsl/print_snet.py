"""Writes messages as `.snet`: the shortest text found that compiles to the same messages again.

Every text is compiled and compared before it is given out. Layers that sugar does not give back are written by the
escape alone, which holds any message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from google.protobuf.message import Message

from . import expand, graph, schema, settings, variants
from .diagnostics import Diagnostics, Exhausted, Failed, Source
from .errors import UsageError
from .layers import Network
from .parse import parse
from .print_blocks import Block, find_blocks
from .print_items import (
    Item,
    Layers,
    Value,
    fields,
    quote,
    write_name,
    write_stage,
    write_value,
)
from .proto import caffe_pb2, sparknet_pb2
from .resolve import Program, resolve

WIDTH = 110
_WORTH = 24  # characters that a `default` must save


def to_snet(
    net: caffe_pb2.NetParameter | None,
    solver: caffe_pb2.SolverParameter | None = None,
    spark: sparknet_pb2.SparkParameter | None = None,
) -> str:
    """A text that compiles to the same messages (data layers kept). Raises UsageError for what no text can hold."""
    parts = []
    if net is not None:
        parts.append(_net_text(net))
    if solver is not None:
        parts.append(_solver_text(solver))
    if spark is not None:
        parts.append(_call("spark", fields(spark)))
    return "\n\n".join(parts) + "\n"


# Solvers


def _solver_text(solver: caffe_pb2.SolverParameter) -> str:
    args = sorted(fields(solver), key=lambda field: field[0] != "net")  # what it trains first, as people write it
    text = _call("solver", args)
    diagnostics = Diagnostics()
    program = _program(text, diagnostics)
    made = None
    if program is not None and program.solvers:
        node, scope = program.solvers[0]
        made = settings.solver_of(node, scope, lambda base: (solver, None), False, diagnostics)  # type: ignore[arg-type, return-value]
    if made is None or not same(made[0], solver):
        raise UsageError(f"the solver cannot be written as .snet{_reason(diagnostics)}")
    return text


def _call(head: str, args: Sequence[tuple[str | None, Value]]) -> str:
    """`solver (...)`, its fields in lines."""
    shown = [f"{name}={write_value(value)}" for name, value in args]
    if len(head) + 3 + sum(len(part) + 2 for part in shown) <= WIDTH:
        return f"{head} ({', '.join(shown)})"
    return "\n".join([f"{head} (", *_packed([f"{part}," for part in shown], "  "), ")"])


def _packed(parts: Iterable[str], indent: str, first: str | None = None) -> list[str]:
    """The parts in lines of at most WIDTH characters, where one fits."""
    lines = [first if first is not None else indent]
    fresh = True
    for part in parts:
        if fresh or len(lines[-1]) + 1 + len(part) <= WIDTH:
            lines[-1] += part if fresh else f" {part}"
        else:
            lines.append(indent + part)
        fresh = False
    return lines


# Nets


def _net_text(net: caffe_pb2.NetParameter) -> str:
    plain: set[int] = set()
    for _ in range(3):
        items = Layers(net.layer, plain.__contains__).items()
        text = _written(net, [], [], items)
        differing = _differing(net, text)
        if not differing:
            return min(_shorter(net, items, text), key=len)
        plain |= differing
        if len(plain) == len(net.layer):
            break
    items = Layers(net.layer, lambda index: True).items()
    text = _written(net, [], [], items)
    diagnostics = Diagnostics()
    if not same_net(text, net, diagnostics):
        raise UsageError(f"the net {net.name} cannot be written as .snet{_reason(diagnostics)}")
    return text


def _shorter(net: caffe_pb2.NetParameter, items: list[Item], text: str) -> list[str]:
    """All texts that say the same, the plain one among them."""
    result = [text]
    defaults, bare = factor_defaults(items)
    candidates: list[Callable[[], str]] = [
        lambda: _written(net, defaults, [], bare),
        lambda: _written(net, defaults, *find_blocks(bare)),
    ]
    for candidate in candidates:
        shorter = candidate()
        if shorter not in result and same_net(shorter, net, Diagnostics()):
            result.append(shorter)
    return result


def _written(
    net: caffe_pb2.NetParameter, defaults: Sequence[str], blocks: Sequence[Block], items: Sequence[Item]
) -> str:
    lines = list(defaults)
    if lines:
        lines.append("")
    for block in blocks:
        lines += [f"{block.head()} {{", *statements(block.body), "}", ""]
    own = fields(net, ("name", "layer"))
    if not net.HasField("name"):
        own.insert(0, ("name", "none"))
    shown = f" ({', '.join(f'{name}={write_value(value)}' for name, value in own)})" if own else ""
    label = write_name((net.name,))
    lines += [f"net {quote(net.name) if not label.isidentifier() else label}{shown} {{", *statements(items), "}"]
    return "\n".join(lines)


def statements(items: Sequence[Item], indent: str = "  ") -> list[str]:
    """Items as flows: each goes on from the one before where its inputs are just what that one gives."""
    lines: list[str] = []
    chain: list[Item] = []
    head = ""
    before: Item | None = None

    def finish() -> None:
        if chain:
            lines.extend(_flow(chain, f"{indent}{head} ", indent + "    "))
        chain.clear()

    for item in items:
        goes_on = before is not None and bool(item.inputs) and item.inputs == before.results and bool(before.inputs)
        if not goes_on:
            finish()
            head = ", ".join(write_name(name) for name in item.inputs)
            if not item.inputs:
                lines.append(indent + write_stage(item))
        if item.inputs:
            chain.append(item)
        before = item
    finish()
    return lines


def _flow(stages: Sequence[Item], first: str, indent: str) -> list[str]:
    """A flow in lines; a new one begins with what has weights, once the line is half full."""
    lines = [first]
    for stage in stages:
        part = f"-> {write_stage(stage)}"
        info = schema.layer_type(stage.callee)
        heavy = info is not None and info.has_params and not stage.bang
        length = len(lines[-1]) + 1 + len(part)
        if lines[-1] is not first and (length > WIDTH or (heavy and len(lines[-1]) > WIDTH // 2)):
            lines.append(indent + part)
        else:
            lines[-1] += part if lines[-1] is first else f" {part}"
    return lines


# Defaults


def factor_defaults(items: Sequence[Item]) -> tuple[list[str], list[Item]]:
    """`default` lines for what most layers of a type say, and the items without it."""
    entries: dict[tuple[str, str], list[str]] = {}  # (field, value): the types that have it as a default
    for callee in dict.fromkeys(item.callee for item in items if item.block is None):
        if schema.layer_type(callee) is None:
            continue
        for entry in _usual([item for item in items if item.callee == callee]):
            entries.setdefault(entry, []).append(callee)
    groups: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for entry, types in entries.items():
        groups.setdefault(tuple(types), []).append(entry)
    lines = [
        _call(f"default {', '.join(types)}", list(group))
        for types, group in sorted(groups.items(), key=lambda one: -len(one[0]))
    ]
    return lines, [_without(item, entries) for item in items]


def _usual(items: Sequence[Item]) -> list[tuple[str, str]]:
    """The fields that are worth a default for these layers of one type."""
    given = [{item.named(at): write_value(value) for at, (_, value) in enumerate(item.args)} for item in items]
    by_position = {item.named(at) for item in items for at, (name, _) in enumerate(item.args) if name is None}
    alike = all(one.get(name) == given[0].get(name) for name in by_position for one in given)
    chosen: list[tuple[str, str]] = []
    positional: list[tuple[str, str]] = []
    saved = saved_positional = 0
    for name in dict.fromkeys(name for one in given for name in one):
        if name in ("name", "top", "bottom", "type", "include", "exclude") or (name in by_position and not alike):
            continue
        counts: dict[str, int] = {}
        for one in given:
            if name in one:
                counts[one[name]] = counts.get(one[name], 0) + 1
        value, count = max(counts.items(), key=lambda item: item[1])
        absent = sum(name not in one for one in given)
        entry = len(name) + len(value) + 3
        gain = count * (len(value) + 2 if name in by_position else entry) - entry - absent * (len(name) + 7)
        if name in by_position:
            positional.append((name, value))
            saved_positional += gain
        elif gain > 0:
            chosen.append((name, value))
            saved += gain
    if saved_positional > 0:  # all of them or none
        chosen = positional + chosen
        saved += saved_positional
    return chosen if saved > _WORTH else []


def _without(item: Item, entries: dict[tuple[str, str], list[str]]) -> Item:
    usual = {name: value for (name, value), types in entries.items() if item.callee in types}
    if not usual:
        return item
    args: list[tuple[str | None, Value]] = []
    for at, (written, value) in enumerate(item.args):
        name = item.named(at)
        if usual.pop(name, None) != write_value(value):
            args.append((written, value))
    args += [(name, "none") for name in usual]
    return Item(item.callee, item.labels, item.inputs, args, item.results, item.bang, item.phases, item.positional)


# Comparing


def same(one: Message, other: Message) -> bool:
    """Equality of messages, for which NaN equals NaN."""
    return one.SerializePartialToString(deterministic=True) == other.SerializePartialToString(deterministic=True)


def _program(text: str, diagnostics: Diagnostics) -> Program | None:
    try:
        program = resolve(parse(Source("", text), diagnostics), None, {}, lambda path, span: {}, diagnostics)
    except (Failed, Exhausted):
        return None
    return None if diagnostics.has_errors else program


def _compiled(text: str, diagnostics: Diagnostics) -> Network | None:
    """The net of a text as the compiler's first passes make it; None when there are errors."""
    program = _program(text, diagnostics)
    if program is None:
        return None
    try:
        network = expand.expand(program, lambda base: None, diagnostics)  # type: ignore[arg-type, return-value]
    except (Failed, Exhausted):
        return None
    if network is None or diagnostics.has_errors:
        return None
    variants.feed_from_rdd(network, None, True, diagnostics)
    return network


def same_net(text: str, net: caffe_pb2.NetParameter, diagnostics: Diagnostics) -> bool:
    """Whether a text compiles to the net, without errors that the net itself does not have."""
    return _differing(net, text, diagnostics) == set()


def _differing(net: caffe_pb2.NetParameter, text: str, diagnostics: Diagnostics | None = None) -> set[int]:
    """The indices of the layers that a text does not give back; all when it gives back something else."""
    everything = set(range(len(net.layer))) or {-1}
    diagnostics = diagnostics or Diagnostics()
    network = _compiled(text, diagnostics)
    if network is None or len(network.layers) != len(net.layer):
        return everything
    message = caffe_pb2.NetParameter()
    message.CopyFrom(network.message)
    differing = {
        index
        for index, (layer, wanted) in enumerate(zip(network.layers, net.layer, strict=True))
        if not same(layer.message, wanted)
    }
    message.layer.extend(net.layer)
    if not same(message, net):
        return everything
    if not differing and diagnostics.errors == 0:
        strict = Diagnostics()
        graph.check_graph(network, strict, strict=True)
        lenient = Diagnostics()
        own = Network(network.message, expand.layers_of(net, None), None)
        graph.check_graph(own, lenient, strict=False)
        if strict.has_errors and not lenient.has_errors:
            return everything
    return differing


def _reason(diagnostics: Diagnostics) -> str:
    errors = [found for found in diagnostics.sorted() if found.severity == "error"]
    return f": {errors[0].message}" if errors else ""
