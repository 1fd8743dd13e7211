"""A real standalone cluster, and what may happen to it in the middle of a run: the weights are those of a quiet one."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator

import pytest
from standalone import COMMAND, Standalone, two_hosts

# A round takes some tenths of a second, so that there is time to do something in the middle of one.
MODEL = """
net slow {
  data, label: RDDData([[64, 1, 8, 8], [64]], source="digits:", scale=1/16) @train
  data, label: RDDData([[60, 1, 8, 8], [60]], source="digits:", scale=1/16) @test
  data -> conv: Convolution(48, 5, pad=2, weight_filler=xavier) -> relu: ReLU!
  -> conv2: Convolution(48, 5, pad=2, weight_filler=xavier) -> relu2: ReLU!
  -> ip: InnerProduct(10, weight_filler=xavier)
  ip, label -> accuracy: Accuracy @test
  ip, label -> loss: SoftmaxWithLoss
}
solver (base_lr=0.02, lr_policy="fixed", momentum=0.9, random_seed=3, max_iter=400)
spark (tau=40, workers=2, rounds=10, test_every=0, momentum=LOCAL, deadline=6)
"""
ROUNDS = 10
STRATEGIES = ["spark", "ring"]
# Whether faults are tried by all strategies where one is the rule.
MANY = os.environ.get("SPARKNET_FAULTS") == "all"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("model") / "slow.snet"
    path.write_text(MODEL)
    return path


@pytest.fixture(scope="module")
def quiet(model: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a run that nothing happens to, on Spark's local master."""
    folder = tmp_path_factory.mktemp("quiet")
    words = [COMMAND, model, "--master", "local[2]", "--average", "spark"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True, env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    return weights(folder)


@pytest.fixture
def cluster(tmp_path: pathlib.Path) -> Iterator[Standalone]:
    with Standalone(tmp_path / "cluster") as cluster:
        yield cluster


def weights(folder: pathlib.Path) -> bytes:
    (path,) = (folder / "snapshots").glob(f"*_iter_{40 * ROUNDS}.caffemodel")
    return path.read_bytes()


def events(folder: pathlib.Path) -> list[dict[str, object]]:
    path = folder / "events"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def rounds(folder: pathlib.Path) -> int:
    return sum(event["event"] == "round" for event in events(folder))


def until(condition: Callable[[], bool], run: subprocess.Popen[str], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert run.poll() is None, run.communicate()[0][-2000:]
        assert time.monotonic() < deadline, "it does not come so far"
        time.sleep(0.02)


def ancestor(cluster: Standalone, process: int, generations: int) -> int:
    for _ in range(generations):
        process = cluster.parent(process)
    return process


def finish(run: subprocess.Popen[str], folder: pathlib.Path) -> str:
    """What the run said to its end, which it has reached, with all rounds told once."""
    said = run.communicate(timeout=240)[0]
    assert run.returncode == 0, said[-3000:]
    told = [event["round"] for event in events(folder) if event["event"] == "round"]
    assert told == list(range(1, ROUNDS + 1))
    return said


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_host_that_is_lost_and_one_that_joins_late(
    cluster: Standalone, model: pathlib.Path, tmp_path: pathlib.Path, quiet: bytes, strategy: str
) -> None:
    """With a worker of Spark's gone, another one comes, and does that one's part.

    A ring waits for it. Through Spark the executor that is left would do both parts: the driver stands still meanwhile.
    """
    run = cluster.run(tmp_path / "run", model, "--average", strategy, "--json", "events")
    until(lambda: rounds(tmp_path / "run") >= 2, run)
    if strategy == "spark":
        os.kill(run.pid, signal.SIGSTOP)
    victim = cluster.workers[0].pid
    for process in (victim, *(each for each in cluster.executors() if cluster.parent(each) == victim)):
        os.kill(process, signal.SIGKILL)
    cluster.add_worker(cluster.hosts[0])
    late = cluster.workers[2].pid
    until(lambda: any(cluster.parent(each) == late for each in cluster.executors()), run)
    os.kill(run.pid, signal.SIGCONT)
    # A process of Python's comes from a daemon, that from an executor, and that from a worker of Spark's.
    until(lambda: any(ancestor(cluster, each, 3) == late for each in cluster.python_workers()), run)
    finish(run, tmp_path / "run")
    assert weights(tmp_path / "run") == quiet


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_straggler_is_named_and_left_behind(
    cluster: Standalone, model: pathlib.Path, tmp_path: pathlib.Path, quiet: bytes, strategy: str
) -> None:
    """It stands still for longer than the deadline: its part runs again, on another process if need be."""
    run = cluster.run(tmp_path / "run", model, "--average", strategy, "--json", "events")
    until(lambda: rounds(tmp_path / "run") >= 3, run)
    victim = cluster.python_workers()[0]
    os.kill(victim, signal.SIGSTOP)
    until(lambda: any(event["event"] == "again" for event in events(tmp_path / "run")), run)
    os.kill(victim, signal.SIGCONT)
    finish(run, tmp_path / "run")
    again = next(event for event in events(tmp_path / "run") if event["event"] == "again")
    assert "worker" in str(again["reason"])
    assert weights(tmp_path / "run") == quiet


def test_a_shipped_environment_is_what_executors_run_in(
    cluster: Standalone, model: pathlib.Path, tmp_path: pathlib.Path, quiet: bytes
) -> None:
    """An archive with a `python` that leaves a trace, and goes on as the one of this environment."""
    trace, python = tmp_path / "trace", tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\necho "$0" >> {trace}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    archive = tmp_path / "environment.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(python.parent, "bin")
    run = cluster.run(tmp_path / "run", model, "--ship-env", archive, "--json", "events")
    finish(run, tmp_path / "run")
    assert weights(tmp_path / "run") == quiet
    assert set(trace.read_text().split()) == {"./environment/bin/python"}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_driver_that_dies_is_followed_by_another(
    cluster: Standalone, model: pathlib.Path, tmp_path: pathlib.Path, quiet: bytes, strategy: str
) -> None:
    folder = tmp_path / "run"
    often = folder.parent / "often.snet"
    often.write_text(model.read_text().replace("test_every=0", "test_every=0, snapshot_every=2"))
    run = cluster.run(folder, often, "--average", strategy, "--json", "events")
    until(lambda: rounds(folder) >= 5, run)
    for process in (run.pid, *cluster.drivers()):
        os.kill(process, signal.SIGKILL)
    run.communicate()
    # As the disk may leave it, too: the last snapshot is damaged, and the one before is taken.
    last = folder / "snapshots" / "slow_iter_160.caffemodel"
    last.write_bytes(last.read_bytes()[:-1])
    for later in (folder / "snapshots").glob("slow_iter_240.json"):
        later.unlink()
    run = cluster.run(folder, often, "--average", strategy, "--resume", "--json", "after")
    said = run.communicate(timeout=240)[0]
    assert run.returncode == 0, said[-3000:]
    assert "slow_iter_160.caffemodel is damaged" in said
    assert "slow_iter_80.json: round 2" in said
    assert weights(folder) == quiet


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
@pytest.mark.parametrize("strategy", STRATEGIES if MANY else STRATEGIES[:1])
def test_a_full_disk_loses_nothing(
    cluster: Standalone, model: pathlib.Path, tmp_path: pathlib.Path, quiet: bytes, strategy: str
) -> None:
    """The snapshot before stays, the message says which file and why; with room again, training goes on from there."""
    folder, disk = tmp_path / "run", tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2000k", "tmpfs", disk], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounts are not allowed here")
    try:
        often = tmp_path / "often.snet"
        often.write_text(model.read_text().replace("test_every=0", "test_every=0, snapshot_every=2"))
        run = cluster.run(folder, often, "--average", strategy, "--snapshot-dir", disk, "--json", "events")
        said = run.communicate(timeout=120)[0]
        assert run.returncode == 1
        assert "No space left on device" in said and str(disk) in said
        assert "Traceback" not in said
        whole = sorted(disk.glob("*.json"))
        assert [path.name for path in whole] == ["slow_iter_80.json"]
        assert all((disk / name).is_file() for name in json.loads(whole[0].read_text())["files"])
        assert not list(disk.glob(".*"))
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        run = cluster.run(folder, often, "--average", strategy, "--snapshot-dir", disk, "--resume", "--json", "after")
        said = run.communicate(timeout=240)[0]
        assert run.returncode == 0, said[-3000:]
        assert (disk / f"slow_iter_{40 * ROUNDS}.caffemodel").read_bytes() == quiet
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="makes network namespaces")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_hosts_with_a_link_that_is_cut(
    model: pathlib.Path, tmp_path: pathlib.Path, quiet: bytes, strategy: str
) -> None:
    folder = tmp_path / "run"
    with two_hosts(f"sn{os.getpid() % 100000}") as (a, b, cable), Standalone(tmp_path / "cluster", (a, b)) as cluster:
        run = cluster.run(folder, model, "--average", strategy, "--json", "events")
        until(lambda: rounds(folder) >= 3, run)
        time.sleep(0.1)
        for state, seconds in (("down", 4.0), ("up", 0.0)):
            subprocess.run(["ip", "-n", str(a.namespace), "link", "set", cable, state], check=True)
            time.sleep(seconds)
        finish(run, folder)
    assert weights(folder) == quiet
