"""How arrays travel between workers: as they are, or as their change since the last average, in fewer bytes.

    float32    4 bytes a value: the values themselves, bit for bit
    bf16       2 bytes: the change, rounded to the nearest (ties to even); its relative error is at most 2^-8
    int8       1 byte and 4 for every 256 values: the change in steps of 1/127 of the largest of its block; its error is
               at most half a step, and the sender adds it to what it sends next (error feedback)

Error feedback: F. Seide, H. Fu, J. Droppo, G. Li, D. Yu, "1-bit stochastic gradient descent and its application to
data-parallel distributed training of speech DNNs", Interspeech 2014; that SGD converges with it as without compression:
S. P. Karimireddy, Q. Rebjock, S. U. Stich, M. Jaggi, "Error feedback fixes SignSGD and other gradient compression
schemes", ICML 2019.

Messages are little-endian bytes. Every operation is one of IEEE's, elementwise and in a fixed order, so whoever decodes
a message gets the same bits. A message cut where blocks meet is a message of the part.
"""

import dataclasses
from typing import Literal, Protocol

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

    relative: what travels is the change of the values since those that sender and receivers have in common.
    feedback: the sender keeps what a message lost, as large as the values, and adds it to the next one.
    """

    relative: bool
    feedback: bool

    def size(self, count: int) -> int:
        """Bytes of a message of `count` values; for multiples of BLOCK additive."""

    def encode(self, values: Array, out: Bytes) -> None:
        """Writes the message of `values` to `out`."""

    def decode(self, message: Bytes, out: Array) -> None:
        """Writes the values of a message to `out`."""


class _Float32:
    relative = False
    feedback = False

    def size(self, count: int) -> int:
        return 4 * count

    def encode(self, values: Array, out: Bytes) -> None:
        out.view("<f4")[...] = values

    def decode(self, message: Bytes, out: Array) -> None:
        out[...] = message.view("<f4")


class _Bf16:
    relative = True
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

    relative = True
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


CODECS: dict[Format, Codec] = {"float32": _Float32(), "bf16": _Bf16(), "int8": _Int8()}


# Means travel back in this one, where the arrays travelled in any but float32: without feedback, which it does not
# need, since it is off by a share of the change itself and not of another's.
RETURN = CODECS["bf16"]


@dataclasses.dataclass(frozen=True)
class Message:
    """Values as a message relative to `common`, which the receiver has, too."""

    codec: Codec
    content: Bytes
    common: Array

    def open(self, out: Array) -> None:
        """Writes the values to `out`."""
        unpack(self.codec, self.content, self.common, out)

    def part(self, some: slice) -> "Message":
        """The message of the values `some`, which begin where a block does: a view."""
        begin, end = self.codec.size(some.start), self.codec.size(some.stop)
        return Message(self.codec, self.content[begin:end], self.common[some])

    def empty_like(self) -> "Message":
        """Room for another of the same size."""
        return Message(self.codec, np.empty_like(self.content), self.common)


def returned(mean: Array, common: Array) -> Array:
    """What arrives of a `mean` that travels back relative to `common`."""
    out = np.empty_like(mean)
    unpack(RETURN, pack(RETURN, mean, common), common, out)
    return out


def pack(codec: Codec, values: Array, common: Array, residual: Array | None = None) -> Bytes:
    """The message from which those who have `common` get `values`, all flat and of one size, or nearly so.

    residual: with `codec.feedback`, what earlier messages lost, zeros at first; it is added, and becomes what this one
    loses. Raises DivergedError where a change is not finite.
    """
    message = np.empty(codec.size(values.size), np.uint8)
    if not codec.relative:
        codec.encode(values, message)
        return message
    change = np.empty(min(CHUNK, values.size), np.float32)
    sent = np.empty_like(change)
    for start in range(0, values.size, CHUNK):
        part = slice(start, min(start + CHUNK, values.size))
        bytes_of_part = _message_part(codec, message, part)
        with np.errstate(over="ignore", invalid="ignore"):
            some = np.subtract(values[part], common[part], out=change[: part.stop - start])
            if residual is not None:
                some += residual[part]
        if not np.isfinite(some).all():
            raise DivergedError("training diverged: a weight's change is beyond float32; lower base_lr")
        codec.encode(some, bytes_of_part)
        if residual is not None:
            decoded = sent[: some.size]
            codec.decode(bytes_of_part, decoded)
            np.subtract(some, decoded, out=residual[part])
    return message


def unpack(codec: Codec, message: Bytes, common: Array, out: Array) -> None:
    """Writes to `out`, which may be `common`, the values of a message that `pack` made with the same `common`."""
    if not codec.relative:
        codec.decode(message, out)
        return
    change = np.empty(min(CHUNK, out.size), np.float32)
    for start in range(0, out.size, CHUNK):
        part = slice(start, min(start + CHUNK, out.size))
        some = change[: part.stop - start]
        codec.decode(_message_part(codec, message, part), some)
        np.add(common[part], some, out=out[part])


def _message_part(codec: Codec, message: Bytes, part: slice) -> Bytes:
    """The bytes of the values `part`, which begins where a block does."""
    return message[codec.size(part.start) : codec.size(part.stop)]


def _blocks(values: Array, message: Bytes) -> list[tuple[Array, Bytes]]:
    """Whole blocks as rows of a matrix, then the rest as one row; both with their bytes."""
    whole = values.size // BLOCK
    at, byte = whole * BLOCK, whole * (_SCALE + BLOCK)
    parts = [(values[:at].reshape(whole, BLOCK), message[:byte].reshape(whole, _SCALE + BLOCK))]
    if at < values.size:
        parts.append((values[None, at:], message[None, byte:]))
    return parts if whole else parts[1:]
