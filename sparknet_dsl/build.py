"""Models written in Python: calls make the same syntax tree as a `.snet` file, and the same compiler checks it.

    from sparknet_dsl.build import MAX, Net, xavier

    net = Net("tiny")
    data, label = net.RDDData([[32, 1, 8, 8], [32]], source="digits:", label=["data", "label"])
    x = net.Convolution(data, 16, 3, weight_filler=xavier, label="conv1")
    x = net.ReLU(x, in_place=True)
    x = net.Pooling(x, MAX, 2, 2)
    net.SoftmaxWithLoss(net.InnerProduct(x, 10), label, label="loss")
    net.solver(base_lr=0.05, lr_policy="fixed", max_iter=500)
    model = net.compile()

Functions, loops and conditions are Python's. Mistakes are reported by `compile`, all at once, each at its call.
"""

from __future__ import annotations

import ast as python
import dataclasses
import functools
import linecache
import numbers
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import ast, schema
from .diagnostics import Source, Span, render_diagnostics
from .errors import ModelError

if TYPE_CHECKING:
    from .compile import Model
    from .variants import DataShapes

_PHASES = ("train", "test", "deploy")


@dataclass(frozen=True)
class Symbol:
    """One of the language's own words: MAX, LMDB, xavier. Calling it gives a filler with values: gaussian(0.01)."""

    name: str

    def __call__(self, *args: Any, **fields: Any) -> Filler:
        """A filler with its values."""
        return Filler(self.name, args, fields)


@dataclass(frozen=True)
class Filler:
    """A filler with its values, such as gaussian(0.01)."""

    name: str
    args: tuple[Any, ...]
    fields: Mapping[str, Any]


