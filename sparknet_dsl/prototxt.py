"""Reads Caffe's own files, text or binary: nets and solvers, with errors that name file and line."""

import pathlib
import re
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import DecodeError, Message

from .diagnostics import Diagnostics, Source, Span, closest, did_you_mean
from .proto import caffe_pb2
from .proto.upgrade import upgrade_net

M = TypeVar("M", bound=Message)
MAX_BYTES = 1 << 30
# What tells a net from a solver: names of fields outside of all braces. Strings and comments are skipped.
_SCAN = re.compile(
    r"""(?P<open>[{<])|(?P<close>[}>])|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\#[^\n]*|(?P<name>[a-z_0-9]+)\s*(?=[:{<])"""
)


def read(path: pathlib.Path, diagnostics: Diagnostics, named: Span | None = None) -> tuple[Message, Source]:
    """The net or the solver in a file, whichever it is, upgraded to today's syntax; raises Failed.

    `named` is where another file names this one.
    """
    data = read_bytes(path, diagnostics, named)
    text = decode(data)
    if text is not None:
        source = Source(str(path), text)
        message = parse_text(source, _kind(text), diagnostics)
    else:
        source = Source(str(path), "")
        message = _parse_binary(path, data, diagnostics)
    if isinstance(message, caffe_pb2.NetParameter):
        upgrade(message, path, diagnostics)
    return message, source


def read_as(path: pathlib.Path, kind: type[M], diagnostics: Diagnostics, named: Span | None = None) -> M:
    """The message of that kind in a file; raises Failed, also when the file holds the other kind."""
    message, _ = read(path, diagnostics, named)
    if not isinstance(message, kind):
        wanted = "net" if kind is caffe_pb2.NetParameter else "solver"
        raise diagnostics.fail("S005", f"{path} holds no {wanted}", named)
    return message


def read_bytes(path: pathlib.Path, diagnostics: Diagnostics, named: Span | None = None) -> bytes:
    """A file's content; raises Failed with one clear message."""
    try:
        if path.is_dir():
            raise diagnostics.fail("S005", f"{path} is a folder, not a model file", named)
        if path.stat().st_size > MAX_BYTES:
            raise diagnostics.fail("S004", f"{path} is larger than {MAX_BYTES >> 20} MiB", named)
        return path.read_bytes()
    except OSError as error:
        raise diagnostics.fail("S005", f"cannot read {path}: {error.strerror or error}", named) from None
    except ValueError:
        raise diagnostics.fail("S005", f"cannot read {str(path)!r}: no file has such a name", named) from None


def decode(data: bytes) -> str | None:
    """The bytes as text; None for a binary file."""
    if b"\0" in data[:4096]:
        return None
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return None


def _kind(text: str) -> type[Message]:
    """SolverParameter where a solver's own field stands first, else NetParameter."""
    depth = 0
    net, solver = caffe_pb2.NetParameter.DESCRIPTOR, caffe_pb2.SolverParameter.DESCRIPTOR
    for match in _SCAN.finditer(text):
        depth += (match.lastgroup == "open") - (match.lastgroup == "close")
        name = match["name"] if depth == 0 else None
        if name and (name in net.fields_by_name) != (name in solver.fields_by_name):
            return caffe_pb2.NetParameter if name in net.fields_by_name else caffe_pb2.SolverParameter
    return caffe_pb2.NetParameter


def parse_text(source: Source, kind: type[M], diagnostics: Diagnostics) -> M:
    """A message in text format; raises Failed with the place of the error."""
    message = kind()
    try:
        text_format.Parse(source.text, message)
    except text_format.ParseError as error:
        line, column = error.GetLine() or 1, error.GetColumn() or 1
        said = re.sub(r"^\d+:\d+ ?: ?", "", str(error)).strip().rstrip(".")
        lines = source.text.split("\n")
        start = sum(len(text) + 1 for text in lines[: line - 1]) + column - 1
        start = min(start, len(source.text))
        word = re.compile(r"[\w.]+|").match(source.text, start)
        span = Span(source, start, word.end() if word and word.end() > start else start + 1)
        unknown = re.search(r'Message type "caffe\.(\w+)" has no field named "(\w+)"', said)
        label = ""
        if unknown:
            owner, name = unknown.groups()
            said = f"{owner} has no field `{name}`"
            span = Span(source, source.text.rfind(name, 0, start + len(name)), start + len(name))
            span = span if span.start >= 0 else Span(source, start, start + len(name))
            span = Span(source, span.start, span.start + len(name))
            label = did_you_mean(closest(name, getattr(caffe_pb2, owner).DESCRIPTOR.fields_by_name))
        raise diagnostics.fail("S104" if unknown else "S001", said or "not Caffe's text format", span, label) from None
    except RecursionError:
        raise diagnostics.fail("S003", f"{source.name} is nested too deeply") from None
    return message


def _parse_binary(path: pathlib.Path, data: bytes, diagnostics: Diagnostics) -> Message:
    net = caffe_pb2.NetParameter()
    try:
        net.ParseFromString(data)
        if net.layer or net.layers or net.input:
            return net
        solver = caffe_pb2.SolverParameter()
        solver.ParseFromString(data)
        if solver.HasField("base_lr") or solver.HasField("net"):
            return solver
    except DecodeError:
        pass
    raise diagnostics.fail("S005", f"{path} is neither text nor a net or a solver in binary form")


def upgrade(net: caffe_pb2.NetParameter, path: pathlib.Path, diagnostics: Diagnostics) -> None:
    """Brings older syntax up to date, in place; raises Failed."""
    if net.layers:
        raise diagnostics.fail(
            "S005",
            f"{path} is in the syntax of 2014 (`layers {{ type: CONVOLUTION }}`)",
            help="Caffe's upgrade_net_proto_text turns it into today's",
        )
    try:
        upgrade_net(net)
    except ValueError as error:
        raise diagnostics.fail("S005", f"{path}: {error}") from None


def resolve_net_path(solver_path: pathlib.Path, named: str) -> pathlib.Path | None:
    """The net that a solver names: as Caffe takes it (from the working directory), else beside the solver."""
    wanted = pathlib.Path(named)
    for candidate in (wanted, solver_path.parent / wanted, solver_path.parent / wanted.name):
        if candidate.is_file():
            return candidate
    return None


def merge_phases(train: caffe_pb2.NetParameter, test: caffe_pb2.NetParameter) -> caffe_pb2.NetParameter:
    """One net with include rules for the two of a solver that names `train_net` and `test_net`."""
    from .layers import active

    merged = caffe_pb2.NetParameter()
    merged.CopyFrom(train)
    del merged.layer[:]
    for net, phase in ((train, caffe_pb2.TRAIN), (test, caffe_pb2.TEST)):
        for layer in net.layer:
            if active(layer, caffe_pb2.Phase.Name(phase)):
                copy = merged.layer.add()
                copy.CopyFrom(layer)
                copy.ClearField("include")
                copy.ClearField("exclude")
                copy.include.add(phase=phase)
    return merged
