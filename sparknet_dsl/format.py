"""The layout of `.snet` texts, for `sparknet-fmt`.

Only white space changes, and the comma before a closing bracket: what a text means stays. Line breaks are the
author's where a line may break (before an arrow, after a comma, before an operator, inside brackets and braces); a line
that would be longer than WIDTH gets more of them. All else, indentation, alignment, spaces, is settled here.
"""

from __future__ import annotations

import difflib
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from . import ast, terminal
from .diagnostics import Diagnostics, Source
from .errors import ModelError, SparkNetError, UsageError
from .files import exists, is_dir, write_atomic
from .parse import parse
from .prototxt import decode

WIDTH = 100
_DEEPEST = 60  # the rightmost column to which the lines of a bracket align
_FARTHEST = 24  # how far behind the statement's beginning arrows may align
_ARROWS = 5  # where they stand otherwise: as below `data ->`
_MOST_TIMES = 8
_TOKEN = re.compile(
    r'(?P<comment>\#[^\n]*)|(?P<string>"(?:\\.|[^"\\\n])*")|(?P<tick>`[^`\n]+`)'
    r"|(?P<number>[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<sign>->|//|==|!=|<=|>=|[-+*/%<>=!@.,:()\[\]{}])"
)
_OPERATORS = {"+", "-", "*", "/", "//", "%", "==", "!=", "<", "<=", ">", ">=", "and", "or", "if", "else"}
_TIGHT = {"=", "*", "/", "//", "%"}  # without spaces inside brackets
_PREFIXES = {"and", "or", "not", "if", "else", "in"}  # words that an operand follows
_SPACED = (ast.Net, ast.Solver, ast.Spark, ast.Default, ast.Set)  # `solver (...)`, but `Convolution(...)`


@dataclass(slots=True)
class _Token:
    text: str
    kind: str
    offset: int
    breaks: int  # line breaks before it; 2 for a blank line
    partner: int = -1  # of a bracket: where its other half is
    role: str = ""  # of brackets: body, chain, shape (behind `is`), group (around an expression)
    space: bool = True  # before it
    stop: bool = False  # a line may break before it
    broken: bool = False  # an opening bracket whose contents have lines of their own


def format_text(text: str, name: str = "<text>") -> str:
    """The text in the one layout: formatting that again changes nothing. Raises ModelError for a wrong syntax."""
    after = _once(text, name)
    for _ in range(_MOST_TIMES):
        # A line broken here may show that another can be filled, where comments stand in odd places.
        before, after = after, _once(after, name)
        if before == after:
            break
    return after


def _once(text: str, name: str) -> str:
    diagnostics = Diagnostics()
    tree = parse(Source(name, text), diagnostics)
    diagnostics.raise_errors()
    nodes, chains = _beginnings(tree)
    return _Layout(_tokens(text, nodes, chains), nodes).run()


# Tokens


def _beginnings(tree: ast.File) -> tuple[dict[int, ast.Node], set[int]]:
    """The statements by where they begin, and where the chains of `for` and `if` begin."""
    statements: dict[int, ast.Node] = {}
    chains: set[int] = set()
    waiting: list[ast.Node] = list(tree.items)
    statements.update((item.span.start, item) for item in tree.items)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Net | ast.Block | ast.Replace):
            statements.update((statement.span.start, statement) for statement in node.body)
            waiting += node.body
        elif isinstance(node, ast.Flow):
            waiting += node.stages
        elif isinstance(node, ast.For | ast.If):
            for chain in (node.body,) if isinstance(node, ast.For) else (node.then, node.otherwise or ()):
                chains.update(stage.span.start for stage in chain[:1])
                waiting += chain
    return statements, chains


def _tokens(text: str, statements: dict[int, ast.Node], chains: set[int]) -> list[_Token]:
    """The tokens of a text that parses, comments among them, commas before closing brackets left out."""
    tokens: list[_Token] = []
    last, end = -1, 0  # the token before, comments left aside
    for match in _TOKEN.finditer(text):
        breaks = min(text.count("\n", end, match.start()), 2)
        end = match.end()
        token = _Token(match.group().rstrip(), str(match.lastgroup), match.start(), breaks)
        if token.text in (")", "]", "}") and last >= 0 and tokens[last].text == ",":
            del tokens[last]
        tokens.append(token)
        if token.kind != "comment":
            last = len(tokens) - 1
    _classify(tokens, statements, chains)
    return tokens


