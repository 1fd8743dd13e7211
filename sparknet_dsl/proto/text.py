"""Protobuf's text format as Caffe reads it, what the messages do not know included.

Google's reader for Python refuses some of what Caffe's accepts (octal numbers, numbers with an f), stops at the first
unknown field, and keeps no places. This one reads all of it. What it does not know, a field, a layer type of 2014, an
enum's value, it keeps as text in the list `unknown_field` of the layer, net or solver around it; `write` puts it back.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from . import caffe_pb2

MAX_DEPTH = 64

_TOKEN = re.compile(
    r"""(?>[ \t\r\n\f\v]++|\#[^\n]*+)*+(?:
    (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>(?:0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?[fF]?)(?![\w.]))
    |(?P<string>"(?:\\.|[^"\\\n])*+"|'(?:\\.|[^'\\\n])*+')
    |(?P<mark>[{}<>\[\]:,;.\-/])
    |(?P<end>\Z)
    )""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\([0-7]{1,3}|[xX][0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_ESCAPES = {"n": 10, "r": 13, "t": 9, "a": 7, "b": 8, "f": 12, "v": 11, "\\": 92, "'": 39, '"': 34, "?": 63}
_INTEGER = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
_LAYER = caffe_pb2.LayerParameter.DESCRIPTOR
_TRUE, _FALSE = {"true", "True", "t", "1"}, {"false", "False", "f", "0"}
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


class TextError(ValueError):
    """What is wrong at the characters `start` up to `end`. `allowed` names what may stand there, if that is a few."""

    def __init__(self, said: str, start: int, end: int, kind: str = "syntax", allowed: tuple[str, ...] = ()) -> None:
        super().__init__(said)
        self.start = start
        self.end = max(end, start + 1)
        self.kind = kind  # syntax, string, depth, size, value or twice
        self.allowed = allowed


@dataclass(frozen=True)
class Unknown:
    """A field that `owner` does not have; with `value`, a field whose value is none of the enum's `allowed`."""

    start: int
    end: int
    owner: str
    name: str
    allowed: tuple[str, ...]
    value: str = ""


@dataclass
class LayerPlace:
    """Where a layer stands: its name as the message has it, the whole, and the values of its fields."""

    name: str
    start: int
    end: int
    fields: dict[str, tuple[int, int]]


@dataclass
class Reading:
    """What a text held besides the message: what was not known, and where each outermost layer stands."""

    unknown: list[Unknown] = field(default_factory=list)
    layers: list[LayerPlace] = field(default_factory=list)


def read(text: str, message: Message) -> Reading:
    """Fills `message` from the text; raises TextError.

    As in Caffe, a field that is not a list may stand only once.
    """
    return _Reader(text).read(message)


def position(text: str, offset: int) -> tuple[int, int]:
    """Line and column of a character, both counted from 1."""
    return text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1


@dataclass
class _Token:
    kind: str
    text: str
    start: int
    end: int


class _Reader:
    def __init__(self, text: str, start: int = 0, stop: int | None = None) -> None:
        self.text = text
        self.stop = len(text) if stop is None else stop
        self.result = Reading()
        self.token = _Token("", "", start, start)
        self.before = 0  # where the token before this one ended
        self.depth = 0
        self.places: dict[str, tuple[int, int]] | None = None  # of the fields of the layer that is being read

    def read(self, message: Message) -> Reading:
        self._next()
        self._fields(message, "", message, "")
        return self.result

    def _next(self) -> None:
        self.before = self.token.end
        found = _TOKEN.match(self.text, self.token.end, self.stop)
        if found is None:
            raise self._bad_characters()
        kind = cast(str, found.lastgroup)
        self.token = _Token(kind, found[kind], *found.span(kind))

    def _bad_characters(self) -> TextError:
        skipped = re.compile(r"(?>[ \t\r\n\f\v]++|\#[^\n]*+)*+").match(self.text, self.token.end)
        start = skipped.end() if skipped else self.token.end
        char = self.text[start]
        if char in "\"'":
            return TextError("the string does not end on its line", start, start + 1, "string")
        if char.isdigit():
            word = re.compile(r"[\w.]+").match(self.text, start)
            end = word.end() if word else start + 1
            return TextError(f"`{self.text[start:end]}` is no number", start, end)
        return TextError(
            f"`{char}` has no meaning here" if char.isprintable() else "a stray control character", start, 0
        )

    def _fail(self, wanted: str) -> TextError:
        token = self.token
        got = "the end of the file" if token.kind == "end" else f"`{token.text}`"
        return TextError(f"expected {wanted}, got {got}", token.start, token.end)

    def _take(self, mark: str) -> bool:
        if self.token.kind == "mark" and self.token.text == mark:
            self._next()
            return True
        return False

    def _fields(self, message: Message, close: str, holder: Message, path: str) -> None:
        """The fields up to the closing bracket, or up to the end; `path` is the way here from `holder`."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TextError(f"nested deeper than {MAX_DEPTH}", self.token.start, self.token.end, "depth")
        descriptor = cast(Descriptor, message.DESCRIPTOR)
        if "unknown_field" in descriptor.fields_by_name:
            holder, path = message, ""
        while not (self.token.kind == "mark" and self.token.text == close) and self.token.kind != "end":
            if self.token.kind != "name" and self.token.text != "[":
                raise self._fail(f"a field of {descriptor.name}" + (f" or `{close}`" if close else ""))
            known = descriptor.fields_by_name.get(self.token.text)
            if known is None or known.name == "unknown_field":
                self._unknown(descriptor, holder, path)
            else:
                self._field(message, known, holder, path)
            if not self._take(","):
                self._take(";")
        if close:
            if self.token.kind == "end":
                raise self._fail(f"`{close}`")
            self._next()
        self.depth -= 1

    def _field(self, message: Message, known: FieldDescriptor, holder: Message, path: str) -> None:
        name, start = known.name, self.token.start
        if not known.is_repeated and message.HasField(name):
            raise TextError(f"`{name}` is given twice", start, self.token.end, "twice")
        self._next()
        colon = self._take(":")
        is_message = known.type == FieldDescriptor.TYPE_MESSAGE
        if not colon and not is_message:
            raise self._fail(f"`:` and the value of `{name}`")
        value_start = self.token.start
        if known.is_repeated and colon and self._take("["):
            while not self._take("]"):
                self._element(message, known, holder, path)
                if not self._take(",") and not (self.token.kind == "mark" and self.token.text == "]"):
                    raise self._fail("`,` or `]`")
        else:
            self._element(message, known, holder, path)
        # What stands further inside may be called like a layer's own field, a parameter's name say.
        if self.places is not None and (self.depth == 2 or name not in ("name", "type", "phase")):
            self.places.setdefault(name, (value_start if not is_message else start, self.before))

    def _element(self, message: Message, known: FieldDescriptor, holder: Message, path: str) -> None:
        if known.type == FieldDescriptor.TYPE_MESSAGE:
            self._message(message, known, holder, path)
        elif known.type == FieldDescriptor.TYPE_ENUM:
            self._enum(message, known, holder, path)
        elif known.is_repeated:
            getattr(message, known.name).append(self._scalar(known))
        else:
            setattr(message, known.name, self._scalar(known))

    def _message(self, message: Message, known: FieldDescriptor, holder: Message, path: str) -> None:
        close = {"{": "}", "<": ">"}.get(self.token.text) if self.token.kind == "mark" else None
        if close is None:
            raise self._fail(f"`{{` and the fields of `{known.name}`")
        start = self.token.start
        self._next()
        if known.is_repeated:
            items = getattr(message, known.name)
            inner, step = items.add(), f"{known.name}[{len(items) - 1}]"
        else:
            inner, step = getattr(message, known.name), known.name
            inner.SetInParent()
        inside = f"{path}.{step}" if path else step
        if self.depth == 1 and known.name in ("layer", "layers"):
            self.places = {}
            self._fields(inner, close, holder, inside)
            name = inner.name or (inner.layer.name if known.name == "layers" else "")
            self.result.layers.append(LayerPlace(name, start, self.before, self.places))
            self.places = None
        else:
            self._fields(inner, close, holder, inside)

    def _scalar(self, known: FieldDescriptor) -> Any:
        if known.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            return self._string(known)
        if known.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            token = self.token
            written = token.text
            if token.kind == "number" and _INTEGER.fullmatch(written):
                written = str(_integer(written))
            if written not in _TRUE | _FALSE:
                raise TextError(f"`{known.name}` is true or false, not {self._said()}", *self._here(), "value")
            self._next()
            return written in _TRUE
        start = self.token.start
        negative = self._take("-")
        token = self.token
        written = token.text.lower()
        if known.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
            if token.kind == "name" and written in ("inf", "inff", "infinity", "nan", "nanf"):
                value = float(written[:3])
            elif token.kind == "number":
                try:
                    value = float(_integer(token.text)) if _is_integer(token.text) else float(written.rstrip("f"))
                except (OverflowError, ValueError):  # of hundreds of digits
                    raise TextError(f"`{known.name}` is too large", *self._here(), "size") from None
            else:
                raise TextError(f"`{known.name}` wants a number, not {self._said()}", *self._here(), "value")
            self._next()
            return -value if negative else value
        if token.kind != "number" or not _is_integer(token.text):
            raise TextError(f"`{known.name}` wants a whole number, not {self._said()}", *self._here(), "value")
        whole = -_integer(token.text) if negative else _integer(token.text)
        low, high = _RANGES[known.cpp_type]
        if not low <= whole <= high:
            written = self.text[start : token.end]
            raise TextError(f"`{known.name}` lies between {low} and {high}, not {written}", start, token.end, "size")
        self._next()
        return whole

    def _string(self, known: FieldDescriptor) -> str | bytes:
        if self.token.kind != "string":
            raise TextError(f"`{known.name}` wants a string in quotes, not {self._said()}", *self._here(), "value")
        start = self.token.start
        parts = []
        while self.token.kind == "string":
            parts.append(_unescape(self.token.text[1:-1]))
            self._next()
        value = b"".join(parts)
        if known.type == FieldDescriptor.TYPE_BYTES:
            return value
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise TextError(f"`{known.name}` is no text in UTF-8", start, self.before, "string") from None

    def _enum(self, message: Message, known: FieldDescriptor, holder: Message, path: str) -> None:
        assert known.enum_type is not None
        start = self.token.start
        negative = self._take("-")
        token = self.token
        value = None
        if token.kind == "name" and not negative:
            value = known.enum_type.values_by_name.get(token.text)
        elif token.kind == "number" and _is_integer(token.text):
            value = known.enum_type.values_by_number.get(-_integer(token.text) if negative else _integer(token.text))
        else:
            names = ", ".join(choice.name for choice in known.enum_type.values)
            raise TextError(f"`{known.name}` is one of {names}, not {self._said()}", *self._here(), "value")
        self._next()
        if value is not None:
            if known.is_repeated:
                getattr(message, known.name).append(value.number)
            else:
                setattr(message, known.name, value.number)
            return
        written = self.text[start : token.end]
        allowed = tuple(choice.name for choice in known.enum_type.values)
        owner = cast(Descriptor, message.DESCRIPTOR).name
        if owner == "V1LayerParameter" and known.name == "type":  # today's types are strings: any will do
            holder.unknown_field.add(path=path, text=f"type: {written}")  # type: ignore[attr-defined]
            return
        unknown = Unknown(start, token.end, owner, known.name, allowed, written)
        self._keep(unknown, f"{known.name}: {written}", holder, path)

    def _unknown(self, descriptor: Descriptor, holder: Message, path: str) -> None:
        start = self.token.start
        if self._take("["):
            while self.token.kind == "name" or self.token.text in (".", "/"):
                self._next()
            if not self._take("]"):
                raise self._fail("`]`")
        else:
            self._next()
        name = self.text[start : self.before]
        unknown = Unknown(start, self.before, descriptor.name, name, tuple(descriptor.fields_by_name))
        value = self._any_value()
        if descriptor.name == "V1LayerParameter" and name in _LAYER.fields_by_name:
            # A fork's; the upgrade reads it again. What is unknown inside is found now, while the places are known.
            inner = _Reader(self.text, start, self.before).read(caffe_pb2.LayerParameter())
            self.result.unknown += inner.unknown
            holder.unknown_field.add(path=path, text=name + value)  # type: ignore[attr-defined]
        else:
            self._keep(unknown, name + value, holder, path)

    def _keep(self, unknown: Unknown, text: str, holder: Message, path: str) -> None:
        kept = getattr(holder, "unknown_field", None)
        if kept is None:
            said = f"{unknown.owner} has no field `{unknown.name}`"
            raise TextError(said, unknown.start, unknown.end, "value", unknown.allowed)
        kept.add(path=path, text=text)
        self.result.unknown.append(unknown)

    def _any_value(self) -> str:
        """The value of a field that no message has, as one line."""
        colon = ":" if self._take(":") else ""
        if self.token.kind == "mark" and self.token.text in ("{", "<"):
            return f"{colon} {self._any_message()}"
        if not colon:
            raise self._fail("`:` and a value, or `{`")
        if not self._take("["):
            return f": {self._any_scalar()}"
        items = []
        while not self._take("]"):
            brace = self.token.kind == "mark" and self.token.text in ("{", "<")
            items.append(self._any_message() if brace else self._any_scalar())
            if not self._take(",") and not (self.token.kind == "mark" and self.token.text == "]"):
                raise self._fail("`,` or `]`")
        return f": [{', '.join(items)}]"

    def _any_message(self) -> str:
        close = "}" if self.token.text == "{" else ">"
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TextError(f"nested deeper than {MAX_DEPTH}", self.token.start, self.token.end, "depth")
        self._next()
        parts = []
        while not (self.token.kind == "mark" and self.token.text == close):
            if self.token.kind != "name":
                raise self._fail(f"a field or `{close}`")
            name = self.token.text
            self._next()
            parts.append(name + self._any_value())
            if not self._take(","):
                self._take(";")
        self._next()
        self.depth -= 1
        return f"{{ {' '.join(parts)} }}" if parts else "{ }"

    def _any_scalar(self) -> str:
        if self.token.kind == "string":
            parts = []
            while self.token.kind == "string":
                parts.append(self.token.text)
                self._next()
            return " ".join(parts)
        sign = "-" if self._take("-") else ""
        if self.token.kind not in ("name", "number"):
            raise self._fail("a value")
        written = sign + self.token.text
        self._next()
        return written

    def _here(self) -> tuple[int, int]:
        return self.token.start, self.token.end

    def _said(self) -> str:
        return "the end of the file" if self.token.kind == "end" else f"`{self.token.text}`"


def _is_integer(written: str) -> bool:
    return _INTEGER.fullmatch(written) is not None and not (
        written[0] == "0" and written.isdigit() and any(digit in written for digit in "89")
    )


def _integer(written: str) -> int:
    """A whole number: decimal, hexadecimal after 0x, octal after 0."""
    if written[:2] in ("0x", "0X"):
        return int(written, 16)
    return int(written, 8 if written[0] == "0" else 10) if len(written) <= 4000 else 10**4000


def _unescape(written: str) -> bytes:
    if "\\" not in written:
        return written.encode()
    out = bytearray()
    end = 0
    for match in _ESCAPE.finditer(written):
        out += written[end : match.start()].encode()
        code = match[1]
        if code[0] in "01234567":
            out.append(int(code, 8) & 255)
        elif code[0] in "xX" and len(code) > 1:
            out.append(int(code[1:], 16))
        elif code[0] in "uU" and len(code) > 1 and (point := int(code[1:], 16)) < 0x110000:
            out += chr(point).encode(errors="replace")
        else:
            out += bytes([_ESCAPES[code]]) if code in _ESCAPES else match[0].encode()
        end = match.end()
    return bytes(out + written[end:].encode())


def write(message: Message) -> str:
    """A message in text format, as Caffe reads it; floats have the fewest digits that give the same float32.

    What `read` kept in `unknown_field` stands where it stood, behind the known fields of its message.
    """
    return "".join(_lines(message, "", []))


_STEP = re.compile(r"(\w+)(?:\[(\d+)\])?(?:\.|\Z)")


def _lines(message: Message, indent: str, extra: list[tuple[str, str]]) -> Iterator[str]:
    extra = extra + [(kept.path, kept.text) for kept in getattr(message, "unknown_field", ())]
    if not extra and "unknown_field" not in message.DESCRIPTOR.fields_by_name:
        text = text_format.MessageToString(message, indent=len(indent))
        if text:
            yield text
        return
    written = set()
    for known, value in message.ListFields():
        if known.name == "unknown_field":
            continue
        for index, item in enumerate(value if known.is_repeated else [value]):
            if known.type != FieldDescriptor.TYPE_MESSAGE:
                yield _scalar_line(known, item, indent)
                continue
            step = f"{known.name}[{index}]" if known.is_repeated else known.name
            written.add(step)
            inside = [
                (path[len(step) + 1 :], text) for path, text in extra if path == step or path.startswith(step + ".")
            ]
            yield f"{indent}{known.name} {{\n"
            yield from _lines(item, indent + "  ", inside)
            yield f"{indent}}}\n"
    for path, text in extra:
        if path.partition(".")[0] in written:
            continue
        names = [match[1] for match in _STEP.finditer(path)]
        yield f"{indent}{''.join(f'{name} {{ ' for name in names)}{text}{' }' * len(names)}\n"


def _scalar_line(known: FieldDescriptor, value: Any, indent: str) -> str:
    out = io.StringIO()
    text_format.PrintField(known, value, out, indent=len(indent))
    return out.getvalue()
