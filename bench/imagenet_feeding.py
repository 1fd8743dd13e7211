"""How fast ImageNet's tars become batches, against PyTorch's DataLoader with Pillow on the same files and cores.

    python bench/imagenet_feeding.py TARS [--copies 5] [--rounds 5] [--json FILE]

TARS is a folder of tars of JPEGs with a list of labels, as `imagenet:` takes them (pip install torch==2.13.0 pillow).
Two ways to train, each measured in turns with the DataLoader's:

  caffe      as Caffe's ImageNet example: images are resized to 256 × 256, the mean image is taken off, and 227 × 227
             cut out at random. `imagenet:TARS?resize=256` decodes when the rows are read: "first pass" has all of
             that, and the first epoch; "later passes" are epochs after it, for which the DataLoader decodes again.
  augmented  a random part of each image, scaled to 227 × 227, half of them mirrored: decoded in each epoch by both.

Ours runs to the values in the net's blobs, with the labels; the DataLoader to its batch, the fastest of 0 worker
processes and of as many as there are cores, which have been started before the clock starts.
"""

import argparse
import io
import json
import math
import os
import pathlib
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from sparknet_dsl import caffe_ext
from sparknet_dsl.proto import caffe_pb2
from sparknet_dsl.runtime.data import BadRecords, open_source
from sparknet_dsl.runtime.feeding import Batches, Feed, shuffled
from sparknet_dsl.runtime.shards import Shard, remove_shards, shard

SIZE, CROP, BATCH, SEED = 256, 227, 50, 1


class Member(NamedTuple):
    """Where an image lies in its tar."""

    tar: str
    start: int
    size: int


def members(tars: Sequence[pathlib.Path]) -> list[Member]:
    found = []
    for path in tars:
        with tarfile.open(path) as archive:
            found += [Member(str(path), member.offset_data, member.size) for member in archive if member.isfile()]
    return found


# ---- ours ----


def input_net() -> caffe_ext.Net:
    message = caffe_pb2.NetParameter()
    layer = message.layer.add(name="data", type="Input", top=["data", "label"])
    layer.input_param.shape.add(dim=[BATCH, 3, CROP, CROP])
    layer.input_param.shape.add(dim=[BATCH])
    return caffe_ext.Net(message, caffe_ext.TRAIN)


def transform(way: str) -> caffe_pb2.TransformationParameter:
    result = caffe_pb2.TransformationParameter(crop_size=CROP)
    if way == "augmented":
        result.mirror = True
        result.mean_value.append(110)
        result.random_resized_crop.SetInParent()
    return result


def read(uri: str, folder: pathlib.Path) -> Shard:
    source = open_source(uri, "TRAIN")
    remove_shards("bench", folder)
    return shard("bench", "train", source.columns, lambda bad: source.read(0, 1, bad), folder)


def feed_all(net: caffe_ext.Net, rows: Shard, way: str, mean: np.ndarray | None, epoch: int) -> int:
    """Feeds an epoch; gives the number of images."""
    feeds = (Feed("data", "image", transform(way).SerializeToString(), mean=mean), Feed("label", "label"))
    batches = Batches(net, feeds, rows, "TRAIN", shuffled(SEED, 0, rows.rows, BATCH))
    count = rows.rows // BATCH
    for k in range(epoch * count, (epoch + 1) * count):
        batches.feed(k)
    return count * BATCH


# ---- PyTorch's ----


