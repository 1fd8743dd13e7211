"""Items to scopes: what options, `let`, `default`, blocks and imports mean at each place of a file."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from . import ast, schema
from .diagnostics import Diagnostics, Failed, Fix, Label, Source, Span, closest, did_you_mean
from .fields import Fields, LayerFields
from .proto import caffe_pb2
from .values import FUNCTIONS, Field, Names, Unknown, Value, evaluate, evaluate_args, parse_define

MAX_IMPORTS = 100


@dataclass(frozen=True)
class Scope:
    """What is defined at a place of the text. It never changes: a definition makes a new one, for what follows it."""

    values: Names = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, Field]] = field(default_factory=dict)
    blocks: Mapping[str, BlockDefinition] = field(default_factory=dict)
    modules: Mapping[str, Mapping[str, BlockDefinition]] = field(default_factory=dict)

    def with_value(self, name: str, value: Value) -> Scope:
        """With one more name."""
        return dataclasses.replace(self, values={**self.values, name: value})

    def with_default(self, node: ast.Default, diagnostics: Diagnostics) -> Scope:
        """With the fields of a `default`; raises Failed, having reported what does not fit."""
        args = evaluate_args(node.args, self.values, diagnostics)
        fields = LayerFields(Fields(diagnostics, self.values))
        defaults = dict(self.defaults)
        for type_name, span in node.types:
            if schema.layer_type(type_name) is None and type_name != schema.ANY_TYPE:
                if type_name in self.blocks:
                    raise diagnostics.fail("S101", "`default` is for layer types", span, f"`{type_name}` is a block")
                raise unknown_type(type_name, span, (), diagnostics)
            bound = fields.bind(type_name, args, {})
            fields.apply(caffe_pb2.LayerParameter(), type_name, bound)
            defaults[type_name] = {**defaults.get(type_name, {}), **bound}
        return dataclasses.replace(self, defaults=defaults)


@dataclass(frozen=True, eq=False)
class BlockDefinition:
    """A block and the scope that its body sees: what stands above it."""

    node: ast.Block
    scope: Scope


@dataclass
class Program:
    """A file with its names resolved."""

    path: pathlib.Path | None
    nets: list[tuple[ast.Net, Scope]] = field(default_factory=list)
    solvers: list[tuple[ast.Solver, Scope]] = field(default_factory=list)
    sparks: list[tuple[ast.Spark, Scope]] = field(default_factory=list)
    blocks: dict[str, BlockDefinition] = field(default_factory=dict)
    modules: Mapping[str, Mapping[str, BlockDefinition]] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()


def resolve(
    tree: ast.File,
    path: pathlib.Path | None,
    defines: Mapping[str, str],
    load_blocks: Callable[[pathlib.Path, Span], Mapping[str, BlockDefinition]],
    diagnostics: Diagnostics,
) -> Program:
    """The nets, solvers and `spark` of a file, each with the scope in which it stands.

    `load_blocks` gives the blocks of an imported file. `defines` are the values of -D; one that names no option is an
    error, as is a name that is defined twice.
    """
    program = Program(path, broken=tree.broken)
    infinity = Value(tree.span, float("inf"))
    scope = Scope(values={"inf": infinity, "nan": Value(tree.span, float("nan"))})
    options: dict[str, ast.Option] = {}
    defined: dict[str, Span] = {}

    def define(name: str, span: Span) -> None:
        if name in defined:
            first = Label(defined[name], "first defined here")
            diagnostics.error("S111", f"`{name}` is defined twice", span, secondary=[first])
        if name in FUNCTIONS:
            diagnostics.error("S111", f"`{name}` is a function of the language", span)
        defined[name] = span

    for item in tree.items:
        try:
            if isinstance(item, ast.Let):
                define(item.name, item.name_span)
                scope = scope.with_value(item.name, evaluate(item.value, scope.values, diagnostics))
            elif isinstance(item, ast.Option):
                define(item.name, item.name_span)
                options[item.name] = item
                value = evaluate(item.value, scope.values, diagnostics)
                if item.name in defines:
                    given = Source(f"-D {item.name}", defines[item.name])
                    value = parse_define(given.text, Span(given, 0, len(given.text)))
                scope = scope.with_value(item.name, Value(item.value.span, value.data, value.size))
            elif isinstance(item, ast.Default):
                scope = scope.with_default(item, diagnostics)
            elif isinstance(item, ast.Block):
                define(item.name, item.name_span)
                _check_block(item, diagnostics)
                block = BlockDefinition(item, scope)
                scope = dataclasses.replace(scope, blocks={**scope.blocks, item.name: block})
                program.blocks[item.name] = block
            elif isinstance(item, ast.Import):
                define(item.name, item.name_span)
                file = inside(path, item.path, diagnostics)
                scope = dataclasses.replace(
                    scope, modules={**scope.modules, item.name: load_blocks(file, item.path.span)}
                )
            elif isinstance(item, ast.Net):
                program.nets.append((item, scope))
            elif isinstance(item, ast.Solver):
                program.solvers.append((item, scope))
            else:
                program.sparks.append((item, scope))
        except Failed:
            if isinstance(item, ast.Let | ast.Option):
                scope = scope.with_value(item.name, Value(item.name_span, Unknown()))
    program.modules = scope.modules
    for name in defines:
        if name not in options and name not in tree.broken:
            near = did_you_mean(closest(name, options))
            listing = f"options here: {', '.join(options)}" if options else "the file has no `option`"
            diagnostics.error("S112", f"-D {name}: no option of that name", notes=[f"{listing}. {near}".rstrip()])
    for kind, found in (("net", program.nets), ("solver", program.solvers), ("spark", program.sparks)):
        for node, _ in found[1:]:
            first = Label(found[0][0].span, "the first")
            diagnostics.error("S111", f"a second {kind} in one file", node.span, secondary=[first])
    return program


def _check_block(node: ast.Block, diagnostics: Diagnostics) -> None:
    if schema.layer_type(node.name) or node.name == schema.ANY_TYPE:
        diagnostics.error("S111", f"`{node.name}` is a layer type", node.name_span, "give the block another name")
    seen: set[str] = {"self"}
    for parameter in node.parameters:
        if parameter.name in seen:
            diagnostics.error("S111", f"`{parameter.name}` is a parameter already", parameter.span)
        seen.add(parameter.name)


def unknown_type(name: str, span: Span, blocks: tuple[str, ...], diagnostics: Diagnostics) -> Failed:
    """Reports a type or block that does not exist; the caller raises the result."""
    near = closest(name, [*schema.layer_types(), *blocks])
    return diagnostics.fail(
        "S101",
        f"no layer type or block `{name}`",
        span,
        did_you_mean(near),
        help=f'a type that the engine does not have is written {schema.ANY_TYPE}(type="{name}")',
        fix=Fix(span, near[0]) if near else None,
    )


def inside(path: pathlib.Path | None, named: ast.Constant, diagnostics: Diagnostics) -> pathlib.Path:
    """The file that a text names, below the folder of the naming file; raises Failed for any other place.

    Who compiles a file that someone else wrote should not thereby read any file of the machine.
    """
    folder = path.parent if path else pathlib.Path()
    wanted = os.path.normpath(str(named.value))
    if "\0" in wanted:
        raise diagnostics.fail("S005", "no file has a name with a NUL in it", named.span)
    if not named.value or pathlib.Path(wanted).is_absolute() or wanted.startswith(".."):
        raise diagnostics.fail(
            "S005",
            f'"{named.value}" lies outside the folder of this file',
            named.span,
            "a relative path without `..`",
        )
    return folder / wanted
