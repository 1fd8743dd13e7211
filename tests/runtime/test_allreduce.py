"""The mean among connected workers, without Spark: threads of this process, and loopback."""

import socket
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshes import everywhere, meshes

from sparknet_dsl.runtime import allreduce, wire
from sparknet_dsl.runtime.allreduce import part
from sparknet_dsl.runtime.average import mean
from sparknet_dsl.runtime.wire import LateError, PeerError, Wire, accept, connect, listen, raw

TOKEN = b"t" * 32


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 5),
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=3),
    weights=st.lists(st.sampled_from([1.0, 1.0, 3.0, 640.0]), min_size=5, max_size=5),
    seed=st.integers(0, 2**31),
)
def test_the_mean_of_all_in_the_order_of_the_ranks(size, lengths, weights, seed):
    """Arrays shorter than there are workers, empty ones, blocks that do not fit: the bits of average.mean."""
    rng = np.random.default_rng(seed)
    given = [[rng.standard_normal(length, np.float32) for length in lengths] for _ in range(size)]
    expected = [mean(arrays, weights[:size]) for arrays in zip(*given, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allreduce, "BLOCK", 3)
        patch.setattr(allreduce, "UNIT", 1)

        def work(mesh):
            arrays = [array.copy() for array in given[mesh.rank]]
            return mesh.mean(arrays, weights[mesh.rank], last=mesh.rank == 0)

        for arrays, last in everywhere(meshes(size), work):
            assert last
            for array, wanted in zip(arrays, expected, strict=True):
                np.testing.assert_array_equal(array.view(np.uint32), wanted.view(np.uint32))


def test_long_arrays_pass_buffers_of_any_size():
    """Longer than what the system keeps for a connection, so that everybody waits for everybody."""
    length, size = 3_000_001, 3
    given = [np.random.default_rng(rank).standard_normal(length, np.float32) for rank in range(size)]

    def work(mesh):
        array = given[mesh.rank].copy()
        mesh.mean([array])
        return array

    expected = mean(given)
    for array in everywhere(meshes(size), work):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("length", [0, 1, 6, 7, 100])
def test_the_parts_are_the_whole(length, size):
    covered = [index for rank in range(size) for index in range(length)[part(length, rank, size)]]
    assert covered == list(range(length))


def test_each_gathers_the_parts_of_all():
    whole = np.arange(100, dtype=np.float32)

    def work(mesh):
        array = np.zeros(100, np.float32)
        mine = part(100, mesh.rank, 4)
        array[mine] = whole[mine]
        mesh.gather(array)
        return array

    for array in everywhere(meshes(4), work):
        np.testing.assert_array_equal(array, whole)


def test_who_dies_is_noticed_at_once():
    """In the middle of an array, by those who send to it and those who wait for it."""

    def work(mesh):
        if mesh.rank == 2:
            mesh._wires[0].write(bytes(17))
            mesh.close()
            return
        mesh.mean([np.zeros(3_000_000, np.float32)])
        return

    started = time.monotonic()
    first, second, _ = everywhere(meshes(3, patience=60), work)
    assert time.monotonic() - started < 5
    assert isinstance(first, PeerError) and isinstance(second, PeerError)
    assert "worker 3 is lost" in str(second)


def test_who_is_late_is_named():
    def work(mesh):
        if mesh.rank == 1:
            time.sleep(1.5)
            return
        mesh.mean([np.zeros(10, np.float32)])
        return

    first, _, third = everywhere(meshes(3, patience=0.5), work)
    assert isinstance(first, LateError) and isinstance(third, PeerError)
    assert "worker 2 is late: nothing for 0.5 s" in str(first)


def test_other_lengths_are_refused():
    def work(mesh):
        mesh.mean([np.zeros(10 + mesh.rank, np.float32)])

    for error in everywhere(meshes(2), work):
        assert isinstance(error, PeerError) and "numbers" in str(error)


def connected(token: bytes, other: bytes) -> tuple[Wire | PeerError | None, Wire | None]:
    """What either end has of a connection whose ends know these tokens."""
    found: list = []
    with listen("127.0.0.1") as listener:
        host, port = listener.getsockname()

        def knock():
            try:
                found.append(connect(host, port, other, "the driver", 2.0))
            except PeerError as error:
                found.append(error)

        thread = threading.Thread(target=knock)
        thread.start()
        taken = accept(listener, token, time.monotonic() + 1.0, 2.0)
        thread.join()
    return found[0], taken


def test_both_ends_know_the_token():
    mine, theirs = connected(TOKEN, TOKEN)
    assert isinstance(mine, Wire) and isinstance(theirs, Wire)
    mine.send({"losses": [0.1, float("inf")]})
    assert theirs.receive() == {"losses": [0.1, float("inf")]}
    assert not mine.waiting()
    theirs.send({})
    theirs.write(raw(np.arange(3, dtype=np.float32)))
    assert mine.receive() == {}
    array = np.zeros(3, np.float32)
    mine.read(raw(array))
    assert array.tolist() == [0, 1, 2]
    mine.close()
    with pytest.raises(PeerError, match="is lost: closed its connection"):
        theirs.receive()
    theirs.close()


def test_another_token_is_refused_by_either_end():
    mine, theirs = connected(TOKEN, b"u" * 32)
    assert theirs is None
    assert isinstance(mine, PeerError) and "the driver has another token" in str(mine)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n" + bytes(64), b"", wire.MAGIC + bytes(16 + 32)])
def test_strangers_do_not_get_in_nor_in_the_way(said, monkeypatch):
    monkeypatch.setattr(wire, "STRANGER", 0.2)
    with listen("127.0.0.1") as listener:
        stranger = socket.create_connection(listener.getsockname())
        stranger.sendall(said)
        found: list = []
        host, port = listener.getsockname()
        thread = threading.Thread(target=lambda: found.append(connect(host, port, TOKEN, "driver", 5.0)))
        thread.start()
        taken = accept(listener, TOKEN, time.monotonic() + 5.0, 5.0)
        thread.join()
        stranger.close()
    assert taken is not None and found
    taken.close()
    found[0].close()


def test_nobody_comes_and_nobody_listens():
    with listen("127.0.0.1") as listener:
        host, port = listener.getsockname()
        assert accept(listener, TOKEN, time.monotonic() + 0.1, 1.0) is None
    with pytest.raises(PeerError, match=r"worker 2 cannot be reached at 127\.0\.0\.1:\d+"):
        connect(host, port, TOKEN, "worker 2", 1.0)
    with pytest.raises(PeerError, match="cannot listen at 203"):
        listen("203.0.113.7")
