"""Running a function once for every partition, in tasks of Spark's.

Nothing in the project but this module and launch.py, which starts Spark, imports pyspark.
"""

import concurrent.futures
import contextlib
import functools
import itertools
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypeVar, cast

from py4j.protocol import Py4JError
from pyspark import RDD, Broadcast, SparkContext, StorageLevel, TaskContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from ..errors import ClusterError, SparkNetError
from .config import TASK_FAILURES, slots, too_few_slots
from .cores import cores
from .data import BadPolicy, BadRecords, Columns, DataFrame, Source
from .late import LateTasksError, Stage, timely
from .launch import Java
from .shards import Reading, Shard, local_folder, remove_shards, shard

__all__ = ["RDD", "Cluster", "Own", "Rows", "SparkContext", "said"]

# How long the executors of a cluster may take to come up before too few slots are an error.
SLOTS_WAIT = 60.0
# Whoever sets one of these will not have data pass over connections that Spark does not know of.
SECURED = (
    "spark.authenticate",
    "spark.network.crypto.enabled",
    "spark.io.encryption.enabled",
    "spark.ssl.enabled",
    "spark.ssl.rpc.enabled",
)
# Spark's name for the jobs of a body of Cluster.running, and ours for what they are told (Cluster.say).
GROUP = "spark.jobGroup.id"
SAID = "sparknet.said"
# What Spark's UI calls jobs that nobody has described.
APPLICATION = "sparknet"
T = TypeVar("T")


class Rows(NamedTuple):
    """A source's rows, one partition for each worker, as Spark knows them: an RDD that can be read again anywhere."""

    name: str
    source: Source
    rdd: "RDD[Reading]"
    bad_records: BadPolicy


class Own(tuple[Any, ...]):
    """An argument of `Cluster.each` that is another for each partition: its values, in their order."""


