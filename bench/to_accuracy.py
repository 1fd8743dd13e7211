"""Times training to an accuracy: our loop against PyTorch's DistributedDataParallel, on the same cores.

    python bench/to_accuracy.py --data cifar10:DIR [--model cifar10_quick] [--target 0.66] [--workers 2] [--json FILE]

Ours is what `sparknet-run --average auto` does, with the model's tau and local[WORKERS]; theirs are as many processes
that exchange gradients by gloo in every iteration (pip install torch==2.13.0). The same on both sides: the net and its
first weights, the solver (SGD with Caffe's multipliers, a fixed rate), a batch for each worker in each iteration, the
rows of each worker and their order, the mean image taken off; one thread for each worker, on a core of its own. PyTorch
runs eager and channels_last for --trial iterations first, and trains in the mode that was faster. Its rows lie in
memory as float32, transformed before; ours are transformed batch by batch.

Time runs from the first iteration to the end of the first test that reaches the target. Tests are of the whole test
set, every --test-every iterations, and their time is in it; it is shown without them, too, and with what comes before
the first iteration: Spark's start, reading the rows, the mean image (of ours only), imports, a first pass through the
nets (of PyTorch only).
"""

import argparse
import dataclasses
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from learning import Job

from sparknet_dsl import Model, caffe_ext
from sparknet_dsl.errors import SparkNetError, UsageError
from sparknet_dsl.proto import caffe_pb2
from sparknet_dsl.runtime.command import compile_model, solver_of
from sparknet_dsl.runtime.feeding import Feed
from sparknet_dsl.runtime.feeds import Fed, feed_net
from sparknet_dsl.runtime.plan import phase_net, plain_solver
from sparknet_dsl.runtime.rows import LocalRows
from sparknet_dsl.runtime.shards import shard

MODES = ("eager", "channels_last", "compile")
NEVER = 2.0  # an accuracy


def prepare(args: argparse.Namespace, model: Model, folder: pathlib.Path) -> Job:
    """Writes the nets, the first weights and the rows of each of PyTorch's processes to `folder`; gives our job."""
    solver = solver_of(model)
    if model.deploy is None or model.spark is None or solver.lr_policy != "fixed" or solver.type.upper() != "SGD":
        raise UsageError(f"{args.model}: a model with a net @deploy, spark (...), and SGD at a fixed rate is wanted")
    if args.test_every % model.spark.tau:
        raise UsageError(f"--test-every {args.test_every}: weights are tested after rounds of {model.spark.tau}")
    net = phase_net(model.net, solver, "TRAIN")
    # What Session does, and so the weights that ours starts from.
    start = caffe_ext.Solver(plain_solver(solver), net, seed=args.seed).net
    np.savez(
        folder / "weights.npz",
        **{f"{name}:{i}": blob.data for name, blobs in start.params.items() for i, blob in enumerate(blobs)},
    )
    (folder / "TRAIN.net").write_bytes(net.SerializeToString())
    (folder / "TEST.net").write_bytes(model.deploy.SerializeToString())
    train = feed_net(net, "TRAIN", args.data)
    test = feed_net(phase_net(model.net, solver, "TEST"), "TEST", args.data)
    assert train is not None and test is not None
    rows = LocalRows(folder, train, (pathlib.Path(), pathlib.Path(args.model).parent), folder, "float32")
    for phase, fed in (("TRAIN", train), ("TEST", test)):
        write_rows(folder, phase, fed, rows.feeds(fed), args.workers)
    return Job(
        mode="ours",
        model=args.model,
        data=args.data,
        folder=str(folder),
        workers=args.workers,
        seed=args.seed,
        target=args.target,
        max_iter=args.max_iter,
        test_every=args.test_every,
        batch=start.blobs[train.feeds[0].top].shape[0],
        solver={name: getattr(solver, name) for name in ("base_lr", "momentum", "weight_decay")},
    )


def write_rows(folder: pathlib.Path, phase: str, fed: Fed, feeds: tuple[Feed, ...], workers: int) -> None:
    """A file for each worker, with an array for each top of the data layers: its rows, as the net is fed with them."""
    for rank in range(workers):
        part = shard(
            "to-accuracy",
            f"{phase}-{rank}",
            fed.source.columns,
            lambda bad, rank=rank: fed.source.read(rank, workers, bad),
            folder,
        )
        np.savez(
            folder / f"{phase}-{rank}.npz", **{feed.top: transformed(feed, part.columns[feed.column]) for feed in feeds}
        )


def transformed(feed: Feed, values: Any) -> Any:
    if feed.transform is None:
        return np.asarray(values, np.float32)
    parameter = caffe_pb2.TransformationParameter.FromString(feed.transform)
    if parameter.mirror or parameter.crop_size:
        raise UsageError(f"top {feed.top} is mirrored or cropped at random, which PyTorch's side does not do")
    out = np.empty(values.shape, np.float32)
    caffe_ext.Transformer(parameter, caffe_pb2.TRAIN, feed.mean)(np.asarray(values), out, 0)
    return out


