"""The engine: Caffe's nets and solvers in C++ on oneDNN, with pycaffe's names.

`Net` and `Solver` behave as BVLC Caffe 1.0's; `layer_types()` tells which layers there are, `check_net` what is wrong
with a net and which shapes it has. Whatever goes wrong natively arrives as an EngineError.
"""

if __name__ == "caffe_ext":
    raise ImportError("this folder is the package sparknet_dsl.caffe_ext: import it by that name")

from . import _library as _library  # first: it loads what the native module needs
from ._native import Blob, Transformer, isa, num_threads, set_num_threads
from .mean import read_mean
from .net import TEST, TRAIN, Layer, Net
from .registry import LayerType, layer_type_list, layer_types
from .report import LayerProblem, LayerReport, NetReport, check_net
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
    "num_threads",
    "read_mean",
    "read_state",
    "read_weights",
    "set_num_threads",
    "write_state",
    "write_weights",
]