def _classify(tokens: list[_Token], statements: dict[int, ast.Node], chains: set[int]) -> None:
    """Finds the pairs of brackets, the spaces and the places where lines may break."""
    code = [index for index, token in enumerate(tokens) if token.kind != "comment"]
    opened: list[int] = []
    within: list[ast.Node | None] = [None]  # the statement, by the depth of bodies
    variables = False  # between `for` and `in`
    before = _Token("", "", 0, 0)
    for place, index in enumerate(code):
        token, text = tokens[index], tokens[index].text
        if token.offset in statements:
            within[-1] = statements[token.offset]
            before = _Token("", "", 0, 0)
        inside = bool(opened) and tokens[opened[-1]].role not in ("body", "chain")
        operand = _is_operand(before)
        if token.kind == "sign" and text in "([{":
            following = tokens[code[place + 1]]
            if text == "[" and not inside and before.text in ("is", ","):
                token.role = "shape"
            elif text == "(" and not operand:
                token.role = "group"
            elif text == "{" and following.offset in chains:
                token.role = "chain"
            elif text == "{" and (following.offset in statements or (following.text == "}" and operand)):
                token.role = "body"
                within.append(None)
            opened.append(index)
        elif token.kind == "sign" and text in ")]}":
            start = opened.pop()
            token.partner, tokens[start].partner, token.role = start, index, tokens[start].role
            if token.role == "body":
                within.pop()
        elif not inside and text in ("for", "in"):
            variables = text == "for"
        listed = before.text == "," and (inside or (isinstance(within[-1], ast.Flow) and not variables))
        token.space = _has_space(before, token, inside, operand, isinstance(within[-1], _SPACED))
        token.stop = (
            text == "->"
            or listed
            or (text in _OPERATORS and operand and before.role != "chain")
            or (not inside and text in ("@", "as", "is") and (operand or before.text == "!"))
        )
        before = _Token("-", "unary", 0, 0) if text == "-" and not operand else token


def _is_operand(token: _Token) -> bool:
    """Whether an expression, or a stage, may end with the token."""
    if token.kind == "name":
        return token.text not in _PREFIXES
    return token.kind in ("string", "number", "tick") or token.text in (")", "]", "}")


def _has_space(before: _Token, token: _Token, inside: bool, operand: bool, spaced: bool) -> bool:
    text = token.text
    if before.role == "chain" and before.text == "{":
        return True
    if text == "}":
        return token.role == "chain"
    if text in (")", "]", ",", ":", ".", "!") or before.text in ("", "(", "[", "{", ".", "@") or before.kind == "unary":
        return False
    if inside and (text in _TIGHT or before.text in _TIGHT):
        return False
    return text != "(" or not operand or before.text in (")", "]", "}") or (spaced and not inside)


# Lines


