"""The mean over workers that are connected each with each: reduce-scatter and all-gather (Rabenseifner 2004), in place.

Every worker owns a part of the array. First all send each owner its part, which the owner sums; then each owner sends
its means to all. Each worker so sends and receives twice the array, but for its own part, however many they are.

Of arrays that are given as messages (codec.py) the owner gets its part, and sends the means back in bfloat16.

Parts travel in blocks. An owner takes a block from the first worker, then the same one from the second, and so on: it
adds in the order of the ranks, with room for one block, whoever is the fastest. Senders serve their peers in turns, a
block each, so that none waits for a peer that waits for it.
"""

import concurrent.futures
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from .average import Array
from .codec import BLOCK as UNIT
from .codec import RETURN, Bytes, Message, opened, returned
from .wire import PeerError, Wire, empty, raw

# Numbers in a block, a multiple of UNIT: half a megabyte stays in the cache from the socket to the sum.
BLOCK = 1 << 17
# Bfloat16, as it travels.
Halves = npt.NDArray[np.uint16]
Piece = Array | Bytes | Halves
_HEAD = struct.Struct("<dQ?")


def part(length: int, rank: int, size: int) -> slice:
    """What the worker `rank` of `size` owns of `length` numbers; begins where messages can be cut."""
    units = -(-length // UNIT)
    begin, end = (units * each // size * UNIT for each in (rank, rank + 1))
    return slice(min(begin, length), min(end, length))


class Mesh:
    """The connections of a worker to all others. Methods are called by all workers alike; they raise PeerError.

    wires        to the other workers, by their ranks; None at `rank`, this worker's own
    """

    def __init__(self, rank: int, wires: Sequence[Wire | None]) -> None:
        self.rank = rank
        self.size = len(wires)
        self._wires = {peer: wire for peer, wire in enumerate(wires) if wire is not None}
        # Whom this worker serves first: the next one, so that not all begin with the same.
        self._turns = [(rank + step) % self.size for step in range(1, self.size)]
        self._sender = concurrent.futures.ThreadPoolExecutor(1, "sender")
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._total, self._received = empty(BLOCK), empty(BLOCK)

    def close(self) -> None:
        """Closes all connections."""
        for wire in self._wires.values():
            wire.close()
        self._sender.shutdown()

    def patience(self, seconds: float) -> None:
        """How long the others may keep this worker waiting from now on."""
        for wire in self._wires.values():
            wire.patience = seconds

    def mean(
        self, given: Sequence[Array | Message], weight: float = 1.0, last: bool = False
    ) -> tuple[list[Array], bool]:
        """The weighted means of what all workers give, of the same lengths in all; and what rank 0 says of `last`.

        The same bits as average.mean of the workers' arrays in the order of the ranks. Arrays become their means in
        place; of messages it is the means of what they hold, as codec.returned has them.
        """
        if self.size == 1:
            return [returned(opened(each)) if isinstance(each, Message) else each for each in given], last
        arrays = [np.empty(each.count, np.float32) if isinstance(each, Message) else each for each in given]
        head = _HEAD.pack(weight, sum(array.size for array in arrays), last)
        heads = self._exchange(head)
        for peer, (_, length, _) in enumerate(heads):
            if length != heads[self.rank][1]:
                raise PeerError(f"worker {peer + 1} averages {length:,} numbers, not {heads[self.rank][1]:,}")
        weights = [each[0] for each in heads]
        for array, each in zip(arrays, given, strict=True):
            message = each if isinstance(each, Message) else None
            self._run(self._parts_of_others(array, message), self._reduce(array, weights, message))
            if message is None:
                self.gather(array)
            else:
                self._gather_packed(array)
        return arrays, bool(heads[0][2])

    def gather(self, array: Array | Halves) -> None:
        """Fills `array`, of which each worker has its own part."""
        self._run(self._own_part(array), self._collect(array))

    def _gather_packed(self, array: Array) -> None:
        """As `gather`, of codec.returned."""
        mine = part(array.size, self.rank, self.size)
        message = Message.empty(RETURN, array.size)
        message.part(mine).content[...] = Message.of(RETURN, array[mine]).content
        self.gather(message.content.view(np.uint16))
        message.open(array)

    def _exchange(self, mine: bytes) -> list[tuple[float, int, bool]]:
        found = [_HEAD.unpack(mine)] * self.size
        for wire in self._wires.values():
            wire.write(mine)
        for peer, wire in self._wires.items():
            head = bytearray(len(mine))
            wire.read(memoryview(head))
            found[peer] = _HEAD.unpack(head)
        return found

    def _run(self, sending: Iterable[tuple[int, Piece]], receiving: Iterator[None]) -> None:
        """Sends in a thread of its own and receives in this one; an error on either side ends both."""
        job = self._sender.submit(self._send, sending)
        try:
            for _ in receiving:
                pass
            job.result()
        except BaseException as error:
            raise self._failed(error) from None

    def _send(self, pieces: Iterable[tuple[int, Piece]]) -> None:
        try:
            for peer, piece in pieces:
                self._wires[peer].write(raw(piece))
        except BaseException as error:
            raise self._failed(error) from None

    def _failed(self, error: BaseException) -> BaseException:
        """Closes all connections, which wakes the other thread; gives the error that came first."""
        with self._lock:
            self._error = self._error or error
        for wire in self._wires.values():
            wire.close()
        return self._error

    def _parts_of_others(self, array: Array, message: Message | None) -> Iterator[tuple[int, Piece]]:
        parts = {peer: part(array.size, peer, self.size) for peer in self._turns}
        for start in range(0, max(each.stop - each.start for each in parts.values()), BLOCK):
            for peer, each in parts.items():
                some = slice(min(each.start + start, each.stop), min(each.start + start + BLOCK, each.stop))
                yield peer, array[some] if message is None else message.part(some).content

    def _reduce(self, array: Array, weights: Sequence[float], message: Message | None) -> Iterator[None]:
        mine = part(array.size, self.rank, self.size)
        divisor = np.float32(sum(weights))
        for start in range(mine.start, mine.stop, BLOCK):
            some = slice(start, min(start + BLOCK, mine.stop))
            block = array[some]
            total, received = self._total[: block.size], self._received[: block.size]
            for peer, weight in enumerate(weights):
                values = block if message is None and peer == self.rank else received if peer else total
                if message is not None:
                    theirs = message.part(some)
                    if peer != self.rank:
                        theirs = Message.empty(message.format, block.size)
                        self._wires[peer].read(raw(theirs.content))
                    theirs.open(values)
                elif peer != self.rank:
                    self._wires[peer].read(raw(values))
                if weight != 1.0:
                    values = np.multiply(values, np.float32(weight), out=received if peer else total)
                if peer:
                    total += values
                elif values is not total:
                    total[:] = values
            np.divide(total, divisor, out=block)
            yield

    def _own_part(self, array: Array | Halves) -> Iterator[tuple[int, Piece]]:
        mine = array[part(array.size, self.rank, self.size)]
        for start in range(0, mine.size, BLOCK):
            for peer in self._turns:
                yield peer, mine[start : start + BLOCK]

    def _collect(self, array: Array | Halves) -> Iterator[None]:
        parts = {peer: array[part(array.size, peer, self.size)] for peer in self._wires}
        for start in range(0, max((each.size for each in parts.values()), default=0), BLOCK):
            for peer, values in parts.items():
                self._wires[peer].read(raw(values[start : start + BLOCK]))
            yield
