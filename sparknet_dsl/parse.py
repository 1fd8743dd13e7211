"""Text to syntax tree, with as many syntax errors as there are."""

import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

from lark import (
    GrammarError,
    Lark,
    Token,
    Transformer_NonRecursive,
    UnexpectedCharacters,
    UnexpectedInput,
    UnexpectedToken,
    v_args,
)

from . import ast, tables
from .diagnostics import Diagnostics, Fix, Label, Source, Span, closest, did_you_mean

MAX_NESTING = 64
MAX_ERRORS = 20
MAX_CHARACTERS = 4_000_000
KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        "import option let default block net solver spark from replace drop set as for in if else is or and not "
        "true false",
    )
)

# What recovery and the nesting limit see of a text: strings, names and comments as a whole, brackets one by one.
SCAN = re.compile(
    r'"(?:\\.|[^"\\\n])*"|`[^`\n]+`|\#[^\n]*|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<unary>(?:-(?!>)|\bnot\b)\s*)'
)
# Where a statement can begin: at the first word of a line.
_STATEMENT = re.compile(
    r"^[ \t]*(?:(?:import|option|let|default|block|net|solver|spark|replace|drop|set)\b(?!\s*[=:,)])"
    r"|(?:[A-Za-z_]\w*|`[^`\n]+`)(?:\s*,\s*(?:[A-Za-z_]\w*|`[^`\n]+`))*\s*(?::|->))",
    re.MULTILINE,
)
# A name alone on its line, or with others: a statement that somebody has begun to write.
_BEGUN = re.compile(
    r"[ \t]*(?:[A-Za-z_]\w*|`[^`\n]*`?)(?:[ \t]*,[ \t]*(?:[A-Za-z_]\w*|`[^`\n]+`))*[ \t]*,?[ \t]*(?:\n|$)"
)
_TERMINALS = {
    "NAME": "a name",
    "BTICK": "a name in back-ticks",
    "STRING": "a string",
    "NUMBER": "a number",
    "INT": "a number",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "COMMA": "`,`",
    "COLON": "`:`",
    "EQUAL": "`=`",
    "BANG": "`!`",
    "AT": "`@`",
    "DOT": "`.`",
    "$END": "the end of the file",
}


