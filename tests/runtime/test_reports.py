"""Reports: what runs leave in their folders, and what pages are made of it."""

import base64
import dataclasses
import datetime
import json
import math
import pathlib
import re

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from recorded_runs import START, layers, local_run, spark_run, write_run

from sparknet_dsl import cli_local, cli_report, compile_file
from sparknet_dsl.cli_common import where_to_report
from sparknet_dsl.errors import DataError, OutputError
from sparknet_dsl.proto import caffe_pb2
from sparknet_dsl.runtime import Trainer, train_command
from sparknet_dsl.runtime.config import RunConfig
from sparknet_dsl.runtime.events import End, Round, Worker, to_json
from sparknet_dsl.runtime.report import Report
from sparknet_dsl.runtime.reports import evidence, folder, page, pictures, recording, series
from sparknet_dsl.runtime.reports.record import Run


def told(events) -> list[dict]:
    return [json.loads(to_json(event)) for event in events]


def shown(html: str) -> dict:
    """The data in a page."""
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)[1])


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# ---- events as curves ----


def test_curves_are_the_events():
    run = spark_run(rounds=10, tests=5)
    found = {chart["id"]: chart for chart in series.curves(told(run))}
    assert list(found) == ["loss", "share", "speed", "averaging", "rate"]
    rounds = [event for event in run if isinstance(event, Round)]
    training, test = found["loss"]["series"]
    assert (training["name"], test["name"]) == ("training", "test")
    assert training["points"] == [(event.iteration, event.loss) for event in rounds]
    assert [x for x, _ in test["points"]] == [50, 100]
    assert found["speed"]["series"][0]["points"][0] == (10, rounds[0].rows / 1.6)
    assert [line["name"] for line in found["share"]["series"]] == ["accuracy"]


def test_a_metric_that_is_no_share_has_a_chart_of_its_own():
    test = {"event": "test", "iteration": 5, "net": 1, "metrics": {"perplexity": 7.5, "accuracy": 0.5}}
    found = {chart["id"]: chart["series"] for chart in series.curves([test])}
    assert found["metric perplexity (net 1)"][0]["points"] == [(5, 7.5)]
    assert found["share"][0]["name"] == "accuracy (net 1)"


def test_thinning_loses_no_spike_no_gap_and_no_end():
    points = [(x, math.sin(x / 500)) for x in range(10_000)]
    points[4321] = (4321, 50.0)
    points[7777] = (7777, -50.0)
    points[9000] = (9000, None)
    found = series.thinned(points)
    assert len(found) <= series.POINTS + 2
    assert {points[0], points[4321], points[7777], points[9000], points[-1]} <= set(found)
    assert found == sorted(found, key=lambda point: point[0])
    assert series.thinned(points[:700]) == points[:700]


def test_a_straggler_stands_out():
    found = series.workers(told(spark_run(rounds=500, workers=4, late=2)))
    assert len(found["columns"]) <= series.COLUMNS
    assert found["columns"][-1]["last"] == 500
    assert all(column["seconds"][2] > 1.3 * column["median"] for column in found["columns"])
    assert [total["slowest"] for total in found["totals"]] == pytest.approx([0, 0, 1, 0], abs=0.01)
    assert [total["out"] for total in found["totals"]] == [0, 0, 1, 0]
    assert series.workers(told(spark_run(workers=1, late=None))) is None


def test_who_is_left_out_of_a_round_has_no_time():
    found = series.workers(told(spark_run(rounds=5)))
    assert found["columns"][2]["seconds"][2] is None
    assert None not in found["columns"][3]["seconds"]


def test_histograms_are_thinned_to_the_first_and_the_last():
    events = told([layers(round=k, iteration=10 * k, seed=k, gradients=k > 1) for k in range(1, 101)])
    conv, ip = series.histograms(events)
    assert (conv["layer"], conv["param"], conv["shape"]) == ("conv1", 0, [20, 1, 5, 5])
    assert len(ip["frames"]) == series.FRAMES
    assert [ip["frames"][at]["iteration"] for at in (0, -1)] == [10, 1000]
    assert ip["frames"][0]["gradient"] is None
    assert sum(ip["frames"][-1]["gradient"]["counts"]) == sum(ip["frames"][-1]["counts"]) == 5000


