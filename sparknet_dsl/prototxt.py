"""Reads Caffe's own files, text or binary: nets and solvers, with errors that name file and line."""

import os
import pathlib
import re
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from .diagnostics import Diagnostics, Source, Span, closest, did_you_mean
from .files import is_file
from .proto import caffe_pb2, text
from .proto.upgrade import upgrade_net, upgrade_solver

M = TypeVar("M", bound=Message)
MAX_BYTES = 1 << 30
# What tells a net from a solver: names of fields outside of all braces. Strings and comments are skipped.
_SCAN = re.compile(
    r"""(?P<open>[{<])|(?P<close>[}>])|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\#[^\n]*|(?P<name>[a-z_0-9]+)\s*(?=[:{<])"""
)


@dataclass
class CaffeFile(Generic[M]):
    """What a file of Caffe's holds: the message, and for text where its outermost layers stand."""

    message: M
    source: Source
    layers: list[text.LayerPlace] = field(default_factory=list)


def read(path: pathlib.Path, diagnostics: Diagnostics, named: Span | None = None) -> CaffeFile[Message]:
    """The net or the solver in a file, whichever it is, upgraded to today's syntax; raises Failed.

    Fields that no message has are kept (`unknown_field`) and reported as warnings. `named` is where another file names
    this one.
    """
    data = read_bytes(path, diagnostics, named)
    written = decode(data)
    if written is not None:
        return read_text(Source(str(path), written), path, diagnostics)
    file = CaffeFile(_parse_binary(path, data, diagnostics), Source(str(path), ""))
    upgrade(file.message, path, diagnostics)
    return file


def read_text(source: Source, path: pathlib.Path, diagnostics: Diagnostics) -> CaffeFile[Message]:
    """As read, of a text that is at hand; `path` is what messages about old syntax call it."""
    file = parse_text(source, kind_of(source.text), diagnostics)
    upgrade(file.message, path, diagnostics)
    return file


def read_as(path: pathlib.Path, kind: type[M], diagnostics: Diagnostics, named: Span | None = None) -> M:
    """The message of that kind in a file; raises Failed, also when the file holds the other kind."""
    message = read(path, diagnostics, named).message
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


def kind_of(written: str) -> type[Message]:
    """SolverParameter where a solver's own field stands first, else NetParameter."""
    depth = 0
    net, solver = caffe_pb2.NetParameter.DESCRIPTOR, caffe_pb2.SolverParameter.DESCRIPTOR
    for match in _SCAN.finditer(written):
        depth += (match.lastgroup == "open") - (match.lastgroup == "close")
        name = match["name"] if depth == 0 else None
        if name and (name in net.fields_by_name) != (name in solver.fields_by_name):
            return caffe_pb2.NetParameter if name in net.fields_by_name else caffe_pb2.SolverParameter
    return caffe_pb2.NetParameter


# The code of each kind of error in text format.
_CODES = {"syntax": "S001", "string": "S002", "depth": "S003", "size": "S004", "value": "S105", "twice": "S109"}


def parse_text(source: Source, kind: type[M], diagnostics: Diagnostics) -> CaffeFile[M]:
    """A message in text format; raises Failed with the place of the error. What is not known is a warning."""
    message = kind()
    try:
        reading = text.read(source.text, message)
    except text.TextError as error:
        end = min(error.end, len(source.text))
        raise diagnostics.fail(_CODES[error.kind], str(error), Span(source, min(error.start, end), end)) from None
    for unknown in reading.unknown:
        span = Span(source, unknown.start, unknown.end)
        if unknown.value:
            said = f"`{unknown.name}` is one of {', '.join(unknown.allowed)}, not {unknown.value}"
            label = did_you_mean(closest(unknown.value, unknown.allowed))
        else:
            said = f"{unknown.owner} has no field `{unknown.name}`"
            # What most names end with says nothing about which of them is meant.
            ending = "_param" if unknown.name.endswith("_param") else ""
            stems = [name.removesuffix(ending) for name in unknown.allowed if name.endswith(ending)]
            near = closest(unknown.name.removesuffix(ending), stems)
            label = did_you_mean([stem + ending for stem in near])
        code = "S106" if unknown.value else "S104"
        diagnostics.warn(
            code, said, span, label or "passed on as it is", notes=["Caffe refuses it, and so does training"]
        )
    return CaffeFile(message, source, reading.layers)


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


def upgrade(message: Message, path: pathlib.Path, diagnostics: Diagnostics) -> None:
    """Brings older syntax up to date, in place; raises Failed."""
    try:
        if isinstance(message, caffe_pb2.NetParameter):
            upgrade_net(message)
        elif isinstance(message, caffe_pb2.SolverParameter):
            upgrade_solver(message)
    except ValueError as error:
        raise diagnostics.fail("S005", f"{path}: {error}") from None


def resolve_net_path(solver_path: pathlib.Path, named: str) -> pathlib.Path | None:
    """The net that a solver names: as Caffe takes it, from the working directory, else beside the solver.

    None where there is no such file below either folder: who compiles a solver that someone else wrote should not
    thereby read any file of the machine.
    """
    folder = solver_path.parent
    roots = [pathlib.Path(os.path.abspath(root)) for root in (pathlib.Path(), folder)]  # noqa: PTH100 - keeps links
    for candidate in (pathlib.Path(named), folder / named, folder / pathlib.Path(named).name):
        whole = pathlib.Path(os.path.abspath(candidate))  # noqa: PTH100
        if any(whole.is_relative_to(root) for root in roots) and is_file(candidate):
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
