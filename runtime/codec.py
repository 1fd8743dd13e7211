"""How arrays travel in fewer bytes: as messages of their change since the last average.

    float32    no messages: arrays travel as they are
    bf16       2 bytes a value: the change, rounded to the nearest bfloat16 (ties to even); off by at most 2^-8 of it
    int8       1 byte and 4 for every 256 values: the change in steps of 1/127 of the largest of its block; off by at
               most half a step, which the sender adds to what it sends next (error feedback)

Error feedback: F. Seide, H. Fu, J. Droppo, G. Li, D. Yu, "1-bit stochastic gradient descent and its application to
data-parallel distributed training of speech DNNs", Interspeech 2014; that SGD converges with it as without
compression: S. P. Karimireddy, Q. Rebjock, S. U. Stich, M. Jaggi, "Error feedback fixes SignSGD and other gradient
compression schemes", ICML 2019.

Messages are little-endian bytes. Every operation is one of IEEE's, elementwise and in a fixed order, so whoever opens a
message gets the same bits. A message cut where blocks meet is a message of the part.
"""

import dataclasses
from collections.abc import Iterator
from typing import Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from ..errors import DivergedError
from .average import Array

Format = Literal["float32", "bf16", "int8"]
Bytes = npt.NDArray[np.uint8]

# Values that share a step.
BLOCK = 256
# Values worked on at a time, so that what comes in between stays in the cache; a multiple of BLOCK.
CHUNK = 1 << 15
_SCALE = 4  # bytes of a step
# Where all of a block is 0 the step is still one that can be divided by, and its inverse finite.
_LEAST_STEP = np.float32(2.0**-126)


class Codec(Protocol):
    """A format of messages.

    feedback: the sender keeps what a message lost, as large as the values, and adds it to the next one.
    """

    feedback: bool

    def size(self, count: int) -> int:
        """Bytes of a message of `count` values; for multiples of BLOCK additive."""

    def encode(self, values: Array, out: Bytes) -> None:
        """Writes the message of `values` to `out`."""

    def decode(self, message: Bytes, out: Array) -> None:
        """Writes the values of a message to `out`."""


class _Bf16:
    feedback = False

    def size(self, count: int) -> int:
        return 2 * count

    def encode(self, values: Array, out: Bytes) -> None:
        bits = values.view(np.uint32)
        # Half of what is cut off, less one where the last bit that stays is even: a tie then goes down.
        rounded = bits >> 16
        rounded &= 1
        rounded += 0x7FFF
        rounded += bits
        rounded >>= 16
        out.view("<u2")[...] = rounded

    def decode(self, message: Bytes, out: Array) -> None:
        bits = out.view(np.uint32)
        bits[...] = message.view("<u2")
        bits <<= 16


class _Int8:
    """Blocks one after the other, each its step and then a byte for every value; the last may be shorter."""

    feedback = True

    def size(self, count: int) -> int:
        return count + _SCALE * -(-count // BLOCK)

    def encode(self, values: Array, out: Bytes) -> None:
        for block, message in _blocks(values, out):
            step = np.maximum(block.max(axis=1), -block.min(axis=1))
            step /= np.float32(127)
            np.maximum(step, _LEAST_STEP, out=step)
            scaled = block * (np.float32(1) / step)[:, None]
            np.rint(scaled, out=scaled)
            message[:, :_SCALE].view("<f4")[:, 0] = step
            np.copyto(message[:, _SCALE:].view(np.int8), scaled, casting="unsafe")

    def decode(self, message: Bytes, out: Array) -> None:
        for block, part in _blocks(out, message):
            np.multiply(part[:, _SCALE:].view(np.int8), part[:, :_SCALE].view("<f4"), out=block)


CODECS: dict[Format, Codec] = {"bf16": _Bf16(), "int8": _Int8()}
# Means of messages travel back as messages in this one, whatever those were in. It needs no feedback: what it is off by
# is a share of the change itself, and not of another's.
RETURN: Format = "bf16"


@dataclasses.dataclass(frozen=True)
class Message:
    """`count` values in a format."""

    format: Format
    count: int
    content: Bytes

    @classmethod
    def of(cls, format: Format, values: Array) -> Self:
        """The message of `values`."""
        message = cls.empty(format, values.size)
        for part in _chunks(values.size):
            CODECS[format].encode(values[part], message.part(part).content)
        return message

    @classmethod
    def empty(cls, format: Format, count: int) -> Self:
        """Room for a message of `count` values."""
        return cls(format, count, np.empty(CODECS[format].size(count), np.uint8))

    def open(self, out: Array) -> None:
        """Writes the values to `out`."""
        for part in _chunks(self.count):
            CODECS[self.format].decode(self.part(part).content, out[part])

    def part(self, some: slice) -> "Message":
        """The message of the values `some`, which begin where a block does: a view."""
        size = CODECS[self.format].size
        return Message(self.format, some.stop - some.start, self.content[size(some.start) : size(some.stop)])


def pack(format: Format, values: Array, common: Array, residual: Array | None = None) -> Message:
    """The message of the change of `values` from `common`, all flat and of one size.

    residual: with feedback, what earlier messages lost, zeros at first; it is added, and becomes what this one loses.
    Raises DivergedError where a change is not finite.
    """
    message = Message.empty(format, values.size)
    codec = CODECS[format]
    change = np.empty(min(CHUNK, values.size), np.float32)
    opened = np.empty_like(change)
    for part in _chunks(values.size):
        content = message.part(part).content
        with np.errstate(over="ignore", invalid="ignore"):
            some = np.subtract(values[part], common[part], out=change[: part.stop - part.start])
            if residual is not None:
                some += residual[part]
        if not np.isfinite(some).all():
            raise DivergedError("training diverged: a weight's change is beyond float32; lower base_lr")
        codec.encode(some, content)
        if residual is not None:
            arrived = opened[: some.size]
            codec.decode(content, arrived)
            np.subtract(some, arrived, out=residual[part])
    return message


def opened(given: Array | Message) -> Array:
    """Values that were given as they are, or as a message."""
    if not isinstance(given, Message):
        return given
    out = np.empty(given.count, np.float32)
    given.open(out)
    return out


def returned(mean: Array) -> Array:
    """What arrives of a mean that travels back."""
    out = np.empty_like(mean)
    Message.of(RETURN, mean).open(out)
    return out


def _chunks(size: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, size)) for start in range(0, size, CHUNK))


def _blocks(values: Array, message: Bytes) -> list[tuple[Array, Bytes]]:
    """Whole blocks as rows of a matrix, then the rest as one row; both with their bytes."""
    whole = values.size // BLOCK
    at, byte = whole * BLOCK, whole * (_SCALE + BLOCK)
    parts = [(values[:at].reshape(whole, BLOCK), message[:byte].reshape(whole, _SCALE + BLOCK))]
    if at < values.size:
        parts.append((values[None, at:], message[None, byte:]))
    return parts if whole else parts[1:]