class Cluster:
    """A Spark application with a slot for each of `workers`.

    `conf` has settings of Spark's own. With `context` it joins an application that runs already (spark-submit's, a
    notebook's), whose settings count, and leaves it running at the end. `deadline` is how many seconds a task may keep
    others waiting, see late.py. Raises ClusterError: no Java, Spark does not start, too few slots.
    """

    def __init__(
        self,
        master: str,
        workers: int,
        context: SparkContext | None = None,
        conf: Mapping[str, str] = {},
        deadline: float = 120.0,
    ) -> None:
        self.workers = workers
        self.deadline = deadline
        self._marks: list[RDD[Any]] = []
        self.run = uuid.uuid4().hex[:12]
        self._owner = context is None
        self._java = Java()
        # Jobs run in threads of their own: Ctrl-C then interrupts the main thread's wait, not a half-read answer of
        # Java's. Two at a time, a round and a test, and somebody who looks at each.
        self._threads = concurrent.futures.ThreadPoolExecutor(2, "spark-jobs")
        self._watchers = concurrent.futures.ThreadPoolExecutor(2, "spark-watch")
        self._bodies = itertools.count()
        self.context = self._java.start(master, conf) if context is None else context
        try:
            self.master = str(self.context.master)
            self.check_slots()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, ClusterError):
            self._java.keep_log = False
        self.close()

    def close(self) -> None:
        """Ends the application, or, where it is someone else's, removes what this run kept on its executors."""
        self._threads.shutdown()
        self._watchers.shutdown()
        # What cannot be ended has ended.
        with contextlib.suppress(Py4JError, PySparkException, OSError):
            if self._owner:
                self.context.stop()
            else:
                for marks in self._marks:
                    marks.unpersist()
                run = self.run
                everywhere = self.context.parallelize(range(self.workers), self.workers)
                everywhere.foreachPartition(lambda _: remove_shards(run, local_folder()))
        self._java.end()

    @property
    def threads(self) -> int:
        """Threads for the engine in each worker: its share of the cores."""
        total = cores() if self.here else sum(self._executor_cores())
        return max(1, total // self.workers)

    @property
    def here(self) -> bool:
        """Whether all workers are processes of this machine."""
        return self.master.startswith("local[")

    @property
    def slots(self) -> int:
        """Tasks that may run at a time."""
        if (known := slots(self.master)) is not None:
            return known
        each = int(self._setting("spark.task.cpus") or 1)
        return sum(cores // each for cores in self._executor_cores())

    @property
    def address(self) -> tuple[str, str]:
        """The host that the executors find this process at; and where it is to listen."""
        host = self._setting("spark.driver.host")
        return host, self._setting("spark.driver.bindAddress") or host

    def secured(self) -> str | None:
        """The setting of Spark's, if any, by which connections are to be authenticated or encrypted."""
        return next((key for key in SECURED if self._setting(key).lower() == "true"), None)

    def _setting(self, key: str) -> str:
        return str(self.context.getConf().get(key, "") or "")

    def rows(self, name: str, source: Source, bad_records: BadPolicy = "fail") -> Rows:
        """The source's rows, cut into a partition for each worker; `name` tells them from the run's other rows."""
        workers = self.workers
        if isinstance(source, DataFrame):
            return Rows(name, source, self._kept(name, source, bad_records), bad_records)

        def read(partition: int, numbers: Iterable[int]) -> Iterator[Reading]:
            # Taken to its end: PySpark ends a Python process whose task left input unread, and with it what it keeps.
            list(numbers)
            return iter([functools.partial(source.read, partition, workers)])

        numbers = self.context.parallelize(range(workers), workers)
        return Rows(name, source, numbers.mapPartitionsWithIndex(read), bad_records)

    def _kept(self, name: str, source: DataFrame, bad_records: BadPolicy) -> "RDD[Reading]":
        """The rows of a DataFrame, which no task can read by itself: written to shards where Spark computes them.

        What Spark keeps of them, a mark for each partition, has later tasks run where the shards are; where an
        executor is lost, the lineage has its partitions computed and written again.
        """
        run, columns, reader = self.run, source.columns, source.reader()

        def write(partition: int, streams: Iterable[bytes]) -> Iterator[SparkNetError | None]:
            try:
                reading = functools.partial(reader.rows, streams, partition)
                shard(run, f"{name}-{partition}", columns, reading, local_folder(), bad_records)
                return iter([None])
            except SparkNetError as error:
                return iter([error])

        def read(partition: int, marks: Iterable[SparkNetError | None]) -> Iterator[Reading]:
            list(marks)

            def elsewhere(bad: BadRecords) -> Iterator[Columns]:
                raise RuntimeError(f"the rows of partition {partition} lie with another executor")

            return iter([elsewhere])

        def compute() -> "tuple[RDD[Any], list[SparkNetError | None]]":
            marks = source.rdd(self.workers).mapPartitionsWithIndex(write).persist(StorageLevel.MEMORY_AND_DISK)
            self._marks.append(marks)
            # All at a time, so that each lies with a slot of its own.
            together = marks if self._setting("spark.dynamicAllocation.enabled") == "true" else marks.barrier()
            return marks, together.mapPartitions(list).collect()

        with self.running(compute, f"reading {name} rows of a DataFrame") as job:
            marks, errors = self.result(job, "the DataFrame cannot be read")
        for error in errors:
            if error is not None:
                raise error
        return marks.mapPartitionsWithIndex(read)

    def each(self, rows: Rows, function: Callable[..., T], *arguments: Any, what: str = APPLICATION) -> list[T]:
        """Runs `function(shard, partition, *arguments)` for every partition; the results, in the partitions' order.

        `what` describes it in Spark's own UI.

        Arguments are broadcast, and every broadcast is destroyed before this returns, however it does. A SparkNetError
        in a worker is raised here as it is, at once; anything else (a lost process, a lost host) makes Spark run the
        task again, and in the end becomes a ClusterError. A KeyboardInterrupt cancels the tasks. A task may take what
        it takes: one partition may be read for much longer than another.
        """
        with self.running(lambda: self._each(rows, function, arguments, "each"), what) as job:
            return self.results(job)

    @contextlib.contextmanager
    def begin(
        self, rows: Rows, function: Callable[..., T], *arguments: Any, what: str = APPLICATION
    ) -> "Iterator[concurrent.futures.Future[list[T | SparkNetError]]]":
        """Runs as `each` does, but late tasks again (see `timely`), while the block goes on; see `running`."""
        with self.running(lambda: self._each(rows, function, arguments, "timely"), what) as job:
            yield job

    @contextlib.contextmanager
    def together(
        self, rows: Rows, function: Callable[..., T], *arguments: Any, what: str = APPLICATION
    ) -> "Iterator[concurrent.futures.Future[list[T | SparkNetError]]]":
        """Runs as `each` does, but all tasks at a time (a barrier stage), while the block goes on; see `running`.

        Spark gives up at the first task that it loses; where there are too few slots (`check_slots`), after minutes.
        """
        with self.running(lambda: self._each(rows, function, arguments, "together"), what) as job:
            yield job

    @contextlib.contextmanager
    def running(self, body: Callable[[], T], what: str = APPLICATION) -> "Iterator[concurrent.futures.Future[T]]":
        """Runs `body`, which may ask Spark for jobs, while the block goes on; a block that raises cancels them.

        Spark's own UI describes the jobs as `what`. Of two at a time each has a thread of its own.
        """
        group = f"{self.run}-{next(self._bodies)}"

        def grouped() -> T:
            self.context.setJobGroup(group, what)
            self.say("")
            return body()

        job = self._threads.submit(grouped)
        try:
            yield job
        except BaseException:
            while not job.done():
                # Again and again: `body` may be between two jobs.
                with contextlib.suppress(Py4JError, OSError):
                    self.context.cancelJobGroup(group)
                concurrent.futures.wait([job], timeout=1)
            raise

    def timely(
        self, job: Callable[[], T], stages: Sequence[Stage], late: Callable[[LateTasksError], None] = lambda _: None
    ) -> T:
        """In a body of `running`: what `job` gives, which has Spark run a job of as many stages.

        Where a task is late, `late` is told, and `job` runs again, up to four times; what Spark has kept of a stage
        (a shuffle) is not done again. Raises ClusterError after the last time.
        """
        group = str(self.context.getLocalProperty(GROUP))
        for attempt in range(1, TASK_FAILURES + 1):
            try:
                return timely(self.context, self._watchers, group, stages, self.deadline, job)
            except LateTasksError as error:
                if attempt == TASK_FAILURES:
                    raise ClusterError(f"{error} (attempt {attempt} of {attempt})") from error
                late(error)
                if error.usual is not None:
                    # Those that told how long it takes are not run again.
                    stages = [*stages]
                    stages[error.stage] = stages[error.stage]._replace(usual=error.usual)
        raise AssertionError("the last attempt returns or raises")

    def say(self, text: str) -> None:
        """In a body of `running`: tells tasks of the jobs that come, which ask `said`.

        Unlike a broadcast it may be something else when a task is tried again by another job.
        """
        self.context.setLocalProperty(SAID, text)

    def forget(self, rdd: "RDD[Any]") -> None:
        """Removes what Spark has kept of the shuffle behind `rdd`; by itself it would, when Java's memory runs low."""
        with contextlib.suppress(Py4JError, OSError):
            java: Any = rdd._jrdd
            java.rdd().cleanShuffleDependencies(True)

    def result(self, job: "concurrent.futures.Future[T]", failed: str = "Spark failed") -> T:
        """What `job`, of `running`, gives; raises ClusterError, which says `failed` and why, where Spark failed."""
        try:
            return job.result()
        except (Py4JError, PySparkException, OSError) as error:
            raise self._java.lost(error, failed) from error

    def results(
        self, job: "concurrent.futures.Future[list[T | SparkNetError]]", failed: str = "Spark failed"
    ) -> list[T]:
        """As `result`, what the tasks of `job` give in the partitions' order; raises a worker's SparkNetError, too."""
        results = self.result(job, failed)
        for result in results:
            if isinstance(result, SparkNetError):
                raise result
        return cast(list[T], results)

    def over(
        self,
        rows: Rows,
        function: Callable[..., Iterable[T]],
        failed: Callable[[int, SparkNetError], Iterable[T]],
        stack: contextlib.ExitStack,
        *arguments: Any,
    ) -> "RDD[T]":
        """What `function(shard, partition, *arguments)` gives for each partition, as an RDD.

        Where it raises a SparkNetError, `failed(partition, error)` gives something in its place: raised, the same error
        would only come again, in every attempt of Spark's. The arguments are broadcast, until `stack` is closed.
        """
        return rows.rdd.mapPartitionsWithIndex(self._task(rows, function, failed, stack, arguments))

    def _each(
        self,
        rows: Rows,
        function: Callable[..., T],
        arguments: tuple[Any, ...],
        how: Literal["each", "timely", "together"],
    ) -> list[T | SparkNetError]:
        def result(shard: Shard, partition: int, *values: Any) -> list[tuple[int, T | SparkNetError]]:
            return [(partition, function(shard, partition, *values))]

        def failed(partition: int, error: SparkNetError) -> list[tuple[int, T | SparkNetError]]:
            return [(partition, error)]

        with contextlib.ExitStack() as stack:
            task = self._task(rows, result, failed, stack, arguments)
            tasks: Any = rows.rdd.barrier() if how == "together" else rows.rdd
            job = tasks.mapPartitionsWithIndex(task).collect
            results = self.timely(job, [Stage("worker", None)]) if how == "timely" else job()
        return [result for _, result in sorted(results, key=lambda pair: pair[0])]

    def _task(
        self,
        rows: Rows,
        function: Callable[..., T],
        failed: Callable[[int, SparkNetError], T],
        stack: contextlib.ExitStack,
        arguments: tuple[Any, ...],
    ) -> Callable[[int, Iterable[Reading]], T]:
        run, name, columns, bad_records = self.run, rows.name, rows.source.columns, rows.bad_records
        sent = [[self.broadcast(stack, value) for value in _values(argument)] for argument in arguments]

        def task(partition: int, parts: Iterable[Reading]) -> T:
            try:
                (reading,) = parts
                mine = shard(run, f"{name}-{partition}", columns, reading, local_folder(), bad_records)
                values = [each[partition if len(each) > 1 else 0].value for each in sent]
                return function(mine, partition, *values)
            except SparkNetError as error:
                return failed(partition, error)

        return task

    @contextlib.contextmanager
    def streams(
        self, function: Callable[[int], Iterable[Any]], parquet: str | None, schema: str
    ) -> Iterator[Iterator[Any]]:
        """What `function(partition)` gives in a task for each worker: streams of Arrow as bytes, and other things.

        It is kept on the executors' disks, and comes one by one, in the partitions' order. With `parquet`, a folder of
        any filesystem that Spark knows, the tasks write the streams there first; `schema` has their columns as Spark's
        SQL writes them. Raises what `results` raises; a task that fails gives its SparkNetError.
        """

        def given(partition: int, numbers: Iterable[int]) -> Iterable[Any]:
            list(numbers)
            return function(partition)

        numbers = self.context.parallelize(range(self.workers), self.workers)
        kept = numbers.mapPartitionsWithIndex(given).persist(StorageLevel.DISK_ONLY)

        def compute() -> list[Any]:
            failed = kept.filter(lambda stream: isinstance(stream, SparkNetError)).take(1)
            if parquet is not None and not failed:
                rows = kept.filter(lambda each: isinstance(each, bytes)).map(lambda stream: (stream,))
                frame = SparkSession(self.context).createDataFrame(rows, "stream binary")
                frame.mapInArrow(_batches, schema).write.parquet(parquet)
            return failed

        with self.running(compute, "predicting") as job:
            self.results(job, "Spark failed" if parquet is None else f"cannot write {parquet}")
        yield iter(kept.toLocalIterator())
        kept.unpersist()

    def broadcast(self, stack: contextlib.ExitStack, value: Any) -> "Broadcast[Any]":
        """Sends `value` to all executors; `stack` destroys it."""
        broadcast = self.context.broadcast(value)

        def destroy() -> None:
            # A lost cluster has nothing left to destroy, and must not hide why it was lost.
            with contextlib.suppress(Py4JError, OSError):
                broadcast.destroy(blocking=True)

        stack.callback(destroy)
        return broadcast

    def check_slots(self) -> None:
        """Raises ClusterError unless there is a slot for each worker; waits for executors that are starting."""
        try:
            self._wait_for_slots()
        except (Py4JError, PySparkException, OSError) as error:
            raise self._java.lost(error) from error

    def _wait_for_slots(self) -> None:
        deadline = time.monotonic() + SLOTS_WAIT
        while (found := self.slots) < self.workers:
            if slots(self.master) is not None or time.monotonic() > deadline:
                raise ClusterError(too_few_slots(self.master, found, self.workers))
            time.sleep(0.5)

    def _executor_cores(self) -> list[int]:
        executors: Any = self.context._jsc.sc().statusStore().executorList(True)
        found = [executors.apply(index) for index in range(executors.size())]
        return [int(executor.totalCores()) for executor in found if executor.id() != "driver"]


def said() -> str:
    """In a task: what `Cluster.say` has told its job, "" where it told nothing."""
    context = TaskContext.get()
    return (context.getLocalProperty(SAID) if context else None) or ""


def _batches(rows: Iterable[Any]) -> Iterator[Any]:
    """The batches of the streams of Arrow in the first column of `rows`."""
    import pyarrow as pa

    for row in rows:
        for stream in row.column(0).to_pylist():
            with pa.ipc.open_stream(stream) as reader:
                yield from reader


def _values(argument: Any) -> tuple[Any, ...]:
    return argument if isinstance(argument, Own) else (argument,)
