"""Snapshots: what a run needs to go on, in Caffe's own files and one of ours.

    NAME_iter_N.caffemodel    the averaged weights
    NAME_iter_N.solverstate   the solver's history (the mean of the workers', where each keeps its own)
    NAME_iter_N.history.npy   momentum LOCAL: each worker's history, a row each
    NAME_iter_N.json          round, iteration, seed and settings

Every file is written whole or not at all, the .json last: a snapshot without it is none. It has the others' SHA-256.
"""

import dataclasses
import glob
import hashlib
import json
import pathlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import caffe_ext
from ..errors import DataError, OutputError, WeightsError
from ..files import atomic_path, write_atomic
from .average import Array, mean
from .config import RunConfig

VERSION = 2


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


def save(
    folder: pathlib.Path, name: str, solver: caffe_ext.Solver, state: State, config: RunConfig
) -> tuple[pathlib.Path, ...]:
    """Writes a snapshot of `state` through `solver`, whose weights and history it sets; returns the files.

    Raises OutputError; an earlier snapshot stays what it was.
    """
    put(solver, state)
    settings = {
        "round": state.round,
        "seed": config.seed,
        "workers": config.workers,
        "tau": config.tau,
        "momentum": config.momentum,
        "precision": config.precision,
    }
    return write(folder, name, solver, settings, state.histories if config.momentum == "LOCAL" else ())


def write(
    folder: pathlib.Path,
    name: str,
    solver: caffe_ext.Solver,
    settings: Mapping[str, Any],
    histories: Sequence[Array] = (),
) -> tuple[pathlib.Path, ...]:
    """Writes a snapshot of `solver` as it is, with `settings` (round, seed and workers at least); returns the files."""
    folder = folder.absolute()
    stem = f"{name}_iter_{solver.iter}"
    files = [pathlib.Path(path) for path in solver.snapshot(str(folder / name))]
    if histories:
        path = folder / f"{stem}.history.npy"
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, np.stack(histories))
        files.append(path)
    path = folder / f"{stem}.json"
    about: dict[str, Any] = {"version": VERSION, "time": time.time(), "iteration": solver.iter, **settings}
    about["files"] = {file.name: _digest(file) for file in files}
    write_atomic(path, json.dumps(about, indent=2) + "\n")
    return (*files, path)


def seed_of(state: pathlib.Path) -> int | None:
    """The seed of the run that wrote the solver state `state`; None where no .json beside it tells."""
    path = state.with_name(state.name.removesuffix(".h5").removesuffix(".solverstate") + ".json")
    return int(_settings(path)["seed"]) if path.is_file() else None


def start_from(paths: Iterable[pathlib.Path], net: caffe_ext.Net, name: str) -> tuple[str, ...]:
    """Copies the weights in the files `paths` into `net`, called `name`, by layer name; what a user should know of it.

    Raises WeightsError, also where a file has no layer of the net's.
    """
    notes = []
    for path in paths:
        known = caffe_ext.read_weights(path)
        taken = [layer for layer in net.params if layer in known]
        if not taken:
            raise WeightsError(
                f"{path} has weights for the layers {', '.join(known) or '(none)'}, none of which is in {name}: "
                "weights are taken by the layers' names"
            )
        net.copy_from(path)
        notes.append(f"starts from {path}: weights of {', '.join(taken)}")
    return tuple(notes)


def put(solver: caffe_ext.Solver, state: State) -> None:
    """Sets the solver to `state`: weights, iteration, and the mean of the histories (zero where there are none)."""
    solver.net.flat_data[:] = state.weights
    solver.flat_history[:] = mean(state.histories) if state.histories else 0
    solver.iter = state.iteration


def newest(folder: pathlib.Path, name: str) -> tuple[pathlib.Path, tuple[str, ...]]:
    """The .json of the snapshot of `name` that was written last and is whole, and what is wrong with later ones.

    Raises DataError when there is none.
    """
    wrong = []
    for path in sorted(folder.glob(f"{glob.escape(name)}_iter_*.json"), key=_written, reverse=True):
        try:
            _check(path)
        except DataError as error:
            wrong.append(str(error))
        else:
            return path, tuple(f"{each}: the snapshot before it is taken" for each in wrong)
    if wrong:
        raise DataError(f"no snapshot of {name} in {folder.absolute()} is whole: {'; '.join(wrong)}")
    raise DataError(
        f"there is no snapshot of {name} in {folder.absolute()} to resume from: name its folder with "
        "--snapshot-dir, or start anew without --resume"
    )


def load(path: pathlib.Path, solver: caffe_ext.Solver, config: RunConfig) -> tuple[State, RunConfig]:
    """The state that the snapshot `path` (its .json) holds, and `config` with the seed that the run began with.

    Raises DataError or WeightsError where the files do not fit the net.
    """
    settings = _settings(path)
    files = [path.parent / file for file in settings["files"]]
    solver.net.copy_from(files[0])
    histories: tuple[Array, ...] = ()
    if config.momentum == "LOCAL" and len(files) > 2 and settings["workers"] == config.workers:
        stacked = np.load(files[2])
        if stacked.shape != (config.workers, solver.flat_history.size):
            raise WeightsError(f"{files[2]} holds histories of shape {stacked.shape}, not of this net")
        histories = tuple(stacked)
    elif config.momentum != "RESET":
        history = np.concatenate([values.ravel() for values in caffe_ext.read_state(files[1]).history])
        if history.size != solver.flat_history.size:
            raise WeightsError(
                f"{files[1]} holds a history of {history.size:,} numbers, but this solver has one of "
                f"{solver.flat_history.size:,}"
            )
        histories = (history,) * (config.workers if config.momentum == "LOCAL" else 1)
    state = State(settings["round"], settings["iteration"], solver.net.flat_data.copy(), histories)
    return state, dataclasses.replace(config, seed=settings["seed"])


def _check(path: pathlib.Path) -> None:
    """Raises DataError unless the files of the snapshot `path` are what they were when it was written."""
    for name, digest in _settings(path)["files"].items():
        file = path.parent / name
        try:
            if _digest(file) != digest:
                raise DataError(f"{file} is damaged: it has changed since the snapshot was written")
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror or error}") from error


def _written(path: pathlib.Path) -> float:
    # A copy of the folder may have lost the files' own times.
    try:
        return float(_settings(path)["time"])
    except DataError:
        return path.stat().st_mtime


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _settings(path: pathlib.Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text())
        wanted = {"version", "time", "round", "iteration", "seed", "workers", "files"}
        if not isinstance(settings, dict) or not wanted <= settings.keys() or settings["version"] != VERSION:
            raise ValueError("not what sparknet-run writes")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no snapshot: {error}") from error
    return settings