def learn(job: Job) -> dict[str, Any]:
    """Runs the job, in as many processes as its mode takes, and gives what it did."""
    if job.mode != "ours":
        with socket.create_server(("127.0.0.1", 0)) as server:
            job = dataclasses.replace(job, port=server.getsockname()[1])
    jobs = [dataclasses.replace(job, rank=rank) for rank in range(1 if job.mode == "ours" else job.workers)]
    command = [sys.executable, str(pathlib.Path(__file__).with_name("learning.py"))]
    launched = time.time()
    processes = [
        subprocess.Popen([*command, json.dumps(dataclasses.asdict(each))], stdout=subprocess.PIPE, text=True)
        for each in jobs
    ]
    said: list[dict[str, Any]] = []
    try:
        assert processes[0].stdout is not None
        for line in processes[0].stdout:
            said.append(json.loads(line))
            if "accuracy" in said[-1]:
                at = said[-1]["at"] - said[0]["at"]
                print(f"{job.mode}: {at:6.1f} s {said[-1]['iterations']:6} {said[-1]['accuracy']:.2%}", file=sys.stderr)
        ends = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.terminate()
    if any(ends):
        sys.exit(f"{job.mode} ended with status {ends}")
    start, *tests = said
    reached = next((i for i, test in enumerate(tests) if test["accuracy"] >= job.target), None)
    if reached is not None:
        tests = tests[: reached + 1]
    testing = sum(test["testing"] for test in tests)
    seconds = tests[-1]["at"] - start["at"]
    iterations = tests[-1]["iterations"]
    return {
        "mode": job.mode,
        "average": start.get("average"),
        "base_lr": job.solver["base_lr"],
        "reached": reached is not None,
        "iterations": iterations,
        "samples": iterations * job.batch * job.workers,
        "seconds": seconds,
        "testing": testing,
        "ms": (seconds - testing) / iterations * 1000,
        "start_up": start["at"] - launched,
        "accuracies": [[test["iterations"], test["accuracy"]] for test in tests],
    }


def fastest(job: Job, modes: list[str], iterations: int) -> tuple[str, dict[str, float]]:
    """The mode of PyTorch's with the shortest iterations, and the milliseconds of each; {} where there is one alone."""
    if len(modes) == 1:
        return modes[0], {}
    trial = dataclasses.replace(job, target=NEVER, max_iter=iterations, test_every=iterations)
    ms = {mode: learn(dataclasses.replace(trial, mode=mode))["ms"] for mode in modes}
    return min(ms, key=ms.__getitem__), ms


def ratios(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """Our time in parts of theirs; each as if no test had been, and each from its processes' start."""

    def of(what: Any) -> float:
        return float(what(ours) / what(theirs))

    return {
        "seconds": of(lambda each: each["seconds"]),
        "training": of(lambda each: each["seconds"] - each["testing"]),
        "with_start_up": of(lambda each: each["seconds"] + each["start_up"]),
        "iterations": of(lambda each: each["iterations"]),
        "ms": of(lambda each: each["ms"]),
    }


def show(result: dict[str, Any]) -> None:
    print(f"{result['model']} to {result['target']:.2%}, {result['workers']} workers, batch {result['batch']} each")
    if result["trial_ms"]:
        print(f"  PyTorch's modes: {', '.join(f'{mode} {ms:.1f} ms' for mode, ms in result['trial_ms'].items())}")
    for each in (result["ours"], *result["theirs"]):
        print(f"  {each['average'] or each['mode']}, rate {each['base_lr']:g}")
        end = f"{each['accuracies'][-1][1]:.2%}" if each["reached"] else "not reached"
        print(f"    {end} after {each['iterations']:,} iterations ({each['samples']:,} rows), {each['ms']:.1f} ms each")
        print(f"    {each['seconds']:.1f} s, {each['testing']:.1f} of them tests; {each['start_up']:.1f} s before")
    for found, each in zip(result["ratios"], result["theirs"], strict=True):
        if result["ours"]["reached"] and each["reached"]:
            print(f"  ours takes {found['seconds']:.2f} of DDP's time at rate {each['base_lr']:g}", end=" ")
            print(f"({found['training']:.2f} without tests, {found['with_start_up']:.2f} with the start):", end=" ")
            print(f"{found['iterations']:.2f} of its iterations, each {found['ms']:.2f} as long")
    sys.stdout.flush()


def measure(args: argparse.Namespace) -> dict[str, Any]:
    model = compile_model(args.model, {}, args.data, args.data)
    with tempfile.TemporaryDirectory(prefix="sparknet-") as name:
        job = prepare(args, model, pathlib.Path(name))
        mode, trial = fastest(job, args.modes, args.trial)
        ours = learn(job)
        theirs = []
        for factor in args.rates:
            solver = {**job.solver, "base_lr": job.solver["base_lr"] * factor}
            theirs.append(learn(dataclasses.replace(job, mode=mode, solver=solver)))
    return {
        **{name: getattr(args, name) for name in ("model", "target", "workers", "seed", "test_every")},
        "batch": job.batch,
        "trial_ms": trial,
        "ours": ours,
        "theirs": theirs,
        "ratios": [ratios(ours, each) for each in theirs],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="SRC", required=True, help="cifar10:DIR")
    parser.add_argument("--model", default="cifar10_quick", help="a .snet file, or a model of the library")
    parser.add_argument("--target", type=float, default=0.66, help="the accuracy to reach (0.66)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-iter", type=int, default=4000, help="when to give up, in iterations of a worker")
    parser.add_argument("--test-every", type=int, default=100, help="iterations between two tests (100)")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES[:2]), help="of PyTorch, to choose from")
    parser.add_argument("--trial", type=int, default=60, help="iterations by which the mode is chosen (60)")
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0], help="DDP once at base_lr times each of these")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    try:
        result = measure(args)
    except SparkNetError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    show(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
