"""Reads nets and solvers from files in Caffe's text format, upgraded to the current syntax.

What the engine does not understand, a fork's field say, it does not pass over: the net would not be the author's.
"""

import os
import pathlib
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from ..errors import EngineError
from ..proto import caffe_pb2, text
from ..proto.upgrade import upgrade_net, upgrade_solver

M = TypeVar("M", bound=Message)


def net_message(source: str | os.PathLike[str] | caffe_pb2.NetParameter) -> caffe_pb2.NetParameter:
    """The net in `source`, a file or a message, which stays as it is; raises EngineError."""
    return _message(source, caffe_pb2.NetParameter, upgrade_net)


def solver_message(source: str | os.PathLike[str] | caffe_pb2.SolverParameter) -> caffe_pb2.SolverParameter:
    """The solver in `source`, a file or a message, which stays as it is; raises EngineError."""
    return _message(source, caffe_pb2.SolverParameter, upgrade_solver)


def _message(source: str | os.PathLike[str] | M, kind: type[M], upgrade: Callable[[M], None]) -> M:
    message = kind()
    where = "the net" if kind is caffe_pb2.NetParameter else "the solver"
    if isinstance(source, kind):
        message.CopyFrom(source)
    elif isinstance(source, (str, os.PathLike)):
        where = str(source)
        try:
            written = pathlib.Path(source).read_text(encoding="utf-8-sig")
            text.read(written, message)
        except OSError as error:
            raise EngineError(f"cannot read {source}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise EngineError(f"{source}: {error}") from error
        except text.TextError as error:
            line, column = text.position(written, error.start)
            raise EngineError(f"{source}:{line}:{column}: {error}") from error
    else:
        raise EngineError(f"a path or a {kind.__name__} is needed, not a {type(source).__name__}")
    try:
        upgrade(message)
    except ValueError as error:
        raise EngineError(f"{where}: {error}") from error
    _refuse_unknown(message, where)
    return message


# Extensions of Caffe's own messages that the engine knows; those of other messages are its layers' concern.
_KNOWN = {"ceil_mode", "warmup_iter", "warmup_start_lr", "min_lr"}
_EXTENSIONS = range(100000, 200000)  # caffe.proto


def _refuse_unknown(message: Message, where: str) -> None:
    """Raises EngineError for the first field that the engine would have to pass over."""
    for kept in getattr(message, "unknown_field", ()):
        raise _refusal(where, f"{kept.path}.{kept.text}" if kept.path else kept.text)
    for field, value in message.ListFields():
        if field.type != FieldDescriptor.TYPE_MESSAGE or field.name == "blobs":
            if field.number in _EXTENSIONS and field.name not in _KNOWN and value != field.default_value:
                raise _refusal(where, field.name)
            continue
        own = field.number not in _EXTENSIONS
        if not own and not isinstance(message, caffe_pb2.LayerParameter):
            raise _refusal(where, field.name)
        for item in value if field.is_repeated else [value]:
            if own:
                _refuse_unknown(item, f"{where}: layer `{item.name}` ({item.type})" if field.name == "layer" else where)


def _refusal(where: str, name: str) -> EngineError:
    return EngineError(
        f"{where}: the engine does not know `{name.splitlines()[0][:100]}`, so this cannot be run as it was meant; "
        "without the field it can"
    )
