"""A trained net run forward over rows, wherever they come from: what of it travels to workers, and how they run it."""

import dataclasses
import functools
import hashlib
import pathlib
import re
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import caffe_ext, compile_file
from ..emit import to_text
from ..errors import DataError, LayerError, ModelError, WeightsError
from ..files import write_atomic
from ..proto import caffe_pb2
from . import deploy
from .average import Array
from .feeding import Batches, Choose, Feed
from .means import Means, write_mean

BATCH = 64
# Nets that a process keeps: those of two models that take turns, as in a pipeline.
KEPT = 2
NET, WEIGHTS = "net.prototxt", "weights.caffemodel"


@dataclasses.dataclass(frozen=True)
class Deployed:
    """A trained net as plain values.

    net      NetParameter of deploy.deploy_net, serialised
    weights  content of a .caffemodel with the weights of its layers
    means    mean images by input, shape (channels, height, width)
    """

    net: bytes
    weights: bytes
    means: Mapping[str, Array]

    @classmethod
    def of(
        cls, net: caffe_pb2.NetParameter, weights: Sequence[pathlib.Path], folders: Sequence[pathlib.Path] = ()
    ) -> "Deployed":
        """`net` with what the files `weights` have for its layers; its mean files are looked for in `folders`.

        Raises WeightsError where no file has a layer of the net's, DataError where a mean file is missing.
        """
        params: dict[str, list[Array]] = {}
        own = {layer.name for layer in net.layer}
        for path in weights:
            found = {name: blobs for name, blobs in caffe_ext.read_weights(path).items() if name in own}
            if not found:
                raise WeightsError(f"{path} has no weights for any layer of {net.name}: they are taken by name")
            params |= found
        means = Means((), lambda column: (), folders, pathlib.Path())
        images = {}
        for layer in net.layer:
            if layer.type == "Input" and layer.transform_param.mean_file:
                top = layer.top[0]
                image = means.fill(Feed(top, top, mean_file=layer.transform_param.mean_file)).mean
                assert image is not None
                images[top] = image
        with tempfile.TemporaryDirectory(prefix="sparknet-") as folder:
            path = pathlib.Path(folder) / "weights.caffemodel"
            caffe_ext.write_weights(path, net, params)
            return cls(net.SerializeToString(), path.read_bytes(), images)

    def __reduce__(self) -> tuple[type["Deployed"], tuple[bytes, bytes, Mapping[str, Array]]]:
        return Deployed, (self.net, self.weights, self.means)

    @functools.cached_property
    def message(self) -> caffe_pb2.NetParameter:
        """The net."""
        return caffe_pb2.NetParameter.FromString(self.net)

    @functools.cached_property
    def digest(self) -> str:
        """A name for the content."""
        total = hashlib.sha256(self.net)
        total.update(self.weights)
        for top, image in sorted(self.means.items()):
            total.update(top.encode() + image.tobytes())
        return total.hexdigest()

    @functools.cached_property
    def _weighted(self) -> frozenset[str]:
        return frozenset(self.params())

    def feeds(self, blobs: Sequence[str]) -> tuple[Feed, ...]:
        """What feeds the inputs that `blobs` need, each from a column of its own name."""
        return tuple(
            Feed(
                layer.top[0],
                layer.top[0],
                layer.transform_param.SerializeToString() if layer.HasField("transform_param") else None,
                mean=self.means.get(layer.top[0]),
            )
            for layer in deploy.pruned(self.message, blobs).layer
            if layer.type == "Input"
        )

    def check(self, blobs: Sequence[str], batch: int) -> None:
        """Raises ModelError or WeightsError where the net does not give `blobs`, row by row, or lacks weights."""
        message = deploy.resized(deploy.pruned(self.message, blobs), batch)
        for blob in blobs:
            if (shape := deploy.shape_of(message, blob))[:1] != (batch,):
                raise ModelError(
                    f"`{blob}` has the shape {shape} for a batch of {batch} rows: only blobs with a row for each row "
                    "of data can be given"
                )
        for layer in caffe_ext.check_net(message, caffe_ext.TEST).layers:
            if layer.param_shapes and layer.name not in self._weighted:
                raise WeightsError(f"there are no weights for layer `{layer.name}` ({layer.type})")

    def save(self, folder: pathlib.Path) -> None:
        """Writes net.prototxt, weights.caffemodel and mean_*.binaryproto into `folder`; raises OutputError."""
        net = caffe_pb2.NetParameter.FromString(self.net)
        for layer in net.layer:
            top = layer.top[0] if layer.top else ""
            if layer.type == "Input" and top in self.means:
                name = f"mean_{re.sub(r'[^A-Za-z0-9_]', '_', top)}.binaryproto"
                layer.transform_param.mean_file = name
                write_mean(folder / name, self.means[top])
        write_atomic(folder / NET, to_text(net))
        write_atomic(folder / WEIGHTS, self.weights)

    @classmethod
    def load(cls, folder: pathlib.Path) -> "Deployed":
        """What `save` wrote; raises ModelError, WeightsError, DataError."""
        return cls.of(deploy.deploy_net(compile_file(folder / NET)), [folder / WEIGHTS], [folder])

    def params(self) -> dict[str, list[Array]]:
        """The weights by layer."""
        with tempfile.NamedTemporaryFile(prefix="sparknet-", suffix=".caffemodel") as file:
            file.write(self.weights)
            file.flush()
            return caffe_ext.read_weights(file.name)


