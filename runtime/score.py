"""`sparknet-test`: what trained weights score on test data, as `caffe test` tells it."""

import json
import os
import pathlib
import tempfile
import time
from collections.abc import Mapping, Sequence

import numpy as np

from .. import caffe_ext, terminal
from ..errors import DataError, ModelError, UsageError
from ..proto import caffe_pb2
from . import checkpoint
from .command import check_counts, compile_model, reading_itself
from .console import skipped_lines
from .data import BadPolicy
from .events import finite
from .feeds import data_layers, feed_net, no_source
from .plan import phase_net
from .progress import progress
from .rows import LocalRows

BATCHES = 50  # of a net that reads its data itself, unless told otherwise: Caffe's number
SEED = 0


def main(
    model: str,
    *,
    weights: Sequence[str],
    source: str | None = None,
    iterations: int | None = None,
    threads: int | None = None,
    precision: caffe_ext.Precision = "float32",
    bad_records: BadPolicy = "fail",
    defines: Mapping[str, str] = {},
    form: str = "text",
) -> None:
    """Prints the outputs of the net in the file `model`, in phase TEST and with `weights`, as lines or as JSON.

    They are means over all rows of the source, each once, or over `iterations` batches of a net that reads its data
    itself. Raises UsageError, ModelError, DataError, WeightsError, LayerError.
    """
    check_counts(iterations=iterations, threads=threads)
    if threads is not None:
        caffe_ext.set_num_threads(threads)
    compiled = compile_model(model, defines, None, source, keep_data_layers=source is None and bad_records == "fail")
    if "TEST" not in compiled.reports:
        raise ModelError(f"{model} has no data in phase TEST: mark a source @test")
    message = phase_net(compiled.net, compiled.solver or caffe_pb2.SolverParameter(), "TEST")
    fed = feed_net(message, "TEST", source, os.path.dirname(model))  # noqa: PTH120
    if fed is None and (layers := data_layers(message, "TEST")):
        raise DataError(no_source(model, layers, "TEST"))
    if fed is not None and iterations is not None:
        raise UsageError(
            f"--iterations counts batches of a net that reads its data itself; of {fed.uri} all rows count"
        )
    with reading_itself("--test SRC"):
        net = caffe_ext.Net(
            message, caffe_ext.TEST, level=message.state.level, seed=SEED, memory="reuse", precision=precision
        )
    paths = [pathlib.Path(path) for path in weights]
    checkpoint.start_from(paths, net, compiled.name)
    began = time.perf_counter()
    skipped = None
    if fed is not None:
        params = {layer: [blob.data for blob in blobs] for layer, blobs in net.params.items()}
        # A mean image that was computed in training lies beside the weights.
        folders = (pathlib.Path(), pathlib.Path(model).parent, *(path.parent for path in paths))
        with tempfile.TemporaryDirectory(prefix="sparknet-") as folder:
            rows = LocalRows(pathlib.Path(folder), None, folders, pathlib.Path(folder), precision, bad_records)
            total = rows.of(fed, "TEST").rows
            with progress(f"testing on {fed.uri}", total) as bar:
                tested = rows.test(fed, message, params, SEED, bar.advance)
            skipped = rows.held[fed.uri, "TEST"].skipped
        found, count, of = tested.metrics, tested.rows, "rows"
    else:
        found, count, of = _batches(net, iterations or BATCHES), iterations or BATCHES, "batches"
    seconds = time.perf_counter() - began
    if form == "json":
        left_out = {} if skipped is None else {"skipped": skipped.count}
        print(json.dumps(finite({"metrics": found, of: count, **left_out, "seconds": seconds}), allow_nan=False))
        return
    for line in [] if skipped is None or terminal.quiet() else skipped_lines(skipped):
        print(line)
    for name, value in found.items():
        print(f"{name} {value:.6g}")
    if not terminal.quiet():
        print(f"({count:,} {of} in {seconds:.1f} s)")


def _batches(net: caffe_ext.Net, count: int) -> dict[str, float]:
    """The means of the outputs over `count` batches; of an output of several numbers, each by its place."""
    sums: dict[str, float] = {}
    with progress("testing", count, unit="batches") as bar:
        for _ in range(count):
            for name, values in net.forward().items():
                for place, value in np.ndenumerate(values):
                    key = name if values.size == 1 else f"{name}[{','.join(map(str, place))}]"
                    sums[key] = sums.get(key, 0.0) + float(value)
            bar.advance(1)
    return {name: total / count for name, total in sums.items()}
