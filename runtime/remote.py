"""Snapshots on a Hadoop filesystem (hdfs://, s3a://, file://): whatever the cluster's Spark can write to.

Files go by way of a local folder, and stay in it where they cannot be put. Each appears under its name whole or not
at all.
"""

import pathlib
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from py4j.protocol import Py4JError, Py4JJavaError

from ..errors import DataError, OutputError
from .spark import SparkContext


class RemoteFolder:
    """The folder `url` as the Spark of `context` sees it, and the folder `local` that stands for it here.

    Made and tried on entry; raises OutputError where it cannot be written. On exit `local` goes, unless something in
    it could not be put.
    """

    def __init__(self, context: SparkContext, url: str) -> None:
        self.url = url.rstrip("/")
        self.local = pathlib.Path()
        self._stranded = False
        java: Any = context._jvm
        self._path = java.org.apache.hadoop.fs.Path
        # A scheme that the cluster has no jars for is an error here already.
        with _failing(OutputError, f"cannot write snapshots to {self.shown}"):
            self._system = self._path(self.url).getFileSystem(context._jsc.hadoopConfiguration())

    @property
    def shown(self) -> str:
        """The URL as messages may show it: without a password."""
        parts = urllib.parse.urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def __enter__(self) -> Self:
        probe = self._path(f"{self.url}/snapshot.test")
        with _failing(OutputError, f"cannot write snapshots to {self.shown}"):
            self._system.mkdirs(self._path(self.url))
            self._system.create(probe, True).close()
            self._system.delete(probe, False)
        self.local = pathlib.Path(tempfile.mkdtemp(prefix="sparknet-snapshots-"))
        return self

    def __exit__(self, *error: object) -> None:
        if not self._stranded:
            shutil.rmtree(self.local, ignore_errors=True)

    def put(self, files: Sequence[pathlib.Path]) -> tuple[str, ...]:
        """Moves local files there in their order; their URLs. Raises OutputError, which says where they are."""
        self._stranded = True
        with _failing(OutputError, f"cannot write to {self.shown} (the snapshot is kept in {self.local})"):
            for file in files:
                unfinished, final = self._path(f"{self.url}/.{file.name}.tmp"), self._path(f"{self.url}/{file.name}")
                self._system.copyFromLocalFile(False, True, self._path(file.absolute().as_uri()), unfinished)
                self._system.delete(final, False)
                if not self._system.rename(unfinished, final):
                    raise OutputError(
                        f"cannot rename {unfinished.toString()} to {file.name} (the snapshot is kept in {self.local})"
                    )
        for file in files:
            file.unlink()
        self._stranded = False
        return tuple(f"{self.shown}/{file.name}" for file in files)

    def get(self, name: str) -> tuple[str, ...]:
        """Copies the .json of each snapshot of the model `name` to the local folder; what of them could not be read.

        Raises DataError where the folder itself cannot be read.
        """
        with _failing(DataError, f"cannot read snapshots from {self.shown}"):
            if not self._system.exists(self._path(self.url)):
                return ()
            listed = [status.getPath().getName() for status in self._system.listStatus(self._path(self.url))]
        lost = []
        for about in listed:
            if about.startswith(f"{name}_iter_") and about.endswith(".json"):
                try:
                    self.fetch(self.local / about)
                except DataError as error:
                    lost.append(str(error))
        return tuple(lost)

    def fetch(self, file: pathlib.Path) -> None:
        """Copies the file of the same name from there to `file`; raises DataError."""
        with _failing(DataError, f"cannot read {self.shown}/{file.name}"):
            there, here = self._path(f"{self.url}/{file.name}"), self._path(file.absolute().as_uri())
            # The last argument: no .crc file beside it.
            self._system.copyToLocalFile(False, there, here, True)


@contextmanager
def _failing(kind: type[DataError] | type[OutputError], what: str) -> Iterator[None]:
    """Turns what Java throws into an error of `kind`."""
    try:
        yield
    except Py4JJavaError as error:
        said = str(error.java_exception.toString()).splitlines()[0]
        if "UnsupportedFileSystemException" in said:
            said += "; give Spark that filesystem's jars, with --conf spark.jars.packages=... say"
        raise kind(f"{what}: {said}") from error
    except Py4JError as error:
        raise kind(f"{what}: {error}") from error
