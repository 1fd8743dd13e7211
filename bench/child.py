"""A measured process of bench/engine.py: one engine, in one mode, with one net.

Its argument is a Job, as JSON. It answers each line of JSON on standard input, the number of steps to run and whether
their values are asked for, with one on standard output: times, values, the operations of a step, peak memory.
"""

import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Job:
    """What to run.

    mode      "ours", "bf16", "definition", one of PyTorch's, or for products "InnerProduct", "Convolution", "PyTorch"
    workload  as workloads.find takes it; of products, the extent of the matrices
    task      "training", "inference", "product", or "weights", which writes those that the others start from
    batch     of inference
    weights   the file of the weights
    """

    mode: str
    task: str
    workload: str
    threads: int
    batch: int = 0
    weights: str = ""
    lr: float = 0.0


def measured(job: Job) -> tuple[Callable[[], Any], int]:
    """A step of the job, and the floating-point operations that it takes (0: not known)."""
    weights = pathlib.Path(job.weights)
    if job.mode in ("ours", "bf16", "definition", "InnerProduct", "Convolution"):
        import ours
        from workloads import find

        from sparknet_dsl import caffe_ext

        caffe_ext.set_num_threads(job.threads)
        if job.task == "product":
            return ours.product(int(job.workload), job.mode)
        if job.task == "weights":
            return lambda: ours.write_weights(find(job.workload), weights), 0
        precision: caffe_ext.Precision = "bf16" if job.mode == "bf16" else "float32"
        winograd = job.mode != "definition"
        if job.task == "training":
            return ours.training(find(job.workload), weights, job.lr, precision, winograd)
        return ours.inference(find(job.workload), weights, job.batch, precision, winograd)
    import theirs
    import torch
    from workloads import find

    torch.set_num_threads(job.threads)
    if job.task == "product":
        return theirs.product(int(job.workload)), 0
    if job.task == "training":
        return theirs.training(find(job.workload), weights, job.lr, job.mode), 0
    return theirs.inference(find(job.workload), weights, job.batch, job.mode), 0


def peak_mb() -> float:
    """The most memory that this process has had resident."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def main() -> None:
    step, operations = measured(Job(**json.loads(sys.argv[1])))
    for line in sys.stdin:
        request = json.loads(line)
        times, values = [], []
        for _ in range(request["steps"]):
            start = time.perf_counter()
            value = step()
            times.append((time.perf_counter() - start) * 1000)
            if request["values"]:
                values.append(value if isinstance(value, float) else value.ravel().tolist())
        answer = {"ms": times, "values": values, "operations": operations, "peak_mb": peak_mb()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
