"""The syntax tree of a `.snet` file: a frozen dataclass for each construct of grammar/snet.lark, with its span."""

from dataclasses import dataclass

from .diagnostics import Span


@dataclass(frozen=True, slots=True)
class Node:
    """Anything in the tree."""

    span: Span


# Expressions


@dataclass(frozen=True, slots=True)
class Constant(Node):
    """A number, a string, `true` or `false`."""

    value: int | float | str | bool


@dataclass(frozen=True, slots=True)
class Variable(Node):
    """A name: a `let`, an option, a parameter, or else a symbol such as MAX or xavier."""

    name: str


@dataclass(frozen=True, slots=True)
class Argument(Node):
    """`value`, or `name=value`; `name_span` is the name's own."""

    name: str | None
    name_span: Span
    value: "Expression"


@dataclass(frozen=True, slots=True)
class FunctionCall(Node):
    """`gaussian(0.01)`, `range(3)`."""

    name: str
    args: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class ListOf(Node):
    """`[1, 2]`."""

    items: "tuple[Expression, ...]"


@dataclass(frozen=True, slots=True)
class Record(Node):
    """`{phase=TEST, stage="val"}`."""

    fields: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """`-x` or `not x`."""

    operator: str
    operand: "Expression"


@dataclass(frozen=True, slots=True)
class Chained(Node):
    """Operands with operators of one precedence between them, applied from the left: `a + b - c`, `a and b`."""

    operands: "tuple[Expression, ...]"
    operators: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conditional(Node):
    """`then if condition else otherwise`."""

    then: "Expression"
    condition: "Expression"
    otherwise: "Expression"


Expression = Constant | Variable | FunctionCall | ListOf | Record | Unary | Chained | Conditional


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A label or the name of a value; with back-ticks it holds texts and interpolated expressions in turn."""

    parts: tuple[str | Expression, ...]

    @property
    def literal(self) -> str | None:
        """The name, unless it interpolates."""
        if len(self.parts) == 1 and isinstance(self.parts[0], str):
            return self.parts[0]
        return None


# Flows


@dataclass(frozen=True, slots=True)
class Phase(Node):
    """`@train`, `@test` or `@deploy`."""

    name: str


@dataclass(frozen=True, slots=True)
class Shapes(Node):
    """`is [_, 64, 28, 28]`, one list for each top; a dimension is a number, `_` (any) or a name."""

    shapes: tuple[tuple[int | str, ...], ...]


@dataclass(frozen=True, slots=True)
class Call(Node):
    """`Convolution(20, 5)! @train is [_, 20, 24, 24]`, or a block's use; `module` is the name before a dot."""

    module: str | None
    callee: str
    callee_span: Span
    args: tuple[Argument, ...]
    bang: Span | None
    phases: tuple[Phase, ...]
    shapes: Shapes | None


@dataclass(frozen=True, slots=True)
class Labelled(Node):
    """`conv1: Convolution(20, 5)`."""

    labels: tuple[Name, ...]
    call: Call


@dataclass(frozen=True, slots=True)
class For(Node):
    """`for u in list { chain }`."""

    names: tuple[str, ...]
    values: Expression
    body: "tuple[Stage, ...]"
    name_spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class If(Node):
    """`if condition { chain } else { chain }`."""

    condition: Expression
    then: "tuple[Stage, ...]"
    otherwise: "tuple[Stage, ...] | None"


Stage = Call | Labelled | For | If


@dataclass(frozen=True, slots=True)
class Flow(Node):
    """`inputs -> stage -> stage as capture`; without inputs its first stage is a source."""

    inputs: tuple[Name, ...]
    stages: tuple[Stage, ...]
    capture: tuple[Name, ...]


# Statements and items


@dataclass(frozen=True, slots=True)
class Let(Node):
    """`let name = value`."""

    name: str
    name_span: Span
    value: Expression


@dataclass(frozen=True, slots=True)
class Option(Node):
    """`option name = default`, set by -D."""

    name: str
    name_span: Span
    value: Expression


@dataclass(frozen=True, slots=True)
class Default(Node):
    """`default Type, Type (field=value)`."""

    types: tuple[tuple[str, Span], ...]
    args: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Replace(Node):
    """`replace name { statements }`."""

    names: tuple[Name, ...]
    body: "tuple[Statement, ...]"


@dataclass(frozen=True, slots=True)
class Drop(Node):
    """`drop name`."""

    names: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class Set(Node):
    """`set name (field=value)`."""

    names: tuple[Name, ...]
    args: tuple[Argument, ...]


Statement = Let | Default | Flow | Replace | Drop | Set


@dataclass(frozen=True, slots=True)
class Parameter(Node):
    """A block's parameter, with its default or without."""

    name: str
    value: Expression | None

    @property
    def name_span(self) -> Span:
        """The name's own span."""
        return Span(self.span.source, self.span.start, self.span.start + len(self.name))


@dataclass(frozen=True, slots=True)
class Block(Node):
    """`block x, y -> name(parameters) { statements }`."""

    inputs: tuple[Name, ...]
    name: str
    name_span: Span
    parameters: tuple[Parameter, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Net(Node):
    """`net name (fields) from "file" { statements }`."""

    name: str
    name_span: Span
    args: tuple[Argument, ...]
    base: Constant | None
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Solver(Node):
    """`solver from "file" (fields)`."""

    base: Constant | None
    args: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Spark(Node):
    """`spark (fields)`."""

    args: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Import(Node):
    """`import "file" as name`."""

    path: Constant
    name: str
    name_span: Span


Item = Net | Block | Solver | Spark | Let | Option | Default | Import


@dataclass(frozen=True, slots=True)
class File(Node):
    """A whole file.

    `skipped` are the statements with a syntax error, `broken` the names that they may have meant to define.
    """

    items: tuple[Item, ...]
    broken: frozenset[str]
    skipped: tuple[Span, ...] = ()