class _IssueError(GrammarError):  # a GrammarError is what lark passes through as it is
    """A mistake that the builder sees and the grammar does not."""

    def __init__(self, code: str, message: str, span: Span, label: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.span, self.label = code, message, span, label


def parse(source: Source, diagnostics: Diagnostics, text: str | None = None) -> ast.File:
    """The tree of a file. Statements with a syntax error are reported and left out of it.

    `text` is the source's with parts blanked out that the caller has the nodes of; they are not in the tree either.
    """
    text = source.text if text is None else text
    everything = Span(source, 0, len(source.text))
    if len(source.text) > MAX_CHARACTERS:
        diagnostics.error("S004", f"{source.name} has more than {MAX_CHARACTERS:,} characters")
        return ast.File(everything, (), frozenset())
    diagnostics.budget.characters += len(source.text)
    too_deep = _first_too_deep(source, text)
    if too_deep is not None:
        diagnostics.error("S003", f"nested more than {MAX_NESTING} levels deep", too_deep, "one bracket too many")
        return ast.File(everything, (), frozenset())
    broken: set[str] = set()
    skipped: list[tuple[int, int]] = []
    for _ in range(MAX_ERRORS):
        try:
            items = _items(text, source)
            gone = tuple(Span(source, begin, end) for begin, end in skipped)
            return ast.File(everything, items, frozenset(broken), gone)
        except _IssueError as issue:
            at = issue.span.start
            diagnostics.error(issue.code, issue.message, issue.span, issue.label)
        except UnexpectedInput as error:
            at = _offset(error, text)
            if not _follows_skipped(text, at, skipped):
                _report(error, at, text, source, diagnostics)
        begin, end = _statement_around(text, at, skipped)
        broken.update(re.findall(r"[A-Za-z_]\w*", source.text[begin:end]))
        skipped.append((begin, end))
        text = text[:begin] + re.sub(r"[^\n]", " ", text[begin:end]) + text[end:]
    return ast.File(everything, (), frozenset(broken))


# Recovery


def _first_too_deep(source: Source, text: str) -> Span | None:
    """The bracket, or the sign, that nests deeper than MAX_NESTING: the passes after this one recurse."""
    depth = signs = 0
    end_of_signs = -1
    for match in SCAN.finditer(text):
        if match.lastgroup == "open":
            depth += 1
        elif match.lastgroup == "close":
            depth -= 1
        elif match.lastgroup == "unary":
            signs = signs + 1 if match.start() == end_of_signs else 1
            end_of_signs = match.end()
        if depth > MAX_NESTING or signs > MAX_NESTING:
            return Span(source, match.start(), match.start() + 1)
    return None


def _statement_around(text: str, at: int, skipped: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The characters of the statement that holds `at`, to be skipped; always some that were not skipped yet.

    A statement reaches to the line on which the next begins; a brace that it opens takes its whole body along.
    """
    starts = [match.start() for match in _STATEMENT.finditer(text)]
    opened = _open_brackets(text, at)
    if opened and text[opened[-1]] in "([" and _begins_statement(text, at):
        return max((start for start in starts if start <= opened[-1]), default=0), at
    begun = _line_begun(text, at)
    if begun and begun[0] < at < len(text) and text[at] == "}":
        return begun[0], at
    begin = max((start for start in [*starts, *begun] if start <= at), default=0)
    begin = max([begin, *(brace + 1 for brace in opened if text[brace] == "{")])
    for first, last in skipped:
        if first <= at and not text[last:at].strip():  # what is left of a statement: all of it goes
            begin = max((start for start in starts if start < first), default=0)
    end = min((start for start in starts if start > at), default=len(text))
    depth = 0
    for match in SCAN.finditer(text, begin):
        bracket = match.group()
        if depth == 0 and match.start() >= end:
            break
        if bracket == "{":
            depth += 1
        elif bracket == "}" and depth == 0:
            # The brace that ends the body around the statement stays, unless it is the error itself.
            if match.start() > at:
                return begin, match.start()
            begin = match.start() if match.start() == at else match.end()
            if begin == at:
                return at, at + 1
        elif bracket == "}":
            depth -= 1
            end = max(end, match.end())
    return begin, max(len(text) if depth else end, at + 1)


def _line_begun(text: str, at: int) -> list[int]:
    """Where the statement begins of which only names are written yet, if the error at `at` comes from such a one."""
    own = text.rfind("\n", 0, at) + 1
    before = text.rfind("\n", 0, len(text[:own].rstrip())) + 1
    for start in (own, before):
        match = _BEGUN.match(text, start)
        inside = any(text[bracket] in "([" for bracket in _open_brackets(text, start))
        if match and not inside and not text[match.end() : at].strip():
            return [start]
    return []


def _begins_statement(text: str, at: int) -> bool:
    line = text.rfind("\n", 0, at) + 1
    return not text[line:at].strip() and _STATEMENT.match(text, line) is not None


def _open_brackets(text: str, at: int) -> list[int]:
    """Where the brackets are that are open at `at`, the innermost last."""
    stack = []
    for match in SCAN.finditer(text, 0, at):
        if match.lastgroup == "open":
            stack.append(match.start())
        elif match.lastgroup == "close" and stack:
            stack.pop()
    return stack


def _follows_skipped(text: str, at: int, skipped: Sequence[tuple[int, int]]) -> bool:
    """Whether nothing but white space lies between a skipped statement and `at`: an error there is its consequence."""
    return any(first <= at and not text[last:at].strip() for first, last in skipped)


# What is said about an error that the parser found


def _offset(error: UnexpectedInput, text: str) -> int:
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        return len(text)
    return min(error.pos_in_stream or 0, len(text))


def _report(error: UnexpectedInput, at: int, text: str, source: Source, diagnostics: Diagnostics) -> None:
    if isinstance(error, UnexpectedCharacters):
        _report_character(at, source, diagnostics)
        return
    token = cast(UnexpectedToken, error).token
    if token.type == "$END":
        opened = _unclosed(source, text, len(text))
        end = Span(source, len(text.rstrip()), len(text.rstrip()))
        secondary = [Label(opened, "opened here")] if opened else []
        diagnostics.error(
            "S001", "the file ends in the middle of a statement", end, _expectation(error), secondary=secondary
        )
        return
    span = Span(source, at, at + len(token))
    if re.match(r"(?:layers?|input|input_dim|name)\s*[:{]", text[at:]) and not text[:at].strip():
        diagnostics.error(
            "S001", "this is Caffe's text format", span, help="give the file a name that ends in .prototxt"
        )
        return
    before = text[:at].rstrip()
    opened = _unclosed(source, text, at)
    if opened and opened.text in "([" and _begins_statement(text, at):
        diagnostics.error(
            "S001",
            f"this `{opened.text}` is not closed",
            opened,
            secondary=[Label(span, "here the next statement begins")],
        )
        return
    keyword = re.search(r"(?:^|\n)[ \t]*(\w+)$", before)
    if keyword and keyword[1] in KEYWORDS and str(token) in ("->", ":", ","):
        word = Span(source, *keyword.span(1))
        diagnostics.error(
            "S001",
            f"`{keyword[1]}` is a keyword of the language",
            word,
            "as a label it takes back-ticks",
            fix=Fix(word, f"`{keyword[1]}`"),
        )
        return
    if token.type == "COLON" and opened and opened.text in "([":
        fix = Fix(span, "=")
        diagnostics.error("S001", "a field is written name=value", span, "write `=`", fix=fix)
        return
    if str(token) in ")]}":
        pair = {")": "(", "]": "[", "}": "{"}[str(token)]
        if opened and opened.text != pair:
            secondary = [Label(opened, "not closed")]
            diagnostics.error("S001", f"`{token}` here, but `{opened.text}` is still open", span, secondary=secondary)
            return
    if str(token) in KEYWORDS:
        diagnostics.error("S001", f"`{token}` is a keyword of the language", span, _expectation(error))
        return
    if token.type == "NAME" and not opened:
        near = closest(str(token), ("import", "option", "let", "default", "block", "net", "solver", "spark"))
        diagnostics.error("S001", f"`{token}` begins no statement", span, did_you_mean(near) or _expectation(error))
        return
    if str(token) == "}" and not opened:
        diagnostics.error("S001", "this `}` closes nothing", span)
        return
    previous = re.search(r"\S+$", before)
    after = f" after `{previous.group()[-20:]}`" if previous and "\n" not in text[len(before) : at] else ""
    diagnostics.error("S001", f"`{token}` does not fit{after}", span, _expectation(error))


def _report_character(at: int, source: Source, diagnostics: Diagnostics) -> None:
    text = source.text
    char = text[at]
    span = Span(source, at, at + 1)
    if char == '"':
        line_end = text.find("\n", at)
        span = Span(source, at, line_end if line_end >= 0 else len(text))
        diagnostics.error("S002", "this string does not end", span, 'a string ends with `"` on the line it begins on')
    elif char == "`":
        diagnostics.error("S002", "this back-tick has no partner", span, "a name in back-ticks ends on its line")
    elif char == "'":
        end = text.find("'", at + 1)
        inner = text[at + 1 : end] if end > 0 and "\n" not in text[at:end] else None
        fix = Fix(Span(source, at, end + 1), f'"{inner}"') if inner is not None else None
        diagnostics.error("S002", "strings take double quotes", span, fix=fix)
    elif char == ";":
        diagnostics.error("S002", "statements end without a `;`", span, "leave it out", fix=Fix(span, ""))
    elif text.startswith("/*", at):
        diagnostics.error("S002", "comments begin with `#`", span)
    else:
        shown = char if char.isprintable() else f"U+{ord(char):04X}"
        diagnostics.error("S002", f"the character `{shown}` means nothing here", span)


def _expectation(error: UnexpectedInput) -> str:
    expected = set(getattr(error, "accepts", None) or getattr(error, "expected", None) or ())
    if "AT" in expected or len(expected) > 9:
        return ""
    words = sorted({_TERMINALS.get(name, f"`{_spelled(name)}`") for name in expected})
    return "expected " + " or ".join(words) if words else ""


def _spelled(terminal: str) -> str:
    return {"__ANON_0": "->", "PM": "+", "MD": "*", "CMP": "=="}.get(terminal, terminal.lower())


def _unclosed(source: Source, text: str, at: int) -> Span | None:
    """The innermost bracket that is open at `at` of the text, which is the source with what was skipped blanked out."""
    stack = _open_brackets(text, at)
    return Span(source, stack[-1], stack[-1] + 1) if stack else None


# Rules to nodes


@functools.cache
def _parser() -> Lark:
    return tables.load()


def _items(text: str, source: Source) -> tuple[ast.Item, ...]:
    return cast(tuple[ast.Item, ...], _Builder(source, 0).transform(_parser().parse(text, start="start")))


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\", '"': '"', "'": "'", "`": "`"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)


@v_args(meta=True)
class _Builder(Transformer_NonRecursive):  # type: ignore[type-arg]
    """One method for each rule of the grammar: children in, node out."""

    def __init__(self, source: Source, offset: int) -> None:
        super().__init__()
        self.source = source
        self.offset = offset  # of the parsed text in the source

    def _span(self, meta: Any) -> Span:
        if meta.empty:
            return Span(self.source, self.offset, self.offset)
        return Span(self.source, self.offset + meta.start_pos, self.offset + meta.end_pos)

    def _at(self, token: Token) -> Span:
        start = token.start_pos or 0
        return Span(self.source, self.offset + start, self.offset + start + len(token))

    # Items

    def start(self, meta: Any, items: list[ast.Item]) -> tuple[ast.Item, ...]:
        return tuple(items)

    def import_(self, meta: Any, children: list[Any]) -> ast.Import:
        path, name = children
        return ast.Import(self._span(meta), self._text(path), str(name), self._at(name))

    def option(self, meta: Any, children: list[Any]) -> ast.Option:
        name, value = children
        return ast.Option(self._span(meta), str(name), self._at(name), value)

    def let(self, meta: Any, children: list[Any]) -> ast.Let:
        name, value = children
        return ast.Let(self._span(meta), str(name), self._at(name), value)

    def default(self, meta: Any, children: list[Any]) -> ast.Default:
        types, args = children
        return ast.Default(self._span(meta), tuple((str(name), self._at(name)) for name in types), args)

    def tnames(self, meta: Any, names: list[Token]) -> list[Token]:
        return names

    def block(self, meta: Any, children: list[Any]) -> ast.Block:
        inputs, name, parameters, body = children
        return ast.Block(self._span(meta), inputs, str(name), self._at(name), parameters, body)

    def params(self, meta: Any, children: list[Any]) -> tuple[ast.Parameter, ...]:
        return tuple(child for child in children if child is not None)

    def param(self, meta: Any, children: list[Any]) -> ast.Parameter:
        return ast.Parameter(self._span(meta), str(children[0]), children[1])

    def net(self, meta: Any, children: list[Any]) -> ast.Net:
        name, args, base, body = children
        return ast.Net(self._span(meta), str(name.value), name.span, args or (), base, body)

    def solver(self, meta: Any, children: list[Any]) -> ast.Solver:
        return ast.Solver(self._span(meta), children[1], children[2])

    def spark(self, meta: Any, children: list[Any]) -> ast.Spark:
        return ast.Spark(self._span(meta), children[0])

    def netname(self, meta: Any, children: list[Token]) -> ast.Constant:
        token = children[0]
        return self._text(token) if token.type == "STRING" else ast.Constant(self._at(token), str(token))

    def from_(self, meta: Any, children: list[Token]) -> ast.Constant:
        return self._text(children[0])

    def body(self, meta: Any, statements: list[ast.Statement]) -> tuple[ast.Statement, ...]:
        return tuple(statements)

    # Statements

    def replace(self, meta: Any, children: list[Any]) -> ast.Replace:
        return ast.Replace(self._span(meta), *children)

    def drop(self, meta: Any, children: list[Any]) -> ast.Drop:
        return ast.Drop(self._span(meta), children[0])

    def set_(self, meta: Any, children: list[Any]) -> ast.Set:
        return ast.Set(self._span(meta), *children)

    def feed(self, meta: Any, children: list[Any]) -> ast.Flow:
        labels, call, *more, capture = children
        first = ast.Labelled(labels[0].span.to(call.span), labels, call)
        return ast.Flow(self._span(meta), (), (first, *more), capture or ())

    def pipe(self, meta: Any, children: list[Any]) -> ast.Flow:
        inputs, *stages, capture = children
        return ast.Flow(self._span(meta), inputs, tuple(stages), capture or ())

    def value(self, meta: Any, children: list[Any]) -> ast.Flow:
        return ast.Flow(self._span(meta), children[0], (), ())

    def capture(self, meta: Any, children: list[Any]) -> tuple[ast.Name, ...]:
        return cast(tuple[ast.Name, ...], children[0])

    def labelled(self, meta: Any, children: list[Any]) -> ast.Labelled:
        return ast.Labelled(self._span(meta), *children)

    def for_(self, meta: Any, children: list[Any]) -> ast.For:
        names, values, body = children
        spans = tuple(self._at(name) for name in names)
        return ast.For(self._span(meta), tuple(str(name) for name in names), values, body, spans)

    def if_(self, meta: Any, children: list[Any]) -> ast.If:
        return ast.If(self._span(meta), *children)

    def chain(self, meta: Any, stages: list[ast.Stage]) -> tuple[ast.Stage, ...]:
        return tuple(stages)

    def call(self, meta: Any, children: list[Any]) -> ast.Call:
        (module, callee, callee_span), args, bang, *suffixes = children
        phases = tuple(suffix for suffix in suffixes if isinstance(suffix, ast.Phase))
        shapes = [suffix for suffix in suffixes if isinstance(suffix, ast.Shapes)]
        if len(shapes) > 1:
            raise _IssueError("S001", "`is` may stand once", shapes[1].span)
        return ast.Call(
            self._span(meta),
            module,
            callee,
            callee_span,
            args or (),
            self._at(bang) if bang else None,
            phases,
            shapes[0] if shapes else None,
        )

    def callee(self, meta: Any, children: list[Any]) -> tuple[str | None, str, Span]:
        first, second = children
        span = self._span(meta)
        return (None, str(first), span) if second is None else (str(first), str(second), span)

    def phase(self, meta: Any, children: list[Token]) -> ast.Phase:
        return ast.Phase(self._span(meta), str(children[0]))

    def is_(self, meta: Any, children: list[Any]) -> ast.Shapes:
        return ast.Shapes(self._span(meta), tuple(children))

    def shape(self, meta: Any, children: list[Any]) -> tuple[int | str, ...]:
        return tuple(child for child in children if child is not None)

    def dim(self, meta: Any, children: list[Token]) -> int | str:
        token = children[0]
        return int(self._number(token)) if token.type == "INT" else str(token)

    def names(self, meta: Any, children: list[ast.Name]) -> tuple[ast.Name, ...]:
        return tuple(children)

    def name(self, meta: Any, children: list[Token]) -> ast.Name:
        token = children[0]
        if token.type == "BTICK":
            return ast.Name(self._at(token), tuple(self._interpolated(token)))
        return ast.Name(self._at(token), (str(token),))

    # Arguments and expressions

    def args(self, meta: Any, children: list[Any]) -> tuple[ast.Argument, ...]:
        return tuple(child for child in children if child is not None)

    def kw(self, meta: Any, children: list[Any]) -> ast.Argument:
        name, value = children
        return ast.Argument(self._span(meta), str(name), self._at(name), value)

    field = kw

    def pos(self, meta: Any, children: list[Any]) -> ast.Argument:
        span = self._span(meta)
        return ast.Argument(span, None, span, children[0])

    def cond(self, meta: Any, children: list[Any]) -> ast.Conditional:
        return ast.Conditional(self._span(meta), *children)

    def bor(self, meta: Any, children: list[Any]) -> ast.Chained:
        return ast.Chained(self._span(meta), tuple(children), ("or",) * (len(children) - 1))

    def band(self, meta: Any, children: list[Any]) -> ast.Chained:
        return ast.Chained(self._span(meta), tuple(children), ("and",) * (len(children) - 1))

    def bnot(self, meta: Any, children: list[Any]) -> ast.Unary:
        return ast.Unary(self._span(meta), "not", children[0])

    def neg(self, meta: Any, children: list[Any]) -> ast.Unary:
        return ast.Unary(self._span(meta), "-", children[0])

    def _chained(self, meta: Any, children: list[Any]) -> ast.Chained:
        return ast.Chained(self._span(meta), tuple(children[::2]), tuple(str(op) for op in children[1::2]))

    cmp = _chained
    sum = _chained
    prod = _chained

    def num(self, meta: Any, children: list[Token]) -> ast.Constant:
        return ast.Constant(self._span(meta), self._number(children[0]))

    def string(self, meta: Any, children: list[Token]) -> ast.Constant:
        return self._text(children[0])

    def true(self, meta: Any, children: list[Any]) -> ast.Constant:
        return ast.Constant(self._span(meta), True)

    def false(self, meta: Any, children: list[Any]) -> ast.Constant:
        return ast.Constant(self._span(meta), False)

    def fcall(self, meta: Any, children: list[Any]) -> ast.FunctionCall:
        return ast.FunctionCall(self._span(meta), str(children[0]), children[1])

    def var(self, meta: Any, children: list[Token]) -> ast.Variable:
        return ast.Variable(self._span(meta), str(children[0]))

    def array(self, meta: Any, children: list[Any]) -> ast.ListOf:
        return ast.ListOf(self._span(meta), tuple(child for child in children if child is not None))

    def record(self, meta: Any, children: list[Any]) -> ast.Record:
        return ast.Record(self._span(meta), tuple(child for child in children if child is not None))

    # Tokens

    def _number(self, token: Token) -> int | float:
        if len(token) > 40:
            raise _IssueError("S004", "a number of more than 40 characters", self._at(token))
        if token.isdigit():
            return int(token)
        value = float(token)
        if value == float("inf"):
            raise _IssueError("S004", f"{token} is too large", self._at(token), "write `inf` if you mean it")
        return value

    def _text(self, token: Token) -> ast.Constant:
        span = self._at(token)

        def replace(match: re.Match[str]) -> str:
            digits = match[1] or match[2] or match[3]
            if digits:
                code = int(digits, 16)
                if code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF:
                    return chr(code)
            elif match[4] in _ESCAPES:
                return _ESCAPES[match[4]]
            at = Span(span.source, span.start + 1 + match.start(), span.start + 1 + match.end())
            raise _IssueError("S002", f"`{match.group()}` is no escape", at, r"a backslash is written `\\`")

        return ast.Constant(span, _ESCAPE.sub(replace, token[1:-1]))

    def _interpolated(self, token: Token) -> Iterator[str | ast.Expression]:
        """The texts and expressions of a back-ticked name in turn."""
        inner, at = str(token[1:-1]), 0
        span = self._at(token)
        while at < len(inner):
            begin = inner.find("{", at)
            if begin < 0:
                begin = len(inner)
            if inner.find("}", at, begin) >= 0:
                raise _IssueError("S001", "this `}` closes no interpolation", span, 'a brace is written `{"}"}`')
            if begin > at:
                yield inner[at:begin]
            if begin == len(inner):
                return
            end = _closing_brace(inner, begin)
            if end is None or not inner[begin + 1 : end].strip():
                raise _IssueError("S001", "an interpolation is written {expression}", span)
            yield self._expression(inner[begin + 1 : end], span.start + 2 + begin)
            at = end + 1

    def _expression(self, text: str, offset: int) -> ast.Expression:
        try:
            tree = _parser().parse(text, start="expr")
        except UnexpectedInput as error:
            at = offset + _offset(error, text)
            raise _IssueError("S001", "no expression that can be interpolated", Span(self.source, at, at + 1)) from None
        return cast(ast.Expression, _Builder(self.source, offset).transform(tree))


def _closing_brace(text: str, begin: int) -> int | None:
    """Where the brace at `begin` closes, strings left alone."""
    depth = 0
    for match in SCAN.finditer(text, begin):
        if match.group() == "{":
            depth += 1
        elif match.group() == "}":
            depth -= 1
            if depth == 0:
                return match.start()
    return None
