"""Times an average of the weights, round by round, on a cluster of processes of this machine.

    python bench/averaging.py [--megabytes 244] [--workers 2 4] [--json FILE]

Nobody trains, so that a round is its average: `spark` and `ring`, the strategies of sparknet-run; `naive`, SparkNet's
broadcast and map().reduce() at the driver; `allreduce`, what ring does among its workers, in processes without Spark;
`gloo`, the same by PyTorch (pip install torch==2.13.0). 244 MB are AlexNet's weights. The ways take turns, so that
noise of the machine meets all. Printed are medians, in seconds. A round of `ring` has its share of the beginning and
the end of its leg, of --rounds rounds, when the weights come from the driver and go back. `naive` needs much memory:
executors get --memory MB, the driver what SPARK_DRIVER_MEMORY says (4g).
"""

import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sparknet_dsl.runtime.checkpoint import State
from sparknet_dsl.runtime.choice import Still
from sparknet_dsl.runtime.data import BadRecords, Column, Columns
from sparknet_dsl.runtime.exchange import Exchange
from sparknet_dsl.runtime.rendezvous import Member, Place, Rendezvous
from sparknet_dsl.runtime.ring import Ring
from sparknet_dsl.runtime.shuffle import Shuffle
from sparknet_dsl.runtime.spark import Cluster
from sparknet_dsl.runtime.worker import Figures

WAYS = ("allreduce", "gloo", "ring", "spark", "naive")


class Nothing:
    """A source (runtime.data.Source) of one row a worker."""

    columns = (Column("row", "uint8", ()),)

    def read(self, partition: int, partitions: int, bad: BadRecords) -> Iterator[Columns]:
        yield {"row": np.zeros(1, np.uint8)}


class Watch:
    """A watch (exchange.Watch) that keeps the last state."""

    def __init__(self, state: State) -> None:
        self.state = state

    def trained(self, done: Sequence[Figures], seconds: float) -> None:
        pass

    def reached(self, state: State) -> None:
        self.state = state

    def again(self, reason: str) -> None:
        sys.exit(f"something was lost: {reason}")


