"""A folder as the reader of the pages has one: models, examples, and the data that they name, all small."""

import pathlib
import re
import shutil
import struct

import cv2
import numpy as np
import pyarrow
from documents import ROOT, blocks
from pyarrow import parquet
from source_files import coded, datum, noise, write_lmdb, write_tar

from sparknet_dsl import caffe_ext, compile_file
from sparknet_dsl.caffe_ext.io import array_to_blobproto

CLASSES = 10
# Weights that a page takes from elsewhere, or from a run of many iterations: the model that they are of.
WEIGHTS = {
    "lenet.caffemodel": "lenet",
    "caffenet.caffemodel": "caffenet",
    "bvlc_reference_caffenet.caffemodel": "caffenet",
    "snapshots/digits_iter_500.caffemodel": "digits",
    "snapshots/lenet_iter_5000.caffemodel": "lenet",
    "snapshots/finetune_iter_2000.caffemodel": "examples/finetune/finetune",
}


def make(folder: pathlib.Path, models: pathlib.Path) -> None:
    """Fills the folder; `models` gets the library's models."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("images"))
    shutil.copytree(ROOT / "models", models)
    for path in [*models.glob("*.snet"), *folder.rglob("examples/**/*.snet")]:
        path.write_text(smaller(path.read_text("utf-8")), encoding="utf-8")
    (folder / "models").symlink_to(models)
    for name in ("DIR", "data/mnist", "data/cifar10"):
        (folder / name).mkdir(parents=True)
    for name in ("DIR", "data/mnist"):
        write_mnist(folder / name)
    for name in ("DIR", "data/cifar10"):
        write_cifar10(folder / name)
    for name in ("photos", "pictures/train", "pictures/test", "ILSVRC2012/train"):
        write_photos(folder / name)
    for name in ("ilsvrc12", "data/imagenet"):
        write_imagenet(folder / name)
    for phase in ("train", "test"):
        records = [datum(image, place % CLASSES) for place, image in enumerate(noise(24, (1, 28, 28)))]
        write_lmdb(folder / f"examples/mnist/mnist_{phase}_lmdb", records)
    (folder / "snapshots").mkdir()
    images = [{"image": image.ravel().tolist(), "label": place} for place, image in enumerate(noise(10, (1, 28, 28)))]
    parquet.write_table(pyarrow.Table.from_pylist(images), folder / "data/mnist.parquet")
    mean = folder / "data/ilsvrc12/imagenet_mean.binaryproto"
    mean.parent.mkdir()
    mean.write_bytes(array_to_blobproto(np.full((1, 3, 256, 256), 110.0)).SerializeToString())
    write_caffes_solver(folder)
    write_points(folder / "data/points.svm")
    write_published(folder)


def write_weights(folder: pathlib.Path, models: pathlib.Path) -> None:
    """The trained nets that pages begin with, untrained."""
    for name, model in WEIGHTS.items():
        path = folder / model if "/" in model else models / model
        caffe_ext.Net(compile_file(path.with_suffix(".snet")).net, caffe_ext.TRAIN, seed=1).save(folder / name)


def smaller(model: str) -> str:
    """The model with few filters, small batches and few iterations."""
    for pattern, by in (
        (r"(Convolution|conv5)\(\d+,", r"\1(4,"),
        (r"InnerProduct\(\d{3,}", f"InnerProduct({CLASSES}"),
        (r"batch_size=\d+", "batch_size=4"),
        (r"option batch = \d+", "option batch = 4"),
        (r"option (hidden|streams) = \d+", r"option \1 = 8"),
        (r"max_iter=\d+", "max_iter=4"),
        (r"rounds=\d+, ", ""),
    ):
        model = re.sub(pattern, by, model)
    return model


def write_points(path: pathlib.Path) -> None:
    """Two clouds of points with four coordinates."""
    random = np.random.default_rng(2)
    lines = []
    for place in range(40):
        numbers = random.normal(place % 2, 0.3, 4)
        lines.append(f"{place % 2} " + " ".join(f"{axis + 1}:{number:.4f}" for axis, number in enumerate(numbers)))
    path.write_text("\n".join(lines) + "\n")


def write_published(folder: pathlib.Path) -> None:
    """Weights of the net that docs/fine-tuning.md starts from."""
    (net,) = blocks("docs/fine-tuning.md", "prototxt")
    model = folder / "published.prototxt"
    model.write_text(net.text, encoding="utf-8")
    caffe_ext.Net(str(model), caffe_ext.TRAIN).save(folder / "published.caffemodel")


def write_caffes_solver(folder: pathlib.Path) -> None:
    """LeNet's solver, and its net beside it, as Caffe's examples have them."""
    model = compile_file(folder / "models/lenet.snet", keep_data_layers=True)
    net, *_ = model.save(folder / "examples/mnist", "lenet")
    net.rename(net.with_name("lenet_train_test.prototxt"))


def write_mnist(folder: pathlib.Path, rows: int = 40) -> None:
    random = np.random.default_rng(0)
    for phase in ("train", "t10k"):
        images = random.integers(0, 256, (rows, 28, 28), np.uint8)
        labels = np.arange(rows, dtype=np.uint8) % 10
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{phase}-{name}-ubyte").write_bytes(head + array.tobytes())


def write_cifar10(folder: pathlib.Path) -> None:
    """The files' whole size, but on no disk space: black images of class 0."""
    for name in [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]:
        with (folder / name).open("wb") as file:
            file.truncate(30_730_000)


def write_photos(folder: pathlib.Path) -> None:
    """A folder for each class, ten images in each."""
    for place, image in enumerate(noise(10 * CLASSES, (3, 230, 240), seed=3)):
        path = folder / f"class{place % CLASSES}" / f"{place}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.ascontiguousarray(image.transpose(1, 2, 0)))


def write_imagenet(folder: pathlib.Path) -> None:
    """Tars of JPEGs for both phases, with their lists."""
    folder.mkdir(parents=True)
    for phase in ("train", "val"):
        images = {f"{phase}{place}.JPEG": coded(image, ".jpg") for place, image in enumerate(noise(8, (3, 60, 70)))}
        write_tar(folder / f"{phase}.00000.tar", images)
        (folder / f"{phase}.txt").write_text("".join(f"{name} {place}\n" for place, name in enumerate(images)))
