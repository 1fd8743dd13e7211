"""Tasks that are late: Spark's own records tell how long each one has been at it, and its job is cancelled for that.

A process that stands still is no loss that Spark would notice. Late is who has been at it for more than the deadline
and twice the time that others, or rounds before, have taken.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from py4j.protocol import Py4JError

from .worker import Figures

if TYPE_CHECKING:
    from pyspark import SparkContext

# Seconds between two looks.
LOOK = 0.5
# How long a stage may have no task running: the executors of a cluster may have to come up (again).
SLOT_SECONDS = 60.0
MANY = 1 << 20
T = TypeVar("T")


class Stage(NamedTuple):
    """What the tasks of a job's stage are called, and the seconds that one usually takes; None: nobody knows."""

    name: str
    usual: float | None


class LateTasksError(Exception):
    """Tasks of a job have kept others waiting for too long; `str()` names them.

    stage       the stage's number in the job
    partitions  of the late tasks; () where the stage has had no slot
    done        whether others of the stage are done
    usual       seconds that a task of the stage takes, None: nobody knows
    """

    def __init__(
        self, reason: str, stage: int, partitions: tuple[int, ...], done: bool, usual: float | None = None
    ) -> None:
        super().__init__(reason)
        self.stage = stage
        self.partitions = partitions
        self.done = done
        self.usual = usual


class Pace:
    """How long an iteration takes the slowest worker, by the latest round."""

    def __init__(self) -> None:
        self._seconds: float | None = None

    def heard(self, done: Sequence[Figures]) -> None:
        """A round is over."""
        self._seconds = max(each.seconds / len(each.losses) for each in done)

    def usual(self, steps: int) -> float | None:
        """Seconds for so many iterations; None before the first round."""
        return None if self._seconds is None else self._seconds * steps


def timely(
    context: "SparkContext",
    watcher: Executor,
    group: str,
    stages: Sequence[Stage],
    deadline: float,
    job: Callable[[], T],
) -> T:
    """What `job` gives, which has Spark run a job in the job group `group` that ends with these stages.

    A thread of `watcher` looks at its tasks. Raises LateTasksError, the job being cancelled, and what `job` raises.
    """
    over = threading.Event()
    watching = watcher.submit(_watch, context, group, stages, deadline, over)
    try:
        return job()
    except Exception:
        over.set()
        if late := watching.result():
            raise late from None
        raise
    finally:
        over.set()
        watching.result()


def _watch(
    context: "SparkContext", group: str, stages: Sequence[Stage], deadline: float, over: threading.Event
) -> LateTasksError | None:
    """Looks until the job is `over`, or until tasks are late, who are given, the group's jobs being cancelled."""
    busy = time.monotonic()
    while not over.wait(LOOK):
        # A lost cluster has no records; why it was lost the job itself tells.
        with contextlib.suppress(Py4JError, OSError):
            late, idle = None, False
            for number, tasks, wanted in _active(context, group, len(stages)):
                if number >= 0:
                    late = late or _late(number, stages[number], tasks, deadline)
                idle = idle or (len(tasks) < wanted and all(task.done for task in tasks))
            if not idle:
                busy = time.monotonic()
            elif time.monotonic() - busy > max(deadline, SLOT_SECONDS):
                late = LateTasksError(f"no slot has been free for {time.monotonic() - busy:.0f} s", 0, (), False)
            if late:
                context.cancelJobGroup(group)
                return late
    return None


class _Task(NamedTuple):
    partition: int
    host: str
    done: bool
    seconds: float


def _active(context: "SparkContext", group: str, count: int) -> Iterator[tuple[int, list[_Task], int]]:
    """The stages of the group's jobs that are at it: number, tasks but for failed ones, and how many it will have.

    The last `count` of a job are numbered from 0; below are those that compute a DataFrame's rows again, of which
    nobody knows how long they take.
    """
    java: Any = context._jsc
    tracker, store = java.statusTracker(), java.sc().statusStore()
    for job in tracker.getJobIdsForGroup(group):
        info = tracker.getJobInfo(job)
        if info is None or str(info.status()) != "RUNNING":
            continue
        ids = sorted(info.stageIds())
        for number, stage in enumerate(ids, count - len(ids)):
            known = store.lastStageAttempt(stage)
            if str(known.status()) != "ACTIVE":
                continue
            found = store.taskList(stage, known.attemptId(), MANY)
            tasks = [found.apply(index) for index in range(found.size())]
            alive = [_task(task) for task in tasks if task.status() in ("RUNNING", "SUCCESS")]
            yield number, alive, known.numTasks()


def _task(task: Any) -> _Task:
    done = task.status() == "SUCCESS"
    seconds = task.duration().get() / 1e3 if done else time.time() - task.launchTime().getTime() / 1e3
    return _Task(task.partitionId(), task.host(), done, seconds)


def _late(number: int, stage: Stage, tasks: Sequence[_Task], deadline: float) -> LateTasksError | None:
    done = [task.seconds for task in tasks if task.done]
    known = [*done, *([] if stage.usual is None else [stage.usual])]
    if not known:
        return None
    usual = max(known)
    late = sorted(task for task in tasks if not task.done and task.seconds > deadline + 2 * usual)
    if not late:
        return None
    who = ", ".join(f"{stage.name} {task.partition + 1} ({task.host})" for task in late)
    reason = f"{who} is late: nothing for {late[0].seconds:.0f} s, where {usual:.1f} s are usual"
    return LateTasksError(reason, number, tuple(task.partition for task in late), bool(done), usual)