def loader(found: Sequence[Member], way: str, mean: np.ndarray | None, workers: int) -> Callable[[], int]:
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    torch.set_num_threads(1 if workers else os.cpu_count() or 1)

    class Images(Dataset[Any]):
        def __init__(self) -> None:
            self.files: dict[str, int] = {}

        def __len__(self) -> int:
            return len(found)

        def __getitem__(self, index: int) -> Any:
            member = found[index]
            if member.tar not in self.files:
                self.files[member.tar] = os.open(member.tar, os.O_RDONLY)
            content = os.pread(self.files[member.tar], member.size, member.start)
            random = torch.rand(5).tolist()
            image = Image.open(io.BytesIO(content)).convert("RGB")
            if way == "augmented":
                pixels = np.asarray(image.resize((CROP, CROP), Image.Resampling.BILINEAR, box=part(image, random)))
                pixels = pixels[:, ::-1] if random[4] < 0.5 else pixels
                values = pixels.astype(np.float32) - np.float32(110)
            else:
                assert mean is not None
                pixels = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
                y, x = (int(random[axis] * (SIZE - CROP + 1)) for axis in (0, 1))
                values = pixels[y : y + CROP, x : x + CROP].astype(np.float32) - mean[y : y + CROP, x : x + CROP]
            return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1))), index % 1000

    def part(image: Any, random: Sequence[float]) -> tuple[float, float, float, float]:
        """A part of the image as torchvision's RandomResizedCrop takes it, with one try."""
        area = image.width * image.height * (0.08 + 0.92 * random[0])
        ratio = math.exp(math.log(3 / 4) + random[1] * (math.log(4 / 3) - math.log(3 / 4)))
        width = min(image.width, round(math.sqrt(area * ratio)))
        height = min(image.height, round(math.sqrt(area / ratio)))
        left, top = int(random[2] * (image.width - width + 1)), int(random[3] * (image.height - height + 1))
        return left, top, left + width, top + height

    made = DataLoader(
        Images(), BATCH, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=workers > 0
    )

    def epoch() -> int:
        return sum(len(labels) for _, labels in made)

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tars", type=pathlib.Path, metavar="TARS")
    parser.add_argument("--copies", type=int, default=5, help="of each tar, so that a pass takes a while")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    caffe_ext.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        results = measure(args.tars, pathlib.Path(name), args.copies, args.rounds, args.threads)
    for title, rates in results.items():
        print(f"{title:32}{statistics.median(rates):8.0f} images/s  ({min(rates):.0f} to {max(rates):.0f})")
    best = {
        way: max(statistics.median(rates) for title, rates in results.items() if title.startswith(f"{way}: DataLoader"))
        for way in ("caffe", "augmented")
    }
    for title, rates in results.items():
        way = title.partition(":")[0]
        if "DataLoader" not in title:
            print(f"{title:32}{statistics.median(rates) / best[way]:8.2f} times the best DataLoader")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def measure(tars: pathlib.Path, folder: pathlib.Path, copies: int, rounds: int, threads: int) -> dict[str, list[float]]:
    """Images a second of each way, once for each round."""
    linked = folder / "tars"
    linked.mkdir()
    for path in tars.glob("*.txt"):
        (linked / path.name).symlink_to(path.resolve())
    for path in tars.glob("train*.tar"):
        for copy in range(copies):
            (linked / f"{path.stem}.{copy}.tar").symlink_to(path.resolve())
    found = members(sorted(linked.glob("*.tar")))
    mean = np.random.default_rng(0).uniform(90, 130, (3, SIZE, SIZE)).astype(np.float32)
    mean_last = np.ascontiguousarray(mean.transpose(1, 2, 0))
    net = input_net()
    kept: dict[str, Shard] = {}

    def first_pass() -> int:
        kept["caffe"] = read(f"imagenet:{linked}?resize={SIZE}", folder)
        return feed_all(net, kept["caffe"], "caffe", mean, 0)

    ways: dict[str, Callable[[], int]] = {
        "caffe: first pass": first_pass,
        "caffe: later passes": lambda: feed_all(net, kept["caffe"], "caffe", mean, 1),
        "augmented: each pass": lambda: feed_all(net, kept["augmented"], "augmented", None, 1),
    }
    for way in ("caffe", "augmented"):
        for workers in (0, threads):
            epoch = loader(found, way, mean_last if way == "caffe" else None, workers)
            epoch()
            ways[f"{way}: DataLoader, {workers} workers"] = epoch
    source = open_source(f"imagenet:{linked}", "TRAIN")
    kept["augmented"] = shard("bench-encoded", "train", source.columns, reading(source), folder)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            start = time.perf_counter()
            count = run()
            rates[name].append(count / (time.perf_counter() - start))
    return rates


def reading(source: Any) -> Callable[[BadRecords], Iterator[Any]]:
    return lambda bad: source.read(0, 1, bad)


if __name__ == "__main__":
    main()
