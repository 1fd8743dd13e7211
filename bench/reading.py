"""How long Parquet's rows take into training, beside how long Spark takes to count their bytes; both in one run.

    python bench/reading.py MNIST_DIR [--workers 2] [--repeat 5] [--encoded] [--dataframe]

Writes MNIST's 60,000 training rows as Parquet (image, as 784 bytes or with --encoded as PNG, and label), has Spark add
up the bytes of the images, `df.select(sum(length(image)))`, and has the workers read the rows and write their shards,
which training maps. Tells the first time of both, when processes start and Java is cold, and the best of the others.
"""

import argparse
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable

import cv2
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from sparknet_dsl.runtime import worker
from sparknet_dsl.runtime.data import DataFrame, SourceURI, open_source
from sparknet_dsl.runtime.data.mnist import Mnist
from sparknet_dsl.runtime.spark import Cluster


def write(folder: pathlib.Path, mnist: str, encoded: bool) -> pathlib.Path:
    images, labels = [], []
    for chunk in Mnist(SourceURI("mnist", mnist), "TRAIN").read(0, 1, None):  # type: ignore[arg-type]
        images += [
            cv2.imencode(".png", image[0])[1].tobytes() if encoded else image.tobytes() for image in chunk["image"]
        ]
        labels += chunk["label"].tolist()
    path = folder / "mnist.parquet"
    pq.write_table(pa.table({"image": images, "label": labels}), path, row_group_size=10_000)
    return path


def timed(what: str, run: Callable[[int], object], repeat: int) -> tuple[float, float]:
    seconds = []
    for number in range(repeat + 1):
        began = time.perf_counter()
        run(number)
        seconds.append(time.perf_counter() - began)
    print(f"{what}: {seconds[0]:.2f} s at first, {min(seconds[1:]):.2f} s at best of {repeat}")
    return seconds[0], min(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mnist", help="folder of MNIST's idx files")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--encoded", action="store_true", help="images as PNG")
    parser.add_argument("--dataframe", action="store_true", help="rows by way of Spark's reader, as Trainer.fit(df)")
    options = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="sparknet-reading-"))
    try:
        path = write(folder, options.mnist, options.encoded)
        print(f"{path.stat().st_size / 1e6:.1f} MB of Parquet, {options.workers} workers")
        with Cluster(f"local[{options.workers}]", options.workers) as cluster:
            spark = SparkSession(cluster.context)
            frame = spark.read.parquet(str(path))
            counted = timed(
                "Spark counts the bytes", lambda _: frame.selectExpr("sum(length(image))").collect(), options.repeat
            )

            def read(number: int) -> None:
                source = DataFrame(frame) if options.dataframe else open_source(f"parquet:{path}", "TRAIN")
                rows = cluster.rows(f"train{number}", source)  # type: ignore[arg-type]
                held = cluster.each(rows, worker.held)
                assert sum(part for part, _ in held) == 60_000

            ours = timed("rows into shards", read, options.repeat)
        print(f"ratio: {ours[0] / counted[0]:.2f} at first, {ours[1] / counted[1]:.2f} at best")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
