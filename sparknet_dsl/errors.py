"""The errors that this project raises on purpose, each one clear message: what, where, what to do.

SparkNetError
UsageError          the command line is wrong                      exit status 2
ModelError          the model is wrong (sparknet_dsl.diagnostics)  exit status 1
DataError           a data source cannot be read                   exit status 1
OutputError         a file cannot be written                       exit status 1
EngineError         the engine refuses                             exit status 1
LayerError        ... a layer
WeightsError      ... a weights or state file
DivergedError     ... to go on, the loss being NaN or infinite
ClusterError        Spark or Java fails                            exit status 3
"""

from collections.abc import Sequence
from typing import Any


class SparkNetError(Exception):
    """Base of the tree: `str()` is what a user reads, `exit_code` the exit status of a command that it ends."""

    exit_code = 1


class UsageError(SparkNetError):
    """The command line, or a call's arguments, are wrong."""

    exit_code = 2


class ModelError(SparkNetError):
    """The model is wrong; `diagnostics` holds every error and warning found, `str()` shows them as text."""

    def __init__(self, message: str, diagnostics: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.diagnostics = tuple(diagnostics)


class DataError(SparkNetError):
    """A data source is missing, damaged or does not fit the net."""


class OutputError(SparkNetError):
    """A file cannot be written; what was there before is untouched."""


class EngineError(SparkNetError):
    """The engine refuses what it was asked to do."""


class LayerError(EngineError):
    """A layer refuses: `layer` and `type` name it, `reason` says why."""

    def __init__(self, layer: str, type: str, reason: str, kind: str = "") -> None:
        super().__init__(f"layer `{layer}` ({type}): {reason}" if layer else reason)
        self.layer = layer
        self.type = type
        self.reason = reason
        self.kind = kind

    def __reduce__(self) -> tuple[type["LayerError"], tuple[str, str, str, str]]:
        return LayerError, (self.layer, self.type, self.reason, self.kind)


class WeightsError(EngineError):
    """A weights or state file cannot be read, or does not fit the net."""


class DivergedError(EngineError):
    """The loss is NaN or infinite."""


class ClusterError(SparkNetError):
    """Java is missing, slots are too few, or the cluster was lost."""

    exit_code = 3
