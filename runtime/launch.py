"""Starting Spark: Java, its settings, and where its noise goes."""

import logging
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.java_gateway import launch_gateway

from ..errors import ClusterError
from .config import SHIPPED_AS

_logger = logging.getLogger(__name__)

JAVA = 17
# The interpreter of an environment that was shipped (config.spark_conf), where an executor has unpacked it.
SHIPPED_PYTHON = f"./{SHIPPED_AS}/bin/python"


class Java:
    """Java, and Spark in it, where this process starts them; what they say is kept and named only when Spark fails."""

    def __init__(self) -> None:
        self.keep_log = False
        self._log: pathlib.Path | None = None
        # What PySpark knew of another Java before.
        self._gateway: Any = None
        self._before: Any = (None, None)

    def start(self, master: str, given: Mapping[str, str]) -> SparkContext:
        """Starts Spark with the settings `given`; raises ClusterError."""
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
        _logger.info("Spark's log is %s, until it ends", name)
        _logger.info("starting Spark at %s", master)
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
            lost = self.lost(error, f"Spark does not start with --master {master}")
            self.end()
            raise lost from error
        except KeyboardInterrupt:
            self.end()
            raise
        finally:
            os.close(handle)
        if threading.current_thread() is threading.main_thread():
            # PySpark's own handler speaks to Java in the middle of whatever is being said.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return context

    def end(self) -> None:
        """Ends Java, if this process has started it, and removes what it has said, unless that is to be kept."""
        if self._gateway is not None:
            gateway, self._gateway = self._gateway, None
            SparkContext._gateway, SparkContext._jvm = self._before
            gateway.shutdown()
            # Java ends when its standard input does, after it has removed Spark's files.
            gateway.proc.stdin.close()
            try:
                gateway.proc.wait(timeout=30)
            except subprocess.TimeoutExpired:
                gateway.proc.kill()
        if self._log is not None and not self.keep_log:
            self._log.unlink(missing_ok=True)

    def lost(self, error: Exception, what: str = "Spark failed") -> ClusterError:
        """An error of Spark's as one of ours, which says `what` happened and why."""
        reason, log = _reason(error), ""
        if self._log is not None:
            if "JAVA_GATEWAY_EXITED" in reason:
                # Why, only Java has said.
                said = re.search(r"(?:Exception|Error): (.*)", self._log.read_text(errors="replace"))
                reason = said[1] if said else reason
            log = f"; Spark's log is {self._log}"
            self.keep_log = True
        return ClusterError(f"{what}: {reason}{log}")


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
