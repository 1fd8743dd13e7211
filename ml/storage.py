"""A Model as a folder on any Hadoop filesystem, as Spark ML's are.

    metadata/           its class and Params, Spark ML's own form
    net.prototxt        the net that predicts; mean_file names those beside it
    weights.caffemodel
    mean_TOP.binaryproto

Caffe's tools and sparknet-predict read it, too. A folder appears under its name whole or not at all.
"""

import contextlib
import hashlib
import pathlib
import tempfile
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MLReader, MLWriter

from ..errors import DataError, OutputError, SparkNetError
from ..runtime.inference import Deployed

if TYPE_CHECKING:
    from .models import NetModel

VERSION = 1


class NetWriter(MLWriter):
    """Writes a Model."""

    def __init__(self, instance: "NetModel") -> None:
        super().__init__()
        self.instance = instance

    def save(self, path: str) -> None:
        """Writes the folder `path`; raises OutputError, also where it is there already and is not to be overwritten."""
        place = _Place(self.sparkSession, path)
        with _failing(OutputError, f"cannot save the model to {path}"):
            if place.exists() and not self.shouldOverwrite:
                raise OutputError(f"{path} exists already: model.write().overwrite().save(path) replaces it")
            unfinished = place.beside()
            try:
                with tempfile.TemporaryDirectory(prefix="sparknet-") as folder:
                    self.instance.deployed.save(pathlib.Path(folder))
                    files = sorted(pathlib.Path(folder).iterdir())
                    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
                    DefaultParamsWriter.saveMetadata(
                        self.instance,
                        unfinished.text,
                        self.sparkSession,
                        extraMetadata={"sparknet": {"version": VERSION, "files": digests}},
                    )
                    for file in files:
                        unfinished.put(file)
                if place.exists():
                    place.remove()
                unfinished.rename(place)
            finally:
                unfinished.remove()


class NetReader(MLReader[Any]):
    """Reads a Model of the class `cls`."""

    def __init__(self, cls: "type[NetModel]") -> None:
        super().__init__()
        self.cls = cls

    def load(self, path: str) -> Any:
        """The Model in the folder `path`; raises DataError where that is none, or was changed."""
        place = _Place(self.sparkSession, path)
        with _failing(DataError, f"cannot load a model from {path}"), tempfile.TemporaryDirectory() as name:
            if not place.exists():
                raise DataError(f"{path} does not exist")
            metadata = DefaultParamsReader.loadMetadata(path, self.sparkSession)
            if metadata["class"] != f"{self.cls.__module__}.{self.cls.__name__}":
                raise DataError(f"{path} holds a {metadata['class'].rpartition('.')[2]}, no {self.cls.__name__}")
            folder = pathlib.Path(name)
            for file, digest in metadata["sparknet"]["files"].items():
                place.get(file, folder)
                if hashlib.sha256((folder / file).read_bytes()).hexdigest() != digest:
                    raise DataError(f"{path}/{file} has changed since the model was saved")
            model = self.cls(Deployed.load(folder))
        model._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(model, metadata)
        return model


class _Place:
    """A folder, by Hadoop's name for it."""

    def __init__(self, session: Any, path: str) -> None:
        self._session = session
        java = session.sparkContext._jvm.org.apache.hadoop.fs
        with _failing(OutputError, f"cannot reach {path}"):
            name = java.Path(path)
            self._files = name.getFileSystem(session.sparkContext._jsc.hadoopConfiguration())
            self._path = self._files.makeQualified(name)
        self._java = java
        self.text = str(self._path.toString())

    def beside(self) -> "_Place":
        """One that is not there, in the same folder."""
        parent = self._path.getParent()
        return _Place(self._session, f"{parent.toString()}/.{self._path.getName()}.{uuid.uuid4().hex[:8]}.part")

    def exists(self) -> bool:
        return bool(self._files.exists(self._path))

    def remove(self) -> None:
        self._files.delete(self._path, True)

    def rename(self, to: "_Place") -> None:
        if not self._files.rename(self._path, to._path):
            raise OutputError(f"cannot rename {self.text} to {to.text}")

    def put(self, file: pathlib.Path) -> None:
        """Copies a local file into it."""
        self._files.copyFromLocalFile(False, True, self._java.Path(file.as_uri()), self._path)

    def get(self, name: str, folder: pathlib.Path) -> None:
        """Copies the file `name` of it into a local folder."""
        source, target = self._java.Path(self._path, name), self._java.Path((folder / name).as_uri())
        self._files.copyToLocalFile(False, source, target, True)


@contextlib.contextmanager
def _failing(kind: type[SparkNetError], what: str) -> Iterator[None]:
    try:
        yield
    except SparkNetError:
        raise
    except Py4JJavaError as error:
        raise kind(f"{what}: {error.java_exception.getMessage()}") from error
    except (Py4JError, PySparkException, OSError, KeyError, ValueError) as error:
        raise kind(f"{what}: {error}") from error
