"""TCP connections of a run: both ends prove that they know its token, every wait has a deadline, arrays go as they lie.

Who connects and who accepts each prove, over fresh random numbers, that they hold the token (HMAC-SHA256, compared in
constant time); the token itself never travels here. Nothing is encrypted.
"""

import contextlib
import hmac
import json
import secrets
import select
import socket
import struct
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from .average import Array

# First words of either end: whoever else connects by mistake is told from ours at once.
MAGIC = b"sparknet"
NONCE = 16
PROOF = 32
# How long somebody may take who has not yet proved that he belongs here.
STRANGER = 5.0
# A JSON message is a round's losses at most: 64 MB are millions of iterations.
LONGEST = 1 << 26


class PeerError(Exception):
    """A peer is lost, or does not do as it should; `str()` names it."""


class LateError(PeerError):
    """A peer has kept others waiting for too long."""


class Wire:
    """A connection to `peer`, a name for messages. Waits of more than `patience` seconds without a byte are errors.

    All methods raise PeerError. Two threads may use it at once, one sending, one receiving.
    """

    def __init__(self, connection: socket.socket, peer: str, patience: float | None) -> None:
        self._socket = connection
        self.peer = peer
        self.patience = patience

    @property
    def patience(self) -> float | None:
        """Seconds that a wait may last; None: for ever."""
        return self._socket.gettimeout()

    @patience.setter
    def patience(self, seconds: float | None) -> None:
        self._socket.settimeout(seconds)

    @property
    def host(self) -> str:
        """The address of this machine as the peer knows it."""
        return str(self._socket.getsockname()[0])

    def write(self, data: memoryview | bytes) -> None:
        """Sends bytes."""
        left = memoryview(data)
        with self._told():
            while left:
                left = left[self._socket.send(left) :]

    def read(self, into: memoryview) -> None:
        """Receives as many bytes as there are in `into`."""
        with self._told():
            while into:
                count = self._socket.recv_into(into)
                if not count:
                    raise ConnectionResetError("closed its connection")
                into = into[count:]

    def send(self, message: dict[str, Any]) -> None:
        """Sends a message of plain values."""
        text = json.dumps(message).encode()
        self.write(struct.pack("<I", len(text)) + text)

    def receive(self) -> dict[str, Any]:
        """Receives a message."""
        head = bytearray(4)
        self.read(memoryview(head))
        (length,) = struct.unpack("<I", head)
        if length > LONGEST:
            raise PeerError(f"{self.peer} sent a message of {length:,} bytes")
        text = bytearray(length)
        self.read(memoryview(text))
        message: dict[str, Any] = json.loads(text)
        return message

    def waiting(self) -> bool:
        """Whether something has come that is not read yet."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Closes the connection; whoever waits on it, here or there, is woken."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    @contextlib.contextmanager
    def _told(self) -> Any:
        try:
            yield
        except TimeoutError as error:
            raise LateError(f"{self.peer} is late: nothing for {self.patience:g} s") from error
        except OSError as error:
            raise PeerError(f"{self.peer} is lost: {error.strerror or error}") from error


def raw(array: npt.NDArray[Any]) -> memoryview:
    """The array's bytes, in place."""
    return array.data.cast("B") if array.size else memoryview(b"")


def empty(length: int) -> Array:
    """A flat array with room for `length` numbers."""
    return np.empty(length, np.float32)


def listen(host: str) -> socket.socket:
    """A listener at a free port of `host`; raises PeerError."""
    try:
        family = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, 0), family=family, backlog=1024)
    except OSError as error:
        raise PeerError(f"cannot listen at {host}: {error.strerror or error}") from error


def connect(host: str, port: int, token: bytes, peer: str, patience: float) -> Wire:
    """Connects to `peer`, which accepts at `host`:`port`; raises PeerError."""
    try:
        connection = socket.create_connection((host, port), timeout=patience)
    except OSError as error:
        raise PeerError(f"{peer} cannot be reached at {host}:{port}: {error.strerror or error}") from error
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wire = Wire(connection, peer, patience)
    try:
        mine = secrets.token_bytes(NONCE)
        wire.write(MAGIC + mine)
        answer = bytearray(NONCE + PROOF)
        wire.read(memoryview(answer))
        theirs, proof = bytes(answer[:NONCE]), bytes(answer[NONCE:])
        if not hmac.compare_digest(proof, _proof(token, b"accept", mine, theirs)):
            raise PeerError(f"{peer} has another token")
        wire.write(_proof(token, b"connect", mine, theirs))
    except BaseException:
        wire.close()
        raise
    return wire


def accept(listener: socket.socket, token: bytes, deadline: float, patience: float) -> Wire | None:
    """The next connection of somebody who knows the token, None when `deadline` (of time.monotonic) has passed.

    Others are turned away. Raises OSError when the listener is closed.
    """
    while (left := deadline - time.monotonic()) > 0:
        listener.settimeout(left)
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            return None
        wire = Wire(connection, "a stranger", STRANGER)
        try:
            first = bytearray(len(MAGIC) + NONCE)
            wire.read(memoryview(first))
            if first.startswith(MAGIC):
                theirs, mine = bytes(first[len(MAGIC) :]), secrets.token_bytes(NONCE)
                wire.write(mine + _proof(token, b"accept", theirs, mine))
                proof = bytearray(PROOF)
                wire.read(memoryview(proof))
                if hmac.compare_digest(bytes(proof), _proof(token, b"connect", theirs, mine)):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    wire.patience = patience
                    return wire
        except PeerError:
            pass
        wire.close()
    return None


def _proof(token: bytes, role: bytes, connecting: bytes, accepting: bytes) -> bytes:
    return hmac.digest(token, role + connecting + accepting, "sha256")
