"""The engine: Caffe's nets and solvers in C++ on oneDNN, with pycaffe's names (docs/caffe.md).

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
from .report import TEST, TRAIN, LayerProblem, LayerReport, Memory, NetReport, Precision, check_net

if TYPE_CHECKING:
    from . import draw, io, net_spec, proto
    from .classifier import Classifier
    from .common import (
        CAFFE_VERSION,
        has_nccl,
        init_log,
        log,
        set_device,
        set_mode_cpu,
        set_mode_gpu,
        set_random_seed,
    )
    from .detector import Detector
    from .mean import read_mean
    from .net import Net
    from .net_spec import NetSpec, layers, params, to_proto
    from .python_layer import Layer
    from .solver import (
        AdaDeltaSolver,
        AdaGradSolver,
        AdamSolver,
        NesterovSolver,
        RMSPropSolver,
        SGDSolver,
        Solver,
        get_solver,
    )
    from .state import SavedState, read_state, write_state
    from .weights import read_weights, write_weights

__all__ = [
    "CAFFE_VERSION",
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "Classifier",
    "Detector",
    "Layer",
    "LayerProblem",
    "LayerReport",
    "LayerType",
    "Memory",
    "NesterovSolver",
    "Net",
    "NetReport",
    "NetSpec",
    "Precision",
    "RMSPropSolver",
    "SGDSolver",
    "SavedState",
    "Solver",
    "Transformer",
    "check_net",
    "draw",
    "get_solver",
    "has_nccl",
    "init_log",
    "io",
    "isa",
    "layer_type_list",
    "layer_types",
    "layers",
    "log",
    "memory_limit",
    "memory_used",
    "net_spec",
    "num_threads",
    "params",
    "proto",
    "read_mean",
    "read_state",
    "read_weights",
    "set_device",
    "set_memory_limit",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_num_threads",
    "set_random_seed",
    "to_proto",
    "write_state",
    "write_weights",
]

# What needs numpy, by the module that it stands in: the compiler does without, and starts sooner.
_LATER = {
    "AdaDeltaSolver": "solver",
    "AdaGradSolver": "solver",
    "AdamSolver": "solver",
    "CAFFE_VERSION": "common",
    "Classifier": "classifier",
    "Detector": "detector",
    "Layer": "python_layer",
    "NesterovSolver": "solver",
    "Net": "net",
    "NetSpec": "net_spec",
    "RMSPropSolver": "solver",
    "SGDSolver": "solver",
    "SavedState": "state",
    "Solver": "solver",
    "get_solver": "solver",
    "has_nccl": "common",
    "init_log": "common",
    "layers": "net_spec",
    "log": "common",
    "params": "net_spec",
    "read_mean": "mean",
    "read_state": "state",
    "read_weights": "weights",
    "set_device": "common",
    "set_mode_cpu": "common",
    "set_mode_gpu": "common",
    "set_random_seed": "common",
    "to_proto": "net_spec",
    "write_state": "state",
    "write_weights": "weights",
}


_MODULES = {"draw", "io", "net_spec", "proto"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __package__)
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_LATER[name]}", __package__), name)
    globals()[name] = value
    return value
