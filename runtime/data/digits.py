"""`digits:`: the 1,797 handwritten digits that scikit-learn brings, 8×8 pixels of 0 to 16 (from UCI)."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from ...errors import DataError
from .base import BadRecords, Column, Columns, Phase, SourceURI, chunks, part

TEST_ROWS = 360
# The split is part of what `digits:` means, so that accuracies compare; it has nothing to do with a run's seed.
SPLIT_SEED = 1797


class Digits:
    """1,437 rows for training and 360 for testing, split by a fixed shuffle; columns image (1, 8, 8) and label."""

    OPTIONS: ClassVar[Mapping[str, str]] = {}
    columns: tuple[Column, ...] = (Column("image", "uint8", (1, 8, 8)), Column("label", "uint8", ()))

    def __init__(self, uri: SourceURI, phase: Phase) -> None:
        if uri.path:
            raise DataError(f"`digits:{uri.path}`: the digits come with scikit-learn and take no path, write `digits:`")
        self.phase = phase

    def read(self, partition: int, partitions: int, bad: BadRecords) -> Iterator[Columns]:
        """Reads as `base.Source` says."""
        del bad
        # scikit-learn takes a second to import: only whoever reads waits for it.
        from sklearn.datasets import load_digits

        digits = load_digits()
        order = np.random.default_rng(SPLIT_SEED).permutation(len(digits.target))
        mine = order[:TEST_ROWS] if self.phase == "TEST" else order[TEST_ROWS:]
        mine = mine[part(len(mine), partition, partitions)]
        images = digits.images[mine].astype(np.uint8).reshape(-1, 1, 8, 8)
        yield from chunks({"image": images, "label": digits.target[mine].astype(np.uint8)})
