"""A worker's own cores: the arithmetic, and what the system says of a process's threads afterwards."""

import os
import subprocess
import sys

import pytest

from sparknet_dsl.runtime.cores import cores, share

# Prints, for each step, which cores its threads have: the main one, one of Python's, and those of the engine.
PINNED = """
import os, pathlib, threading
import numpy as np
from sparknet_dsl import caffe_ext
from sparknet_dsl.proto import caffe_pb2
from sparknet_dsl.runtime.cores import pin

caffe_ext.set_num_threads(2)
rows = np.zeros((2, 1, 256, 256), np.float32)
caffe_ext.Transformer(caffe_pb2.TransformationParameter(), caffe_ext.TRAIN)(rows, rows.copy(), 0)
waits = threading.Event()
threading.Thread(target=waits.wait, daemon=True).start()
for worker, workers in {steps}:
    pin(worker, workers)
    print({{tuple(sorted(os.sched_getaffinity(int(task.name)))) for task in pathlib.Path("/proc/self/task").iterdir()}})
"""


@pytest.mark.parametrize("allowed", [[0], [0, 1], [0, 2, 4, 6, 7], list(range(64))])
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7, 64])
def test_shares_are_apart_and_leave_no_core_out(allowed, workers):
    shares = [share(allowed, worker, workers) for worker in range(workers)]
    assert [core for mine in shares for core in mine] == allowed
    # As many as the engine has threads in each worker, or one more.
    assert {len(mine) - len(allowed) // workers for mine in shares} <= {0, 1}


def test_by_hand():
    assert [share([3, 5, 8, 9, 12], worker, 2) for worker in range(2)] == [[3, 5], [8, 9, 12]]


@pytest.mark.skipif(cores() < 2, reason="one core is nothing to share")
def test_all_threads_move_and_may_move_again():
    allowed = sorted(os.sched_getaffinity(0))
    steps = [(0, 2), (1, 2), (0, 1), (1, len(allowed) + 1)]
    done = subprocess.run(
        [sys.executable, "-P", "-c", PINNED.format(steps=steps)], capture_output=True, text=True, check=True, timeout=60
    )
    wanted = [*(share(allowed, *step) for step in steps[:3]), allowed]  # too many workers: as it was
    assert done.stdout.splitlines() == [str({tuple(mine)}) for mine in wanted]
