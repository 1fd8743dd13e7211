"""`cifar10:DIR`: CIFAR-10 in its published binary layout (https://www.cs.toronto.edu/~kriz/cifar.html).

A record is a byte of label and 3,072 bytes of image: the planes R, G, B of 32×32. Caffe's example stores the planes
as they are, so nets see R, G, B here as there.
"""

from collections.abc import Iterator

import numpy as np

from ...errors import DataError
from .base import Column, Columns, Phase, chunks, existing_folder, part

CONTENT = "data_batch_1.bin to data_batch_5.bin and test_batch.bin, or the folder cifar-10-batches-bin with them"
RECORDS = 10_000
RECORD = 1 + 3 * 32 * 32


class Cifar10:
    """50,000 rows from `data_batch_*.bin` in phase TRAIN, 10,000 from `test_batch.bin` in TEST; image and label."""

    columns: tuple[Column, ...] = (Column("image", "uint8", (3, 32, 32)), Column("label", "uint8", ()))

    def __init__(self, path: str, phase: Phase) -> None:
        folder = existing_folder(path, "cifar10", CONTENT)
        if (folder / "cifar-10-batches-bin").is_dir():
            folder = folder / "cifar-10-batches-bin"
        names = ["test_batch.bin"] if phase == "TEST" else [f"data_batch_{i}.bin" for i in range(1, 6)]
        self.files = [(folder / name).absolute() for name in names]
        for file in self.files:
            if not file.is_file():
                raise DataError(f"cifar10:{path}: {file} does not exist; the folder should hold {CONTENT}")
            size = file.stat().st_size
            if size != RECORDS * RECORD:
                raise DataError(
                    f"{file}: expected {RECORDS * RECORD:,} bytes ({RECORDS:,} records of {RECORD:,}), found "
                    f"{size:,}; it was not copied whole or is no binary batch, fetch it again"
                )
        self.rows = RECORDS * len(self.files)

    def read(self, partition: int, partitions: int) -> Iterator[Columns]:
        """Reads as `base.Source` says."""
        for number, file in enumerate(self.files):
            try:
                records = np.fromfile(file, np.uint8).reshape(-1, RECORD)
            except (OSError, ValueError) as error:
                raise DataError(f"{file} cannot be read: {error}") from error
            # The stride goes on from file to file.
            first = (partition - number * RECORDS) % partitions
            mine = records[part(len(records), first, partitions)]
            labels = mine[:, 0]
            if labels.max(initial=0) > 9:
                raise DataError(f"{file}: a label is {labels.max()}, expected 0 to 9; fetch the file again")
            yield from chunks({"image": mine[:, 1:].reshape(-1, 3, 32, 32), "label": labels})
