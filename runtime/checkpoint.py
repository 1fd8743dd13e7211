"""Snapshots: what a run needs to go on, in Caffe's own files and one of ours.

    NAME_iter_N.caffemodel    the averaged weights
    NAME_iter_N.solverstate   the solver's history (the mean of the workers', where each keeps its own)
    NAME_iter_N.averaging.npz where there are any: what else the workers have in common by the rule of averaging
                              ("velocity"), and what each of them has of its own ("0.history", ...)
    NAME_iter_N.json          round, iteration, seed and settings

Every file is written whole or not at all, the .json last: a snapshot without it is none. It has the others' SHA-256.
"""

import dataclasses
import glob
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from .. import caffe_ext
from ..errors import DataError, OutputError, WeightsError
from ..files import atomic_path, write_atomic
from .average import Array, mean
from .config import RunConfig
from .tau import Tau

VERSION = 2
ARRAYS = ".averaging.npz"


@dataclasses.dataclass(frozen=True)
class State:
    """Where a run stands between two rounds: the arrays of rule.py by name.

    common   those that the workers have in common, "weights" at least; what is not there counts as zeros
    own      those that each worker has of its own, () where none has any yet
    """

    round: int
    iteration: int
    common: Mapping[str, Array]
    own: tuple[Mapping[str, Array], ...] = ()

    @property
    def weights(self) -> Array:
        """The averaged weights."""
        return self.common["weights"]

    @property
    def history(self) -> Array | None:
        """The solver's history, the mean where each worker has its own; None: zeros."""
        if self.own and "history" in self.own[0]:
            return mean([arrays["history"] for arrays in self.own])
        return self.common.get("history")


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
        "tau": str(config.tau),
        **dataclasses.asdict(config.averaging),
        "precision": config.precision,
    }
    arrays = {key: array for key, array in state.common.items() if key not in ("weights", "history")}
    arrays |= {f"{worker}.{key}": array for worker, own in enumerate(state.own) for key, array in own.items()}
    return write(folder, name, solver, settings, arrays)


def write(
    folder: pathlib.Path,
    name: str,
    solver: caffe_ext.Solver,
    settings: Mapping[str, Any],
    arrays: Mapping[str, Array] = {},
) -> tuple[pathlib.Path, ...]:
    """Writes a snapshot of `solver` as it is, with `settings` (round, seed and workers at least) and further `arrays`.

    Returns the files.
    """
    folder = folder.absolute()
    stem = f"{name}_iter_{solver.iter}"
    files = [pathlib.Path(path) for path in solver.snapshot(str(folder / name))]
    if arrays:
        path = folder / f"{stem}{ARRAYS}"
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
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
    """Sets the solver to `state`: weights, iteration and history."""
    history = state.history
    solver.net.flat_data[:] = state.weights
    solver.flat_history[:] = 0 if history is None else history
    solver.iter = state.iteration


def newest(
    folder: pathlib.Path, name: str, fetch: Callable[[pathlib.Path], None] | None = None
) -> tuple[pathlib.Path, tuple[str, ...]]:
    """The .json of the snapshot of `name` that was written last and is whole, and what is wrong with later ones.

    `fetch` brings a snapshot's other files before they are read. Raises DataError when there is none.
    """
    wrong = []
    for path in sorted(folder.glob(f"{glob.escape(name)}_iter_*.json"), key=_written, reverse=True):
        try:
            _check(path, fetch)
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

    With `--tau auto` it goes on with the tau chosen last. What the snapshot of a run with other settings, or with
    another number of workers, lacks begins anew: workers from the common weights and history, the rest from zeros.
    Raises DataError or WeightsError where the files do not fit the net.
    """
    settings = _settings(path)
    files = [path.parent / file for file in settings["files"]]
    solver.net.copy_from(files[0])
    weights = solver.net.flat_data.copy()
    history = np.concatenate([values.ravel() for values in caffe_ext.read_state(files[1]).history])
    _check_size(files[1], "history", history, solver.flat_history.size)
    arrays: dict[str, Array] = {}
    for file in files:
        if file.name.endswith(ARRAYS):
            arrays = _arrays(file, weights.size, history.size)
    common = {"weights": weights}
    if config.averaging.momentum == "AVERAGE":
        common["history"] = history
    if config.averaging.outer_momentum and "velocity" in arrays:
        common["velocity"] = arrays["velocity"]
    own: tuple[dict[str, Array], ...] = ()
    if config.averaging.own:
        anew = {"weights": weights, "history": history}
        anew |= {"residual": np.zeros_like(weights), "history_residual": np.zeros_like(history)}
        known = arrays if settings["workers"] == config.workers else {}
        own = tuple(
            {name: known.get(f"{worker}.{name}", anew[name]) for name in config.averaging.own}
            for worker in range(config.workers)
        )
    config = dataclasses.replace(config, seed=settings["seed"])
    if config.averaging_share is not None and "tau" in settings:
        config = dataclasses.replace(config, tau=Tau.parse(str(settings["tau"])))
    return State(settings["round"], settings["iteration"], common, own), config


def _arrays(path: pathlib.Path, weights: int, history: int) -> dict[str, Array]:
    """The arrays in the file `path`, each of so many numbers; raises WeightsError."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: np.asarray(file[name], np.float32) for name in file.files}
    for name, array in arrays.items():
        _check_size(path, name, array, history if "history" in name else weights)
    return arrays


def _check_size(path: pathlib.Path, name: str, array: Array, size: int) -> None:
    if array.shape != (size,):
        raise WeightsError(f"{path} holds a {name} of {array.size:,} numbers, but this solver has one of {size:,}")


def _check(path: pathlib.Path, fetch: Callable[[pathlib.Path], None] | None) -> None:
    """Raises DataError unless the files of the snapshot `path` are what they were when it was written."""
    for name, digest in _settings(path)["files"].items():
        file = path.parent / pathlib.PurePath(name).name
        if fetch is not None:
            fetch(file)
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
