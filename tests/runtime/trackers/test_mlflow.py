"""MLflow: a run on a real server, where the package has one; and what becomes of training when the server fails."""

import importlib.util
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from sparknet_dsl.errors import UsageError
from sparknet_dsl.runtime.trackers import MLflow, trackers
from sparknet_dsl.runtime.train_command import main

NET = """
net Small {
  data, label: RDDData([[16, 1, 8, 8], [16]], source="digits:", scale=1/16)
  data -> ip: InnerProduct(10)
  ip, label -> accuracy: Accuracy @test
  ip, label -> loss: SoftmaxWithLoss
}
solver (base_lr=0.05, lr_policy="fixed", max_iter=20, random_seed=3, display=10)
"""
DIVERGES = """
net Small {
  data, label: RDDData([[16, 1, 8, 8], [16]], source="digits:")
  data -> ip: InnerProduct(1, bias_term=false)
  ip, label -> loss: EuclideanLoss
}
solver (base_lr=1e30, lr_policy="fixed", max_iter=20, random_seed=3)
"""


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    pathlib.Path("small.snet").write_text(NET)
    pathlib.Path("diverges.snet").write_text(DIVERGES)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server on this machine."""
    pytest.importorskip("mlflow")
    if importlib.util.find_spec("mlflow.server") is None or importlib.util.find_spec("uvicorn") is None:
        pytest.skip("mlflow-skinny has no server")
    folder = tmp_path_factory.mktemp("server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", str(folder / "files")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def test_a_server_has_the_run(server: str) -> None:
    import mlflow

    assert main("small.snet", mlflow=server, mlflow_experiment="digits", report="run") == 0
    client = mlflow.MlflowClient(server)
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == "Small"
    params = run.data.params
    assert (params["solver.base_lr"], params["seed"], params["batch"]) == ("0.05000000074505806", "3", "16")
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [metric.step for metric in history] == [0, 10, 20]
    assert 0 < run.data.metrics["test/accuracy"] <= 1
    artifacts = [
        file.path
        for folder in ("model", "report", "snapshot")
        for file in client.list_artifacts(run.info.run_id, folder)
    ]
    assert artifacts == [
        *("model/small.prototxt", "model/small_solver.prototxt", "report/report.html"),
        *(f"snapshot/Small_iter_20.{ending}" for ending in ("caffemodel", "json", "solverstate")),
    ]
    # The files are those that were written.
    kept = pathlib.Path(client.download_artifacts(run.info.run_id, "snapshot/Small_iter_20.caffemodel"))
    assert kept.read_bytes() == pathlib.Path("snapshots/Small_iter_20.caffemodel").read_bytes()


def test_a_server_has_a_run_that_failed(server: str) -> None:
    import mlflow

    assert main("diverges.snet", mlflow=server, mlflow_experiment="diverges") == 1
    client = mlflow.MlflowClient(server)
    experiment = client.get_experiment_by_name("diverges")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED" and "diverged" in run.data.tags["message"]


def test_a_server_that_is_not_there_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert main("small.snet", mlflow=f"http://127.0.0.1:{port}") == 0
    (said,) = [message for message in caplog.messages if "MLflow" in message]
    assert said.startswith(f"warning: MLflow keeps nothing more of this run (http://127.0.0.1:{port}): ")


class Client:
    """In place of MLflow's: keeps what it is told, and fails, or waits, at the call of that name."""

    def __init__(self, fails: str = "", waits: str = "") -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.fails = fails
        self.waits = waits
        self.go_on = threading.Event()

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            self.calls.append((name, arguments, named))
            if name == self.waits:
                self.go_on.wait(60)
            if name == self.fails:
                raise ConnectionError("the server is gone")
            return types.SimpleNamespace(experiment_id="1", info=types.SimpleNamespace(run_id="r"))

        return call

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [arguments for called, arguments, _ in self.calls if called == name]


def install(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    module, entities = types.ModuleType("mlflow"), types.ModuleType("mlflow.entities")
    module.MlflowClient = lambda tracking_uri: client  # type: ignore[attr-defined]
    entities.Metric = entities.Param = lambda *fields: fields  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)


def test_what_the_client_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    client = Client()
    install(client, monkeypatch)
    assert main("small.snet", mlflow="http://m", report="run") == 0
    assert client.named("get_experiment_by_name") == [("sparknet",)]
    metrics = [metric for _, _, named in client.calls for metric in named.get("metrics", ())]
    assert [(step, name) for name, _, _, step in metrics if name == "train/loss"] == [
        *((0, "train/loss"), (10, "train/loss"), (20, "train/loss"))
    ]
    files = [pathlib.Path(path).name for _, path, *_ in client.named("log_artifact")]
    snapshot = [f"Small_iter_20.{ending}" for ending in ("caffemodel", "solverstate", "json")]
    assert files[-4:] == [*snapshot, "report.html"]
    assert client.named("set_terminated") == [("r", "FINISHED")]


@pytest.mark.parametrize("fails", ["create_run", "log_batch", "log_artifact", "set_terminated"])
def test_a_server_that_fails_stops_nothing(
    fails: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(fails=fails)
    install(client, monkeypatch)
    assert main("small.snet", mlflow="http://m") == 0
    assert caplog.messages == ["warning: MLflow keeps nothing more of this run (http://m): the server is gone"]
    assert len(client.named(fails)) == 1
    assert pathlib.Path("snapshots/Small_iter_20.caffemodel").exists()


def test_a_server_that_does_not_answer_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(waits="create_run")
    install(client, monkeypatch)
    monkeypatch.setattr("sparknet_dsl.runtime.trackers.mlflow.PATIENCE", 0.1)
    assert main("small.snet", mlflow="http://m") == 0
    client.go_on.set()
    assert caplog.messages == [
        "warning: MLflow keeps nothing more of this run (http://m): it did not answer within 0.1 s"
    ]


def test_packages_that_are_missing_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert main("small.snet", mlflow="http://m") == 2
    assert "pip install 'sparknet-dsl[mlflow]'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert main("small.snet", tensorboard="t") == 2
    assert "pip install 'sparknet-dsl[tensorboard]'" in capsys.readouterr().err
    with pytest.raises(UsageError, match="--mlflow URI"):
        trackers(None, None, "digits")


def test_the_report_is_kept_too_and_interruptions_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    from sparknet_dsl import compile_text
    from sparknet_dsl.runtime.events import End

    client = Client()
    install(client, monkeypatch)
    (tmp_path / "report.html").write_text("")
    tracker = MLflow("http://m")
    tracker.begin(compile_text(NET), tmp_path / "report.html")
    tracker(End(status="interrupted", message=None, round=1, iteration=5, seconds=1.0, metrics={}, files=()))
    assert client.named("log_artifact")[-1] == ("r", str(tmp_path / "report.html"), "report")
    assert client.named("set_terminated") == [("r", "KILLED")]
