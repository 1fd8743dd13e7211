"""An application whose workers come to harm, for test_faults.py: the rule of averaging is led into a trap.

The worker that is harmed does it to itself: where it happens does not depend on the clock.
"""

import dataclasses
import os
import pathlib
import signal
import sys
import tempfile
import time
from multiprocessing.connection import Connection

import numpy as np
import small_nets
from pyspark import cloudpickle
from small_nets import SmallSource, job_solver, small_job, small_net, small_shard, small_solver

from sparknet_dsl import caffe_ext
from sparknet_dsl.runtime.averaging import Averaging
from sparknet_dsl.runtime.checkpoint import State
from sparknet_dsl.runtime.in_turn import InTurn
from sparknet_dsl.runtime.ring import Ring
from sparknet_dsl.runtime.rule import Rule
from sparknet_dsl.runtime.shuffle import Shuffle
from sparknet_dsl.runtime.spark import Cluster

WORKERS, ROWS, STEPS = 2, 50, (4, 4, 4)
# Of three rounds the second is disturbed, in worker 2.
ROUND, VICTIM = 1, 1
DEADLINE = 5.0


@dataclasses.dataclass(frozen=True)
class Trap:
    """Goes off once; `marker` then exists, and tells the processes: the worker, its executor, and Spark's worker."""

    fault: str
    marker: str

    def go_off(self) -> None:
        if not pathlib.Path(self.marker).exists():
            self.tell()
            self.spring()

    def tell(self) -> None:
        # A worker is forked by a daemon, which its executor has started, which Spark's worker has.
        line = [os.getpid()]
        for _ in range(3):
            line.append(int(pathlib.Path(f"/proc/{line[-1]}/stat").read_text().rpartition(")")[2].split()[1]))
        pathlib.Path(self.marker).write_text(" ".join(map(str, line)))

    def spring(self) -> None:
        me, _, executor, host = map(int, pathlib.Path(self.marker).read_text().split())
        victims = {"kill python": [me], "kill executor": [executor], "lose host": [host, executor], "stop": [me]}
        for process in victims[self.fault]:
            os.kill(process, signal.SIGSTOP if self.fault == "stop" else signal.SIGKILL)
        if me == os.getpid():
            time.sleep(60)  # what a lost executor leaves does not go on


class TrappedWeight(float):
    """Goes off where it is unpickled: in the sum of a bucket."""

    trap: Trap

    def __reduce__(self):
        return _weight, (float(self), self.trap)


def _weight(value: float, trap: Trap) -> float:
    trap.go_off()
    return value


class TrappedArray(np.ndarray):
    """Goes off when a part of it is taken: when the ring's workers send each other theirs."""

    trap: Trap

    def __getitem__(self, key):
        trap = getattr(self, "trap", None)
        if trap is not None:
            trap.go_off()
        return super().__getitem__(key)


@dataclasses.dataclass(frozen=True)
class Trapped(Rule):
    """The rule of plain averaging, with a trap at `point`."""

    trap: Trap = Trap("", "")
    point: str = ""
    ring: bool = False

    def train(self, shard, partition, shared, own, round, iteration, steps):
        mine = (partition, round) == (VICTIM, ROUND)
        object.__setattr__(self, "mine", mine)
        if mine and self.point == "before":
            self.trap.go_off()
        step = caffe_ext.Solver.step
        if mine and self.point == "training":
            caffe_ext.Solver.step = self.into_the_trap(step)
        try:
            turn = super().train(shard, partition, shared, own, round, iteration, steps)
        finally:
            caffe_ext.Solver.step = step
        if mine and self.point == "averaging" and self.ring:
            give = turn.give[0].view(TrappedArray)
            give.trap = self.trap
            turn = dataclasses.replace(turn, give=(give, *turn.give[1:]))
        elif mine and self.point == "averaging":
            weight = TrappedWeight(turn.weight)
            weight.trap = self.trap
            turn = dataclasses.replace(turn, weight=weight)
        return turn

    def into_the_trap(self, step):
        def halfway(solver, steps, feed):
            def feed_or_die(number):
                if number == steps // 2:
                    self.trap.go_off()
                feed(number)

            return step(solver, steps, feed_or_die)

        return halfway

    def settle(self, shared, means):
        if self.point == "after" and self.ring and getattr(self, "mine", False):
            self.trap.go_off()
        return super().settle(shared, means)


class Watch:
    """Keeps what it hears; `after` the disturbed round it springs a trap that lies between two rounds."""

    def __init__(self, victims: "Trap | None") -> None:
        self.rows, self.state, self.reasons, self.victims = [], None, [], victims

    def trained(self, done, seconds):
        self.rows.append([each.rows for each in done])
        if self.victims and len(self.rows) == ROUND + 1:
            self.victims.spring()

    def reached(self, state):
        self.state = state

    def again(self, reason):
        self.reasons.append(reason)

    def dropped(self, reason):
        raise AssertionError(reason)


@dataclasses.dataclass(frozen=True)
class Outcome:
    arrays: dict[str, np.ndarray]
    rows: list[list[int]]
    reasons: list[str]
    harmed: bool


def drive(url: str, environment: dict[str, str], parent: Connection) -> None:
    """The application, in a process of its own: takes cases, and gives outcomes; the first is that of a quiet run."""
    os.environ.update(environment)
    caffe_ext.set_num_threads(1)
    for module in (small_nets, sys.modules[__name__]):
        cloudpickle.register_pickle_by_value(module)
    with tempfile.TemporaryDirectory() as folder, Cluster(url, WORKERS, deadline=DEADLINE) as cluster:
        job = small_job(small_net(), small_solver(momentum=0.9), run=cluster.run)
        plain = (Averaging(), WORKERS, ROWS, job_solver(job).flat_history.size)
        rows = cluster.rows("train", SmallSource(ROWS))
        start = State(0, 0, {"weights": job_solver(job).net.flat_data.copy()})
        shards = [small_shard(pathlib.Path(folder), ROWS, partition, WORKERS) for partition in range(WORKERS)]
        watch = Watch(None)
        InTurn(shards, Rule(dataclasses.replace(job, run="here"), *plain)).leg(start, STEPS, watch)
        parent.send(Outcome(dict(watch.state.common), watch.rows, [], False))
        for number, (strategy, point, fault) in enumerate(iter(parent.recv, None)):
            marker = pathlib.Path(folder) / f"marker-{number}"
            trap = Trap(fault, str(marker))
            rule = Trapped(job, *plain, trap=trap, point=point, ring=strategy == "ring")
            between = point == "after" and strategy == "spark"
            if between:
                # The process that it lies in wait for tells who it is, in the same round.
                rule = dataclasses.replace(rule, point="")
                cluster.each(rows, lambda shard, partition, marker=marker: tell(marker, partition))
            exchange = Ring(cluster, rows, rule, DEADLINE) if strategy == "ring" else Shuffle(cluster, rows, rule)
            watch = Watch(trap if between else None)
            exchange.leg(start, STEPS, watch)
            parent.send(Outcome(dict(watch.state.common), watch.rows, watch.reasons, marker.exists()))


def tell(marker: pathlib.Path, partition: int) -> None:
    if partition == VICTIM:
        Trap("nothing", str(marker)).tell()
