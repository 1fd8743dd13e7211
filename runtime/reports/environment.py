"""What a run ran on: what somebody needs who wants to repeat it, or to know why it was slow; no user, no host."""

import importlib.metadata
import os
import pathlib
import platform
import re
import shutil
import subprocess
from typing import Any

from ... import caffe_ext
from ..cores import cores

PACKAGES = ("sparknet-dsl", "numpy", "protobuf", "pyspark", "opencv-python-headless", "onednn-cpu-gomp")


def environment(spark: bool) -> dict[str, Any]:
    """Versions, processor and memory; with `spark` Java, too."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found: dict[str, Any] = {
        "system": platform.platform(),
        "processor": _processor(),
        "instructions": caffe_ext.isa(),
        "cores": cores(),
        "threads": caffe_ext.num_threads(),
        "memory": f"{memory / 2**30:.1f} GiB",
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if spark:
        found["java"] = java_version()
    return found


def java_version() -> str:
    """What the Java that Spark takes says of itself; "" where none runs."""
    home = os.environ.get("JAVA_HOME")
    java = f"{home}/bin/java" if home else shutil.which("java")
    if java is None:
        return ""
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=60).stderr
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.partition("\n")[0]


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.machine()
