"""Strategy `spark`: weights go out as a broadcast and come back as means, through Spark alone.

A worker cuts its arrays into pieces, Spark's shuffle brings the same piece of all workers together, and what the driver
gets, a part at a time, is their mean: its traffic does not grow with the number of workers.

When a worker is late, Spark runs its part of the round again, on another process; the other parts are still there, in
the shuffle. Or the worker is dropped, by being told to give nothing this time.
"""

import contextlib
import dataclasses
import functools
import json
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import SparkNetError
from .average import Array, mean
from .checkpoint import State
from .codec import RETURN, Format, Message, opened
from .config import Late
from .exchange import Watch
from .late import LateTasksError, Pace, Stage
from .rule import Arrays, Rule, Turn
from .shards import Shard
from .spark import Cluster, Own, Rows, said
from .worker import Figures

# Bytes of a piece, the message of which may be smaller; and of the pieces that one task sums. So many tasks make a
# job: many keep all workers at it, and what one job brings is in the memory of the driver's Java (1 GB by default).
PIECE = 1 << 22
BUCKET = 1 << 25
TOGETHER = 8
GIVEN = -1
# Who is to be told, and what; None: no more.
News = queue.SimpleQueue[tuple[Callable[[str], None], str] | None]


class Piece(NamedTuple):
    """A piece of an array, from number `start` on: of what `owner` keeps for itself, or (GIVEN) of what is averaged."""

    owner: int
    array: int
    start: int
    partition: int
    weight: float
    format: Format
    size: int
    content: bytes

    def values(self) -> Array:
        """The numbers."""
        if self.format == "float32":
            return np.frombuffer(self.content, np.float32)
        return opened(Message(self.format, self.size, np.frombuffer(self.content, np.uint8)))


@dataclasses.dataclass(frozen=True)
class Head:
    """What else a worker tells: lengths of its arrays, the error that it met, or that it is dropped: neither."""

    partition: int
    give: tuple[int, ...] = ()
    own: tuple[int, ...] = ()
    figures: Figures | None = None
    error: SparkNetError | None = None


