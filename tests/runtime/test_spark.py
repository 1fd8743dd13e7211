"""Functions run on partitions through a real Spark, and what is left of them: nothing."""

import os
import pathlib
import signal
import stat
import subprocess
import sys

import numpy as np
import pytest
from pyspark import cloudpickle

from sparknet_dsl.errors import ClusterError, LayerError
from sparknet_dsl.runtime.data import Column
from sparknet_dsl.runtime.launch import check_java
from sparknet_dsl.runtime.shards import local_folder
from sparknet_dsl.runtime.spark import Cluster, Own

# Workers do not have this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Counting:
    """A source of 10 numbers that writes down each reading of a part."""

    columns = (Column("number", "int64", ()),)

    def __init__(self, log: pathlib.Path) -> None:
        self.log = log

    def read(self, partition, partitions, bad):
        with self.log.open("a") as file:
            file.write(f"{partition}\n")
        yield {"number": np.arange(10)[partition::partitions]}


@pytest.fixture
def cluster(spark):
    with Cluster("", 3, spark.context) as cluster:
        yield cluster


@pytest.fixture
def rows(cluster, tmp_path):
    return cluster.rows("numbers", Counting(tmp_path / "readings"))


def numbers(shard, partition, *arguments):
    return shard.columns["number"].tolist(), partition, *arguments


@pytest.fixture
def left(spark):
    """Gives what was left since: files of Python's broadcasts; a word where Java holds more than bytes for them."""
    folder = pathlib.Path(spark.context._temp_dir)

    def used():
        status = spark.context._jsc.sc().getExecutorMemoryStatus().iterator()
        total = 0
        while status.hasNext():
            memory = status.next()._2()
            total += memory._1() - memory._2()
        return total

    # Of other tests of this Spark.
    files, size = set(folder.iterdir()), used()
    return lambda: [
        *map(str, set(folder.iterdir()) - files),
        *(["blocks in memory"] if used() > size + 5_000_000 else []),
    ]


def test_results_come_in_the_partitions_order(cluster, rows):
    results = cluster.each(rows, numbers, "shared", Own(["a", "b", "c"]))
    assert results == [
        ([0, 3, 6, 9], 0, "shared", "a"),
        ([1, 4, 7], 1, "shared", "b"),
        ([2, 5, 8], 2, "shared", "c"),
    ]


def test_rows_are_read_once_and_again_when_they_are_lost(cluster, rows, tmp_path):
    def lose(shard, partition):
        import shutil

        shutil.rmtree(local_folder() / f"sparknet-{run}" / f"numbers-{partition}")

    run = cluster.run
    first = cluster.each(rows, numbers)
    assert cluster.each(rows, numbers) == first
    assert sorted((tmp_path / "readings").read_text().split()) == ["0", "1", "2"]
    cluster.each(rows, lose)
    assert cluster.each(rows, numbers) == first
    assert sorted((tmp_path / "readings").read_text().split()) == ["0", "0", "1", "1", "2", "2"]


def test_shards_lie_in_sparks_directory_and_go_with_the_run(spark, tmp_path):
    def shards(shard, partition):
        return [str(path) for path in local_folder().glob("sparknet-*")]

    with Cluster("", 2, spark.context) as cluster:
        rows = cluster.rows("numbers", Counting(tmp_path / "readings"))
        (here, *_) = cluster.each(rows, shards)
        mine = [path for path in here if cluster.run in path]
        assert len(mine) == 1
        assert "blockmgr" in mine[0]
    assert not pathlib.Path(mine[0]).exists()


def test_an_error_of_ours_comes_back_as_it_is_from_a_single_attempt(cluster, rows, left, tmp_path):
    def fail(shard, partition, values):
        with (tmp_path / "attempts").open("a") as file:
            file.write(f"{partition}\n")
        if partition == 1:
            raise LayerError("conv1", "Convolution", "no such kernel")

    with pytest.raises(LayerError, match=r"layer `conv1` \(Convolution\): no such kernel"):
        cluster.each(rows, fail, np.zeros(10))
    assert sorted((tmp_path / "attempts").read_text().split()) == ["0", "1", "2"]
    assert left() == []


