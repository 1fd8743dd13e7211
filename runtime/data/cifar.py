"""`cifar10:DIR` and `cifar100:DIR`: the sets in their binary layout (https://www.cs.toronto.edu/~kriz/cifar.html).

A record is a byte of label (CIFAR-100: two, of the 20 superclasses and of the 100 classes) and 3,072 bytes of image:
the planes R, G, B of 32×32. Caffe's example stores the planes as they are, so nets see R, G, B here as there.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from ...errors import DataError
from .base import BadRecords, Column, Columns, Phase, SourceURI, chunks, existing_folder, part

PIXELS = 3 * 32 * 32
IMAGE = Column("image", "uint8", (3, 32, 32))


class Cifar10:
    """50,000 rows from `data_batch_*.bin` in phase TRAIN, 10,000 from `test_batch.bin` in TEST; image and label."""

    OPTIONS: ClassVar[Mapping[str, str]] = {}
    TRAIN: ClassVar[tuple[str, ...]] = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
    TEST: ClassVar[tuple[str, ...]] = ("test_batch.bin",)
    RECORDS: ClassVar[Mapping[Phase, int]] = {"TRAIN": 10_000, "TEST": 10_000}  # in a file
    FOLDER: ClassVar[str] = "cifar-10-batches-bin"
    # The labels that a record begins with, each with the number of its classes.
    LABELS: ClassVar[Mapping[str, int]] = {"label": 10}
    columns: tuple[Column, ...] = (IMAGE, Column("label", "uint8", ()))

    def __init__(self, uri: SourceURI, phase: Phase) -> None:
        content = f"{self.TRAIN[0]} to {self.TRAIN[-1]}" if len(self.TRAIN) > 1 else self.TRAIN[0]
        content += f" and {self.TEST[0]}, or the folder {self.FOLDER} with them"
        folder = existing_folder(uri, content)
        if (folder / self.FOLDER).is_dir():
            folder = folder / self.FOLDER
        self.files = [(folder / name).absolute() for name in (self.TEST if phase == "TEST" else self.TRAIN)]
        self.records, self.record = self.RECORDS[phase], len(self.LABELS) + PIXELS
        for file in self.files:
            if not file.is_file():
                raise DataError(f"{uri.scheme}:{uri.path}: {file} does not exist; the folder should hold {content}")
            size = file.stat().st_size
            if size != self.records * self.record:
                raise DataError(
                    f"{file}: expected {self.records * self.record:,} bytes ({self.records:,} records of "
                    f"{self.record:,}), found {size:,}; it was not copied whole or is no binary batch, fetch it again"
                )

    def read(self, partition: int, partitions: int, bad: BadRecords) -> Iterator[Columns]:
        """Reads as `base.Source` says."""
        del bad
        for number, file in enumerate(self.files):
            try:
                records = np.memmap(file, np.uint8, "r", shape=(self.records, self.record))
            except (OSError, ValueError) as error:
                raise DataError(f"{file} cannot be read: {error}") from error
            # The stride goes on from file to file.
            mine = records[part(self.records, (partition - number * self.records) % partitions, partitions)]
            for some in chunks({"records": mine}):
                values = some["records"]
                labels = {name: values[:, place] for place, name in enumerate(self.LABELS)}
                _check_labels(file, labels, self.LABELS)
                yield {"image": values[:, len(labels) :].reshape(-1, *IMAGE.shape), **labels}


class Cifar100(Cifar10):
    """50,000 rows from `train.bin`, 10,000 from `test.bin`; image, label (of 100 classes), coarse_label (of 20)."""

    TRAIN: ClassVar[tuple[str, ...]] = ("train.bin",)
    TEST: ClassVar[tuple[str, ...]] = ("test.bin",)
    RECORDS: ClassVar[Mapping[Phase, int]] = {"TRAIN": 50_000, "TEST": 10_000}
    FOLDER: ClassVar[str] = "cifar-100-binary"
    LABELS: ClassVar[Mapping[str, int]] = {"coarse_label": 20, "label": 100}
    columns: tuple[Column, ...] = (IMAGE, Column("label", "uint8", ()), Column("coarse_label", "uint8", ()))


def _check_labels(file: pathlib.Path, labels: Columns, classes: Mapping[str, int]) -> None:
    for name, values in labels.items():
        if (largest := values.max(initial=0)) >= classes[name]:
            raise DataError(f"{file}: a {name} is {largest}, expected 0 to {classes[name] - 1}; fetch the file again")
