"""What the streams of data layers have in common: their form, and numbers that are functions of a seed."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .hdf5 import Array

Shape = tuple[int, ...]
Batch = list[Array]  # an array for each top


class Stream(NamedTuple):
    """The batches of a data layer, without end, and the shapes of the first one's arrays."""

    shapes: list[Shape]
    batches: Iterator[Batch]


def derive(*parts: int | str) -> int:
    """A number of 64 bits that is a function of `parts`."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def permutation(count: int, *parts: int | str) -> list[int]:
    """The numbers below `count` in an order that is a function of `parts`."""
    return [int(i) for i in np.random.default_rng(derive(*parts)).permutation(count)]
