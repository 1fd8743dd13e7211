"""Evaluates the expressions of the language."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import ast, budget
from .diagnostics import Diagnostics, Failed, Fix, Span, closest, did_you_mean

MAX_SIZE = 100_000  # of a list, its lists counted in, and of a string
MAX_INTEGER = 2**63


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name that is not defined: an enum's value such as MAX, a filler such as xavier, `none` or `_`."""

    name: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """What a name is worth whose definition failed: whatever uses it fails, too, without another word."""


@dataclass(frozen=True, slots=True)
class Field:
    """An evaluated argument; `name` is None for one given by position."""

    name: str | None
    name_span: Span
    value: "Value"


@dataclass(frozen=True, slots=True)
class Filler:
    """`gaussian(0.01)`."""

    name: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """`{phase=TEST}`."""

    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """What an expression is worth, and where it stands. A list holds Values; `size` counts all that it holds."""

    span: Span
    data: "int | float | bool | str | Symbol | Unknown | Filler | Record | tuple[Value, ...]"
    size: int = 1


Names = Mapping[str, Value]


def plain(value: Value) -> Any:
    """The value without spans, for comparing and printing."""
    return [plain(item) for item in value.data] if isinstance(value.data, tuple) else value.data


def describe(value: Value) -> str:
    """What kind of thing it is, for messages."""
    data = value.data
    if isinstance(data, bool):
        return "true" if data else "false"
    if isinstance(data, int | float):
        return str(data)
    if isinstance(data, str):
        return f'the string "{data[:40]}"'
    if isinstance(data, Symbol):
        return f"the name `{data.name}`"
    if isinstance(data, tuple):
        return f"a list of {len(data)}"
    return "a filler" if isinstance(data, Filler) else "a record"


def evaluate_args(args: tuple[ast.Argument, ...], names: Names, diagnostics: Diagnostics) -> tuple[Field, ...]:
    """Every argument's value; raises Failed."""
    return tuple(Field(arg.name, arg.name_span, evaluate(arg.value, names, diagnostics)) for arg in args)


def evaluate(node: ast.Expression, names: Names, diagnostics: Diagnostics) -> Value:
    """The value of an expression under `names`; raises Failed, having reported why, or Exhausted."""
    if isinstance(node, ast.Constant):
        return Value(node.span, node.value)
    if isinstance(node, ast.Variable):
        known = names.get(node.name)
        if known is not None and isinstance(known.data, Unknown):
            raise Failed
        return Value(node.span, Symbol(node.name)) if known is None else Value(node.span, known.data, known.size)
    if isinstance(node, ast.ListOf):
        return _list(node.span, tuple(evaluate(item, names, diagnostics) for item in node.items), diagnostics)
    if isinstance(node, ast.Record):
        diagnostics.spend(budget.FIELD * len(node.fields), node.span)
        return Value(node.span, Record(evaluate_args(node.fields, names, diagnostics)))
    if isinstance(node, ast.Conditional):
        branch: ast.Expression = node
        while isinstance(branch, ast.Conditional):  # a chain of `else if` may be long: no recursion
            holds = truth(evaluate(branch.condition, names, diagnostics), diagnostics)
            branch = branch.then if holds else branch.otherwise
        return evaluate(branch, names, diagnostics)
    if isinstance(node, ast.Unary):
        return _unary(node, names, diagnostics)
    if isinstance(node, ast.Chained):
        return _chained(node, names, diagnostics)
    args = evaluate_args(node.args, names, diagnostics)
    function = FUNCTIONS.get(node.name)
    if function is None:
        return Value(node.span, Filler(node.name, args))
    for arg in args:
        if arg.name is not None:
            raise diagnostics.fail("S114", f"{node.name} takes no `{arg.name}=`", arg.name_span)
    return function(node, [arg.value for arg in args], diagnostics)


def truth(value: Value, diagnostics: Diagnostics) -> bool:
    """A condition's value; raises Failed for anything but true and false."""
    if not isinstance(value.data, bool):
        raise diagnostics.fail("S114", "a condition is true or false", value.span, f"this is {describe(value)}")
    return value.data


