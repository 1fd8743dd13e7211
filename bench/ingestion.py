"""Trains on more data than the workers have memory for, and looks at the memory of every worker on the way.

    python bench/ingestion.py [--gigabytes 4] [--limit-gigabytes 1] [--workers 2] [--encoded] [--folder DIR]

The data are an LMDB of noise that this writes, raw images of 768 KB each or, with --encoded, their JPEGs. Before a
worker reads its part it limits its own memory (RLIMIT_DATA: what is allocated; rows are mapped from files, which the
system may take back at any time, and do not count), so one that kept the rows would fail. Peak memory is told as
allocated (RssAnon) and as mapped (RssFile).
"""

import argparse
import json
import os
import pathlib
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence

import cv2
import lmdb
import numpy as np
from long_run import family, status
from pyspark import cloudpickle

from sparknet_dsl import compile_text
from sparknet_dsl.proto import caffe_pb2
from sparknet_dsl.runtime import train
from sparknet_dsl.runtime.config import RunConfig
from sparknet_dsl.runtime.data import BadRecords, Columns, Source
from sparknet_dsl.runtime.events import Event, Round, Start
from sparknet_dsl.runtime.feeds import feed_net
from sparknet_dsl.runtime.plan import Plan, phase_net

SIDE = 512
MODEL = """
net noise {
  data, label: RDDData([[16, 3, 64, 64], [16]], source="SOURCE", crop_size=64, scale=1/256) @train
  data -> conv: Convolution(8, 5, stride=4, weight_filler=xavier) -> ip: InnerProduct(10, weight_filler=xavier)
  ip, label -> loss: SoftmaxWithLoss
}
solver (base_lr=0.001, lr_policy="fixed", max_iter=400)
"""
# Workers do not have this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Limited:
    """A source that limits the memory of whoever reads it."""

    def __init__(self, source: Source, limit: int) -> None:
        self.source, self.limit, self.columns = source, limit, source.columns

    def read(self, partition: int, partitions: int, bad: BadRecords) -> Iterator[Columns]:
        resource.setrlimit(resource.RLIMIT_DATA, (self.limit, self.limit))
        yield from self.source.read(partition, partitions, bad)


class Watch(threading.Thread):
    """Looks at the workers' memory, several times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks = {"RssAnon": 0, "RssFile": 0}
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.2):
            tree = family(os.getpid())
            # The workers are what PySpark's daemon has forked.
            daemons = [child for child in tree if child != os.getpid() and status(child).get("Name") != "java"]
            for process in daemons:
                said = status(process)
                for kind in self.peaks:
                    self.peaks[kind] = max(self.peaks[kind], int(said.get(kind, "0 kB").split()[0]) << 10)


def write(folder: pathlib.Path, size: int, encoded: bool) -> int:
    """Writes an LMDB of `size` bytes of images; gives their number."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, SIDE, SIDE, 3), np.uint8)
    records = []
    for label, image in enumerate(images):
        if encoded:
            datum = caffe_pb2.Datum(encoded=True, data=cv2.imencode(".jpg", image)[1].tobytes(), label=label % 10)
        else:
            planes = image.transpose(2, 0, 1).tobytes()
            datum = caffe_pb2.Datum(channels=3, height=SIDE, width=SIDE, data=planes, label=label % 10)
        records.append(datum.SerializeToString())
    count = size // len(records[0])
    with lmdb.open(str(folder), map_size=2 * size, writemap=True, map_async=True) as environment:
        for start in range(0, count, 256):
            with environment.begin(write=True) as transaction:
                for number in range(start, min(start + 256, count)):
                    transaction.put(b"%08d" % number, records[number % len(records)])
    return count


def run(folder: pathlib.Path, args: argparse.Namespace) -> dict[str, object]:
    (folder / "snapshots").mkdir()
    size = int(args.gigabytes * 2**30)
    count = write(folder / "lmdb", size, args.encoded)
    model = compile_text(MODEL.replace("SOURCE", f"lmdb:{folder / 'lmdb'}"))
    assert model.solver is not None
    fed = feed_net(phase_net(model.net, model.solver, "TRAIN"), "TRAIN", None)
    assert fed is not None
    limited = fed._replace(source=Limited(fed.source, int(args.limit_gigabytes * 2**30)))
    plan = Plan(model.name, folder, model.net, model.solver, limited, None)
    conf = {"spark.local.dir": str(folder)}
    config = RunConfig.resolve(
        model.spark, model.solver, workers=args.workers, tau=50, snapshot_dir=str(folder / "snapshots"), conf=conf
    )
    times: list[tuple[Event, float]] = []
    watch = Watch()
    watch.start()
    began = time.perf_counter()
    result = train.run(plan, config, lambda event: times.append((event, time.perf_counter() - began)))
    watch.over.set()
    watch.join()
    (start,) = [at for event, at in times if isinstance(event, Start)]
    images = [event.rows / event.seconds for event, _ in times if isinstance(event, Round)]
    return {
        "images": count,
        "bytes": size,
        "limit": int(args.limit_gigabytes * 2**30),
        "workers": args.workers,
        "iterations": result.iteration,
        "seconds_until_training": start,
        "images_per_second": float(np.median(images)),
        "peak_allocated": watch.peaks["RssAnon"],
        "peak_mapped": watch.peaks["RssFile"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--limit-gigabytes", type=float, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--encoded", action="store_true")
    parser.add_argument("--folder", help="where the database and the shards lie for the time being")
    parser.add_argument("--json")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sparknet-ingestion-", dir=args.folder) as folder:
        found = run(pathlib.Path(folder), args)
    gigabyte = 2**30
    print(
        f"{found['images']:,} images, {found['bytes'] / gigabyte:.2f} GB, {found['workers']} workers limited to "
        f"{found['limit'] / gigabyte:.2f} GB each: training after {found['seconds_until_training']:.1f} s, then "
        f"{found['images_per_second']:,.0f} images/s; a worker's peak {found['peak_allocated'] / 2**20:,.0f} MB "
        f"allocated, {found['peak_mapped'] / 2**20:,.0f} MB mapped"
    )
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
