"""Which rows make a batch: a shuffle of the partition for each epoch, drawn from numbers alone."""

import functools

import numpy as np
import numpy.typing as npt


def derive(*numbers: int) -> int:
    """A seed from 0 to 2^63 - 1 made of `numbers` (each 0 or more); other numbers give an unrelated one."""
    # Numbers of a fixed size, and how many there are: SeedSequence alone takes (1, 2) and (1, 2, 0) for the same.
    words = [len(numbers), *(word for number in numbers for word in (number & 0xFFFFFFFF, number >> 32))]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


@functools.lru_cache(maxsize=2)
def epoch_order(seed: int, partition: int, epoch: int, rows: int) -> npt.NDArray[np.intp]:
    """The order in which epoch `epoch` goes through the partition's `rows` rows: each exactly once."""
    order = np.random.Generator(np.random.PCG64(derive(seed, partition, epoch))).permutation(rows)
    order.setflags(write=False)
    return order


def batch_rows(seed: int, partition: int, rows: int, start: int, count: int) -> npt.NDArray[np.intp]:
    """The indices of the `count` rows from position `start` on, in the endless row of epochs.

    A batch may end one epoch and begin the next, so no row is left out, whatever the size of a batch.
    """
    pieces = []
    while count > 0:
        epoch, offset = divmod(start, rows)
        piece = epoch_order(seed, partition, epoch, rows)[offset : offset + count]
        pieces.append(piece)
        start += len(piece)
        count -= len(piece)
    return np.concatenate(pieces)
