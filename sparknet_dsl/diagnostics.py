"""Errors and warnings about a model, as data, and their rendering for a terminal."""

import bisect
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict, Unpack

from .budget import Budget
from .errors import ModelError

MAX_FOUND = 1000  # findings that are kept; all are counted

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Source:
    """A text and the name under which messages mention it."""

    name: str
    text: str

    @functools.cached_property
    def _line_starts(self) -> list[int]:
        starts = [0]
        at = self.text.find("\n")
        while at >= 0:
            starts.append(at + 1)
            at = self.text.find("\n", at + 1)
        return starts

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of a character, both counted from 1."""
        line = bisect.bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of line `number`, counted from 1, without its line break."""
        begin = self._line_starts[number - 1]
        end = self._line_starts[number] if number < len(self._line_starts) else len(self.text)
        return self.text[begin:end].rstrip("\r\n")


@dataclass(frozen=True, slots=True)
class Span:
    """The characters `start` up to `end`, not included, of a source; lines and columns count from 1."""

    source: Source
    start: int
    end: int

    @property
    def file(self) -> str:
        """Name of the source."""
        return self.source.name

    @property
    def line(self) -> int:
        """Line of the first character."""
        return self.source.position(self.start)[0]

    @property
    def col(self) -> int:
        """Column of the first character."""
        return self.source.position(self.start)[1]

    @property
    def end_line(self) -> int:
        """Line of the end."""
        return self.source.position(self.end)[0]

    @property
    def end_col(self) -> int:
        """Column of the end, not included."""
        return self.source.position(self.end)[1]

    @property
    def text(self) -> str:
        """The characters themselves."""
        return self.source.text[self.start : self.end]

    def to(self, other: "Span") -> "Span":
        """The span from the start of this one to the end of the other."""
        return Span(self.source, self.start, other.end)


@dataclass(frozen=True)
class Label:
    """What a secondary span has to do with the matter."""

    span: Span
    text: str


@dataclass(frozen=True)
class Fix:
    """An edit that a tool can make: `span` becomes `replacement`."""

    span: Span
    replacement: str

    def __str__(self) -> str:
        if not self.span.text:
            return f"insert {self.replacement.strip()}"
        if not self.replacement:
            return f"remove {self.span.text}"
        return f"{self.span.text} -> {self.replacement}"


@dataclass(frozen=True)
class Diagnostic:
    """One finding. `code` is stable (`sparknet-compile --explain CODE`); `span` is None for a whole file."""

    code: str
    severity: Severity
    message: str
    span: Span | None = None
    label: str = ""
    secondary: Sequence[Label] = ()
    notes: Sequence[str] = ()
    help: str | None = None
    fix: Fix | None = None


class _More(TypedDict, total=False):
    """The fields of a Diagnostic that few have."""

    secondary: Sequence[Label]
    notes: Sequence[str]
    help: str | None
    fix: Fix | None


class Failed(Exception):  # noqa: N818 - control flow, never seen outside the compiler
    """A statement that cannot be compiled, already reported; the compiler goes on with the next one."""


class Exhausted(Exception):  # noqa: N818 - control flow, never seen outside the compiler
    """The text asks for more than its budget or has too many errors, already reported: no more of it is compiled."""


@dataclass
class Diagnostics:
    """Collects what the passes find, and keeps their budget."""

    found: list[Diagnostic] = field(default_factory=list)
    errors: int = 0  # reported so far, those said before of the same place counted in
    budget: Budget = field(default_factory=Budget)
    _seen: set[tuple[str, str, Span | None]] = field(default_factory=set)

    def add(self, diagnostic: Diagnostic) -> None:
        """Keeps it, unless it was said before of the same place: a block is expanded many times."""
        self.errors += diagnostic.severity == "error"
        key = (diagnostic.code, diagnostic.message, diagnostic.span)
        if key not in self._seen and len(self.found) < MAX_FOUND:
            self._seen.add(key)
            self.found.append(diagnostic)

    def error(self, code: str, message: str, span: Span | None = None, label: str = "", **more: Unpack[_More]) -> None:
        """Adds an error."""
        self.add(Diagnostic(code, "error", message, span, label, **more))

    def fail(self, code: str, message: str, span: Span | None = None, label: str = "", **more: Unpack[_More]) -> Failed:
        """Adds an error; the caller raises what it returns, and so abandons the statement.

        Raises Exhausted after very many: each costs time, most in loops that fail in every turn.
        """
        self.error(code, message, span, label, **more)
        if self.errors > MAX_FOUND:
            raise Exhausted
        return Failed()

    def warn(self, code: str, message: str, span: Span | None = None, label: str = "", **more: Unpack[_More]) -> None:
        """Adds a warning."""
        self.add(Diagnostic(code, "warning", message, span, label, **more))

    def spend(self, work: int, span: Span, trail: Sequence[str] = ()) -> None:
        """Counts work (see budget.py); raises Exhausted, having reported it, when the text may not ask for so much.

        `trail` says through which blocks the place was reached.
        """
        if not self.budget.spend(work):
            self.error(
                "S006",
                "too large a net for so short a text",
                span,
                "no more here",
                notes=[
                    *(f"in {step}" for step in trail[-5:]),
                    "10,000 characters may make about 10,000 layers, or 700,000 items of lists; longer texts more",
                ],
            )
            raise Exhausted

    @property
    def has_errors(self) -> bool:
        """Whether any of them is an error."""
        return self.errors > 0

    def sorted(self) -> list[Diagnostic]:
        """In the order of the text, those of a whole file first."""
        return sorted(self.found, key=lambda d: (d.span.file, d.span.start) if d.span else ("", -1))

    def raise_errors(self) -> None:
        """Raises ModelError, with everything found, if any of it is an error."""
        if self.has_errors:
            raise ModelError(render_diagnostics(self.sorted()), self.sorted())


