"""Spark: starting it, and running a function once for every partition. Nothing else in the project imports pyspark."""

import concurrent.futures
import contextlib
import functools
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, cast

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import RDD, Broadcast, SparkConf, SparkContext, StorageLevel
from pyspark.errors import PySparkException
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from ..errors import ClusterError, SparkNetError
from .config import SHIPPED_AS, slots, too_few_slots
from .cores import cores
from .data import BadPolicy, BadRecords, Columns, DataFrame, Source
from .shards import Reading, Shard, local_folder, remove_shards, shard

__all__ = ["RDD", "Cluster", "Own", "Rows", "SparkContext", "check_java"]

JAVA = 17
# How long the executors of a cluster may take to come up before too few slots are an error.
SLOTS_WAIT = 60.0
# The interpreter of an environment that was shipped (config.spark_conf), where an executor has unpacked it.
SHIPPED_PYTHON = f"./{SHIPPED_AS}/bin/python"
# Whoever sets one of these will not have data pass over connections that Spark does not know of.
SECURED = (
    "spark.authenticate",
    "spark.network.crypto.enabled",
    "spark.io.encryption.enabled",
    "spark.ssl.enabled",
    "spark.ssl.rpc.enabled",
)
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
    notebook's), whose settings count, and leaves it running at the end. Raises ClusterError: no Java, Spark does not
    start, too few slots.
    """

    def __init__(
        self, master: str, workers: int, context: SparkContext | None = None, conf: Mapping[str, str] = {}
    ) -> None:
        self.workers = workers
        self._marks: list[RDD[Any]] = []
        self.run = uuid.uuid4().hex[:12]
        self._owner = context is None
        # Java of our own, and what PySpark knew of another before.
        self._gateway: Any = None
        self._before: Any = (None, None)
        self._log: pathlib.Path | None = None
        self._keep_log = False
        # Jobs run in a thread of their own: Ctrl-C then interrupts the main thread's wait, not a half-read
        # answer of Java's.
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "spark-jobs")
        self.context = self._start(master, conf) if context is None else context
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
            self._keep_log = False
        self.close()

    def close(self) -> None:
        """Ends the application, or, where it is someone else's, removes what this run kept on its executors."""
        self._thread.shutdown()
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
        self._end_java()
        if self._log is not None and not self._keep_log:
            self._log.unlink(missing_ok=True)

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

        with self.running(compute) as job:
            marks, errors = self.result(job, "the DataFrame cannot be read")
        for error in errors:
            if error is not None:
                raise error
        return marks.mapPartitionsWithIndex(read)

    def each(self, rows: Rows, function: Callable[..., T], *arguments: Any) -> list[T]:
        """Runs `function(shard, partition, *arguments)` for every partition; the results, in the partitions' order.

        Arguments are broadcast, and every broadcast is destroyed before this returns, however it does. A SparkNetError
        in a worker is raised here as it is, at once; anything else (a lost process, a lost host) makes Spark run the
        task again, and in the end becomes a ClusterError. A KeyboardInterrupt cancels the tasks.
        """
        with self.running(lambda: self._each(rows, function, arguments, together=False)) as job:
            return self.results(job)

    @contextlib.contextmanager
    def together(
        self, rows: Rows, function: Callable[..., T], *arguments: Any
    ) -> "Iterator[concurrent.futures.Future[list[T | SparkNetError]]]":
        """Runs as `each` does, but all tasks at a time (a barrier stage), while the block goes on; see `running`.

        Spark gives up at the first task that it loses; where there are too few slots (`check_slots`), after minutes.
        """
        with self.running(lambda: self._each(rows, function, arguments, together=True)) as job:
            yield job

    @contextlib.contextmanager
    def running(self, body: Callable[[], T]) -> "Iterator[concurrent.futures.Future[T]]":
        """Runs `body`, which may ask Spark for jobs, while the block goes on; a block that raises cancels them."""
        job = self._thread.submit(body)
        try:
            yield job
        except BaseException:
            while not job.done():
                # Again and again: `body` may be between two jobs.
                with contextlib.suppress(Py4JError, OSError):
                    self.context.cancelAllJobs()
                concurrent.futures.wait([job], timeout=1)
            raise

    def result(self, job: "concurrent.futures.Future[T]", failed: str = "Spark failed") -> T:
        """What `job`, of `running`, gives; raises ClusterError, which says `failed` and why, where Spark failed."""
        try:
            return job.result()
        except (Py4JError, PySparkException, OSError) as error:
            raise self._lost(error, failed) from error

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
        self, rows: Rows, function: Callable[..., T], arguments: tuple[Any, ...], together: bool
    ) -> list[T | SparkNetError]:
        def result(shard: Shard, partition: int, *values: Any) -> list[tuple[int, T | SparkNetError]]:
            return [(partition, function(shard, partition, *values))]

        def failed(partition: int, error: SparkNetError) -> list[tuple[int, T | SparkNetError]]:
            return [(partition, error)]

        with contextlib.ExitStack() as stack:
            tasks: Any = rows.rdd.barrier() if together else rows.rdd
            results = tasks.mapPartitionsWithIndex(self._task(rows, result, failed, stack, arguments)).collect()
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

        with self.running(compute) as job:
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

    def _start(self, master: str, given: Mapping[str, str]) -> SparkContext:
        if SparkContext._active_spark_context is not None:
            raise ClusterError(
                "Spark runs already in this process: give it to Trainer(model, spark), or stop it (spark.stop())"
            )
        check_java()
        settings = {
            "spark.driver.maxResultSize": "0",
            # A checkout of the project in the working directory must not hide the installed package.
            "spark.executorEnv.PYTHONSAFEPATH": "1",
            # What travels are weights, whose bits are as good as random.
            "spark.broadcast.compress": "false",
            "spark.shuffle.compress": "false",
            **given,
        }
        ships = given.get("spark.archives", "").endswith(f"#{SHIPPED_AS}")
        if ships:
            os.environ["PYSPARK_PYTHON"] = SHIPPED_PYTHON
        if "PYSPARK_GATEWAY_PORT" in os.environ:
            # spark-submit has started Java, and decides on all else.
            conf = SparkConf(loadDefaults=False).setAll(list(settings.items()))
            return SparkContext(conf=conf)
        settings = {"spark.app.name": "sparknet", **settings, "spark.master": master}
        if master.startswith("local"):
            settings |= {
                "spark.ui.enabled": "false",
                "spark.driver.bindAddress": "127.0.0.1",
                "spark.driver.host": "127.0.0.1",
                **given,
            }
            if not ships:
                # PySpark's default is whatever `python3` means on PATH.
                os.environ["PYSPARK_PYTHON"] = sys.executable
            # Java's optimising compiler takes cores from training and never earns them back here: without it
            # Spark was up in 10 s instead of 23, and 60 empty rounds took 8 s instead of 15 (two busy cores).
            # What a user sets wins.
            options = os.environ.get("SPARK_SUBMIT_OPTS", "")
            if "TieredStopAtLevel" not in options:
                os.environ["SPARK_SUBMIT_OPTS"] = f"-XX:TieredStopAtLevel=1 {options}".strip()
        handle, name = tempfile.mkstemp(prefix="sparknet-spark-", suffix=".log")
        self._log = pathlib.Path(name)
        conf = SparkConf(loadDefaults=False).setAll(list(settings.items()))
        try:
            # What Java and Spark say goes to the log: it is not for the user, unless Spark fails.
            with warnings.catch_warnings():
                # From Python 3.12 on: a process with threads (the engine's) forks. The child only starts Java.
                warnings.simplefilter("ignore", DeprecationWarning)
                gateway = launch_gateway(  # type: ignore[no-untyped-call]
                    conf, {"stdout": handle, "stderr": handle}
                )
            # PySpark keeps the first Java of a process, and with it the settings of that one's application.
            self._gateway, self._before = gateway, (SparkContext._gateway, SparkContext._jvm)
            SparkContext._gateway = SparkContext._jvm = None
            context = SparkContext(gateway=gateway)
        except (Py4JError, PySparkException, OSError) as error:
            lost = self._lost(error, f"Spark does not start with --master {master}")
            self._end_java()
            raise lost from error
        except KeyboardInterrupt:
            self._end_java()
            self._log.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
        if threading.current_thread() is threading.main_thread():
            # PySpark's own handler speaks to Java in the middle of whatever is being said.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return context

    def _end_java(self) -> None:
        if self._gateway is None:
            return
        gateway, self._gateway = self._gateway, None
        SparkContext._gateway, SparkContext._jvm = self._before
        gateway.shutdown()
        # Java ends when its standard input does, after it has removed Spark's files.
        gateway.proc.stdin.close()
        try:
            gateway.proc.wait(timeout=30)
        except subprocess.TimeoutExpired:
            gateway.proc.kill()

    def _lost(self, error: Exception, what: str = "Spark failed") -> ClusterError:
        reason, log = _reason(error), ""
        if self._log is not None:
            if "JAVA_GATEWAY_EXITED" in reason:
                # Why, only Java has said.
                said = re.search(r"(?:Exception|Error): (.*)", self._log.read_text(errors="replace"))
                reason = said[1] if said else reason
            log = f"; Spark's log is {self._log}"
            self._keep_log = True
        return ClusterError(f"{what}: {reason}{log}")

    def check_slots(self) -> None:
        """Raises ClusterError unless there is a slot for each worker; waits for executors that are starting."""
        try:
            self._wait_for_slots()
        except (Py4JError, PySparkException, OSError) as error:
            raise self._lost(error) from error

    def _wait_for_slots(self) -> None:
        if (known := slots(self.master)) is not None and known < self.workers:
            raise ClusterError(too_few_slots(self.master, known, self.workers))
        if known is not None:
            return
        deadline = time.monotonic() + SLOTS_WAIT
        each = int(self.context.getConf().get("spark.task.cpus", "1") or 1)
        while (found := sum(cores // each for cores in self._executor_cores())) < self.workers:
            if time.monotonic() > deadline:
                raise ClusterError(too_few_slots(self.master, found, self.workers))
            time.sleep(0.5)

    def _executor_cores(self) -> list[int]:
        executors: Any = self.context._jsc.sc().statusStore().executorList(True)
        found = [executors.apply(index) for index in range(executors.size())]
        return [int(executor.totalCores()) for executor in found if executor.id() != "driver"]


def check_java() -> None:
    """Raises ClusterError, one line that says what to install, unless Java 17 or newer is there."""
    install = (
        f"Spark needs Java {JAVA} or newer: install it (Debian, Ubuntu: apt install openjdk-17-jre-headless; "
        "conda: conda install openjdk=17) or set JAVA_HOME"
    )
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        where = f"JAVA_HOME is {home}, but there is no bin/java" if home else "no java on PATH"
        raise ClusterError(f"{where}. {install}")
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterError(f"{java} does not run: {error}. {install}") from error
    match = re.search(r'version "(?:1\.)?(\d+)', answer)
    if match is None:
        raise ClusterError(f"{java} does not say its version. {install}")
    if int(match[1]) < JAVA:
        raise ClusterError(f"{java} is Java {match[1]}. {install}")


def _batches(rows: Iterable[Any]) -> Iterator[Any]:
    """The batches of the streams of Arrow in the first column of `rows`."""
    import pyarrow as pa

    for row in rows:
        for stream in row.column(0).to_pylist():
            with pa.ipc.open_stream(stream) as reader:
                yield from reader


def _values(argument: Any) -> tuple[Any, ...]:
    return argument if isinstance(argument, Own) else (argument,)


def _reason(error: Exception) -> str:
    """The line of an error of Spark's that says most."""
    if isinstance(error, Py4JJavaError):
        text = str(error.java_exception.getMessage() or error.java_exception.toString())
    else:
        text = str(error) or type(error).__name__
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    python = [i for i, line in enumerate(lines) if "Traceback (most recent call last)" in line]
    if python:
        # The traceback's last line: what was raised in the worker.
        after = [line for line in lines[python[0] + 1 :] if re.match(r"[\w.]+(Error|Exception|Exit|Interrupt)\b", line)]
        if after:
            return after[0]
    if len(lines) > 1 and lines[0].endswith("finished unsuccessfully."):
        return lines[1]  # of a barrier stage
    return lines[0] if lines else type(error).__name__
