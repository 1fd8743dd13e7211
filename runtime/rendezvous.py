"""Where the workers of a leg meet: a listener of the driver, over which it also hears how they get on.

Each worker connects, says where it listens itself, and gets, once all are there, the addresses of all and its part of
the arrays that the leg begins with. It tells of each round, and gives its part of the arrays back at the end.
"""

import base64
import contextlib
import dataclasses
import pickle
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from ..errors import SparkNetError
from .allreduce import Mesh, part
from .average import Array
from .wire import LateError, PeerError, Wire, accept, connect, empty, listen, raw
from .worker import Figures

Arrays = tuple[Array, ...]
# Seconds for the first worker to come: Spark may have to start the processes.
FIRST = 300.0
# Seconds for what a worker has said to be read when its task is over.
LAST_WORDS = 1.0


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the driver listens, and what a worker must know to be let in; patience as in Rendezvous."""

    host: str
    port: int
    token: bytes
    size: int
    patience: float


class Rendezvous:
    """The driver's side.

    host         this machine for the workers, `bind` what to listen at
    shared, own  arrays for all; arrays for each worker, or () for none
    patience     seconds that others may take to come once the first one has, and to take or send what they must

    The constructor raises PeerError where it cannot listen.
    """

    def __init__(self, host: str, bind: str, size: int, shared: Arrays, own: Sequence[Arrays], patience: float) -> None:
        self._listener = listen(bind)
        self.place = Place(host, self._listener.getsockname()[1], secrets.token_bytes(32), size, patience)
        # What the workers have at the end (None before), and how many rounds they, or the one that failed, have done.
        self.shared: Arrays | None = None
        self.own: list[Arrays] = [()] * size
        self.done = 0
        self._working = size
        self._met = False
        self._ended: Arrays | None = None
        self._told: list[list[Figures]] = [[] for _ in range(size)]
        self._wires: dict[int, Wire] = {}
        self._lock = threading.Lock()
        self._heard: queue.SimpleQueue[tuple[int, Figures | PeerError | SparkNetError | _End | _Over]] = (
            queue.SimpleQueue()
        )
        threading.Thread(target=self._meet, args=(shared, own), name="rendezvous", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for wire in list(self._wires.values()):
            wire.close()

    def over(self, *_: object) -> None:
        """To be called when the workers' tasks are over, however they ended."""
        self._heard.put((-1, _Over()))

    def stop(self) -> None:
        """Asks the workers to end the leg after the round at hand."""
        if 0 in self._wires:
            self._wires[0].send({})

    def rounds(self, usual: Callable[[], float | None], wait: float | None = None) -> Iterator[list[Figures]]:
        """The figures of each round, in the ranks' order, when all workers have done it; goes on where it was left.

        Ends when all have ended, and their arrays are here; when the tasks are over; or after `wait` seconds without
        news. Raises PeerError where a worker is late or lost, or nobody is heard of for longer than a round's `usual`
        seconds allow (None: not known yet), and the SparkNetError of a worker, as it is.
        """
        lost: PeerError | None = None
        while self._working:
            # Who among them is late the workers know better, and sooner.
            limit = None if (seconds := usual()) is None else 2 * (self.place.patience + seconds)
            if limit is not None and not self._met:
                limit += FIRST
            try:
                rank, what = self._heard.get(timeout=limit if wait is None else wait)
            except queue.Empty:
                if lost:
                    raise lost from None
                if wait is None:
                    raise LateError(f"all workers are late: nothing for {limit:.0f} s") from None
                return
            match what:
                case Figures():
                    self._told[rank].append(what)
                    if all(self._told):
                        yield [figures.pop(0) for figures in self._told]
                case _End():
                    self._working -= 1
                case _Over():
                    wait = LAST_WORDS
                case LateError() | SparkNetError():
                    raise what
                case PeerError():
                    # Why it is lost another may know: the tasks will be over soon.
                    lost = lost or what
                    wait = wait or self.place.patience
        if self._ended is not None:
            self.shared = self._ended

    def _meet(self, shared: Arrays, own: Sequence[Arrays]) -> None:
        size, patience = self.place.size, self.place.patience
        hellos: dict[int, dict[str, Any]] = {}
        deadline = time.monotonic() + FIRST
        try:
            while len(hellos) < size:
                wire = accept(self._listener, self.place.token, deadline, patience)
                if wire is None:
                    missing = ", ".join(str(rank + 1) for rank in range(size) if rank not in hellos)
                    within = patience if hellos else FIRST
                    raise LateError(f"worker {missing} of {size} is late: it has not come within {within:.0f} s")
                hello = wire.receive()
                if not hellos:
                    deadline = time.monotonic() + patience
                rank = hello["rank"]
                wire.peer = name(rank, hello["name"])
                hellos[rank], self._wires[rank] = hello, wire
            peers = [[hellos[rank][key] for key in ("name", "host", "port")] for rank in range(size)]
            lengths = [array.size for array in shared]
            for rank, wire in self._wires.items():
                mine = own[rank] if own else ()
                wire.send({"peers": peers, "shared": lengths, "own": [array.size for array in mine]})
            for rank, wire in self._wires.items():
                for array in shared:
                    wire.write(raw(array[part(array.size, rank, size)]))
                for array in own[rank] if own else ():
                    wire.write(raw(array))
        except PeerError as error:
            self._heard.put((-1, error))
            return
        except OSError:
            return  # the listener was closed, and nobody hears
        self._met = True
        for rank, wire in self._wires.items():
            threading.Thread(target=self._hear, args=(rank, wire), name=wire.peer, daemon=True).start()

    def _hear(self, rank: int, wire: Wire) -> None:
        wire.patience = None  # a round takes what it takes: that a worker is late, its peers notice
        what: Figures | PeerError | SparkNetError | _End
        try:
            while True:
                message = wire.receive()
                if "figures" in message:
                    what = Figures(*message["figures"])
                elif "error" in message:
                    what = pickle.loads(base64.b64decode(message["error"]))
                    self.done = message["done"]
                else:
                    wire.patience = self.place.patience
                    self._take(rank, wire, message["shared"], message["own"])
                    self.done = message["done"]
                    what = _End()
                self._heard.put((rank, what))
                if not isinstance(what, Figures):
                    return
        except PeerError as error:
            self._heard.put((rank, error))

    def _take(self, rank: int, wire: Wire, shared: list[int], own: list[int]) -> None:
        with self._lock:
            if self._ended is None:
                self._ended = tuple(map(empty, shared))
        for array in self._ended:
            wire.read(raw(array[part(array.size, rank, self.place.size)]))
        self.own[rank] = tuple(map(empty, own))
        for array in self.own[rank]:
            wire.read(raw(array))


