"""What may be written at a place: read off the tokens before it, since the line there is rarely whole yet."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

_TOKEN = re.compile(r'#[^\n]*|"(?:\\.|[^"\\\n])*"?|`[^`\n]+`?|->|[A-Za-z_]\w*|[0-9][\w.]*|[^\s\w]')


@dataclass
class Context:
    """What is wanted there. `kind` is one of these.

    item: outside of all braces; statement: where a statement of a body begins, or goes on with names;
    stage: behind an arrow or a label's colon; module: behind an import's name and a dot; phase: behind `@`;
    field: an argument of `owner`, the `index`th that has no name; value: behind `field=` of `owner`;
    string: between quotes, as the value of `field`; comment.

    `records` are the fields whose braces are open within the arguments, the outermost first; `given` the fields that
    are there already; `start` is where the word begins that is being written.
    """

    kind: str
    start: int
    owner: str = ""
    field: str = ""
    index: int = 0
    records: list[str] = dataclasses.field(default_factory=list)
    given: set[str] = dataclasses.field(default_factory=set)


@dataclass
class _Open:
    bracket: str
    owner: str = ""  # of `(`: what is called
    field: str = ""  # the field whose value is being written
    index: int = 0
    given: set[str] = dataclasses.field(default_factory=set)


def context_at(text: str, offset: int) -> Context:
    """The context of a place in a `.snet` text."""
    opened: list[_Open] = []
    tokens = list(_TOKEN.finditer(text, 0, offset))
    last = tokens[-1] if tokens and tokens[-1].end() == offset else None
    if last and last[0][0] == "#":
        return Context("comment", offset)
    start = offset
    if last and re.match(r"[\w`]", last[0]) and not (len(last[0]) > 1 and last[0][0] == last[0][-1] == "`"):
        start = last.start()
        tokens.pop()
    quoted = last is not None and last[0][0] == '"' and not (len(last[0]) > 1 and last[0][-1] == '"')
    if quoted and last is not None:
        start = last.start() + 1
        tokens.pop()
    words = [token[0] for token in tokens if token[0][0] != "#"]
    for index, word in enumerate(words):
        _step(opened, words, index, word)
    before = words[-1] if words else ""
    inner = next((one for one in reversed(opened) if one.bracket != "["), None)
    arguments = inner is not None and (inner.bracket == "(" or bool(inner.field or inner.owner))
    if arguments and inner is not None:
        calls = [index for index, one in enumerate(opened) if one.bracket == "("]
        call = opened[calls[-1]] if calls else inner
        records = [one.owner for one in opened[calls[-1] + 1 :] if one.bracket == "{"] if calls else []
        kind = "string" if quoted else "value" if inner.field else "field"
        return Context(kind, start, call.owner, inner.field, inner.index, records, inner.given)
    if quoted:
        return Context("string", start)
    if before == "@":
        return Context("phase", start)
    if before == "." and len(words) > 1:
        return Context("module", start, words[-2])
    if before in ("->", ":"):
        return Context("stage", start)
    return Context("statement" if opened else "item", start)


def _step(opened: list[_Open], words: list[str], index: int, word: str) -> None:
    before = words[index - 1] if index else ""
    top = opened[-1] if opened else None
    arguments = top is not None and (top.bracket == "(" or (top.bracket == "{" and bool(top.owner)))
    if word == "(":
        opened.append(_Open("(", before if re.match(r"[A-Za-z_`]", before) else ""))
    elif word == "[":
        opened.append(_Open("["))
    elif word == "{":
        # A record is a field's value, perhaps in a list; a body or a chain is not within parentheses.
        holder = next((one for one in reversed(opened) if one.bracket != "["), None)
        record = holder is not None and bool(holder.field) and before in ("=", "[", ",")
        opened.append(_Open("{", holder.field if record and holder else ""))
    elif word in ")]}":
        if opened:
            opened.pop()
    elif word == "=" and arguments and top is not None:
        top.field = before
        top.given.add(before)
    elif word == "," and arguments and top is not None:
        top.index += not top.field
        top.field = ""
