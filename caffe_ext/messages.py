"""Reads nets and solvers from files in Caffe's text format, upgraded to the current syntax."""

import os
import pathlib
from collections.abc import Callable
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from ..errors import EngineError
from ..proto import caffe_pb2
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
    where = "the message"
    if isinstance(source, kind):
        message.CopyFrom(source)
    elif isinstance(source, (str, os.PathLike)):
        where = str(source)
        try:
            text_format.Parse(pathlib.Path(source).read_text(encoding="utf-8"), message)
        except OSError as error:
            raise EngineError(f"cannot read {source}: {error.strerror or error}") from error
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise EngineError(f"{source}: {error}") from error
    else:
        raise EngineError(f"a path or a {kind.__name__} is needed, not a {type(source).__name__}")
    try:
        upgrade(message)
    except ValueError as error:
        raise EngineError(f"{where}: {error}") from error
    return message
