"""Where a run's numbers can be kept beside its own events: TensorBoard's files, an MLflow server.

Each tracker is a sink of events, `Trainer(callbacks=[TensorBoard("runs/a")])`, that also hears of the model. One that
fails says so once, and keeps no run from going on.
"""

from ...errors import UsageError
from .base import Tracker, follow
from .mlflow import MLflow
from .tensorboard import TensorBoard

__all__ = ["MLflow", "TensorBoard", "Tracker", "follow", "trackers"]


def trackers(tensorboard: str | None, mlflow: str | None, experiment: str | None) -> list[Tracker]:
    """Those that the command line names; raises UsageError where a package is missing or a name has no use."""
    found: list[Tracker] = []
    if tensorboard is not None:
        found.append(TensorBoard(tensorboard))
    if mlflow is not None:
        found.append(MLflow(mlflow, experiment))
    elif experiment is not None:
        raise UsageError("--mlflow-experiment names an experiment on the server of --mlflow URI")
    return found
