"""A measured process of bench/to_accuracy.py: our loop on Spark, or one of PyTorch's DistributedDataParallel.

Its argument is a Job, as JSON. It prints a line of JSON when training begins, and one after each test; it ends after
the first that reaches the target.
"""

import dataclasses
import datetime
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

Tell = Callable[..., None]
# What PyTorch's processes wait for one that is lost; half an hour is its default.
PATIENCE = datetime.timedelta(minutes=2)


@dataclasses.dataclass(frozen=True)
class Job:
    """What to run.

    mode         "ours", or one of PyTorch's: eager, channels_last, compile (with channels last)
    folder       has what PyTorch's processes start from (to_accuracy.prepare); ours leaves its snapshot there
    target       the accuracy at which to end
    max_iter     iterations of a worker after which to end in any case
    test_every   iterations between two tests
    batch        rows of an iteration of one worker
    solver       SGD's base_lr, momentum and weight_decay
    rank, port   of PyTorch's processes
    """

    mode: str
    model: str
    data: str
    folder: str
    workers: int
    seed: int
    target: float
    max_iter: int
    test_every: int
    batch: int
    solver: dict[str, float]
    rank: int = 0
    port: int = 0


def spark(job: Job, tell: Tell) -> None:
    """Trains as `sparknet-run MODEL --average auto` does."""
    from convergence import accuracy

    from sparknet_dsl.runtime import Trainer
    from sparknet_dsl.runtime.command import compile_model, solver_of
    from sparknet_dsl.runtime.events import Event, Start, Test

    model = compile_model(job.model, {}, job.data, job.data)
    solver_of(model).max_iter = job.max_iter
    assert model.spark is not None
    model.spark.ClearField("rounds")
    model.spark.test_every = job.test_every // model.spark.tau

    def watch(event: Event) -> None:
        if isinstance(event, Start):
            tell(at=event.time, average=event.average, rows=event.test_rows)
        elif isinstance(event, Test):
            found = accuracy(event.metrics)
            tell(at=event.time, iterations=event.iteration, accuracy=found, testing=event.seconds)
            if found >= job.target:
                trainer.stop()

    trainer = Trainer(
        model,
        callbacks=[watch],
        show=False,
        workers=job.workers,
        seed=job.seed,
        average="auto",
        snapshot_dir=job.folder,
    )
    trainer.fit(job.data, job.data)


def data_parallel(job: Job, tell: Tell) -> None:
    """Trains as one of PyTorch's processes, on the rows that the worker of the same number has, in the same order.

    It has a core of its own, as that worker does, and what can be done before the first iteration is: rows are there,
    transformed; forward and backward pass, the exchange and the test have run once.
    """
    from sparknet_dsl.runtime.cores import pin

    pin(job.rank, job.workers)
    import numpy as np
    import theirs
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    from torch_net import TorchNet

    from sparknet_dsl.proto import caffe_pb2
    from sparknet_dsl.runtime.batches import batch_rows

    torch.set_num_threads(1)
    where = f"tcp://127.0.0.1:{job.port}"
    dist.init_process_group("gloo", init_method=where, rank=job.rank, world_size=job.workers, timeout=PATIENCE)
    folder = pathlib.Path(job.folder)

    def message(phase: str) -> caffe_pb2.NetParameter:
        return caffe_pb2.NetParameter.FromString((folder / f"{phase}.net").read_bytes())

    def rows(phase: str) -> list[torch.Tensor]:
        with np.load(folder / f"{phase}-{job.rank}.npz") as arrays:
            return [laid_out(torch.from_numpy(array)) for array in arrays.values()]

    def laid_out(values: torch.Tensor) -> torch.Tensor:
        # Rows that are taken out of an array whose last axis is that of the channels stay channels_last.
        return values.permute(0, 2, 3, 1).contiguous() if last and values.ndim == 4 else values

    def some(values: torch.Tensor, which: Any) -> torch.Tensor:
        taken = values[which]
        return taken.permute(0, 3, 1, 2) if last and values.ndim == 4 else taken

    last = job.mode != "eager"
    train, (images, labels) = rows("TRAIN"), rows("TEST")
    weights = {
        name: [
            blob.contiguous(memory_format=torch.channels_last) if last and blob.ndim == 4 else blob for blob in blobs
        ]
        for name, blobs in theirs.read(folder / "weights.npz").items()
    }
    net = TorchNet(message("TRAIN"), weights)
    tested = TorchNet(message("TEST"), weights, caffe_pb2.TEST)  # the same memory
    rate = job.solver["base_lr"]
    optimizer = torch.optim.SGD(
        net.groups(rate, job.solver["weight_decay"]), lr=rate, momentum=job.solver["momentum"], fused=True
    )
    shared = DistributedDataParallel(net, gradient_as_bucket_view=True)
    forward = torch.compile(shared, dynamic=False) if job.mode == "compile" else shared

    def gradients(k: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        chosen = torch.from_numpy(batch_rows(job.seed, job.rank, len(train[0]), k * job.batch, job.batch))
        forward(*(some(values, chosen) for values in train)).backward()

    @torch.inference_mode()
    def test() -> float:
        right = torch.zeros(2)
        for start in range(0, len(images), job.batch):
            part = slice(start, start + job.batch)
            found = tested(some(images, part)).argmax(1) == labels[part]
            right += torch.tensor([found.sum(), len(found)])
        dist.all_reduce(right)
        return float(right[0] / right[1])

    gradients(0)
    test()
    dist.barrier()
    tell(at=time.time())
    for k in range(job.max_iter):
        gradients(k)
        optimizer.step()
        if (k + 1) % job.test_every == 0 or k + 1 == job.max_iter:
            started = time.perf_counter()
            found = test()
            tell(at=time.time(), iterations=k + 1, accuracy=found, testing=time.perf_counter() - started)
            if found >= job.target:
                break
    dist.destroy_process_group()


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))

    def tell(**values: object) -> None:
        if job.rank == 0:
            print(json.dumps(values), flush=True)

    (spark if job.mode == "ours" else data_parallel)(job, tell)


if __name__ == "__main__":
    main()
