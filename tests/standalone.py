"""Spark's standalone cluster on this machine: a master and workers, each a process that a test may do things to."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import pyspark
import pytest

SPARK_CLASS = pathlib.Path(pyspark.__file__).parent / "bin" / "spark-class"
COMMAND = pathlib.Path(sysconfig.get_path("scripts")) / "sparknet-run"
WAIT = 60.0
DEFAULTS = """
spark.executor.memory 512m
spark.executor.extraJavaOptions -XX:TieredStopAtLevel=1
spark.ui.enabled false
"""


class Host:
    """A machine of the cluster: this one, or a network namespace, which has an address of its own."""

    def __init__(self, address: str = "127.0.0.1", namespace: str | None = None) -> None:
        self.address = address
        self.namespace = namespace

    def command(self, *words: object) -> list[str]:
        """The command line that runs `words` there."""
        inside = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        return [*inside, *map(str, words)]


class Standalone:
    """A cluster of a master, on the first of `hosts`, and a worker with one core on each.

    Logs and all that Spark writes lie in `folder`.
    """

    def __init__(self, folder: pathlib.Path, hosts: Sequence[Host] = (Host(), Host())) -> None:
        self.folder = folder
        self.hosts = hosts
        self.url = ""
        self.workers: list[subprocess.Popen[bytes]] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._conf = folder / "conf"
        self._conf.mkdir(parents=True)
        (self._conf / "spark-defaults.conf").write_text(DEFAULTS)

    def __enter__(self) -> Self:
        master = self.hosts[0]
        log = self._start(master, "master", "master.Master", "--host", master.address, "--port", "0")
        self.url = _said(log, r"Starting Spark master at (spark://\S+)")
        for host in self.hosts:
            self.add_worker(host)
        return self

    def add_worker(self, host: Host) -> None:
        """Starts a worker and waits until the master has it."""
        name = f"worker{len(self.workers)}"
        settings = ["--host", host.address, "--cores", "1", "--memory", "600m", "--work-dir", self.folder / name]
        log = self._start(host, name, "worker.Worker", *settings, self.url)
        self.workers.append(self._processes[-1])
        _said(log, r"(Successfully registered with master)")

    def run(self, folder: pathlib.Path, *arguments: object) -> subprocess.Popen[str]:
        """Starts `sparknet-run` with the cluster for its master, in `folder`."""
        host = self.hosts[0]
        folder.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            host.command(COMMAND, *arguments, "--master", self.url),
            cwd=folder,
            env=self.environment(host),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def environment(self, host: Host) -> dict[str, str]:
        """Of processes of the cluster, and of drivers, on `host`."""
        return {
            **os.environ,
            "SPARK_CONF_DIR": str(self._conf),
            "SPARK_LOCAL_DIRS": str(self.folder / "local"),
            "SPARK_LOCAL_IP": host.address,
            "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1",
            "SPARK_DAEMON_MEMORY": "256m",
            "PYSPARK_PYTHON": sys.executable,
            "TMPDIR": str(self.folder),
            "OMP_WAIT_POLICY": "passive",
        }

    def python_workers(self) -> list[int]:
        """Process numbers of the Python processes that run the tasks of this cluster's executors."""
        python = [each for each in _processes() if b"pyspark.daemon" in _words(each) and self._mine(each)]
        # The others are the daemons that they come from.
        return [each for each in python if _parent(each) in python]

    def executors(self) -> list[int]:
        """Process numbers of the cluster's executors."""
        return [
            process
            for process in _processes()
            if any(b"CoarseGrainedExecutorBackend" in word for word in _words(process)) and self._mine(process)
        ]

    def drivers(self) -> list[int]:
        """Process numbers of the Java processes of `sparknet-run`s, which outlive it when it is killed."""
        return [
            each for each in _processes() if any(b"SparkSubmit" in word for word in _words(each)) and self._mine(each)
        ]

    @staticmethod
    def parent(process: int) -> int:
        """The process that has started `process`."""
        return _parent(process)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        mine = [process for process in _processes() if self._mine(process)]
        for process in mine:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGCONT)
                os.kill(process, signal.SIGKILL)
        for started in self._processes:
            started.wait()
        shutil.rmtree(self.folder / "local", ignore_errors=True)

    def _start(self, host: Host, name: str, program: str, *arguments: object) -> pathlib.Path:
        log = self.folder / f"{name}.log"
        words = host.command(SPARK_CLASS, f"org.apache.spark.deploy.{program}", "--webui-port", "0", *arguments)
        with log.open("wb") as file:
            self._processes.append(
                subprocess.Popen(words, stdout=file, stderr=file, env=self.environment(host), start_new_session=True)
            )
        return log

    def _mine(self, process: int) -> bool:
        # Children inherit it, wherever they run and whatever session they make.
        try:
            environment = pathlib.Path(f"/proc/{process}/environ").read_bytes()
        except OSError:
            return False
        return b"SPARK_CONF_DIR=" + os.fsencode(self._conf) + b"\0" in environment


@contextlib.contextmanager
def two_hosts(name: str) -> Iterator[tuple[Host, Host, str]]:
    """Two network namespaces with a cable between them, and the name of the cable's end in the first.

    Needs root and iproute2.
    """
    namespaces = [f"{name}-a", f"{name}-b"]
    addresses = ["10.231.17.1", "10.231.17.2"]
    cable = f"{name}-0"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for namespace in namespaces:
            try:
                ip("netns", "add", namespace)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"network namespaces are not allowed here: {error.stderr.decode()}")
            ip("-n", namespace, "link", "set", "lo", "up")
        ip("link", "add", cable, "netns", namespaces[0], "type", "veth", "peer", f"{name}-1", "netns", namespaces[1])
        for number, (namespace, address) in enumerate(zip(namespaces, addresses, strict=True)):
            ip("-n", namespace, "addr", "add", f"{address}/24", "dev", f"{name}-{number}")
            ip("-n", namespace, "link", "set", f"{name}-{number}", "up")
        a, b = (Host(address, namespace) for address, namespace in zip(addresses, namespaces, strict=True))
        yield a, b, cable
    finally:
        for namespace in namespaces:
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


def _said(log: pathlib.Path, pattern: str) -> str:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if found := re.search(pattern, log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.1)
    raise AssertionError(f"{log} does not say {pattern}:\n{log.read_text(errors='replace')[-2000:]}")


def _processes() -> list[int]:
    return [int(path.name) for path in pathlib.Path("/proc").iterdir() if path.name.isdigit()]


def _parent(process: int) -> int:
    try:
        # After the name, which may hold anything: state, parent.
        return int(pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _words(process: int) -> list[bytes]:
    try:
        return pathlib.Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
