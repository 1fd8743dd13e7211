"""`sparknet-data mean`: the mean image and the mean of each channel, as Caffe's compute_image_mean has them."""

import concurrent.futures
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import DataError, UsageError
from .. import worker
from ..config import check_slots
from ..cores import cores
from ..data import BadPolicy, BadRecords, Column, Columns, Phase
from ..ingest import Ingested
from ..means import write_mean
from ..shards import Shard
from ..spark import Cluster
from .pixels import Pixelwork, Work
from .progress import Bar, progress
from .reading import Input, open_input, picked
from .writer import image_of, rows_of

# Rows that a shard's images are decoded at a time.
STEP = 128
# The sum of a part's rows, and how many there are; None: it has none.
Sum = tuple[npt.NDArray[np.float64], int] | None


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean image (channels × height × width), and the mean of each channel, of `rows` rows."""

    image: npt.NDArray[np.float32]
    channels: list[float]
    rows: int

    def json(self) -> dict[str, Any]:
        """As `--json` shows it."""
        return {"rows": self.rows, "shape": list(self.image.shape), "mean_value": self.channels}

    def save(self, path: str) -> None:
        """Writes the mean image as Caffe's tool does; raises OutputError."""
        write_mean(pathlib.Path(path), self.image)


def mean(data: Input, asked: Pixelwork) -> Mean:
    """The mean of a source's images, added up in as many threads as there are cores. Raises DataError."""
    column = _column(data)
    parts = cores()
    bad = [BadRecords(data.bad.policy) for _ in range(parts)]
    with progress(f"reading {data.text}") as bar, concurrent.futures.ThreadPoolExecutor(parts) as pool:
        sums = [
            pool.submit(_sum, data.source.read(part, parts, bad[part]), column, asked, bar) for part in range(parts)
        ]
        found = _mean(data.text, [each.result() for each in sums])
    data.bad.count = sum(each.count for each in bad)
    data.bad.first = [first for each in bad for first in each.first][: BadRecords.KEPT]
    return found


def mean_on_spark(data: Input, asked: Pixelwork, cluster: Cluster) -> Mean:
    """As `mean`, by the workers of `cluster`. Raises DataError, ClusterError."""
    rows = cluster.rows("mean", data.source, data.bad.policy)
    held = Ingested.of(data.text, "TRAIN", cluster.each(rows, worker.held, what="reading rows"))
    data.bad.count, data.bad.first = held.bad.count, held.bad.first
    return _mean(data.text, cluster.each(rows, _sum_of_shard, _column(data), asked, what="mean image"))


def _sum_of_shard(shard: Shard, partition: int, column: Column, asked: Pixelwork) -> Sum:
    del partition
    pieces = (picked(shard, np.arange(at, min(at + STEP, shard.rows))) for at in range(0, shard.rows, STEP))
    return _sum(pieces, column, asked, Bar())


def _sum(chunks: Iterable[Columns], column: Column, asked: Pixelwork, bar: Bar) -> Sum:
    work: Work | None = None
    result: Sum = None
    for rows in chunks:
        if result is None and (column.encoded or asked.size or asked.gray):
            work = asked.on(column, rows[column.name][0])
        for piece in work.done(rows, 0) if work else [rows]:
            # float64 adds up bytes exactly, so that the number of parts makes no difference.
            total = piece[column.name].sum(axis=0, dtype=np.float64)
            count = rows_of(piece)
            result = (total, count) if result is None else (result[0] + total, result[1] + count)
        bar.advance(rows_of(rows))
    return result


def _column(data: Input) -> Column:
    column = image_of(data.columns)
    if column is None:
        raise DataError(f"{data.text} has no images, nor other arrays: {', '.join(c.name for c in data.columns)}")
    return column


def _mean(text: str, sums: Sequence[Sum]) -> Mean:
    found = [each for each in sums if each is not None]
    shapes = {total.shape for total, _ in found}
    if len(shapes) != 1:
        raise DataError(f"{text} has no rows" if not shapes else f"{text} has images of several sizes: --resize them")
    count = sum(rows for _, rows in found)
    image = (np.sum([total for total, _ in found], axis=0) / count).astype(np.float32)
    channels = image.reshape(len(image), -1).mean(axis=1, dtype=np.float64)
    return Mean(image, channels.tolist(), count)


def main(
    source: str,
    output: str | None,
    as_json: bool,
    *,
    size: tuple[int, int] | None,
    gray: bool,
    workers: int | None,
    master: str | None,
    phase: Phase,
    bad_records: BadPolicy,
) -> None:
    """Prints the mean of each channel of `source`, and writes the mean image to the file `output`."""
    if master is not None and workers is None:
        raise UsageError("--master wants --workers, too")
    data = open_input(source, phase, bad_records, size, gray)
    asked = Pixelwork(size, gray, "raw" if any(column.encoded for column in data.columns) else None, data.rgb)
    if workers is None:
        found = mean(data, asked)
    else:
        with Cluster(check_slots(master, workers), workers) as cluster:
            found = mean_on_spark(data, asked, cluster)
    if output is not None:
        found.save(output)
    if as_json:
        document = {"source": source, **found.json(), "bad_records": data.bad.count, "file": output}
        print(json.dumps(document, indent=2))
        return
    shape = "×".join(map(str, found.image.shape))
    print(f"{source}: the mean of {found.rows:,} images of {shape}{data.skipped()}")
    for index, value in enumerate(found.channels):
        print(f"mean_value of channel {index}: {value:.6g}")
    if output is not None:
        print(f"wrote {output}")
