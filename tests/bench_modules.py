"""The modules of bench/, which is no package and not installed."""

import importlib
import pathlib
import sys
from types import ModuleType

BENCH = pathlib.Path(__file__).resolve().parent.parent / "bench"


def bench_module(name: str) -> ModuleType:
    if str(BENCH) not in sys.path:
        sys.path.append(str(BENCH))
    return importlib.import_module(name)
