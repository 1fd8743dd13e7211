"""The plan: SparkNet's model of a round, and what a probe puts into it."""

import json
import pathlib

import pytest

from sparknet_dsl.runtime import Trainer, planning
from sparknet_dsl.runtime.planning import Prediction, Probe
from sparknet_dsl.runtime.spark import Cluster

PROBE = Probe(4, 100, 1000, iteration=0.1, skew=1.0, averages={"spark": 2.0, "ring": 0.5}, here=False)


def prediction(probe: Probe, workers: int, tau: int) -> Prediction:
    (found,) = planning.predict(probe, [workers], [tau])
    return found


def test_a_round_is_tau_iterations_and_an_average() -> None:
    found = prediction(PROBE, 4, 10)
    assert found.images == pytest.approx(4 * 10 * 100 / (10 * 0.1 + 0.5))
    assert found.share == pytest.approx(0.5 / 1.5)
    assert found.speedup == pytest.approx(4 * 10 * 0.1 / 1.5)
    # The naive scheme shares every batch, and averages after each iteration.
    assert found.naive == pytest.approx(0.1 / (0.1 / 4 + 0.5))


def test_one_worker_averages_nothing() -> None:
    found = prediction(PROBE, 1, 1)
    assert (found.share, found.speedup, found.naive) == (0, pytest.approx(1), pytest.approx(1))


def test_the_slowest_worker_counts() -> None:
    slow = Probe(4, 100, 1000, iteration=0.1, skew=1.5, averages={"ring": 0.5}, here=False)
    assert prediction(slow, 4, 10).images == pytest.approx(4 * 10 * 100 / (10 * 0.15 + 0.5))


def test_averages_grow_with_the_workers() -> None:
    # A ring's by (K - 1) / K; Spark's with K.
    assert planning.average_of(PROBE, 8) == pytest.approx(0.5 * (7 / 8) / (3 / 4))
    spark = Probe(4, 100, 1000, iteration=0.1, skew=1.0, averages={"spark": 2.0}, here=False)
    assert planning.average_of(spark, 8) == pytest.approx(4.0)


def test_workers_of_one_machine_share_its_cores() -> None:
    here = Probe(2, 100, 1000, iteration=0.1, skew=1.0, averages={"ring": 0.0}, here=True)
    assert prediction(here, 2, 10).images == pytest.approx(prediction(here, 8, 10).images)


def test_advice() -> None:
    found = planning.advise(PROBE, planning.predict(PROBE), 0.1)
    assert "100 ms an iteration of 100 rows" in found[0]
    assert "--average ring --tau 50" in found[1]
    costly = Probe(2, 10, 10**9, iteration=1e-3, skew=1.0, averages={"spark": 60.0}, here=False)
    found = planning.advise(costly, planning.predict(costly), 0.1)
    assert "more than 10% of the time at any tau" in found[1]
    assert any("warning: 2 workers would be slower than 1" in line for line in found)
    alone = Probe(1, 10, 10, iteration=1e-3, skew=1.0, averages={}, here=False)
    assert "--workers 2" in planning.advise(alone, planning.predict(alone), 0.1)[1]


def test_a_model_is_probed_and_nothing_trained(
    spark: Cluster, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Trainer("digits", spark.context, workers=2).plan(json="plan.json")
    shown = capsys.readouterr().out
    assert "images/s" in shown and "--tau" in shown
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["probe"]["workers"] == 2 and set(found["probe"]["averages"]) == {"spark", "ring"}
    assert all(time > 0 for time in found["probe"]["averages"].values())
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
