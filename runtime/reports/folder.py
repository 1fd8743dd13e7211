"""Making a run's folder: where it is, and what is in it before training begins."""

import dataclasses
import datetime
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict

from ... import Model
from ...caffe_ext import Precision
from ...errors import OutputError
from ...files import write_atomic
from ...outputs import render
from ...proto import caffe_pb2
from ...view import page
from ..config import RunConfig
from ..data import BadPolicy
from ..feeds import Fed
from .environment import environment
from .record import ENVIRONMENT, EVENTS, GRAPH, MODEL, SETTINGS

# The folder of all runs, in place of ./runs; empty: a run leaves no folder unless one is named.
RUNS = "SPARKNET_RUNS"
# As Spark itself hides them (spark.redaction.regex).
SECRET = re.compile(r"secret|password|token|access[.]?key", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a run trains.

    settings      in force, by name
    test          what feeds its tests, if anything does
    folders       where mean files are looked for
    spark         whether Spark takes part
    """

    name: str
    model: Model
    solver: caffe_pb2.SolverParameter
    settings: Mapping[str, Any]
    test: Fed | None
    folders: tuple[pathlib.Path, ...]
    precision: Precision
    bad_records: BadPolicy
    spark: bool


def default_folder(name: str, now: datetime.datetime | None = None) -> pathlib.Path | None:
    """runs/NAME-DATE-TIME, one that is not there yet; None where SPARKNET_RUNS is set, and empty."""
    root = os.environ.get(RUNS, "runs")
    if not root:
        return None
    stamp = (now or datetime.datetime.now()).strftime("%Y%m%d-%H%M%S")
    stem = f"{_file_name(name)}-{stamp}"
    names = (stem, *(f"{stem}-{count}" for count in range(2, 1000)))
    return next(path for each in names if not (path := pathlib.Path(root) / each).exists())


def make_folder(path: pathlib.Path, subject: Subject) -> None:
    """Makes the folder `path` with the model, settings and environment in it.

    Raises OutputError, also where there is a run in it already.
    """
    try:
        if (path / EVENTS).exists():
            raise OutputError(f"{path} has the report of another run: name another folder (--report DIR)")
        (path / MODEL).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror or error}") from error
    stem = _file_name(subject.name)
    subject.model.save(path / MODEL, stem)
    source = subject.model.path
    if source is not None and source.suffix == ".snet" and source.is_file():
        write_atomic(path / MODEL / f"{stem}.snet", source.read_bytes())
    else:
        write_atomic(path / MODEL / f"{stem}.snet", render(subject.model, "snet"))
    write_atomic(path / MODEL / GRAPH, page(subject.model, embedded=True))
    settings = {"run": dict(subject.settings), "solver": _solver(subject.solver)}
    write_atomic(path / SETTINGS, json.dumps(plain(settings), indent=2) + "\n")
    write_atomic(path / ENVIRONMENT, json.dumps(environment(subject.spark), indent=2) + "\n")


def config_settings(config: RunConfig) -> dict[str, Any]:
    """The settings of a run on Spark by name; what is secret among Spark's own is left out."""
    found = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    found |= dataclasses.asdict(found.pop("averaging"))
    for key, value in found.pop("conf").items():
        found[key] = "(not shown)" if SECRET.search(key) else value
    return found


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: what is no number, text or collection by its own text."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", name) or "net"


def _solver(solver: caffe_pb2.SolverParameter) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(solver, preserving_proto_field_name=True)
    return {name: value for name, value in found.items() if not name.endswith(("net", "net_param"))}