def items(value: Value, diagnostics: Diagnostics) -> tuple[Value, ...]:
    """What `for` runs over: a list's items, a string's characters; raises Failed."""
    if isinstance(value.data, str):
        diagnostics.spend(budget.ITEM * len(value.data), value.span)
        return tuple(Value(value.span, char) for char in value.data)
    if not isinstance(value.data, tuple):
        raise diagnostics.fail("S114", "`for` wants a list", value.span, f"this is {describe(value)}")
    return value.data


def text(value: Value, diagnostics: Diagnostics) -> str:
    """What an interpolation `{value}` puts into a name; raises Failed."""
    data = value.data
    diagnostics.spend(budget.ITEM + (len(data) // budget.CHARACTERS if isinstance(data, str) else 0), value.span)
    if isinstance(data, str):
        return data
    if isinstance(data, int) and not isinstance(data, bool):
        return str(data)
    if isinstance(data, float):
        return repr(data)
    raise diagnostics.fail(
        "S114", "only strings and numbers go into a name", value.span, f"this is {describe(value)}{_close(value)}"
    )


def _close(value: Value) -> str:
    return ", which is not defined" if isinstance(value.data, Symbol) else ""


def _list(span: Span, data: tuple[Value, ...], diagnostics: Diagnostics) -> Value:
    diagnostics.spend(budget.ITEM * len(data), span)
    size = 1 + sum(item.size for item in data)
    if size > MAX_SIZE:
        raise diagnostics.fail("S004", f"a list of more than {MAX_SIZE:,} items", span)
    return Value(span, data, size)


def _number(value: Value, operator: str, diagnostics: Diagnostics) -> int | float:
    if isinstance(value.data, bool) or not isinstance(value.data, int | float):
        raise diagnostics.fail(
            "S114", f"`{operator}` wants numbers", value.span, f"this is {describe(value)}{_close(value)}"
        )
    return value.data


def _bounded(span: Span, number: int | float, diagnostics: Diagnostics) -> Value:
    if isinstance(number, int) and not -MAX_INTEGER <= number < MAX_INTEGER:
        raise diagnostics.fail("S004", "the result has more than 64 bits", span)
    return Value(span, number)


def _unary(node: ast.Unary, names: Names, diagnostics: Diagnostics) -> Value:
    operand = evaluate(node.operand, names, diagnostics)
    if node.operator == "not":
        return Value(node.span, not truth(operand, diagnostics))
    return Value(node.span, -_number(operand, "-", diagnostics))


def _chained(node: ast.Chained, names: Names, diagnostics: Diagnostics) -> Value:
    first = node.operators[0]
    if first in ("and", "or"):
        for operand in node.operands:
            holds = truth(evaluate(operand, names, diagnostics), diagnostics)
            if holds == (first == "or"):
                return Value(node.span, holds)
        return Value(node.span, first == "and")
    left = evaluate(node.operands[0], names, diagnostics)
    for operator, operand in zip(node.operators, node.operands[1:], strict=True):
        right = evaluate(operand, names, diagnostics)
        span = left.span.to(right.span)
        if operator in _COMPARISONS:
            left = _compare(span, operator, left, right, diagnostics)
        elif operator == "+" and isinstance(left.data, str) and isinstance(right.data, str):
            if len(left.data) + len(right.data) > MAX_SIZE:
                raise diagnostics.fail("S004", f"a string of more than {MAX_SIZE:,} characters", span)
            diagnostics.spend((len(left.data) + len(right.data)) // budget.CHARACTERS, span)
            left = Value(span, left.data + right.data)
        elif operator == "+" and isinstance(left.data, tuple) and isinstance(right.data, tuple):
            left = _list(span, left.data + right.data, diagnostics)
        elif operator == "+" and isinstance(left.data, str) != isinstance(right.data, str):
            other = right if isinstance(left.data, str) else left
            fix = Fix(other.span, f"str({other.span.text})")
            label = f"this is {describe(other)}{_close(other)}"
            raise diagnostics.fail("S114", "`+` joins a string with strings only", other.span, label, fix=fix)
        else:
            left = _arithmetic(span, operator, left, right, diagnostics)
    return Value(node.span, left.data, left.size)


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


def _compare(span: Span, operator: str, left: Value, right: Value, diagnostics: Diagnostics) -> Value:
    diagnostics.spend(budget.ITEM * (left.size + right.size), span)
    a, b = plain(left), plain(right)
    if operator in ("==", "!="):
        same_kind = isinstance(a, bool) == isinstance(b, bool)
        return Value(span, (same_kind and a == b) == (operator == "=="))
    if not (isinstance(a, str) and isinstance(b, str)):
        _number(left, operator, diagnostics), _number(right, operator, diagnostics)
    return Value(span, _COMPARISONS[operator](a, b))


def _arithmetic(span: Span, operator: str, left: Value, right: Value, diagnostics: Diagnostics) -> Value:
    a, b = _number(left, operator, diagnostics), _number(right, operator, diagnostics)
    if operator in ("/", "//", "%") and b == 0:
        raise diagnostics.fail("S114", "division by zero", right.span)
    try:
        if operator == "+":
            return _bounded(span, a + b, diagnostics)
        if operator == "-":
            return _bounded(span, a - b, diagnostics)
        if operator == "*":
            return _bounded(span, a * b, diagnostics)
        if operator == "/":
            return _bounded(span, a / b, diagnostics)
        return _bounded(span, a // b if operator == "//" else a % b, diagnostics)
    except OverflowError:
        raise diagnostics.fail("S004", "the result is too large", span) from None


def _range(node: ast.FunctionCall, args: list[Value], diagnostics: Diagnostics) -> Value:
    bounds = [arg.data for arg in args if isinstance(arg.data, int) and not isinstance(arg.data, bool)]
    if len(bounds) != len(args) or not 1 <= len(bounds) <= 3 or (len(bounds) == 3 and bounds[2] == 0):
        raise diagnostics.fail(
            "S114", "range wants one to three whole numbers: range(end), range(begin, end, step)", node.span
        )
    numbers = range(*bounds)
    # len() overflows beyond 64 bits of range, the subtraction does not.
    if abs(numbers.stop - numbers.start) // abs(numbers.step) > MAX_SIZE:
        raise diagnostics.fail("S004", f"a list of more than {MAX_SIZE:,} items", node.span)
    diagnostics.spend(budget.ITEM * len(numbers), node.span)
    return Value(node.span, tuple(Value(node.span, number) for number in numbers), 1 + len(numbers))


def _len(node: ast.FunctionCall, args: list[Value], diagnostics: Diagnostics) -> Value:
    if len(args) != 1 or not isinstance(args[0].data, str | tuple):
        raise diagnostics.fail("S114", "len wants one list or string", node.span)
    return Value(node.span, len(args[0].data))


def _str(node: ast.FunctionCall, args: list[Value], diagnostics: Diagnostics) -> Value:
    if len(args) != 1:
        raise diagnostics.fail("S114", "str wants one number or string", node.span)
    return Value(node.span, text(args[0], diagnostics))


def _int(node: ast.FunctionCall, args: list[Value], diagnostics: Diagnostics) -> Value:
    if len(args) != 1:
        raise diagnostics.fail("S114", "int wants one number or string of digits", node.span)
    data = args[0].data
    if isinstance(data, str) and data.lstrip("-").isdecimal() and len(data) < 20:
        return _bounded(node.span, int(data), diagnostics)
    number = _number(args[0], "int", diagnostics)
    if not math.isfinite(number):
        raise diagnostics.fail("S114", f"{number} is no whole number", node.span)
    return _bounded(node.span, int(number), diagnostics)


def _extreme(node: ast.FunctionCall, args: list[Value], diagnostics: Diagnostics) -> Value:
    values = list(items(args[0], diagnostics)) if len(args) == 1 else args
    if not values:
        raise diagnostics.fail("S114", f"{node.name} of nothing", node.span)
    numbers = [_number(value, node.name, diagnostics) for value in values]
    return Value(node.span, min(numbers) if node.name == "min" else max(numbers))


FUNCTIONS: dict[str, Callable[[ast.FunctionCall, list[Value], Diagnostics], Value]] = {
    "range": _range,
    "len": _len,
    "str": _str,
    "int": _int,
    "min": _extreme,
    "max": _extreme,
}


def parse_define(text: str, span: Span) -> Value:
    """The value that `-D name=text` gives an option: a number, true, false; anything else is a string."""
    if text in ("true", "false"):
        return Value(span, text == "true")
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if math.isfinite(number) and abs(number) < MAX_INTEGER:
            return Value(span, number)
    return Value(span, text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text)


def unknown_name(name: str, names: Names) -> str:
    """The label for a name that means nothing where it stands."""
    near = did_you_mean(closest(name, names))
    return near or f"`{name}` is not defined"