class Shuffle:
    """See exchange.Exchange. A leg has a state after each round.

    late         what becomes of a worker that is later than the cluster's deadline
    """

    def __init__(self, cluster: Cluster, rows: Rows, rule: Rule, late: Late = "AGAIN") -> None:
        self._cluster = cluster
        self._rows = rows
        self._rule = rule
        self._late = late
        self._pace = Pace()

    def leg(self, state: State, steps: Sequence[int], watch: Watch) -> None:
        """Runs all rounds. What is lost Spark itself runs again."""
        for count in steps:
            started = time.perf_counter()
            # What happens on the way is heard in the job's thread, and told in this one.
            news: News = queue.SimpleQueue()
            what = f"{self._rule.title(state.round, [count])}, averaging through Spark"
            with self._cluster.running(functools.partial(self._round, state, count, watch, news), what) as job:
                job.add_done_callback(lambda _, news=news: news.put(None))  # type: ignore[misc]
                for tell, reason in iter(news.get, None):
                    tell(reason)
                state, figures = self._cluster.result(job)
            self._pace.heard(figures)
            watch.trained(figures, time.perf_counter() - started)
            watch.reached(state)

    def _round(self, state: State, steps: int, watch: Watch, news: News) -> tuple[State, list[Figures]]:
        rule, cluster = self._rule, self._cluster
        workers, round, iteration = cluster.workers, state.round, state.iteration
        shared, own = rule.share(state)
        numbers = sum(array.nbytes for arrays in (shared, *own) for array in arrays)
        buckets = max(1, -(-numbers // BUCKET))

        def work(shard: Shard, partition: int, shared: Arrays, own: Arrays) -> Iterable[tuple[int, Head | Piece]]:
            if partition in _dropped():
                return [(0, Head(partition))]
            return _cut(rule.train(shard, partition, shared, own, round, iteration, steps), partition, buckets)

        def late(tasks: LateTasksError, first: int) -> None:
            # Without a worker that is done there is no mean; and what the driver has already holds all workers.
            if self._late == "DROP" and tasks.stage == 0 and tasks.done and first == 0:
                cluster.say(json.dumps([*_dropped(), *tasks.partitions]))
                news.put((watch.dropped, str(tasks)))
            else:
                news.put((watch.again, str(tasks)))

        def brought() -> Iterator[Head | Piece]:
            # What is given is let go: the driver has little more than one copy.
            stages = [Stage("worker", self._pace.usual(steps)), Stage("sum", 0.0)]
            for first in range(0, buckets, TOGETHER):
                some = list(range(first, min(first + TOGETHER, buckets)))
                job = functools.partial(cluster.context.runJob, summed, lambda pieces: pieces, some)
                found = cluster.timely(job, stages, functools.partial(late, first=first))
                found.reverse()
                while found:
                    yield found.pop()

        with contextlib.ExitStack() as stack:
            cut = cluster.over(self._rows, work, _failed, stack, shared, Own(own or ((),)))
            summed = cut.partitionBy(buckets, lambda key: key).mapPartitions(lambda pairs: _sum(pairs, workers))
            stack.callback(cluster.forget, summed)
            means, owns, figures = _gather(brought(), workers)
        owns = [owns[each] or rule.kept(shared, own[each] if own else ()) for each in range(workers)]
        after = rule.state(round + 1, iteration + steps, rule.settle(shared, means), owns)
        return after, figures


def _dropped() -> list[int]:
    """In a task, and in a body of Cluster.running: the workers that are left out of the round."""
    return list(json.loads(said() or "[]"))


def _cut(turn: Turn, partition: int, buckets: int) -> Iterator[tuple[int, Head | Piece]]:
    """A worker's arrays in pieces, each with the bucket where it meets those of the others."""
    give = tuple(each.count if isinstance(each, Message) else each.size for each in turn.give)
    own = tuple(array.size for array in turn.own)
    yield 0, Head(partition, give, own, turn.figures)
    step, count = PIECE // 4, 0
    for owner, arrays, sizes in ((GIVEN, turn.give, give), (partition, turn.own, own)):
        for index, (array, size) in enumerate(zip(arrays, sizes, strict=True)):
            for start in range(0, size, step):
                some = slice(start, min(start + step, size))
                if isinstance(array, Message):
                    format, content = array.format, array.part(some).content.tobytes()
                else:
                    format, content = "float32", array[some].tobytes()
                at = (owner, index, start, partition, turn.weight)
                yield count % buckets, Piece(*at, format, some.stop - start, content)
                count += 1


def _failed(partition: int, error: SparkNetError) -> Iterable[tuple[int, Head | Piece]]:
    return [(0, Head(partition, error=error))]


def _sum(pairs: Iterable[tuple[int, Head | Piece]], workers: int) -> Iterator[Head | Piece]:
    """The means of the pieces of a bucket, summed in the partitions' order; and what is not averaged, as it is."""
    met: dict[tuple[int, int], list[Piece]] = {}
    wanted = workers - len(_dropped())
    for _, found in pairs:
        if isinstance(found, Head) or found.owner != GIVEN:
            yield found
            continue
        pieces = met.setdefault((found.array, found.start), [])
        pieces.append(found)
        if len(pieces) == wanted:
            del met[found.array, found.start]
            pieces.sort(key=lambda piece: piece.partition)
            total = mean([piece.values() for piece in pieces], [piece.weight for piece in pieces])
            if found.format == "float32":
                yield found._replace(content=total.tobytes())
            else:
                yield found._replace(format=RETURN, content=Message.of(RETURN, total).content.tobytes())


def _gather(found: Iterator[Head | Piece], workers: int) -> tuple[Arrays, list[Arrays], list[Figures]]:
    """The arrays again, each piece written where it belongs as it comes. Heads come first: they are in bucket 0."""
    heads: dict[int, Head] = {}
    early: list[Piece] = []
    means: Arrays = ()
    owns: list[Arrays] = []
    for each in found:
        if isinstance(each, Piece):
            early.append(each)
        else:
            if each.error:
                raise each.error
            heads[each.partition] = each
        if len(heads) < workers:
            continue
        if not owns:
            means = _room(next(head.give for head in heads.values() if head.figures))
            owns = [_room(heads[partition].own) for partition in range(workers)]
        for piece in early:
            array = (means if piece.owner == GIVEN else owns[piece.owner])[piece.array]
            array[piece.start : piece.start + piece.size] = piece.values()
        early.clear()
    return means, owns, [figures for partition in range(workers) if (figures := heads[partition].figures)]


def _room(lengths: Sequence[int]) -> Arrays:
    return tuple(np.empty(length, np.float32) for length in lengths)
