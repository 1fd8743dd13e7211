"""Strategy `spark`: weights go out as a broadcast and come back as means, through Spark alone.

A worker cuts its arrays into pieces, Spark's shuffle brings the same piece of all workers together, and what the driver
gets, a part at a time, is their mean: its traffic does not grow with the number of workers.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import SparkNetError
from .average import Array, mean
from .checkpoint import State
from .codec import RETURN, Format, Message, opened
from .exchange import Watch
from .rule import Arrays, Rule, Turn
from .shards import Shard
from .spark import RDD, Cluster, Own, Rows
from .worker import Figures

# Bytes of a piece, the message of which may be smaller; and of the pieces that one task sums. So many tasks make a
# job: many keep all workers at it, and what one job brings is in the memory of the driver's Java (1 GB by default).
PIECE = 1 << 22
BUCKET = 1 << 25
TOGETHER = 8
GIVEN = -1


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
    """What else a worker tells: lengths of its arrays, or the error that it met."""

    partition: int
    give: tuple[int, ...] = ()
    own: tuple[int, ...] = ()
    figures: Figures | None = None
    error: SparkNetError | None = None


class Shuffle:
    """See exchange.Exchange. A leg has a state after each round."""

    def __init__(self, cluster: Cluster, rows: Rows, rule: Rule) -> None:
        self._cluster = cluster
        self._rows = rows
        self._rule = rule

    def leg(self, state: State, steps: Sequence[int], watch: Watch) -> None:
        """Runs all rounds. What is lost Spark itself runs again."""
        for count in steps:
            started = time.perf_counter()
            with self._cluster.running(functools.partial(self._round, state, count)) as job:
                state, figures = self._cluster.result(job)
            watch.trained(figures, time.perf_counter() - started)
            watch.reached(state)

    def _round(self, state: State, steps: int) -> tuple[State, list[Figures]]:
        rule, workers = self._rule, self._cluster.workers
        shared, own = rule.share(state)
        numbers = sum(array.nbytes for arrays in (shared, *own) for array in arrays)
        buckets = max(1, -(-numbers // BUCKET))

        round, iteration = state.round, state.iteration

        def work(shard: Shard, partition: int, shared: Arrays, own: Arrays) -> Iterable[tuple[int, Head | Piece]]:
            return _cut(rule.train(shard, partition, shared, own, round, iteration, steps), partition, buckets)

        with contextlib.ExitStack() as stack:
            cut = self._cluster.over(self._rows, work, _failed, stack, shared, Own(own or ((),)))
            summed = cut.partitionBy(buckets, lambda key: key).mapPartitions(lambda pairs: _sum(pairs, workers))
            means, owns, figures = _gather(self._brought(summed, buckets), workers)
        after = rule.state(state.round + 1, state.iteration + steps, rule.settle(shared, means), owns)
        return after, figures

    def _brought(self, summed: RDD[Head | Piece], buckets: int) -> Iterator[Head | Piece]:
        """All of `summed`, of as many partitions. What is given is let go: the driver has little more than one copy."""
        for first in range(0, buckets, TOGETHER):
            some = list(range(first, min(first + TOGETHER, buckets)))
            found = self._cluster.context.runJob(summed, lambda pieces: pieces, some)
            found.reverse()
            while found:
                yield found.pop()


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
    for _, found in pairs:
        if isinstance(found, Head) or found.owner != GIVEN:
            yield found
            continue
        pieces = met.setdefault((found.array, found.start), [])
        pieces.append(found)
        if len(pieces) == workers:
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
            means = _room(heads[0].give)
            owns = [_room(heads[partition].own) for partition in range(workers)]
        for piece in early:
            array = (means if piece.owner == GIVEN else owns[piece.owner])[piece.array]
            array[piece.start : piece.start + piece.size] = piece.values()
        early.clear()
    return means, owns, [figures for partition in range(workers) if (figures := heads[partition].figures)]


def _room(lengths: Sequence[int]) -> Arrays:
    return tuple(np.empty(length, np.float32) for length in lengths)
