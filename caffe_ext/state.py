"""Solver states (`.solverstate`): with the weights file that they name, all that a solver needs to go on."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from ..errors import WeightsError
from ..proto import weights_pb2
from .weights import Array, array_blob, blob_array, read_bytes, write_message


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
    """Reads a solver state in binary form; raises WeightsError, naming the file, when it is missing or damaged."""
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
    """Writes a solver state in binary form, whole or not at all; raises OutputError or WeightsError."""
    state = weights_pb2.State(iter=iter, learned_net=learned_net, current_step=current_step)
    state.history.extend(array_blob(values) for values in history)
    write_message(path, state)
