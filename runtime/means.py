"""Mean images: read from the file that transform_param.mean_file names, or computed from the training rows."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from .. import caffe_ext
from ..errors import DataError
from ..files import write_atomic
from ..proto import caffe_pb2
from .average import Array
from .data import Column
from .feeding import Feed

# The sums of a column's rows, and how many rows, part by part: worker.column_sum of each.
Sums = Callable[[str], Sequence[tuple[npt.NDArray[np.float64], int]]]


class Means:
    """The mean images of a run, each found once.

    A file is looked for in `folders`, as it is named or by its base name. Where there is none, the mean of the training
    rows (which have `columns`, and are added up by `sums`) takes its place, as Caffe's compute_image_mean computes it,
    and is kept in `kept`; `notes` then says so, and `files` has it.
    """

    def __init__(
        self, columns: Sequence[Column], sums: Sums, folders: Sequence[pathlib.Path], kept: pathlib.Path
    ) -> None:
        self.notes: list[str] = []
        self.files: list[pathlib.Path] = []
        self._columns = columns
        self._sums = sums
        self._folders = folders
        self._kept = kept
        self._known: dict[str, Array] = {}

    def fill(self, feed: Feed) -> Feed:
        """`feed` with the image that its mean_file names, if any; raises DataError, WeightsError, OutputError."""
        if not feed.mean_file:
            return feed
        if feed.mean_file not in self._known:
            self._known[feed.mean_file] = self._find(feed)
        return dataclasses.replace(feed, mean=self._known[feed.mean_file])

    def _find(self, feed: Feed) -> Array:
        for folder in self._folders:
            for name in (feed.mean_file, pathlib.PurePath(feed.mean_file).name):
                if (folder / name).is_file():
                    found: Array = caffe_ext.read_mean(folder / name)
                    return found
        if feed.column not in (column.name for column in self._columns):
            raise DataError(
                f"{feed.mean_file} does not exist, and the training data has no column `{feed.column}` to compute it "
                "from: put it there, or beside the model; `sparknet-data mean SOURCE -o FILE` makes one"
            )
        # float64 adds up bytes exactly, so that the number of partitions makes no difference.
        parts = self._sums(feed.column)
        count = sum(rows for _, rows in parts)
        image: Array = (np.sum([total for total, _ in parts], axis=0) / count).astype(np.float32)
        # Beside the weights: whoever uses them needs it.
        kept = self._kept / pathlib.PurePath(feed.mean_file).name
        write_mean(kept, image)
        self.files.append(kept)
        self.notes.append(
            f"mean image: {feed.mean_file} does not exist, so it was computed from the {count:,} training rows and "
            f"kept in {kept.absolute()}"
        )
        return image


def write_mean(path: pathlib.Path, image: Array) -> None:
    """Writes a mean image as Caffe's tools do; raises OutputError."""
    blob = caffe_pb2.BlobProto(data=image.ravel().tolist())
    if image.ndim == 3:
        blob.num = 1
        blob.channels, blob.height, blob.width = image.shape
    write_atomic(path, blob.SerializeToString())
