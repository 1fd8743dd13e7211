"""What the doctor finds: on a machine in order, and on ones where something is not."""

import json
import pathlib
import socket
from typing import Any

import pytest

from sparknet_dsl.errors import ClusterError
from sparknet_dsl.runtime import doctor
from sparknet_dsl.runtime.spark import Cluster


def looked(driver: tuple[str, int] | None = None, packages: tuple[str, ...] = doctor.PACKAGES) -> dict[str, Any]:
    """What an executor would tell of itself here."""
    return next(doctor._looker(driver, doctor.LAYER, packages)(()))


def found(**changes: Any) -> dict[str, doctor.Finding]:
    return {each.what: each for each in doctor.judge("there", {**looked(), **changes})}


def test_a_cluster_in_order(spark: Cluster) -> None:
    with Cluster("", 2, spark.context) as cluster:
        findings = list(doctor.look_at_cluster(cluster))
    assert {each.verdict for each in findings} == {"good"}
    assert {"Spark", "slots", "Python", "layer", "memory", "disk", "way to the driver"} <= {
        each.what for each in findings
    }
    # One process tells for all of its tasks.
    assert sum(each.what == "layer" for each in findings) == 1


@pytest.mark.parametrize(
    ("changes", "what", "verdict", "remedy"),
    [
        ({"python": "3.8.1"}, "Python", "bad", "PYSPARK_PYTHON"),
        ({"packages": {}}, "sparknet-dsl", "bad", "install it there"),
        ({"packages": {"sparknet-dsl": "0.0.1"}}, "sparknet-dsl", "bad", "the driver has"),
        ({"packages": {"numpy": "1.0"}}, "numpy", "warning", "the driver has"),
        ({"value": 3.5}, "layer", "bad", "a convolution gives 3.5, not 14.5"),
        ({"error": "ImportError: libdnnl.so.3"}, "layer", "bad", "reinstall"),
        ({"memory": 1 << 20}, "memory", "warning", "fewer workers"),
        ({"disk": 1 << 20}, "disk", "warning", "spark.local.dir"),
        ({"reaches": "10.0.0.1:99: timed out"}, "way to the driver", "warning", "spark.driver.host"),
    ],
)
def test_what_is_not_in_order(changes: dict[str, Any], what: str, verdict: str, remedy: str) -> None:
    finding = found(**changes)[what]
    assert (finding.verdict, finding.where) == (verdict, "there")
    assert remedy in finding.remedy


def test_an_executor_without_the_package_says_so() -> None:
    findings = {each.what: each for each in doctor.judge("there", looked(packages=("not-installed", "numpy")))}
    assert findings["sparknet-dsl"].verdict == "bad"
    assert "layer" not in findings


def test_the_way_to_the_driver() -> None:
    with doctor._Door("127.0.0.1") as door:
        assert looked((door.host, door.port))["reaches"] == ""
    assert "refused" in looked((door.host, door.port))["reaches"]
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.listen()
        other.settimeout(5)
        # Nobody greets.
        reaches = doctor._looker(("127.0.0.1", other.getsockname()[1]), doctor.LAYER, doctor.PACKAGES)
        assert "timed out" in next(reaches(()))["reaches"]


def test_without_java(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert doctor.main(None, 2, str(tmp_path / "findings.json")) == ClusterError.exit_code
    assert "Java" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "findings.json").read_text().splitlines()]
    assert lines[-1]["what"] == "Java" and lines[-1]["verdict"] == "bad"
    assert all(line["where"] == "this machine" for line in lines)


def test_too_few_slots_are_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main("local[1]", 2) == ClusterError.exit_code
    assert "2 workers need 2 slots" in " ".join(capsys.readouterr().out.split())