def test_scores_know_the_best():
    tests = [
        {"event": "test", "iteration": x, "metrics": {"accuracy": a, "loss": b}}
        for x, a, b in ((1, 0.5, 2.0), (2, 0.9, 0.5), (3, 0.8, None))
    ]
    accuracy, loss = series.scores(tests)
    assert accuracy == {"name": "accuracy", "last": 0.8, "best": 0.9, "iteration": 2}
    assert loss == {"name": "loss", "last": None, "best": 0.5, "iteration": 2}


# ---- pages ----


@pytest.mark.parametrize(
    "events",
    [
        spark_run(),
        spark_run(rounds=1, workers=2, tests=0),
        spark_run(rounds=10_000, tests=50),
        spark_run()[:7],
        [START],
        [End(status="failed", message="<b>&", round=0, iteration=0, seconds=1, metrics={}, files=())],
        local_run([2.0, float("nan"), 1.0, float("inf")]),
        local_run([]),
        local_run([0.0]),
    ],
    ids=["usual", "one round", "ten thousand", "going on", "begun", "never begun", "nan", "nothing", "one number"],
)
def test_every_run_has_a_page(events):
    html = page.render([Run("run", told(events))])
    assert len(html) < 1_000_000
    (run,) = shown(html)["runs"]
    status = next((event.status for event in events if isinstance(event, End)), "running")
    assert run["status"] == status
    assert "NaN" not in json.dumps(run, allow_nan=False)


