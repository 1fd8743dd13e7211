"""`digits:`: the 1,797 handwritten digits that scikit-learn brings, 8×8 pixels of 0 to 16 (from UCI)."""

from collections.abc import Iterator

import numpy as np

from ...errors import DataError
from .base import Column, Columns, Phase, chunks, part

TEST_ROWS = 360
# The split is part of what `digits:` means, so that accuracies compare; it has nothing to do with a run's seed.
SPLIT_SEED = 1797


class Digits:
    """1,437 rows for training and 360 for testing, split by a fixed shuffle; columns image (1, 8, 8) and label."""

    columns: tuple[Column, ...] = (Column("image", "uint8", (1, 8, 8)), Column("label", "uint8", ()))

    def __init__(self, path: str, phase: Phase) -> None:
        if path:
            raise DataError(f"`digits:{path}`: the digits come with scikit-learn and take no path, write `digits:`")
        self.phase = phase
        self.rows = TEST_ROWS if phase == "TEST" else 1797 - TEST_ROWS

    def read(self, partition: int, partitions: int) -> Iterator[Columns]:
        """Reads as `base.Source` says."""
        # scikit-learn takes a second to import: only whoever reads waits for it.
        from sklearn.datasets import load_digits

        digits = load_digits()
        order = np.random.default_rng(SPLIT_SEED).permutation(len(digits.target))
        mine = order[:TEST_ROWS] if self.phase == "TEST" else order[TEST_ROWS:]
        mine = mine[part(self.rows, partition, partitions)]
        images = digits.images[mine].astype(np.uint8).reshape(-1, 1, 8, 8)
        yield from chunks({"image": images, "label": digits.target[mine].astype(np.uint8)})