class Processes:
    """Processes without Spark that average among themselves when they are asked."""

    def __init__(self, way: str, size: int, numbers: int) -> None:
        self._meeting = Rendezvous("127.0.0.1", "127.0.0.1", size, (), (), 60.0)
        place = self._meeting.place
        with socket.create_server(("127.0.0.1", 0)) as server:
            free = server.getsockname()[1]
        where = f"{free}" if way == "gloo" else f"{place.port}:{place.token.hex()}"
        command = [sys.executable, __file__, "--child", way, str(size), str(numbers), where]
        self._processes = [
            subprocess.Popen([*command, str(rank)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for rank in range(size)
        ]

    def round(self) -> float:
        """The seconds that the slowest one needed."""
        for process in self._processes:
            print("round", file=process.stdin, flush=True)
        answers = [process.stdout.readline() for process in self._processes if process.stdout]
        return max(float(answer or sys.exit("a process ended early")) for answer in answers)

    def close(self) -> None:
        for process in self._processes:
            process.communicate()
        self._meeting.__exit__()


def child(way: str, size: int, numbers: int, where: str, rank: int) -> None:
    """A process of `Processes`: a line on standard input asks for a round, its seconds are the answer."""
    values = np.full(numbers, rank, np.float32)
    if way == "gloo":
        import torch
        import torch.distributed as dist

        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{where}", rank=rank, world_size=size)
        tensor = torch.from_numpy(values)

        def average() -> None:
            dist.all_reduce(tensor)
            tensor.div_(size)
    else:
        port, token = where.split(":")
        mesh = Member(Place("127.0.0.1", int(port), bytes.fromhex(token), size, 60.0), rank).mesh

        def average() -> None:
            mesh.mean([values])

    average()
    for _ in sys.stdin:
        started = time.perf_counter()
        average()
        print(time.perf_counter() - started, flush=True)
    if not np.array_equal(values[[0, -1]], [(size - 1) / 2] * 2):
        sys.exit(f"{way} gives another mean")


def legs(exchange: Exchange, weights: State, rounds: int) -> float:
    """Seconds of a round, of as many."""
    watch = Watch(weights)
    started = time.perf_counter()
    exchange.leg(weights, [1] * rounds, watch)
    if not np.array_equal(watch.state.weights, weights.weights):
        sys.exit("equal weights have another mean")
    return (time.perf_counter() - started) / watch.state.round


def naive(cluster: Cluster, weights: State) -> float:
    """Seconds of a round as SparkNet did it."""
    size = cluster.workers
    started = time.perf_counter()
    broadcast = cluster.context.broadcast(weights.weights)
    total = cluster.context.parallelize(range(size), size).map(lambda _: broadcast.value).reduce(lambda a, b: a + b)
    total /= np.float32(size)
    seconds = time.perf_counter() - started
    broadcast.destroy()
    return seconds


def measure(size: int, numbers: int, ways: list[str], turns: int, rounds: int, memory: int) -> dict[str, Any]:
    """What rounds of `size` workers took."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    weights = State(0, 0, {"weights": np.random.default_rng(0).standard_normal(numbers, np.float32)})
    apart = {way: Processes(way, size, numbers) for way in ways if way in ("allreduce", "gloo")}
    # What local-cluster is told is a worker's memory, of which its executor would take 1 GB.
    conf = {"spark.executor.memory": f"{memory}m"}
    with Cluster(f"local-cluster[{size},1,{memory}]", size, conf=conf) as cluster:
        rows = cluster.rows("rows", Nothing())
        still = Still.among(size)
        ring, spark = Ring(cluster, rows, still, 120.0), Shuffle(cluster, rows, still)
        for turn in range(turns + 1):
            for way in ways:
                if way in apart:
                    seconds = statistics.median(apart[way].round() for _ in range(rounds))
                elif way == "naive":
                    seconds = naive(cluster, weights)
                else:
                    seconds = legs(ring, weights, rounds) if way == "ring" else legs(spark, weights, 1)
                if turn:  # the first one warms up
                    times[way].append(seconds)
    for processes in apart.values():
        processes.close()
    return {
        "workers": size,
        "megabytes": numbers * 4 / 1e6,
        "seconds": {way: statistics.median(each) for way, each in times.items()},
        "all": times,
    }


def show(result: dict[str, Any]) -> None:
    print(f"{result['workers']} workers, {result['megabytes']:.0f} MB")
    seconds = result["seconds"]
    for way, each in seconds.items():
        some = result["all"][way]
        print(f"  {way:10}{each:9.3f} s ({min(some):.3f} to {max(some):.3f})")
    for what, over in (("ring", "gloo"), ("allreduce", "gloo"), ("spark", "naive")):
        if what in seconds and over in seconds:
            print(f"  {what} takes {seconds[what] / seconds[over]:.2f} times as long as {over}")
    if "ring" in seconds and "allreduce" in seconds:
        print(f"  ring takes {seconds['ring'] - seconds['allreduce']:.3f} s more than its all-reduce")
    sys.stdout.flush()


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        way, size, numbers, where, rank = sys.argv[2:]
        child(way, int(size), int(numbers), where, int(rank))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=244)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--turns", type=int, default=3, help="of each way, after one that warms up")
    parser.add_argument("--rounds", type=int, default=5, help="of ring's legs, and of a turn without Spark")
    parser.add_argument("--memory", type=int, default=4096, help="of each executor, in MB")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    os.environ.setdefault("SPARK_DRIVER_MEMORY", "4g")
    results = []
    for size in args.workers:
        numbers = round(args.megabytes * 1e6 / 4)
        results.append(measure(size, numbers, args.ways, args.turns, args.rounds, args.memory))
        show(results[-1])
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
