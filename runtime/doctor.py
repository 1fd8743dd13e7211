"""`sparknet-run --doctor`: whether this machine and the cluster's executors can run, and what to mend where not."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

from rich.table import Table

from .. import terminal
from ..errors import ClusterError
from ..files import write_atomic
from .command import guarded
from .config import check_slots, spark_conf
from .launch import JAVA, check_java
from .progress import waiting
from .spark import Cluster

Verdict = Literal["good", "warning", "bad"]

GIB = 1 << 30
# Below this a worker has hardly room for a net of the library, or for the rows of a partition.
LEAST_MEMORY, LEAST_DISK = 1 * GIB, 1 * GIB
# A convolution of ones: 3 channels × 3 × 3 weights of 0.5, and a bias of 1.
LAYER = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 4 kernel_size: 3
        weight_filler { type: "constant" value: 0.5 } bias_filler { type: "constant" value: 1 } } }
"""
LAYER_VALUE = 3 * 3 * 3 * 0.5 + 1
# The first is this project itself.
PACKAGES = ("sparknet-dsl", "numpy", "pyspark", "protobuf")


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was looked at, on which machine, what was found there, and, unless it is good, what to do."""

    where: str
    what: str
    found: str
    verdict: Verdict = "good"
    remedy: str = ""


def main(
    master: str | None, workers: int, json_path: str | None = None, conf: Sequence[str] = (), ship: str | None = None
) -> int:
    """Looks at this machine and at the cluster `master`, prints a table, and writes `json_path`, a finding a line.

    Returns the exit status: 0, or 3 where something is bad.
    """
    findings: list[Finding] = []

    def body() -> None:
        with waiting("looking at this machine"):
            findings.extend(examine(master, workers, spark_conf(conf, ship, master)))
        shown = [each for each in findings if each.verdict != "good"] if terminal.quiet() else findings
        if shown:
            terminal.console().print(table(shown))
        if json_path is not None:
            write_atomic(json_path, "".join(json.dumps(dataclasses.asdict(each)) + "\n" for each in findings))

    status = guarded(body)
    return status or (ClusterError.exit_code if any(each.verdict == "bad" for each in findings) else 0)


def examine(master: str | None, workers: int, conf: Mapping[str, str] = {}) -> list[Finding]:
    """All findings: those on this machine, and, if Spark starts, those on every executor."""
    found = list(look_here())
    if any(each.verdict == "bad" for each in found):
        return found
    try:
        with Cluster(check_slots(master, workers), workers, conf=conf) as cluster:
            found += look_at_cluster(cluster)
    except ClusterError as error:
        found.append(Finding("cluster", "Spark", str(error), "bad", "see above; docs/running.md, Clusters"))
    return found


def look_here() -> Iterator[Finding]:
    """What concerns the machine that the command runs on."""
    here = "this machine"
    yield from judge(here, next(_looker(None, LAYER, PACKAGES)(())))
    try:
        check_java()
        yield Finding(here, "Java", _java_version())
    except ClusterError as error:
        wrong, _, remedy = str(error).partition(". ")
        yield Finding(here, "Java", wrong, "bad", remedy)


def look_at_cluster(cluster: Cluster) -> Iterator[Finding]:
    """What concerns the cluster, and each executor: its Python, packages, room, a layer, the way to the driver."""
    context = cluster.context
    yield Finding("cluster", "Spark", f"{context.version}, {cluster.master}")
    yield Finding("cluster", "slots", f"enough for {cluster.workers} workers, {cluster.threads} threads each")
    if secured := cluster.secured():
        yield Finding("cluster", "secured", f"by {secured}: averages go through Spark")
    with _Door(cluster.address[0]) as door:
        tasks = 2 * cluster.workers
        look = _looker((door.host, door.port), LAYER, PACKAGES)
        looked: list[dict[str, Any]] = context.parallelize(range(tasks), tasks).mapPartitions(look).collect()
    executors = {(each["host"], each["folder"]): each for each in looked}
    names = [host for host, _ in executors]
    for number, each in enumerate(executors.values(), 1):
        name = each["host"] if names.count(each["host"]) == 1 else f"{each['host']} ({number})"
        yield from judge(name, each)


def judge(where: str, looked: dict[str, Any]) -> Iterator[Finding]:
    """The findings in what an executor tells of itself (see `_looker`)."""
    mine = platform.python_version()
    same = looked["python"].split(".")[:2] == mine.split(".")[:2]
    yield Finding(
        where,
        "Python",
        looked["python"],
        "good" if same else "bad",
        "" if same else f"the driver has {mine}: set PYSPARK_PYTHON to one of the same minor version",
    )
    for package in PACKAGES:
        there, version = looked["packages"].get(package), importlib.metadata.version(package)
        if there is None:
            yield Finding(
                where, package, "not installed", "bad", "install it there, or ship the environment (docs/running.md)"
            )
        elif there != version:
            grave: Verdict = "bad" if package == PACKAGES[0] else "warning"
            yield Finding(where, package, there, grave, f"the driver has {version}: install the same there")
        else:
            yield Finding(where, package, there)
    if looked["error"]:
        yield Finding(where, "layer", looked["error"], "bad", "the engine does not run there: reinstall it")
    elif looked["value"] is not None:
        right = looked["value"] == LAYER_VALUE
        found = f"{looked['isa']}, {looked['cores']} cores"
        wrong = f"a convolution gives {looked['value']}, not {LAYER_VALUE}: is the machine's memory sound?"
        yield Finding(where, "layer", found, "good" if right else "bad", "" if right else wrong)
    for what, free, least, remedy in (
        ("memory", looked["memory"], LEAST_MEMORY, "fewer workers on this machine, or --memory lean"),
        (
            "disk",
            looked["disk"],
            LEAST_DISK,
            f"free some of {looked['folder']}, or set spark.local.dir to another disk",
        ),
    ):
        enough = free >= least
        found = f"{free / GIB:.1f} GiB free"
        yield Finding(where, what, found, "good" if enough else "warning", "" if enough else remedy)
    if looked["reaches"] is not None:
        reached = looked["reaches"] == ""
        yield Finding(
            where,
            "way to the driver",
            "open" if reached else looked["reaches"],
            "good" if reached else "warning",
            "" if reached else "averaging by ring needs it: open the ports, set spark.driver.host, or --average spark",
        )


def table(findings: Iterable[Finding]) -> Table:
    """The findings as people read them."""
    result = Table("", "where", "what", "found", "to do", box=None, pad_edge=False)
    signs = {"good": "[green]ok[/]", "warning": "[yellow]warning[/]", "bad": "[red]bad[/]"}
    before = ""
    for each in findings:
        result.add_row(
            signs[each.verdict], each.where if each.where != before else "", each.what, each.found, each.remedy
        )
        before = each.where
    return result


def _java_version() -> str:
    home = os.environ.get("JAVA_HOME")
    java = str(pathlib.Path(home) / "bin" / "java") if home else "java"
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    return said.splitlines()[0] if said else f"{JAVA} or newer"


class _Door:
    """A port of the driver that greets whoever comes."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._socket = socket.create_server(("", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._greet, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._thread.join()
        self._socket.close()

    def _greet(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"hello")