def test_a_page_needs_nothing_from_elsewhere():
    html = page.render([Run("run", told(spark_run()))])
    outside = re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:)[^"']*|@import|url\((?!#|["']?data:)[^)]*""", html)
    assert outside == []
    assert "default-src 'none'" in html and "connect-src 'none'" in html


def test_what_a_run_says_is_text_in_the_page():
    evil = "</script><script>alert(1)</script>"
    events = [dataclasses.replace(START, notes=(evil,), model=evil), *spark_run()[1:]]
    html = page.render([Run(evil, told(events))])
    assert html.count("<script") == 2
    assert shown(html)["runs"][0]["notes"] == [evil]


def test_runs_side_by_side(capsys):
    one = write_run(
        pathlib.Path("runs/one"), spark_run(), settings={"run": {"tau": 10, "seed": 0}, "solver": {"base_lr": 0.01}}
    )
    other = write_run(
        pathlib.Path("runs/other"),
        spark_run(seed=3, workers=2),
        settings={"run": {"tau": 50, "seed": 0}, "solver": {"base_lr": 0.01}},
        environment={"cores": 4},
    )
    result = CliRunner().invoke(cli_report.report_command, [str(one), str(other)])
    assert (result.exit_code, result.output) == (0, "wrote comparison.html\n")
    data = shown(pathlib.Path("comparison.html").read_text())
    assert [run["name"] for run in data["runs"]] == ["one", "other"]
    assert data["differ"] == [
        {"group": "start", "name": "workers", "values": [4, 2]},
        {"group": "run", "name": "tau", "values": [10, 50]},
        {"group": "environment", "name": "cores", "values": [None, 4]},
    ]
    result = CliRunner().invoke(cli_report.report_command, [str(one), str(other), "--json"])
    told = json.loads(result.output)
    assert told["differ"] == data["differ"]
    assert [score["name"] for score in told["runs"][0]["scores"]] == ["accuracy", "loss"]


def test_a_report_is_made_again_from_a_folder_or_from_events():
    run = write_run(pathlib.Path("runs/one"), spark_run())
    assert CliRunner().invoke(cli_report.report_command, [str(run)]).exit_code == 0
    assert CliRunner().invoke(cli_report.report_command, [str(run / "events.jsonl"), "-o", "x.html"]).exit_code == 0
    pages = [shown(path.read_text()) for path in (run / "report.html", pathlib.Path("x.html"))]
    assert [each["runs"][0].pop("name") for each in pages] == ["one", "events"]
    assert pages[0] == pages[1]


def test_a_run_that_was_killed_in_the_middle_of_a_line():
    run = write_run(pathlib.Path("runs/one"), spark_run())
    text = (run / "events.jsonl").read_text()
    (run / "events.jsonl").write_text(text[: len(text) // 2])
    assert page.run_data(Run.load(run))["status"] == "running"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"runs/one is no folder of a run: there is no runs/one/events.jsonl"),
        ("", r"events.jsonl has no events"),
        ('{"event": "start"}\nnothing\n{}\n', r"events.jsonl, line 2, is no event of a run"),
        ('{"no": "event"}\n', r"events.jsonl, line 1, is no event of a run"),
    ],
)
def test_what_is_no_run(content, message):
    run = pathlib.Path("runs/one")
    run.mkdir(parents=True)
    if content is not None:
        (run / "events.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        Run.load(run)
    result = CliRunner().invoke(cli_report.report_command, [str(run)])
    assert result.exit_code == 1
    assert not (run / "report.html").exists()


# ---- folders ----

MODEL = """
net small {
  data, label: RDDData([[16, 1, 8, 8], [16]], source="digits:", scale=1/16) @train
  data, label: RDDData([[40, 1, 8, 8], [40]], source="digits:", scale=1/16) @test
  data -> conv: Convolution(6, 3, weight_filler=xavier) -> relu: ReLU!
       -> ip: InnerProduct(10, weight_filler=xavier)
  ip, label -> accuracy: Accuracy @test
  ip, label -> loss: SoftmaxWithLoss
}
solver (base_lr=0.1, lr_policy="fixed", momentum=0.9, max_iter=60, display=10, test_iter=9, test_interval=30,
        random_seed=3, snapshot_prefix="small")
"""


def test_a_run_leaves_a_folder(capsys, monkeypatch):
    monkeypatch.setenv(folder.RUNS, "kept")
    pathlib.Path("small.snet").write_text(MODEL)
    result = CliRunner().invoke(cli_local.train_command, ["small.snet"])
    assert result.exit_code == 0
    (run,) = pathlib.Path("kept").iterdir()
    assert re.fullmatch(r"small-\d{8}-\d{6}", run.name)
    assert f"report: kept/{run.name}/report.html" in result.output
    assert (run / "model" / "small.snet").read_text() == MODEL
    assert compile_file(run / "model" / "small.prototxt").net.layer
    settings = json.loads((run / "settings.json").read_text())
    assert (settings["run"]["seed"], settings["solver"]["max_iter"]) == (3, 60)
    assert {"python", "numpy", "processor", "cores"} <= json.loads((run / "environment.json").read_text()).keys()
    (data,) = shown((run / "report.html").read_text())["runs"]
    assert (data["status"], data["iteration"], data["start"]["seed"]) == ("done", 60, 3)
    found = data["evidence"]
    assert found["problems"] == []
    assert [layer["name"] for layer in found["times"]["layers"]] == ["data", "conv", "relu", "ip", "loss"]
    assert found["times"]["batch"] <= 16
    assert (found["filters"]["layer"], found["filters"]["count"], len(found["filters"]["images"])) == ("conv", 6, 6)
    accuracy = next(score["last"] for score in data["scores"] if score["name"] == "accuracy")
    assert found["scores"]["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    matrix = np.array(found["scores"]["confusion"])
    assert (matrix.sum(), np.trace(matrix)) == (360, round(360 * accuracy))
    wrong = min(360 - np.trace(matrix), evidence.MISTAKES)
    mistakes = found["scores"]["mistakes"]
    assert len(mistakes) == wrong > 0
    assert all(each["true"] != each["predicted"] and each["share"] < each["predicted_share"] for each in mistakes)
    assert [each["share"] for each in mistakes] == sorted(each["share"] for each in mistakes)
    assert "conv" in data["graph"] and data["graph"].startswith("<!doctype html>")


def test_a_run_on_spark_leaves_a_folder(spark):
    pathlib.Path("small.snet").write_text(MODEL)
    trainer = Trainer("small.snet", spark.context, show=False, workers=2, rounds=3, tau=4, average="spark", report="r")
    result = trainer.fit()
    (data,) = shown(pathlib.Path("r/report.html").read_text())["runs"]
    assert (data["status"], data["round"], data["rounds"]) == ("done", 3, 3)
    assert len(data["workers"]["totals"]) == 2
    assert data["settings"]["run"]["workers"] == 2 and data["settings"]["run"]["momentum"] == "AVERAGE"
    assert "version" in data["environment"]["java"]
    assert data["evidence"]["problems"] == []
    assert data["evidence"]["scores"]["accuracy"] == pytest.approx(result.metrics["accuracy"])


def test_a_run_without_a_report_leaves_nothing():
    pathlib.Path("small.snet").write_text(MODEL)
    assert train_command.main("small.snet", report=False, max_iter=5) == 0
    assert not pathlib.Path("runs").exists()


def test_an_interrupted_or_failed_run_has_a_report_too():
    pathlib.Path("small.snet").write_text(MODEL.replace("base_lr=0.1", "base_lr=1e30"))
    assert train_command.main("small.snet", report="r") == 1
    (data,) = shown(pathlib.Path("r/report.html").read_text())["runs"]
    assert data["status"] == "failed" and "diverged" in data["message"]


def test_a_folder_that_is_taken_or_cannot_be_made(capsys):
    pathlib.Path("small.snet").write_text(MODEL)
    write_run(pathlib.Path("taken"), spark_run())
    pathlib.Path("file").write_text("")
    for place, message in (("taken", "has the report of another run"), ("file/r", "cannot make the folder file/r")):
        assert train_command.main("small.snet", report=place) == 1
        assert message in capsys.readouterr().err
    assert not pathlib.Path("snapshots/small_iter_60.caffemodel").exists()


def test_a_default_folder_that_cannot_be_made_is_no_error(monkeypatch, capsys):
    monkeypatch.setenv(folder.RUNS, "file")
    pathlib.Path("file").write_text("")
    pathlib.Path("small.snet").write_text(MODEL)
    assert train_command.main("small.snet", max_iter=5) == 0
    assert "no report is kept: cannot make the folder file/small-" in capsys.readouterr().out


def test_a_disk_that_is_full_is_told_of_when_all_is_done(monkeypatch, capsys):
    pathlib.Path("small.snet").write_text(MODEL)
    lines = recording.JsonLines.__call__

    def full(self, event):
        if isinstance(event, End) or getattr(event, "iteration", 0) > 20:
            raise OutputError("cannot write r/events.jsonl: No space left on device")
        lines(self, event)

    monkeypatch.setattr(recording.JsonLines, "__call__", full)
    assert train_command.main("small.snet", report="r") == 1
    said = capsys.readouterr()
    assert said.err == (
        "error: the model is trained, but its report is not whole: cannot write r/events.jsonl: No space left on "
        "device\n"
    )
    assert pathlib.Path("snapshots/small_iter_60.caffemodel").exists()
    assert "test after iteration 60" in said.out


def test_a_full_disk_does_not_hide_why_a_run_failed(monkeypatch, capsys):
    pathlib.Path("small.snet").write_text(MODEL.replace("base_lr=0.1", "base_lr=1e30"))

    def full(path, runs):
        raise OutputError("cannot write r/report.html: No space left on device")

    monkeypatch.setattr(page, "write", full)
    assert train_command.main("small.snet", report="r") == 1
    said = capsys.readouterr().err
    assert "warning: the report is not whole: cannot write r/report.html" in said
    assert "error: training diverged" in said


def test_two_runs_of_a_second_have_folders_of_their_own(monkeypatch):
    monkeypatch.delenv(folder.RUNS)
    first = folder.default_folder("a net/x")
    assert first is not None and re.fullmatch(r"runs/a_net_x-\d{8}-\d{6}", str(first))
    now = datetime.datetime(2026, 1, 2, 3, 4, 5)
    pathlib.Path("runs/x-20260102-030405").mkdir(parents=True)
    assert str(folder.default_folder("x", now)) == "runs/x-20260102-030405-2"
    monkeypatch.setenv(folder.RUNS, "")
    assert folder.default_folder("x") is None


def test_what_is_secret_is_not_kept():
    conf = {"spark.hadoop.fs.s3a.secret.key": "hush", "spark.executor.memory": "4g"}
    config = RunConfig.resolve(None, caffe_pb2.SolverParameter(max_iter=5), conf=conf)
    found = folder.config_settings(config)
    assert found["spark.executor.memory"] == "4g"
    assert "hush" not in json.dumps(folder.plain(found))


def test_report_and_no_report_contradict_each_other():
    result = CliRunner().invoke(cli_local.train_command, ["m.snet", "--report", "r", "--no-report"])
    assert result.exit_code == 2 and "give one of them" in result.output
    assert (where_to_report("r", False), where_to_report(None, True), where_to_report(None, False)) == (
        "r",
        False,
        None,
    )


def test_old_histograms_are_let_go_of(monkeypatch):
    monkeypatch.setattr(recording, "KEPT", 8)
    subject = dataclasses.make_dataclass("Subject", ["name"])("net")
    sink = recording.Recording(subject, print)
    for k in range(1, 101):
        sink(layers(round=k, iteration=10 * k, seed=1))
        sink(dataclasses.replace(spark_run(rounds=1)[1], iteration=10 * k))
    kept = [event["iteration"] for event in sink._now().events if event["event"] == "layers"]
    assert (kept[0], kept[-1]) == (10, 1000) and 4 <= len(kept) <= 8
    assert sum(event["event"] == "round" for event in sink._now().events) == 100


# ---- pictures ----


def decoded(url: str) -> np.ndarray:
    content = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def test_pictures_are_the_arrays():
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (3, 5, 4), np.uint8)
    np.testing.assert_array_equal(decoded(pictures.thumbnail(colour)), colour.transpose(1, 2, 0))
    np.testing.assert_array_equal(decoded(pictures.thumbnail(colour, rgb=True)), colour.transpose(1, 2, 0)[..., ::-1])
    grey = np.array([[[0, 1], [2, 4]]], np.float32)
    np.testing.assert_array_equal(decoded(pictures.thumbnail(grey)), [[0, 64], [128, 255]])
    assert decoded(pictures.thumbnail(np.zeros((3, 100, 400), np.uint8))).shape == (40, 160, 3)
    assert len(pictures.filters(np.zeros((5, 2, 3, 3), np.float32))) == 10
    assert decoded(pictures.filters(np.full((1, 1, 2, 2), np.nan, np.float32))[0]).tolist() == [[128, 128]] * 2


def test_of_many_classes_there_are_pairs_in_place_of_a_matrix():
    matrix = np.zeros((100, 100), np.int64)
    matrix[3, 4], matrix[7, 8] = 5, 9
    np.fill_diagonal(matrix, 50)
    assert evidence._pairs(matrix) == [
        {"true": 7, "predicted": 8, "rows": 9},
        {"true": 3, "predicted": 4, "rows": 5},
    ]


def test_an_evidence_that_cannot_be_had_is_a_note(monkeypatch, capsys):
    pathlib.Path("small.snet").write_text(MODEL)

    def failing(*_):
        raise DataError("the rows are gone")

    def wrong(*_):
        raise KeyError("x")

    monkeypatch.setattr(evidence, "_scores", failing)
    monkeypatch.setattr(evidence, "_filters", wrong)
    assert train_command.main("small.snet", report="r", max_iter=5) == 0
    (data,) = shown(pathlib.Path("r/report.html").read_text())["runs"]
    assert data["evidence"]["problems"] == ["filters: KeyError('x')", "scores: the rows are gone"]
    assert "scores" not in data["evidence"] and "times" in data["evidence"]


def test_a_sink_that_is_added_hears_what_follows():
    heard = []
    with Report([]) as report:
        report(START)
        report.add(heard.append)
        report(Round(**{**vars(spark_run()[1]), "each": (Worker(1.0, 2),)}))
    assert [type(event) for event in heard] == [Round, End]
