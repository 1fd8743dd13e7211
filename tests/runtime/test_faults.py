"""What may happen to a worker, at every point of a round, by both strategies: the weights are those of a quiet run.

All cases share one standalone cluster and one application on it (fault_driver.py).
"""

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection

import numpy as np
import pytest
from fault_driver import STEPS, WORKERS, Outcome, drive
from standalone import Host, Standalone

POINTS = ["before", "training", "averaging", "after"]
FAULTS = ["kill python", "kill executor", "lose host", "stop"]
# All 32 take two to three minutes: the others run with SPARKNET_FAULTS=all.
USUAL = {
    *((strategy, point, "kill python") for strategy in ("spark", "ring") for point in POINTS),
    ("spark", "averaging", "kill executor"),
    ("ring", "averaging", "kill executor"),
    ("spark", "averaging", "stop"),
    ("ring", "averaging", "stop"),
}
ALL = [(strategy, point, fault) for strategy in ("spark", "ring") for point in POINTS for fault in FAULTS]
CASES = [case for case in ALL if case in USUAL or os.environ.get("SPARKNET_FAULTS") == "all"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with Standalone(tmp_path_factory.mktemp("faults") / "cluster", [Host()] * 3) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def driver(cluster: Standalone) -> Iterator[Connection]:
    spawn = multiprocessing.get_context("spawn")
    mine, its = spawn.Pipe()
    process = spawn.Process(target=drive, args=(cluster.url, cluster.environment(cluster.hosts[0]), its))
    process.start()
    its.close()
    yield mine
    mine.send(None)
    process.join(30)
    process.kill()


@pytest.fixture(scope="module")
def quiet(driver: Connection) -> Outcome:
    assert driver.poll(120)
    outcome = driver.recv()
    assert outcome.rows == [[8 * steps] * WORKERS for steps in STEPS]
    return outcome


@pytest.mark.parametrize(("strategy", "point", "fault"), CASES)
def test_the_run_ends_as_a_quiet_one(
    cluster: Standalone, driver: Connection, quiet: Outcome, strategy: str, point: str, fault: str
) -> None:
    while sum(worker.poll() is None for worker in cluster.workers) < 3:
        cluster.add_worker(cluster.hosts[0])
    driver.send((strategy, point, fault))
    assert driver.poll(120), "it hangs"
    outcome = driver.recv()
    assert outcome.harmed
    for name, array in quiet.arrays.items():
        np.testing.assert_array_equal(outcome.arrays[name], array)
    assert outcome.rows == quiet.rows  # of each round once, and all of them
    if fault == "stop":
        assert any("late" in reason for reason in outcome.reasons)