class _End:
    """A worker has done all its rounds, and its arrays are here."""


class _Over:
    """The tasks are over."""


def name(rank: int, host: str) -> str:
    """What messages call a worker."""
    return f"worker {rank + 1} ({host})"


class Member:
    """A worker's side: comes to `place` as number `rank`, and is connected to all others when this returns.

    shared, own  the arrays that it begins with
    mesh         its connections to the others

    All methods raise PeerError.
    """

    def __init__(self, place: Place, rank: int) -> None:
        self._place, self._rank = place, rank
        self._driver = connect(place.host, place.port, place.token, "the driver", place.patience)
        try:
            with listen(self._driver.host) as listener:
                hello = {"rank": rank, "name": socket.gethostname(), "host": self._driver.host}
                self._driver.send({**hello, "port": listener.getsockname()[1]})
                # The driver, too, waits for whoever comes last.
                self._driver.patience = 2 * place.patience
                start = self._driver.receive()
                self.mesh = Mesh(rank, self._connect(start["peers"], listener))
            self.mesh.patience(place.patience)
            self.shared = tuple(map(empty, start["shared"]))
            for array in self.shared:
                self._driver.read(raw(array[part(array.size, rank, place.size)]))
            self.own = tuple(map(empty, start["own"]))
            for array in self.own:
                self._driver.read(raw(array))
            for array in self.shared:
                self.mesh.gather(array)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends all connections; the others, if they wait for this worker, are woken."""
        if hasattr(self, "mesh"):
            self.mesh.close()
        self._driver.close()

    def asked_to_stop(self) -> bool:
        """Whether the driver wants the leg to end."""
        return self._driver.waiting()

    def tell(self, figures: Figures) -> None:
        """Tells of a round."""
        self._driver.send({"figures": dataclasses.astuple(figures)})

    def fail(self, error: PeerError | SparkNetError, done: int) -> None:
        """Tells, where the driver still hears, why this worker ends after `done` whole rounds, before its time."""
        with contextlib.suppress(PeerError):
            self._driver.send({"error": base64.b64encode(pickle.dumps(error)).decode(), "done": done})

    def end(self, done: int, shared: Arrays, own: Arrays) -> None:
        """Gives the arrays after `done` rounds back: of `shared`, which is the same everywhere, this worker's part."""
        lengths = [[array.size for array in arrays] for arrays in (shared, own)]
        self._driver.send({"done": done, "shared": lengths[0], "own": lengths[1]})
        for array in shared:
            self._driver.write(raw(array[part(array.size, self._rank, self._place.size)]))
        for array in own:
            self._driver.write(raw(array))

    def _connect(self, peers: list[tuple[str, str, int]], listener: socket.socket) -> list[Wire | None]:
        """Connects to the lower ranks, and lets the higher ones in."""
        place = self._place
        wires: list[Wire | None] = [None] * place.size
        try:
            for rank, (host, address, port) in enumerate(peers[: self._rank]):
                wires[rank] = wire = connect(address, port, place.token, name(rank, host), place.patience)
                wire.send({"rank": self._rank})
            deadline = time.monotonic() + place.patience
            for _ in range(place.size - self._rank - 1):
                found = accept(listener, place.token, deadline, place.patience)
                if found is None:
                    missing = next(rank for rank in range(self._rank + 1, place.size) if wires[rank] is None)
                    raise LateError(f"{name(missing, peers[missing][0])} is late: it has not connected")
                rank = found.receive()["rank"]
                found.peer = name(rank, peers[rank][0])
                wires[rank] = found
        except BaseException:
            for each in wires:
                if each is not None:
                    each.close()
            raise
        return wires
