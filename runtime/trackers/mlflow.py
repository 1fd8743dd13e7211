"""`--mlflow URI`: a run on an MLflow server, with parameters, metrics by iteration, and files as artifacts."""

import os
import pathlib
import queue
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from ... import Model
from ...errors import UsageError
from ...proto import caffe_pb2
from ..events import End, Event, Snapshot, Start, Status
from .base import Tracker, numbers

# A run waits so many seconds at its end for what the server has not taken yet.
PATIENCE = 30.0
# MLflow's own default tries for minutes whether a server that is gone comes back. What a user sets wins.
TRIES = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
STATUS: Mapping[Status, str] = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
# The longest parameter that every MLflow server takes.
LONGEST = 500


class MLflow(Tracker):
    """Keeps each run under `experiment` on the server at `uri` (http://HOST:5000, or what else MLflow takes).

    The server is spoken to in a thread: training does not wait for it. Steps are iterations; parameters are the
    settings of the run and the solver's; artifacts are the model, in Caffe's format, the last snapshot and the report.
    A run that fails is marked so, with its message as the tag `message`; one that is interrupted is KILLED. Raises
    UsageError without the package mlflow (mlflow-skinny is enough).
    """

    name = "MLflow"

    def __init__(
        self,
        uri: str,
        experiment: str | None = None,
        patience: float | None = None,
    ) -> None:
        super().__init__()
        os.environ.setdefault(*TRIES)
        try:
            import mlflow  # noqa: F401
        except ImportError as error:
            raise UsageError("--mlflow takes mlflow-skinny: pip install 'sparknet-dsl[mlflow]'") from error
        self.place = uri
        self.run_id: str | None = None
        self._experiment = experiment or "sparknet"
        self._report: pathlib.Path | None = None
        self._patience = PATIENCE if patience is None else patience
        self._snapshot: tuple[str, ...] = ()
        self._client: Any = None
        self._todo: queue.SimpleQueue[Model | Event] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def begin(self, model: Model, report: pathlib.Path | None = None) -> None:
        """A run of `model` begins, which leaves the file `report`."""
        self.failed, self.run_id, self._snapshot, self._report = False, None, (), report
        self._todo = queue.SimpleQueue()
        self._todo.put(model)
        self._thread = threading.Thread(target=self._work, args=(self._todo,), name="mlflow", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Keeps what `event` says; waits for the server at the end of the run only."""
        self._todo.put(event)
        if isinstance(event, End) and self._thread is not None:
            self._thread.join(self._patience)
            if self._thread.is_alive():
                self.give_up(f"it did not answer within {self._patience:g} s")
            self._thread = None

    def _work(self, todo: "queue.SimpleQueue[Model | Event]") -> None:
        while not isinstance(said := todo.get(), End):
            self.attempt(self.start if isinstance(said, Model) else self.tell, said)
        self.attempt(self._end, said)

    def start(self, model: Model) -> None:
        """Makes the run, and gives it the model and the solver's settings."""
        import mlflow

        self._client = mlflow.MlflowClient(tracking_uri=self.place)
        found = self._client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(self._experiment)
        self.run_id = self._client.create_run(experiment, run_name=model.name).info.run_id
        if model.solver is not None:
            self._parameters({f"solver.{name}": value for name, value in _settings(model.solver)})
        with tempfile.TemporaryDirectory(prefix="sparknet-") as folder:
            for path in model.save(folder):
                self._client.log_artifact(self.run_id, str(path), "model")

    def tell(self, event: Event) -> None:
        """Sends what `event` says."""
        from mlflow.entities import Metric

        if isinstance(event, Start):
            self._parameters(dict(_flat(event)))
        elif isinstance(event, Snapshot):
            self._snapshot = event.files
        else:
            step, time = getattr(event, "iteration", 0), int(event.time * 1000)
            if metrics := [Metric(name, value, time, step) for name, value in numbers(event)]:
                self._client.log_batch(self.run_id, metrics=metrics)

    def _end(self, event: End) -> None:
        for place in self._snapshot:
            if pathlib.Path(place).is_file():  # and no URL of a filesystem that only Spark knows
                self._client.log_artifact(self.run_id, place, "snapshot")
        if self._report is not None and self._report.is_file():
            self._client.log_artifact(self.run_id, str(self._report), "report")
        if event.message is not None:
            self._client.set_tag(self.run_id, "message", event.message)
        self._client.set_terminated(self.run_id, STATUS[event.status])

    def _parameters(self, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        given = [Param(name, str(value)[:LONGEST]) for name, value in values.items() if value is not None]
        self._client.log_batch(self.run_id, params=given)


def _flat(start: Start) -> Iterator[tuple[str, Any]]:
    for name, value in vars(start).items():
        if name == "rule":
            yield from ((f"averaging.{key}", each) for key, each in (value or {}).items())
        elif name not in ("notes", "time"):
            yield name, value


def _settings(solver: caffe_pb2.SolverParameter) -> Iterator[tuple[str, Any]]:
    """The fields that a solver sets, nets left out."""
    for field, value in solver.ListFields():
        if field.message_type is None:
            yield field.name, list(value) if field.is_repeated else value
