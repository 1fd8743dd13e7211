"""The engine: Caffe's nets and solvers in C++ on oneDNN, with pycaffe's names.

`Net` and `Solver` behave as BVLC Caffe 1.0's; `layer_types()` tells which layers there are, `check_net` what is wrong
with a net and which shapes it has. Whatever goes wrong natively arrives as an EngineError.
"""

if __name__ == "caffe_ext":
    raise ImportError("this folder is the package sparknet_dsl.caffe_ext: import it by that name")

import importlib
from typing import TYPE_CHECKING, Any

from . import _library as _library  # first: it loads what the native module needs
from ._native import (
    Blob,
    Transformer,
    isa,
    memory_limit,
    memory_used,
    num_threads,
    set_memory_limit,
    set_num_threads,
)
from .registry import LayerType, layer_type_list, layer_types
from .report import TEST, TRAIN, LayerProblem, LayerReport, NetReport, check_net

if TYPE_CHECKING:
    from .mean import read_mean
    from .net import Layer, Net
    from .solver import SGDSolver, Solver, get_solver
    from .state import SavedState, read_state, write_state
    from .weights import read_weights, write_weights

__all__ = [
    "TEST",
    "TRAIN",
    "Blob",
    "Layer",
    "LayerProblem",
    "LayerReport",
    "LayerType",
    "Net",
    "NetReport",
    "SGDSolver",
    "SavedState",
    "Solver",
    "Transformer",
    "check_net",
    "get_solver",
    "isa",
    "layer_type_list",
    "layer_types",
    "memory_limit",
    "memory_used",
    "num_threads",
    "read_mean",
    "read_state",
    "read_weights",
    "set_memory_limit",
    "set_num_threads",
    "write_state",
    "write_weights",
]

# What needs numpy, by the module that it stands in: the compiler does without, and starts sooner.
_LATER = {
    "Layer": "net",
    "Net": "net",
    "SGDSolver": "solver",
    "SavedState": "state",
    "Solver": "solver",
    "get_solver": "solver",
    "read_mean": "mean",
    "read_state": "state",
    "read_weights": "weights",
    "write_state": "state",
    "write_weights": "weights",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_LATER[name]}", __package__), name)
    globals()[name] = value
    return value
