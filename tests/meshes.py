"""Connected workers, as threads of this process."""

import socket
import threading

from sparknet_dsl.runtime.allreduce import Mesh
from sparknet_dsl.runtime.wire import Wire


def meshes(size: int, patience: float = 10.0) -> list[Mesh]:
    wires: list[list[Wire | None]] = [[None] * size for _ in range(size)]
    for a in range(size):
        for b in range(a):
            one, other = socket.socketpair()
            wires[a][b] = Wire(one, f"worker {b + 1}", patience)
            wires[b][a] = Wire(other, f"worker {a + 1}", patience)
    return [Mesh(rank, row) for rank, row in enumerate(wires)]


def everywhere(group: list[Mesh], function, seconds: float = 20.0) -> list:
    """What `function(mesh)` gives or raises in each worker."""
    found: list = [None] * len(group)

    def run(rank):
        try:
            found[rank] = function(group[rank])
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(len(group))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
        assert not thread.is_alive()
    for mesh in group:
        mesh.close()
    return found