def __getattr__(name: str) -> Symbol:
    """Any other name of this module is a symbol: `from sparknet_dsl.build import MAX, gaussian`."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return Symbol(name)


@dataclass(frozen=True)
class Value:
    """What a layer makes, to be handed to other layers; `label` is its name."""

    net: Net = field(repr=False)
    label: str


class Net:
    """A net under construction, with its solver and its settings for Spark.

    `net.TYPE(bottoms..., values..., field=value, label=..., in_place=..., phase=..., shape_is=...)` adds a layer of
    that type, for every layer type that there is: Values first, then the fields that the type takes by position. It
    gives the layer's Value; with a list of labels, a tuple of them. `label` names the layer (by default the type and a
    number), `phase` is "train", "test", "deploy" or several, `shape_is` asserts the shape (None: any size). Lists,
    dicts and numbers become the language's; None is `none`, and `_` in a list.
    """

    def __init__(self, name: str, **fields: Any) -> None:
        self._place = _Place.of_caller()
        self._name = name
        self._args = self._place.arguments((), fields)
        self._body: list[ast.Statement] = []
        self._items: list[ast.Item] = []
        self._counts: dict[str, int] = {}
        self._name_spans: list[Span] = list(self._place.names.values())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The function that adds a layer of the type `name`."""
        if not name[:1].isupper():
            raise AttributeError(f"a net has no attribute {name!r}; layer types begin with a capital")
        return functools.partial(self.layer, name)

    def layer(
        self,
        type: str,
        /,
        *args: Any,
        label: str | Sequence[str] | None = None,
        in_place: bool = False,
        phase: str | Sequence[str] = (),
        shape_is: Sequence[Any] | None = None,
        **fields: Any,
    ) -> Any:
        """Adds a layer of a type given by name; otherwise as `net.TYPE(...)`."""
        place = self._here()
        bottoms = [arg for arg in args if isinstance(arg, Value)]
        for bottom in bottoms:
            if bottom.net is not self:
                raise ValueError(f"{bottom.label} is a value of another net, {bottom.net._name}")
        info = schema.layer_type(type)
        names = [label] if isinstance(label, str) else list(label or [self._automatic(type)])
        spans = self._bottom_spans(place, args)
        written = () if info is not None and info.max_tops == 0 and label is None else names
        call = ast.Call(
            place.span,
            None,
            type,
            place.span,
            place.arguments(args, fields),
            place.values.get("in_place", place.span) if in_place else None,
            tuple(ast.Phase(place.values.get("phase", place.span), each) for each in _several(phase)),
            _shapes(place, shape_is),
        )
        stage: ast.Stage = call
        if written:
            at = place.values.get("label", place.span)
            stage = ast.Labelled(place.span, tuple(ast.Name(at, (each,)) for each in written), call)
        inputs = tuple(ast.Name(span, (bottom.label,)) for bottom, span in zip(bottoms, spans, strict=True))
        self._body.append(ast.Flow(place.span, inputs, (stage,), ()))
        values = tuple(Value(self, each) for each in names)
        return values if label is not None and not isinstance(label, str) else values[0]

    def default(self, *types: str, **fields: Any) -> None:
        """Fields that layers of these types get from here on, unless they say otherwise."""
        place = self._here()
        named = tuple((each, place.span) for each in types)
        self._body.append(ast.Default(place.span, named, place.arguments((), fields)))

    def solver(self, **fields: Any) -> None:
        """The solver's fields."""
        place = self._here()
        self._items.append(ast.Solver(place.span, None, place.arguments((), fields)))

    def spark(self, **fields: Any) -> None:
        """The settings of the averaging loop."""
        place = self._here()
        self._items.append(ast.Spark(place.span, place.arguments((), fields)))

    def tree(self) -> ast.File:
        """The syntax tree, as the parser would have made it."""
        span = self._place.span
        net = ast.Net(span, self._name, span, self._args, None, tuple(self._body))
        return ast.File(Span(span.source, 0, len(span.source.text)), (net, *self._items), frozenset())

    def compile(self, *, keep_data_layers: bool = False, data_shapes: DataShapes | None = None) -> Model:
        """Compiles it as compile_file does; raises ModelError with everything found, each at the Python call."""
        from .compile import compile_tree

        try:
            return compile_tree(self.tree(), keep_data_layers=keep_data_layers, data_shapes=data_shapes)
        except ModelError as error:
            # Fixes are written in the language: only those of a field's name are Python too.
            found = [
                each if each.fix is None or each.fix.span in self._name_spans else dataclasses.replace(each, fix=None)
                for each in error.diagnostics
            ]
            raise ModelError(render_diagnostics(found), found) from None

    def _here(self) -> _Place:
        place = _Place.of_caller()
        self._name_spans += place.names.values()
        return place

    def _automatic(self, type_name: str) -> str:
        stem = type_name.lower()
        self._counts[stem] = self._counts.get(stem, 0) + 1
        return f"{stem}{self._counts[stem]}"

    def _bottom_spans(self, place: _Place, args: Sequence[Any]) -> list[Span]:
        return [place.positional_span(index) for index, arg in enumerate(args) if isinstance(arg, Value)]