class _Layout:
    """Writes tokens, line by line."""

    def __init__(self, tokens: list[_Token], nodes: dict[int, ast.Node]) -> None:
        self.tokens = tokens
        self.nodes = nodes
        self.lines: list[str] = []
        self.line = ""
        self.must_break = False  # a comment ended the line
        self.comments: dict[int, int] = {}  # comments behind code: where they begin, by line

    def run(self) -> str:
        self._statements(0, len(self.tokens), 0)
        self.lines.append(self.line)
        self._align_comments()
        return "\n".join(line.rstrip() for line in self.lines).strip("\n") + "\n"

    # Statements

    def _statements(self, begin: int, end: int, indent: int) -> None:
        """Statements, each on lines of its own; at most one blank line between two."""
        at, fresh = begin, True
        while at < end:
            token = self.tokens[at]
            stop = at + 1
            if token.kind == "comment" and not token.breaks and at > 0:
                self._comment(token, indent)
            else:
                if token.breaks > 1 and not fresh:
                    self._new_line(0)
                if at > 0:
                    self._new_line(indent)
                if token.kind == "comment":
                    self._comment(token, indent)
                else:
                    stop = self._end_of_statement(at, end)
                    self.must_break = False
                    self._statement(at, stop, indent)
                fresh = False
            at = stop
        self.must_break = False

    def _end_of_statement(self, begin: int, end: int) -> int:
        at = begin + 1
        last = begin
        while at < end and self.tokens[at].offset not in self.nodes:
            if self.tokens[at].kind != "comment":
                last = at = max(at, self.tokens[at].partner)
            at += 1
        return last + 1

    def _statement(self, begin: int, end: int, indent: int) -> None:
        flow = isinstance(self.nodes[self.tokens[begin].offset], ast.Flow)
        self._run(begin, end, indent + 4 if flow else indent, indent if flow else None)

    # Runs of tokens

    def _run(
        self, begin: int, end: int, indent: int, flow: int | None = None, arrows: int | None = None, comma: int = -1
    ) -> None:
        """Tokens in a row; lines that break go on at column `indent`.

        Those of a flow that begins at column `flow` go on with an arrow: at column `arrows`, else below the first one.
        A comma is added behind token `comma`.
        """
        at, stage = begin, len(self.line)
        while at < end:
            token = self.tokens[at]
            arrow = token.text == "->" and flow is not None
            column = indent
            if flow is not None and (arrow or token.kind == "comment" or (at == begin and arrows is not None)):
                column = flow + _ARROWS if arrows is None else arrows
            if token.kind == "comment":
                self._comment(token, column)
                at += 1
                continue
            if self.must_break or (at > begin and self._breaks(at, column, flow, arrows)):
                self._new_line(column)
            elif at > begin and token.space:
                self.line += " "
            here = len(self.line)
            if arrow and flow is not None and arrows is None:
                arrows = here if here - flow <= _FARTHEST else flow + _ARROWS
            if token.text in ("for", "if") and token.kind == "name" and (at == begin or self._code_before(at) == "->"):
                stage = here
            self.line += token.text
            if token.partner > at:
                self._group(at, stage, indent if flow is None else flow)
                at = token.partner
            if at == comma:
                self.line += ","
            at += 1

    def _code_before(self, at: int) -> str:
        at -= 1
        while self.tokens[at].kind == "comment":
            at -= 1
        return self.tokens[at].text

    def _breaks(self, at: int, column: int, flow: int | None, arrows: int | None) -> bool:
        """Whether a new line begins with the token."""
        token = self.tokens[at]
        if not token.stop or (token.text == "->" and flow is None):
            return False
        if token.breaks:
            return True
        if len(self.line) + token.space + self._width(at) <= WIDTH:
            return False
        if token.text == "->" and flow is not None and arrows is None and len(self.line) - flow < _FARTHEST:
            return False
        return column < len(self.line)

    def _width(self, begin: int) -> int:
        """The columns that the token takes with all that follows it up to the next place for a break like it."""
        arrow = self.tokens[begin].text == "->"
        width = depth = 0
        for at in range(begin, len(self.tokens)):
            token = self.tokens[at]
            if at > begin:
                breaks = token.stop and (token.breaks or (depth <= 0 and (token.text == "->" or not arrow)))
                closes = -1 < token.partner < begin and self.tokens[token.partner].broken
                if breaks or closes or token.kind == "comment" or token.offset in self.nodes or width > WIDTH:
                    break
                width += token.space
            width += len(token.text)
            if at > begin and not arrow and depth <= 0 and (token.text == ":" or token.role == "chain"):
                break  # what follows has places for breaks of its own
            if token.partner > at:
                depth += 1
                if token.role == "body" or self.tokens[at + 1].breaks:
                    break
            elif token.partner >= 0:
                depth -= 1
        return width

    # Brackets, whose opening half is written

    def _group(self, at: int, stage: int, base: int) -> None:
        """What stands between the brackets, and the closing one; `stage` and `base` are where their owners begin."""
        token, close = self.tokens[at], self.tokens[at].partner
        if token.role == "body":
            self._body(at, close, base)
        elif token.role == "chain":
            self._chain(at, close, stage)
        elif close > at + 1:
            self._brackets(at, close)
        self.line += self.tokens[close].text

    def _body(self, at: int, close: int, base: int) -> None:
        if close > at + 1:
            self._statements(at + 1, close, base + 2)
            self._new_line(base)

    def _chain(self, at: int, close: int, stage: int) -> None:
        token = self.tokens[at]
        token.broken |= any(inner.breaks for inner in self.tokens[at + 1 : close + 1])
        token.broken |= len(self.line) + self._width(at) - 1 > WIDTH
        following = close + 1
        while following < len(self.tokens) and self.tokens[following].kind == "comment":
            following += 1
        otherwise = following + 1
        if following < len(self.tokens) - 1 and self.tokens[following].text == "else":
            while self.tokens[otherwise].kind == "comment":
                otherwise += 1
            other = self.tokens[otherwise]
            if other.role == "chain":  # both chains of an `if` alike
                token.broken |= any(inner.breaks for inner in self.tokens[close + 1 : other.partner + 1])
                other.broken = token.broken
        if token.broken:
            if self._comment_follows(at):
                self._comment(self.tokens[at + 1], stage + 2)
            self.must_break = True
            self._run(at + 1 + self._comment_follows(at), close, stage + 6, stage + 2, stage + 2)
            self._new_line(stage)
        else:
            self.line += " "
            self._run(at + 1, close, stage + 6, stage + 2, stage + 2)
            self.line += " "

    def _brackets(self, at: int, close: int) -> None:
        token, column = self.tokens[at], len(self.line)
        too_far = column > _DEEPEST and column - 1 + self._width(at) > WIDTH
        token.broken = bool(self.tokens[at + 1].breaks) or self._comment_follows(at) or too_far
        if not token.broken:
            self._refill(at, close, column, column)
            self._run(at + 1, close, column)
            if self.must_break:
                self._new_line(column - 1)
            return
        base = len(self.line) - len(self.line.lstrip())
        self._refill(at, close, base + 2, base + 2)
        if not self._comment_follows(at):
            self._new_line(base + 2)
        last = close - 1
        while self.tokens[last].kind == "comment":
            last -= 1
        takes_comma = token.role not in ("shape", "group")
        self._run(at + 1, close, base + 2, comma=last if takes_comma else -1)
        self._new_line(base)

    def _refill(self, at: int, close: int, column: int, begin: int) -> None:
        """Forgets the author's line breaks between items when a line of them is too long: all of them are made anew."""
        direct, depth, here, item = [], 0, begin, column
        too_long = False
        for index in range(at + 1, close):
            token = self.tokens[index]
            if token.kind == "comment":
                return
            if depth == 0 and token.stop:
                direct.append(token)
                here = column if token.breaks else here
                item = column
            depth += (token.partner > index) - (-1 < token.partner < index)
            here += token.space + len(token.text)
            item += token.space + len(token.text)
            too_long |= here >= WIDTH
            if item >= WIDTH:
                return
        if too_long:
            for token in direct:
                token.breaks = 0

    def _comment_follows(self, at: int) -> bool:
        return self.tokens[at + 1].kind == "comment" and not self.tokens[at + 1].breaks

    # Lines

    def _new_line(self, indent: int) -> None:
        self.lines.append(self.line)
        self.line = " " * indent
        self.must_break = False

    def _comment(self, token: _Token, indent: int) -> None:
        if self.line.strip() and (token.breaks or self.must_break):
            self._new_line(indent)
        if self.line.strip():
            self.comments[len(self.lines)] = len(self.line)
            self.line += "  "
        elif len(self.line) != indent:
            self.line = " " * indent
        self.line += token.text
        self.must_break = True

    def _align_comments(self) -> None:
        """Comments behind the code of lines that follow each other begin in one column, if there is room."""
        first = 0
        while first < len(self.lines):
            last = first
            while last in self.comments:
                last += 1
            run = range(first, last)
            column = max((self.comments[line] for line in run), default=0)
            longest = max((len(self.lines[line]) - self.comments[line] for line in run), default=0)
            if column + longest <= WIDTH:
                for line in run:
                    at = self.comments[line]
                    self.lines[line] = self.lines[line][:at].ljust(column) + self.lines[line][at:]
            first = last + 1


