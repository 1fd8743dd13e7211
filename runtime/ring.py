"""Strategy `ring`: the workers average among themselves, round after round, in tasks that run at the same time.

The name is the literature's for averages without a server; what the workers do is in allreduce.py.
"""

import contextlib
import functools
import math
import time
from collections.abc import Sequence

from ..errors import ClusterError, SparkNetError
from .checkpoint import State
from .config import TASK_FAILURES
from .exchange import Watch
from .late import Pace
from .rendezvous import Member, Place, Rendezvous
from .rule import Rule
from .shards import Shard
from .spark import Cluster, Rows
from .wire import LateError, PeerError
from .worker import Figures

# A leg ends with the first round that is over so many seconds after its beginning: what a loss may cost.
LEG_SECONDS = 60.0
# Ctrl-C waits so many seconds for the end of a round; then what the leg has learnt so far is lost.
STOP_SECONDS = 10.0


class Ring:
    """See exchange.Exchange. The state comes back at a leg's end, or on the way where training fails.

    deadline     seconds that a worker may keep the others waiting, beyond the time that they needed themselves
    attempts     of a leg
    """

    def __init__(
        self, cluster: Cluster, rows: Rows, rule: Rule, deadline: float, attempts: int = TASK_FAILURES
    ) -> None:
        self._cluster = cluster
        self._rows = rows
        self._rule = rule
        self._deadline = deadline
        self._attempts = attempts
        self._pace = Pace()

    def leg(self, state: State, steps: Sequence[int], watch: Watch) -> None:
        """Runs rounds for a minute or so. Where something is lost, all that the leg did is done again."""
        told = _Told(watch, self._pace, max(steps))
        for attempt in range(1, self._attempts + 1):
            self._cluster.check_slots()
            try:
                self._run(state, steps, told, LEG_SECONDS)
                return
            except PeerError as error:
                if attempt == self._attempts:
                    tries = f" (attempt {attempt} of {attempt})" if attempt > 1 else ""
                    raise ClusterError(f"{error}{tries}") from error
                watch.again(str(error))
            except ClusterError as error:
                if attempt == self._attempts:
                    raise
                watch.again(str(error))
            except SparkNetError:
                if told.done:
                    # The workers have no more than the round that failed.
                    with contextlib.suppress(PeerError, SparkNetError):
                        self._run(state, steps[: told.done], told, math.inf)
                raise

    def _run(self, state: State, steps: Sequence[int], told: "_Told", seconds: float) -> None:
        cluster, rule = self._cluster, self._rule
        shared, own = rule.share(state)
        told.begin()
        with (
            Rendezvous(*cluster.address, cluster.workers, shared, own, self._deadline) as meeting,
            cluster.together(
                self._rows,
                functools.partial(work, rule),
                meeting.place,
                state.round,
                state.iteration,
                tuple(steps),
                seconds,
                what=f"{rule.title(state.round, steps)}, averaging by ring",
            ) as job,
        ):
            job.add_done_callback(meeting.over)
            try:
                interrupted = _listen(meeting, told)
            except LateError:
                raise
            except PeerError as error:
                if job.done():
                    cluster.results(job, str(error))  # of a process Spark knows why it is lost
                raise
            except SparkNetError:
                told.done = meeting.done
                raise
            results: list[str | None] = []
            try:
                results = cluster.results(job)
            except KeyboardInterrupt:
                # The state may be here already, while Spark still ends the tasks.
                if meeting.shared is None:
                    raise
                interrupted = True
        if meeting.shared is None:
            raise PeerError(next(filter(None, results), "the workers ended early"))
        after = rule.state(
            state.round + meeting.done, state.iteration + sum(steps[: meeting.done]), meeting.shared, meeting.own
        )
        told.watch.reached(after)
        if interrupted:
            raise KeyboardInterrupt


def _listen(meeting: Rendezvous, told: "_Told") -> bool:
    """Tells of all rounds; whether Ctrl-C has ended the leg, which then waits for the end of the round at hand."""
    try:
        for done in meeting.rounds(told.usual):
            told.round(done)
        return False
    except KeyboardInterrupt:
        meeting.stop()
        for done in meeting.rounds(told.usual, STOP_SECONDS):
            told.round(done)
        if meeting.shared is None:
            raise
        return True


class _Told:
    """Tells a watch of a leg's rounds, of each once, however often they are run; `done` were whole before an error."""

    def __init__(self, watch: Watch, pace: Pace, steps: int) -> None:
        self.watch = watch
        self.done = 0
        self._told = 0
        self._pace = pace
        self._steps = steps

    def begin(self) -> None:
        """The leg begins, perhaps again."""
        self._count = 0
        self._clock = time.perf_counter()

    def usual(self) -> float | None:
        """Seconds that the longest round of the leg usually takes."""
        return self._pace.usual(self._steps)

    def round(self, done: list[Figures]) -> None:
        """The next round is over."""
        self._pace.heard(done)
        now = time.perf_counter()
        self._count += 1
        if self._count > self._told:
            self._told = self._count
            self.watch.trained(done, now - self._clock)
        self._clock = now


def work(
    rule: Rule,
    shard: Shard,
    partition: int,
    place: Place,
    round: int,
    iteration: int,
    steps: tuple[int, ...],
    seconds: float,
) -> str | None:
    """A worker's leg; why it ended before its time, None where it did not. What it learns goes to `place`."""
    try:
        member = Member(place, partition)
    except PeerError as error:
        return str(error)
    with contextlib.closing(member):
        shared, own = member.shared, member.own
        started, done = time.perf_counter(), 0
        try:
            last = False
            while not last:
                turn = rule.train(shard, partition, shared, own, round + done, iteration, steps[done])
                iteration += steps[done]
                done += 1
                last = done == len(steps) or time.perf_counter() - started > seconds or member.asked_to_stop()
                # Who needs more than twice as long as this worker is late.
                member.mesh.patience(place.patience + turn.figures.seconds)
                means, last = member.mesh.mean(turn.give, turn.weight, last)
                shared, own = rule.settle(shared, tuple(means)), turn.own
                member.tell(turn.figures)
            member.end(done, shared, own)
        except (PeerError, SparkNetError) as error:
            # A round that failed in training does not count.
            member.fail(error, max(0, done - 1) if isinstance(error, PeerError) else done)
            if isinstance(error, SparkNetError):
                raise
            return str(error)
    return None