def _looker(
    driver: tuple[str, int] | None, layer: str, packages: tuple[str, ...]
) -> Callable[[Iterable[int]], Iterator[dict[str, Any]]]:
    """What a task does to describe its executor; `driver` is a door to knock at.

    It imports all that it needs itself: an executor without this package must be able to say so.
    """

    def look(numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
        import importlib.metadata
        import os
        import pathlib
        import platform
        import shutil
        import socket
        import tempfile
        import time

        list(numbers)
        time.sleep(0.3)  # so that no executor does another one's tasks
        folder = os.environ.get("SPARK_LOCAL_DIRS", "").split(",")[0] or tempfile.gettempdir()
        sizes = dict(line.split(":") for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
        found: dict[str, Any] = {
            "host": socket.gethostname(),
            "folder": folder,
            "python": platform.python_version(),
            "packages": {},
            "memory": int(sizes["MemAvailable"].split()[0]) << 10,
            "disk": shutil.disk_usage(folder).free,
            "error": "",
            "value": None,
            "reaches": None if driver is None else "",
        }
        for package in packages:
            try:
                found["packages"][package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
        if packages[0] in found["packages"]:
            try:
                from google.protobuf import text_format

                from sparknet_dsl import caffe_ext
                from sparknet_dsl.proto import caffe_pb2

                net = caffe_ext.Net(text_format.Parse(layer, caffe_pb2.NetParameter()), caffe_ext.TEST)
                net.blobs["x"].data[...] = 1
                values = net.forward()["y"].ravel()
                wrong = values[values != values[0]]
                found["value"] = float(wrong[0] if wrong.size else values[0])
                found["isa"], found["cores"] = caffe_ext.isa(), len(os.sched_getaffinity(0))
            except Exception as error:  # whatever it is, it is the finding
                found["error"] = f"{type(error).__name__}: {error}"
        if driver is not None:
            try:
                with socket.create_connection(driver, timeout=5) as connection:
                    if connection.recv(5) != b"hello":
                        found["reaches"] = f"{driver[0]}:{driver[1]} is somebody else"
            except OSError as error:
                found["reaches"] = f"{driver[0]}:{driver[1]}: {error}"
        return iter([found])

    return look