@dataclass(frozen=True)
class _Place:
    """The call in somebody's Python file, and where its arguments stand as far as that can be seen."""

    span: Span
    positional: tuple[Span, ...] = ()
    names: Mapping[str, Span] = field(default_factory=dict)
    values: Mapping[str, Span] = field(default_factory=dict)

    @classmethod
    def of_caller(cls) -> _Place:
        """The innermost call that is not in this module."""
        frame = sys._getframe(1)
        while frame.f_code.co_filename == __file__ and frame.f_back is not None:
            frame = frame.f_back
        name = frame.f_code.co_filename
        lines = linecache.getlines(name, frame.f_globals)
        source = Source(_relative(name), "".join(lines))
        positions = list(frame.f_code.co_positions())[frame.f_lasti // 2]
        first, last, left, right = positions
        if not lines or first is None or last is None or left is None or right is None or last > len(lines):
            return cls(Span(source, 0, 0))
        starts = [0]
        for line in lines:
            starts.append(starts[-1] + len(line))

        def offset(line: int, column: int) -> int:  # Python counts columns in bytes
            return starts[line - 1] + len(lines[line - 1].encode()[:column].decode(errors="ignore"))

        span = Span(source, offset(first, left), offset(last, right))
        return cls._with_arguments(span)

    @classmethod
    def _with_arguments(cls, span: Span) -> _Place:
        """Python's own parser says where the arguments stand in the text of the call."""
        try:
            call = python.parse(f"({span.text}\n)", mode="eval").body
        except (SyntaxError, ValueError):
            return cls(span)
        if not isinstance(call, python.Call) or any(isinstance(arg, python.Starred) for arg in call.args):
            return cls(span)
        lines = f"({span.text}\n)".splitlines(keepends=True)

        def inner(node: python.expr | python.keyword) -> Span:
            def offset(line: int, column: int) -> int:
                before = sum(len(each) for each in lines[: line - 1])
                return before + len(lines[line - 1].encode()[:column].decode(errors="ignore")) - 1 + span.start

            assert node.end_lineno is not None and node.end_col_offset is not None
            return Span(span.source, offset(node.lineno, node.col_offset), offset(node.end_lineno, node.end_col_offset))

        names, values = {}, {}
        for keyword in call.keywords:
            if keyword.arg is not None:
                whole = inner(keyword)
                names[keyword.arg] = Span(span.source, whole.start, whole.start + len(keyword.arg))
                values[keyword.arg] = inner(keyword.value)
        return cls(span, tuple(inner(arg) for arg in call.args), names, values)

    def positional_span(self, index: int) -> Span:
        """Where the argument stands; `net.layer("Type", ...)` has one more in front."""
        shift = 1 if ".layer(" in self.span.text.partition("(")[0] + "(" else 0
        return self.positional[index + shift] if index + shift < len(self.positional) else self.span

    def arguments(self, args: Sequence[Any], fields: Mapping[str, Any]) -> tuple[ast.Argument, ...]:
        """The call's arguments, Values left out, as those of the language."""
        made = []
        for index, arg in enumerate(args):
            if not isinstance(arg, Value):
                span = self.positional_span(index)
                made.append(ast.Argument(span, None, span, _expression(arg, span)))
        for name, value in fields.items():
            span = self.values.get(name, self.span)
            made.append(ast.Argument(span, name, self.names.get(name, self.span), _expression(value, span)))
        return tuple(made)


def _relative(name: str) -> str:
    path = pathlib.Path(name)
    return str(path.relative_to(pathlib.Path.cwd())) if path.is_relative_to(pathlib.Path.cwd()) else name


def _several(phase: str | Sequence[str]) -> Sequence[str]:
    return [phase] if isinstance(phase, str) else phase


def _shapes(place: _Place, given: Sequence[Any] | None) -> ast.Shapes | None:
    if given is None:
        return None
    several = given if given and isinstance(given[0], Sequence) else [given]
    shapes = tuple(tuple("_" if dim is None else int(dim) for dim in shape) for shape in several)
    return ast.Shapes(place.values.get("shape_is", place.span), shapes)


def _expression(value: Any, span: Span, *, inside: bool = False) -> ast.Expression:
    """A Python value as an expression of the language; raises TypeError for what it has no word for."""
    if value is None:
        return ast.Variable(span, "_" if inside else "none")
    if isinstance(value, Symbol):
        return ast.Variable(span, value.name)
    if isinstance(value, Filler):
        args = [ast.Argument(span, None, span, _expression(each, span)) for each in value.args]
        args += [ast.Argument(span, name, span, _expression(each, span)) for name, each in value.fields.items()]
        return ast.FunctionCall(span, value.name, tuple(args))
    if isinstance(value, bool | str):
        return ast.Constant(span, value)
    if isinstance(value, numbers.Integral):
        return ast.Constant(span, int(value))
    if isinstance(value, numbers.Real):
        return ast.Constant(span, float(value))
    if isinstance(value, Mapping):
        fields = (ast.Argument(span, str(name), span, _expression(each, span)) for name, each in value.items())
        return ast.Record(span, tuple(fields))
    if isinstance(value, Sequence):
        return ast.ListOf(span, tuple(_expression(each, span, inside=True) for each in value))
    raise TypeError(f"a field's value is a number, a string, a list, a dict or a symbol, not {type(value).__name__}")