class Predictor:
    """Computes `blobs` of a net for rows, `batch` at a time, with as many threads as `threads` says.

    Every pass takes a whole batch, the last one filled up with its last row, so that what comes out for a row does not
    depend on how many others there are. Raises LayerError, WeightsError; `Deployed.check` has looked at the rest.
    """

    def __init__(
        self,
        deployed: Deployed,
        blobs: Sequence[str],
        batch: int = BATCH,
        threads: int | None = None,
        precision: caffe_ext.Precision = "float32",
    ) -> None:
        self.blobs = tuple(blobs)
        self.batch = batch
        self._threads = threads
        message = deploy.resized(deploy.pruned(deployed.message, blobs), batch)
        self._enter()
        try:
            self._net = caffe_ext.Net(message, caffe_ext.TEST, seed=0, memory="reuse", precision=precision)
        except LayerError as error:
            reason = f"{error.reason} (with batches of {batch} rows)"
            raise LayerError(error.layer, error.type, reason, error.kind) from error
        with tempfile.NamedTemporaryFile(prefix="sparknet-", suffix=".caffemodel") as file:
            file.write(deployed.weights)
            file.flush()
            self._net.copy_from(file.name)
        self._feeds = deployed.feeds(blobs)
        self.inputs = {feed.top: tuple(self._net.blobs[feed.top].shape[1:]) for feed in self._feeds}
        # Asked for before the pass, so that their memory is not given to others.
        self._arrays = {name: self._net.blobs[name].data for name in blobs}

    def __call__(self, columns: Mapping[str, npt.NDArray[Any]], rows: int) -> dict[str, Array]:
        """The blobs for the first `rows` rows of `columns`, by input: arrays (rows, *shape of a row).

        Raises DataError where rows do not fit an input, LayerError.
        """
        self._enter()
        for feed in self._feeds:
            _check_shape(feed, columns[feed.column], self.inputs[feed.top])
        batches = Batches(self._net, self._feeds, _Rows(columns), "TEST", _filled(rows, self.batch))
        results = {name: np.empty((rows, *array.shape[1:]), np.float32) for name, array in self._arrays.items()}
        for k, start in enumerate(range(0, rows, self.batch)):
            end = min(start + self.batch, rows)
            batches.feed(k)
            self._net.forward()
            for name, array in self._arrays.items():
                results[name][start:end] = array[: end - start]
        return results

    def _enter(self) -> None:
        if self._threads is not None:
            caffe_ext.set_num_threads(self._threads)


def _filled(rows: int, batch: int) -> Choose:
    """Batches of the rows in their order, the last one filled up with the last row; those behind it are empty."""
    return lambda k: (np.minimum(np.arange(k * batch, (k + 1) * batch if k * batch < rows else k * batch), rows - 1), 0)


class _Rows:
    """Columns in memory, in place of a shard."""

    def __init__(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        self.columns = {name: values for name, values in columns.items() if values.dtype != object}
        self.encoded = {name: values for name, values in columns.items() if values.dtype == object}

    def touched(self, rows: int) -> None:
        """Nothing is mapped here."""


def _check_shape(feed: Feed, values: npt.NDArray[Any], wanted: tuple[int, ...]) -> None:
    found = values.shape[1:]
    if values.dtype == object:  # encoded images, looked at when they are decoded
        return
    crop = caffe_pb2.TransformationParameter.FromString(feed.transform or b"").crop_size
    if crop and len(found) == 3 and min(found[1:]) >= crop:
        found = (found[0], crop, crop)
    if [size for size in found if size != 1] != [size for size in wanted if size != 1]:
        raise DataError(
            f"the rows of column `{feed.column}` are {_times(values.shape[1:])}, the net's input `{feed.top}` wants "
            f"{_times(wanted)}{f', or more to crop {crop}×{crop} from' if crop else ''}"
        )


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "one number"


_kept: OrderedDict[tuple[Any, ...], Predictor] = OrderedDict()


def predictor(
    digest: str,
    deployed: Callable[[], Deployed],
    blobs: Sequence[str],
    batch: int,
    threads: int,
    precision: caffe_ext.Precision = "float32",
) -> Predictor:
    """A predictor that stays in this process; `deployed` gives the net whose digest is `digest` if it is not there."""
    key = (digest, tuple(blobs), batch, threads, precision)
    if key not in _kept:
        while len(_kept) >= KEPT:
            _kept.popitem(last=False)
        _kept[key] = Predictor(deployed(), blobs, batch, threads, precision)
    _kept.move_to_end(key)
    return _kept[key]
