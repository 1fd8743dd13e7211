"""Writes a model in Caffe's text format."""

import os
import pathlib

from google.protobuf.message import Message

from .compile import Model
from .errors import OutputError, UsageError
from .files import exists, write_atomic
from .proto import text


def to_text(message: Message) -> str:
    """A message in text format; floats have the fewest digits that give the same float32.

    Unknown fields of an imported file stand where they stood.
    """
    return text.write(message)


def write_model(model: Model, folder: str | os.PathLike[str], stem: str) -> list[pathlib.Path]:
    """Writes STEM.prototxt, and STEM_solver, STEM_deploy and STEM_spark where the model has them.

    The solver's `net` is the written net, as seen from the working directory, which is how Caffe reads it; a model that
    keeps its data layers keeps the path that its author wrote. Raises OutputError, or UsageError for a folder in which
    the model itself would be overwritten.
    """
    target = pathlib.Path(folder)
    net_path = target / f"{stem}.prototxt"
    texts = {net_path: to_text(model.net)}
    if model.solver is not None:
        solver = type(model.solver)()
        solver.CopyFrom(model.solver)
        if not (model.keeps_data_layers and _names_net(solver)):
            for field in ("net", "net_param", "train_net", "train_net_param", "test_net", "test_net_param"):
                solver.ClearField(field)
            solver.net = str(net_path)
        texts[target / f"{stem}_solver.prototxt"] = to_text(solver)
    if model.deploy is not None:
        texts[target / f"{stem}_deploy.prototxt"] = to_text(model.deploy)
    if model.spark is not None:
        texts[target / f"{stem}_spark.prototxt"] = to_text(model.spark)
    for path in texts:
        if model.path is not None and exists(path) and path.samefile(model.path):
            raise UsageError(f"{path} would overwrite the model that it comes from: name another folder with -o")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {target}: {error.strerror or error}") from error
    for path, content in texts.items():
        write_atomic(path, content)
    return list(texts)


def _names_net(solver: Message) -> bool:
    return any(solver.HasField(field) for field in ("net", "net_param", "train_net", "train_net_param"))
