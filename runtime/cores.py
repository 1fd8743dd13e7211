"""The processor's cores: how many this process may use, and which of them are a worker's own."""

import contextlib
import os
import pathlib
from collections.abc import Sequence

# What the machine, or the container, allowed when this process began, before it kept to a part of it.
_ALLOWED = sorted(os.sched_getaffinity(0))


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def share(allowed: Sequence[int], worker: int, workers: int) -> Sequence[int]:
    """The part of `allowed` that is for `worker` (from 0) of `workers`: len(allowed) // workers, or one more."""
    return allowed[worker * len(allowed) // workers : (worker + 1) * len(allowed) // workers]


def pin(worker: int, workers: int) -> None:
    """Keeps this process's threads, those of OpenMP included, on the share of `worker` among the machine's cores.

    Does nothing where there are more workers than cores, or the system does not allow it.
    """
    mine = share(_ALLOWED, worker, workers)
    if workers > len(_ALLOWED) or os.sched_getaffinity(0) == set(mine):
        return
    # New threads inherit the set from the one that makes them; those that are there do not follow.
    for thread in pathlib.Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            os.sched_setaffinity(int(thread.name), mine)
