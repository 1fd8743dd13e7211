"""SparkNet: the `.snet` language for Caffe networks, its compiler, a native engine and training on Spark."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Model", "compile_file", "compile_text", "load"]

if TYPE_CHECKING:
    from .compile import Model, compile_file, compile_text, load


def __getattr__(name: str) -> Any:
    """Imports the compiler when it is first asked for: the package itself stays light."""
    if name in __all__:
        from . import compile as compiler

        return getattr(compiler, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
