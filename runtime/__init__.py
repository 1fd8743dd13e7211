"""The averaging loop on Spark, its data sources and its reports; `Trainer` is its face in Python."""

from typing import TYPE_CHECKING, Any

if __name__ == "runtime":
    raise ImportError("this folder is the package sparknet_dsl.runtime: import it by that name")

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["Trainer"]


def __getattr__(name: str) -> Any:
    """Imports the Trainer, and with it Spark and the engine, when it is first asked for."""
    if name == "Trainer":
        from .trainer import Trainer

        return Trainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
