"""Solver states, binary or HDF5: with the weights file that they name, all that a solver needs to go on."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from ..errors import WeightsError
from ..files import atomic_path
from ..proto import weights_pb2
from .hdf5 import Array, floats, is_hdf5, reading, write_floats
from .weights import array_blob, blob_array, read_bytes, write_message


@dataclass(frozen=True)
class SavedState:
    """What a `.solverstate` holds.

    `history` has the solver's arrays in the order of the net's parameters (momentum for SGD), `learned_net` is the path
    of the weights file, relative to the working directory of who wrote it, `current_step` how many learning-rate steps
    were taken.
    """

    iter: int
    learned_net: str
    history: list[Array]
    current_step: int


def read_state(path: str | os.PathLike[str]) -> SavedState:
    """Reads a solver state in either form; raises WeightsError, naming the file, when it is missing or damaged."""
    if is_hdf5(path):
        return _read_hdf5(path)
    content = read_bytes(path, "solver state")
    try:
        state = weights_pb2.State.FromString(content)
    except DecodeError as error:
        raise WeightsError(f"{path} is not a .solverstate, or is cut short") from error
    if not state.HasField("iter"):
        raise WeightsError(f"{path} holds no iteration: it is not a .solverstate")
    history = [blob_array(blob, f"{path}: history {i}") for i, blob in enumerate(state.history)]
    return SavedState(state.iter, state.learned_net, history, state.current_step)


def write_state(
    path: str | os.PathLike[str], *, iter: int, learned_net: str, history: Sequence[Array], current_step: int
) -> None:
    """Writes a solver state, as HDF5 where `path` ends with `.h5`, else in binary form; whole or not at all.

    Raises OutputError or WeightsError.
    """
    if os.fspath(path).endswith(".h5"):
        _write_hdf5(path, SavedState(iter, learned_net, list(history), current_step))
        return
    state = weights_pb2.State(iter=iter, learned_net=learned_net, current_step=current_step)
    state.history.extend(array_blob(values) for values in history)
    write_message(path, state)


def _read_hdf5(path: str | os.PathLike[str]) -> SavedState:
    import h5py

    with reading(path, WeightsError) as file:
        numbers = {}
        for name in ("iter", "current_step"):
            dataset = file.get(name)
            if not isinstance(dataset, h5py.Dataset) or dataset.size != 1 or dataset.dtype.kind not in "iu":
                raise WeightsError(f"{path} has no number `{name}`: it is no solver state of Caffe's")
            numbers[name] = int(dataset[()].item())
        learned_net = file.get("learned_net")
        if learned_net is not None and not (
            isinstance(learned_net, h5py.Dataset) and h5py.check_string_dtype(learned_net.dtype)
        ):
            raise WeightsError(f"{path}: `learned_net` is no text")
        group = file.get("history")
        if not isinstance(group, h5py.Group) or not all(str(i) in group for i in range(len(group))):
            raise WeightsError(f"{path}: `history` must be a group of the datasets 0, 1, ...")
        return SavedState(
            numbers["iter"],
            os.fsdecode(learned_net[()]) if learned_net is not None else "",
            [floats(group[str(i)], f"{path}: history {i}", WeightsError) for i in range(len(group))],
            numbers["current_step"],
        )


def _write_hdf5(path: str | os.PathLike[str], state: SavedState) -> None:
    import h5py
    import numpy as np

    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for name, number in (("iter", state.iter), ("current_step", state.current_step)):
            file.create_dataset(name, data=np.array([number], np.int32))
        # Caffe counts on the zero byte behind the text.
        text = os.fsencode(state.learned_net) + b"\0"
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(len(text))
        kind.set_strpad(h5py.h5t.STR_NULLTERM)
        dataset = h5py.h5d.create(file.id, b"learned_net", kind, h5py.h5s.create(h5py.h5s.SCALAR))
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(text, f"S{len(text)}"), kind)
        group = file.create_group("history")
        for i, values in enumerate(state.history):
            write_floats(group, str(i), values)
