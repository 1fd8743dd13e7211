"""How fast a Data layer gives batches of encoded images, alone and to a net that trains.

    python bench/feeding.py IMAGES [--model caffenet] [--json FILE]

IMAGES is a folder or a tar file of JPEGs. They are resized, as for Caffe's ImageNet example, and stored, encoded, in
an LMDB (pip install lmdb). Measured are, in turns: the layer alone (decoding, random crops and mirrors, mean) and
PyTorch's DataLoader, which does the same with Pillow in a process for each thread (pip install torch==2.13.0 pillow); a
training step of the model with constant inputs, and one that is fed by the layer. What that takes beyond the other, the
step waits for data, or for the cores that decode it.
"""

import argparse
import io
import json
import os
import pathlib
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
from workloads import WORKLOADS, Workload, inputs

from sparknet_dsl import caffe_ext
from sparknet_dsl.proto import caffe_pb2

MEAN = (104.0, 117.0, 123.0)
BATCHES = 8


def encoded_images(path: pathlib.Path) -> Iterator[bytes]:
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in (".jpg", ".jpeg"):
                yield file.read_bytes()
        return
    with tarfile.open(path) as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                yield content.read()


def resized(content: bytes, size: int) -> bytes:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return bytes(cv2.imencode(".jpg", cv2.resize(image, (size, size)))[1])


def write_database(path: str, images: list[bytes]) -> None:
    import lmdb

    with lmdb.open(path, map_size=1 << 33) as environment, environment.begin(write=True) as transaction:
        for i, image in enumerate(images):
            datum = caffe_pb2.Datum(encoded=True, data=image, label=i % 10)
            transaction.put(b"%08d" % i, datum.SerializeToString())


def data_layer(source: str, batch: int, crop: int) -> caffe_pb2.LayerParameter:
    layer = caffe_pb2.LayerParameter(name="data", type="Data", top=["data", "label"])
    layer.data_param.source, layer.data_param.batch_size = source, batch
    layer.data_param.backend = caffe_pb2.DataParameter.LMDB
    layer.transform_param.crop_size, layer.transform_param.mirror = crop, True
    layer.transform_param.mean_value.extend(MEAN)
    return layer


def layer_alone(source: str, workload: Workload) -> Callable[[], object]:
    message = caffe_pb2.NetParameter(layer=[data_layer(source, workload.batch, workload.row[1])])
    net = caffe_ext.Net(message, caffe_ext.TRAIN, seed=1)
    return lambda: net._native.forward(0, 1)


def loader(images: list[bytes], workload: Workload, threads: int) -> Callable[[], object]:
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader

    crop = workload.row[1]
    mean = torch.tensor(MEAN).reshape(3, 1, 1)

    class Images(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            random = np.random.default_rng()
            while True:
                with Image.open(io.BytesIO(images[random.integers(len(images))])) as image:
                    y, x = random.integers(image.height - crop + 1), random.integers(image.width - crop + 1)
                    pixels = np.asarray(image.convert("RGB"))[y : y + crop, x : x + crop]
                if random.integers(2):
                    pixels = pixels[:, ::-1]
                yield torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() - mean, 0

    batches = iter(DataLoader(Images(), batch_size=workload.batch, num_workers=threads, prefetch_factor=4))
    return lambda: next(batches)


def training(workload: Workload, source: str | None) -> Callable[[], object]:
    """A step of the model, fed by the database `source`, or (None) with constant inputs."""
    message = workload.training()
    values = inputs(message, caffe_ext.TRAIN)
    if source is not None:
        layers = [layer for layer in message.layer if layer.type != "Input"]
        del message.layer[:]
        message.layer.extend([data_layer(source, workload.batch, workload.row[1]), *layers])
    param = caffe_pb2.SolverParameter(base_lr=1e-6, lr_policy="fixed", momentum=0.9, max_iter=1 << 30)
    solver = caffe_ext.Solver(param, message, seed=1)
    for name in solver.net.inputs:
        solver.net.blobs[name].data[...] = values[name]
    return lambda: solver.step(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=pathlib.Path, metavar="IMAGES")
    parser.add_argument("--model", choices=[name for name, each in WORKLOADS.items() if len(each.row) == 3])
    parser.add_argument("--size", type=int, default=256, help="of the images in the database")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=pathlib.Path)
    parser.set_defaults(model="caffenet")
    args = parser.parse_args()
    caffe_ext.set_num_threads(args.threads)
    workload = WORKLOADS[args.model]
    images = [resized(content, args.size) for content in encoded_images(args.images)]
    with tempfile.TemporaryDirectory() as folder:
        write_database(folder, images)
        ways: dict[str, Callable[[], Callable[[], object]]] = {
            "Data layer": lambda: layer_alone(folder, workload),
            "DataLoader": lambda: loader(images, workload, args.threads),
            "step, constant inputs": lambda: training(workload, None),
            "step, Data layer": lambda: training(workload, folder),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.rounds):
            for name, make in ways.items():
                # Made anew: what a stopped one has prepared would be for nothing.
                step = make()
                for _ in range(6):  # all that was made ahead
                    step()
                start = time.perf_counter()
                for _ in range(BATCHES):
                    step()
                times[name].append((time.perf_counter() - start) * 1000 / BATCHES)
                del step
    result = {name: statistics.median(values) for name, values in times.items()}
    for name, ms in result.items():
        rate = workload.batch / ms * 1000
        print(f"{name:24}{ms:10.1f} ms a batch of {workload.batch}{rate:10.0f} images/s")
    if args.json:
        args.json.write_text(json.dumps({"model": args.model, "threads": args.threads, "ms": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
