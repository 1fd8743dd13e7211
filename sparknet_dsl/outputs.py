"""What `--emit` writes: one output of a model, for standard output or a file."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from google.protobuf import json_format

from .emit import to_text
from .errors import OutputError, UsageError
from .files import exists, is_dir, write_atomic

if TYPE_CHECKING:
    from .compile import Model
    from .proto.caffe_pb2 import NetParameter

# What there is, and the end of the file's name in a folder.
KINDS = {
    "prototxt": ".prototxt",
    "binary": ".binaryproto",
    "json": ".json",
    "snet": ".snet",
    "html": ".html",
    "dot": ".dot",
    "mermaid": ".mmd",
    "summary": ".txt",
}


def render(model: Model, kind: str) -> bytes:
    """The model in one of KINDS, the same bytes for the same model.

    `prototxt` and `binary` are the net, or the solver of a model without one; `json` and `snet` hold net, solver and
    settings of Spark, `json` the deploy variant too. Raises UsageError for what the kind cannot hold.
    """
    if kind in ("prototxt", "binary"):
        message = _net(model) or model.solver
        assert message is not None
        if kind == "prototxt":
            return to_text(message).encode()
        return message.SerializePartialToString(deterministic=True)
    if kind == "json":
        return _json(model).encode()
    if kind == "snet":
        from .print_snet import to_snet

        return to_snet(_net(model), model.solver, model.spark).encode()
    if _net(model) is None:
        raise UsageError(f"{model.name} has no net: there is nothing to show as {kind}")
    if kind == "summary":
        from .table import summary

        return f"{summary(model)}\n".encode()
    if kind == "html":
        from .view import page

        return page(model).encode()
    from . import draw

    return (draw.dot(model) if kind == "dot" else draw.mermaid(model)).encode()


def _net(model: Model) -> NetParameter | None:
    """The net; a solver whose net is not there has an empty one."""
    return model.net if model.net.ByteSize() or model.solver is None else None


def _json(model: Model) -> str:
    """Messages by their fields' own names, in the order of proto3's JSON mapping."""
    import json

    parts = {"net": _net(model), "deploy": model.deploy, "solver": model.solver, "spark": model.spark}
    content = {
        name: json_format.MessageToDict(message, preserving_proto_field_name=True)
        for name, message in parts.items()
        if message is not None
    }
    return json.dumps({"name": model.name, **content}, indent=2, ensure_ascii=False) + "\n"


def write(model: Model, kind: str, content: bytes, output: str, stem: str) -> pathlib.Path:
    """Writes an output to the file `output`, or into it where it is a folder (or ends with a slash), and says where.

    Raises OutputError, or UsageError where the model itself would be overwritten.
    """
    path = pathlib.Path(output)
    if is_dir(path) or output.endswith(("/", "\\")):
        path = path / f"{stem}{KINDS[kind]}"
    if model.path is not None and exists(path) and path.samefile(model.path):
        raise UsageError(f"{path} would overwrite the model that it comes from: name another file with -o")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path.parent}: {error.strerror or error}") from error
    write_atomic(path, content)
    return path
