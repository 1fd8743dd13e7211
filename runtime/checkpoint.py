"""Snapshots: what a run needs to go on, in Caffe's own files and one of ours.

    NAME_iter_N.caffemodel    the averaged weights
    NAME_iter_N.solverstate   the solver's history (the mean of the workers', where each keeps its own)
    NAME_iter_N.history.npy   momentum LOCAL: each worker's history, a row each
    NAME_iter_N.json          round, iteration, seed and settings

Every file is written whole or not at all, the .json last: a snapshot without it is none.
"""

import dataclasses
import json
import pathlib
import time
from typing import Any

import numpy as np

from .. import caffe_ext
from ..errors import DataError, OutputError, WeightsError
from ..files import atomic_path, write_atomic
from ..proto import caffe_pb2
from .average import Array, mean
from .config import RunConfig

VERSION = 1


@dataclasses.dataclass(frozen=True)
class State:
    """Where a run stands between two rounds.

    histories: () when every worker starts from zero, one for all, or one for each partition.
    """

    round: int
    iteration: int
    weights: Array
    histories: tuple[Array, ...]


def check_folder(folder: pathlib.Path) -> None:
    """Makes `folder` where it is missing and tries to write into it; raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / "snapshot.test") as path:
            path.write_bytes(b"")
        (folder / "snapshot.test").unlink()
    except OSError as error:
        raise OutputError(f"cannot write snapshots to {folder}: {error.strerror or error}") from error
    except OutputError as error:
        raise OutputError(f"cannot write snapshots to {folder}: {error.__cause__ or error}") from error