# Files


def format_files(paths: Sequence[str], *, check: bool = False, diff: bool = False) -> int:
    """Formats files, every `.snet` file below folders, and for `-` standard input to standard output.

    With `check` or `diff` nothing is written: the names of the files that would change are, or the changes. Returns the
    exit status: 1 when a file would change (with `check` or `diff`), has wrong syntax or cannot be read or written.
    Raises UsageError for a path that is not there.
    """
    status = changed = unchanged = 0
    for path in _files(paths):
        try:
            before = _read(path)
            after = format_text(before, "<stdin>" if path is None else str(path))
            if path is None and not (check or diff):
                sys.stdout.write(after)
                continue
            if before == after:
                unchanged += 1
                continue
            changed += 1
            if diff:
                _print_diff(path, before, after)
            if check and not diff:
                print(f"would format {path or '<stdin>'}")
            if check or diff:
                status = 1
            elif path is not None:
                write_atomic(path.resolve(), after)
        except SparkNetError as error:
            status = 1
            if isinstance(error, ModelError):
                print(error, file=sys.stderr)
            else:
                terminal.complain(str(error))
    if (changed or unchanged) and not terminal.quiet():
        would = "would be " if check or diff else ""
        print(f"{_count(changed)} {would}formatted, {unchanged} as they should be", file=sys.stderr)
    return status


def _files(paths: Sequence[str]) -> Iterator[pathlib.Path | None]:
    """Every file to format, each once; None is standard input."""
    found: dict[pathlib.Path | None, None] = {}
    for name in paths:
        path = pathlib.Path(name)
        if name == "-":
            found[None] = None
        elif is_dir(path):
            found.update(dict.fromkeys(sorted(inner for inner in path.rglob("*.snet") if inner.is_file())))
        elif exists(path):
            found[path] = None
        else:
            raise UsageError(f"{name} is not there")
    yield from found


def _read(path: pathlib.Path | None) -> str:
    name = "<stdin>" if path is None else str(path)
    try:
        data = sys.stdin.buffer.read() if path is None else path.read_bytes()
    except OSError as error:
        raise ModelError(f"error: cannot read {name}: {error.strerror or error}") from error
    text = decode(data)
    if text is None:
        raise ModelError(f"error: {name} is no text in UTF-8")
    return text


def _print_diff(path: pathlib.Path | None, before: str, after: str) -> None:
    name = "<stdin>" if path is None else str(path)
    for line in difflib.unified_diff(before.splitlines(), after.splitlines(), name, f"{name} formatted", lineterm=""):
        print(line)


def _count(files: int) -> str:
    return f"{files} file{'s' * (files != 1)}"