def test_any_other_error_is_one_line_about_the_cluster(cluster, rows, left):
    def fail(shard, partition, values):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ClusterError) as caught:
        cluster.each(rows, fail, np.zeros(10))
    assert "ZeroDivisionError: a bug" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left() == []


def test_a_lost_process_is_replaced_and_the_result_is_the_same(cluster, rows, tmp_path):
    def once_killed(shard, partition, values):
        marker = tmp_path / f"killed-{partition}"
        if partition == 1 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return float((values * shard.columns["number"].sum()).sum())

    values = np.ones(3)
    assert cluster.each(rows, once_killed, values) == [54.0, 36.0, 45.0]
    assert (tmp_path / "killed-1").exists()


def test_processes_and_what_they_keep_live_on(cluster, rows):
    def pid(shard, partition):
        return os.getpid()

    before = {found for _ in range(3) for found in cluster.each(rows, pid)}
    after = {found for _ in range(3) for found in cluster.each(rows, pid)}
    assert before & after


def test_no_broadcast_is_left(cluster, rows, left):
    for _ in range(10):
        cluster.each(rows, numbers, np.zeros(250_000), Own([np.zeros(250_000)] * 3))
    assert left() == []


def test_more_workers_than_slots(spark):
    with pytest.raises(ClusterError, match=r"5 workers need 5 slots at a time, but local\[4,4\] has 4"):
        Cluster("", 5, spark.context)


def test_workers_do_not_see_the_working_directory(cluster, rows):
    def path(shard, partition):
        return sys.path, sys.flags.safe_path, sys.executable

    found, safe, executable = cluster.each(rows, path)[0]
    assert "" not in found
    assert safe
    assert executable == sys.executable


def fake_java(folder: pathlib.Path, version: str) -> str:
    java = folder / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho '{version}' >&2\n")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)
    return str(folder)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ('openjdk version "1.8.0_392"', "is Java 8. Spark needs Java 17 or newer"),
        ('openjdk version "11.0.21" 2023-10-17', "is Java 11. Spark needs"),
        ("Segmentation fault", "does not say its version"),
    ],
)
def test_an_old_java(tmp_path, monkeypatch, version, message):
    monkeypatch.setenv("JAVA_HOME", fake_java(tmp_path, version))
    with pytest.raises(ClusterError, match=message):
        check_java()


@pytest.mark.parametrize("version", ['openjdk version "17.0.15" 2025-04-15', 'java version "25" 2025-09-16 LTS'])
def test_a_good_java(tmp_path, monkeypatch, version):
    monkeypatch.setenv("JAVA_HOME", fake_java(tmp_path, version))
    check_java()


def test_no_java(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ClusterError, match=r"JAVA_HOME is .* but there is no bin/java\. Spark needs Java 17"):
        check_java()
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=r"no java on PATH\. .*apt install openjdk-17-jre-headless") as caught:
        check_java()
    assert "\n" not in str(caught.value)


def test_spark_keeps_its_noise_to_itself(tmp_path):
    program = (
        "from sparknet_dsl.runtime.spark import Cluster\n"
        "with Cluster('local[1]', 1) as cluster:\n"
        "    print(cluster.context.parallelize(range(10), 1).sum())\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "45\n", "")
    assert list(tmp_path.glob("sparknet-spark-*")) == []


def test_each_application_has_settings_of_its_own():
    script = """
from sparknet_dsl.runtime.spark import Cluster, SparkContext
for master, given in (("local[1]", {"spark.sparknet.one": "1"}), ("local[2]", {})):
    with Cluster(master, int(master[6]), conf=given) as cluster:
        java = SparkContext._gateway.proc
        given = cluster.context.getConf().get("spark.sparknet.one")
        print(cluster.master, given, cluster.context.parallelize([1]).count())
    print(java.poll(), SparkContext._gateway)
"""
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["local[1] 1 1", "0 None", "local[2] None 1", "0 None"], done.stderr


def test_a_spark_that_runs_already_is_not_passed_over(spark):
    with pytest.raises(ClusterError, match=r"Spark runs already in this process: give it to Trainer"):
        Cluster("local[1]", 1)