# ANSI styles of the renderer: severity and primary span, secondary spans and frame, emphasis.
_STYLES = {"error": "1;31", "warning": "1;33", "frame": "1;34", "bold": "1"}
_MAX_SHOWN = 50
# Looking for what a misspelt name may have meant costs the square of its length, for each candidate.
_LONGEST_GUESS = 100
_MOST_GUESSES = 1000


def render_diagnostics(diagnostics: Iterable[Diagnostic], *, color: bool = False) -> str:
    """The text for a terminal: a box for each, then the number of errors; empty when there is none."""
    everything = list(diagnostics)
    boxes = [render(diagnostic, color=color) for diagnostic in everything[:_MAX_SHOWN]]
    if len(everything) > _MAX_SHOWN:
        boxes.append(f"... and {len(everything) - _MAX_SHOWN} more")
    errors = sum(diagnostic.severity == "error" for diagnostic in everything)
    if errors:
        boxes.append(_paint("error", f"{errors} error{'s' if errors > 1 else ''}", color))
    return "\n\n".join(boxes)


def render(diagnostic: Diagnostic, *, color: bool = False) -> str:
    """One box: message, place, the lines with their labels, notes, help, fix."""
    head = _paint(diagnostic.severity, f"{diagnostic.severity}[{diagnostic.code}]", color)
    lines = [f"{head}{_paint('bold', ': ' + diagnostic.message, color)}"]
    gutter = 1
    if diagnostic.span is not None:
        shown = [Label(diagnostic.span, diagnostic.label), *diagnostic.secondary]
        gutter = max(len(str(label.span.line)) for label in shown)
        for name in dict.fromkeys(label.span.file for label in shown):
            inside = [label for label in shown if label.span.file == name]
            arrow = "-->" if name == diagnostic.span.file else ":::"
            at = inside[0].span
            lines.append(f"{' ' * gutter}{_paint('frame', arrow, color)} {name}:{at.line}:{at.col}")
            lines += _snippet(inside, diagnostic, gutter, color)
    bar = _paint("frame", "=", color)
    for note in diagnostic.notes:
        lines.append(f"{' ' * gutter} {bar} {note}")
    if diagnostic.help:
        lines.append(f"{' ' * gutter} {bar} help: {diagnostic.help}")
    if diagnostic.fix:
        lines.append(f"{' ' * gutter} {bar} fix available: {diagnostic.fix}")
    return "\n".join(lines)


def _snippet(labels: list[Label], diagnostic: Diagnostic, gutter: int, color: bool) -> list[str]:
    """The source lines of one file with a mark under each span, in the order of the text."""
    empty = f"{' ' * gutter} {_paint('frame', '|', color)}"
    lines = [empty]
    previous = 0
    for label in sorted(labels, key=lambda label: (label.span.start, label.span.end)):
        number, column = label.span.line, label.span.col
        text = label.span.source.line(number)
        if previous and number > previous + 1:
            lines.append(_paint("frame", "...", color))
        if number != previous:
            shown = _printable(text)
            lines.append(f"{_paint('frame', f'{number:>{gutter}} |', color)} {shown}".rstrip())
        previous = number
        last = label.span.end_col if label.span.end_line == number else len(text.rstrip()) + 1
        primary = label.span == diagnostic.span and label.text == diagnostic.label
        mark = ("^" if primary else "-") * max(1, last - column)
        style = diagnostic.severity if primary else "frame"
        said = _paint(style, f"{mark} {label.text}".rstrip(), color)
        lines.append(f"{empty} {' ' * (column - 1)}{said}")
    if diagnostic.notes or diagnostic.help or diagnostic.fix:
        lines.append(empty)
    return lines


def _printable(text: str) -> str:
    """Tabs take one column, so that marks stay under what they mark; control characters reach no terminal."""
    return "".join(" " if char == "\t" else char if char.isprintable() else "�" for char in text)


def _paint(style: str, text: str, color: bool) -> str:
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if color else text


def closest(name: str, candidates: Iterable[str], limit: int = 3) -> list[str]:
    """The candidates that `name` may be a misspelling of, the likeliest first (Damerau-Levenshtein distance)."""
    if len(name) > _LONGEST_GUESS:
        return []
    return _closest(name, tuple(dict.fromkeys(candidates))[-_MOST_GUESSES:])[:limit]


@functools.lru_cache(maxsize=128)  # a mistake in a loop or in a block is met again and again
def _closest(name: str, candidates: tuple[str, ...]) -> list[str]:
    allowed = max(1, len(name) // 3)
    scored = []
    for candidate in candidates:
        if abs(len(candidate) - len(name)) > allowed:
            continue
        distance = edit_distance(name.lower(), candidate.lower())
        if distance <= allowed and candidate != name:
            scored.append((distance, candidate))
    return [candidate for _, candidate in sorted(scored)]


def edit_distance(one: str, other: str) -> int:
    """Insertions, deletions, substitutions and swaps of neighbours that turn `one` into `other`."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, b in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]


def did_you_mean(found: Sequence[str]) -> str:
    """The words to put after a label: "did you mean `a`?", or nothing."""
    if not found:
        return ""
    return "did you mean " + " or ".join(f"`{name}`" for name in found) + "?"
