"""Times our engine against PyTorch on the same CPU: nets, weights and batches are the same.

    python bench/engine.py [lenet caffenet models/other.snet:3x32x32:100 ...] [--only training] [--json FILE]

Training steps (SGD with momentum, the update included) of the nets of workloads.py, and forward passes of the deploy
nets of some. Each engine runs in a process of its own; they take turns, so that noise of the machine meets all. PyTorch
(pip install torch==2.13.0) runs eager, channels_last and compiled, in inference also compiled with constants folded.
What they compute is compared first. Nets are without Dropout. `--modes ours bf16` has our engine against itself in
bfloat16, which rounds more than a comparison of values would bear: only the first loss is looked at. `--modes ours
definition` has it against itself with convolutions by their definition (winograd=False).

Printed are medians over the rounds: milliseconds, rows per second, GFLOP/s (two for each multiply-add, forward and
backward), their share of what a large matrix product through oneDNN reaches in the same rounds, peak resident memory;
and how many times as long as ours PyTorch's best mode takes, with the least and the most of the rounds. The times of
BVLC Caffe, which is not run, are those of workloads.py, scaled by PyTorch's.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from child import Job
from workloads import INFERENCE, WORKLOADS, find

MODES = ("ours", "eager", "channels_last", "compile")
PRODUCTS = ("InnerProduct", "Convolution", "PyTorch")
WARM_UP = 3


class Process:
    """A process that runs a job, and what it has measured: of each round, the median of its steps."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.ms: list[float] = []
        self.operations = 0
        self.peak_mb = 0.0
        self._steps = 1
        command = [sys.executable, str(pathlib.Path(__file__).with_name("child.py"))]
        self._process = subprocess.Popen(
            [*command, json.dumps(dataclasses.asdict(job))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def values(self, steps: int) -> list[Any]:
        """What the next `steps` steps give: losses, or outputs."""
        return list(self.ask(steps, values=True)["values"])

    def round(self, seconds: float) -> None:
        """Measures for about as long, three steps at least."""
        answer = self.ask(self._steps)
        if not self.ms:  # the first round tells how many steps make one
            self._steps = max(3, math.ceil(seconds * 1000 / min(answer["ms"])))
            answer = self.ask(self._steps)
        self.ms.append(statistics.median(answer["ms"]))
        self.operations, self.peak_mb = answer["operations"], answer["peak_mb"]

    def close(self) -> None:
        self._process.communicate()

    def ask(self, steps: int, values: bool = False) -> dict[str, Any]:
        """Runs as many steps; see child.py."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"steps": steps, "values": values}) + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit(f"{self.job} ended early (status {self._process.wait()})")
        result: dict[str, Any] = json.loads(answer)
        return result


class Peak:
    """How fast large matrix products run: the better of two of oneDNN's ways, and PyTorch's."""

    def __init__(self, extent: int, threads: int) -> None:
        jobs = [Job(kind, "product", str(extent), threads) for kind in PRODUCTS] if extent else []
        self.processes = [Process(job) for job in jobs]
        self._operations = 2 * extent**3

    def round(self) -> dict[str, float]:
        """GFLOP/s of each, now."""
        for process in self.processes:
            process.round(0)
        return {process.job.mode: self._operations / process.ms[-1] / 1e6 for process in self.processes}


@contextlib.contextmanager
def processes(jobs: list[Job]) -> Iterator[list[Process]]:
    """Runs them; the first one's file of weights is written before."""
    with tempfile.TemporaryDirectory() as folder:
        weights = f"{folder}/weights.npz"
        writer = Process(dataclasses.replace(jobs[0], mode="ours", task="weights", weights=weights))
        writer.ask(1)
        writer.close()
        started = [Process(dataclasses.replace(job, weights=weights)) for job in jobs]
        try:
            yield started
        finally:
            for process in started:
                process.close()


def compare(found: dict[str, list[Any]], job: Job) -> None:
    """Ends the program where a mode's losses or outputs are not those of the first."""
    first, *others = found
    for mode in others:
        if mode == "bf16":
            a, b = found[first][0], found[mode][0]
            if job.task == "training" and not abs(a - b) <= 5e-2 * max(1.0, abs(a)):
                sys.exit(f"{job.workload}: the losses of {first} and bf16 are {a:g} and {b:g}")
            continue
        for step, (a, b) in enumerate(zip(found[first], found[mode], strict=True)):
            if job.task == "inference":
                off, most = max(abs(x - y) for x, y in zip(a, b, strict=True)), 1e-3 * max(map(abs, a))
            else:
                # Updates magnify what is rounded differently, most where there is batch normalisation.
                off, most = abs(a - b), (2e-2 if step else 1e-3) * max(1.0, abs(a))
            if not off <= most:
                sys.exit(f"{job.workload}, {job.task}: {first} and {mode} differ by {off:g} in step {step}")


def measure(jobs: list[Job], peak: Peak, rounds: int, seconds: float) -> dict[str, Any]:
    """What `jobs`, modes of one task, took."""
    with processes(jobs) as started:
        compare({process.job.mode: process.values(WARM_UP) for process in started}, jobs[0])
        products = []
        for _ in range(rounds):
            for process in started:
                process.round(seconds)
            products.append(peak.round())
    first, workload = jobs[0], find(jobs[0].workload)
    times = {process.job.mode: process.ms for process in started}
    medians = {mode: statistics.median(ms) for mode, ms in times.items()}
    result: dict[str, Any] = {
        "model": workload.name,
        "task": first.task,
        "batch": first.batch or workload.batch,
        "rows": "images" if workload.row else "sequences",
        "threads": first.threads,
        "ms": medians,
        "peak_mb": {process.job.mode: process.peak_mb for process in started},
        "operations": max(process.operations for process in started),
        "product_gflops": {kind: statistics.median(each[kind] for each in products) for kind in products[0]},
    }
    best = min(
        (mode for mode in medians if mode not in ("ours", "bf16", "definition")), key=medians.__getitem__, default=""
    )
    if best and "ours" in times:
        pairs = [theirs / ours for theirs, ours in zip(times[best], times["ours"], strict=True)]
        result["best"] = best
        result |= {"ratio": statistics.median(pairs), "ratio_min": min(pairs), "ratio_max": max(pairs)}
        if workload.caffe and first.task == "training":
            caffe, torch = workload.caffe
            result["caffe_ms"] = caffe * medians[best] / torch
    if "ours" in times and "bf16" in times:
        pairs = [ours / bf16 for ours, bf16 in zip(times["ours"], times["bf16"], strict=True)]
        result["bf16"] = [statistics.median(pairs), min(pairs), max(pairs)]
    if "ours" in times and "definition" in times:
        pairs = [definition / ours for definition, ours in zip(times["definition"], times["ours"], strict=True)]
        result["definition"] = [statistics.median(pairs), min(pairs), max(pairs)]
    return result


def show(result: dict[str, Any]) -> None:
    ms, rows = result["ms"], result["rows"]
    print(f"{result['model']}, {result['task']}, batch {result['batch']}, {result['threads']} threads")
    peak = max((result["product_gflops"].get(kind, 0.0) for kind in PRODUCTS[:2]), default=0.0)
    for mode, each in ms.items():
        speed = result["operations"] / each / 1e6
        line = f"  {mode:14}{each:10.2f} ms{result['batch'] / each * 1000:10.1f} {rows}/s{speed:8.1f} GFLOP/s"
        line += f" ({speed / peak:.0%} of the peak)" if peak else ""
        print(f"{line}{result['peak_mb'][mode]:8.0f} MB")
    if peak:
        print("  products:", ", ".join(f"{kind} {v:.0f} GFLOP/s" for kind, v in result["product_gflops"].items()))
    if "ratio" in result:
        rounds = f"({result['ratio_min']:.2f} to {result['ratio_max']:.2f})"
        print(f"  PyTorch's best ({result['best']}) takes {result['ratio']:.2f} times as long {rounds}")
    if "bf16" in result:
        ratio, least, most = result["bf16"]
        print(f"  float32 takes {ratio:.2f} times as long as bf16 ({least:.2f} to {most:.2f})")
    if "definition" in result:
        ratio, least, most = result["definition"]
        print(f"  convolutions by their definition take {ratio:.2f} times as long ({least:.2f} to {most:.2f})")
    if "caffe_ms" in result:
        print(f"  BVLC Caffe, scaled: {result['caffe_ms']:.1f} ms, {result['caffe_ms'] / ms['ours']:.2f} times as long")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"{', '.join(WORKLOADS)}, or FILE:CxHxW:BATCH")
    parser.add_argument("--only", choices=["training", "inference"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32], help="of inference")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="of each mode in a round, three steps at least")
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument(
        "--modes",
        nargs="+",
        choices=[*MODES, "bf16", "definition", "freeze"],
        help="without it, all but bf16 and definition; freeze: inference",
    )
    parser.add_argument("--product", type=int, default=4096, help="extent of the matrices of the peak; 0: none")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    try:
        for model in args.models:
            find(model)
    except ValueError as error:
        parser.error(str(error))
    if "OMP_WAIT_POLICY" in os.environ:
        print("OMP_WAIT_POLICY is set: small nets take longer when threads do not spin", file=sys.stderr)
    jobs: list[list[Job]] = []
    for model in args.models or WORKLOADS:
        modes = [mode for mode in args.modes or MODES if mode != "freeze"]
        if args.only != "inference":
            jobs.append([Job(mode, "training", model, args.threads, lr=args.lr) for mode in modes])
    for model in args.models or INFERENCE:
        for batch in args.batches if args.only != "training" and (model in INFERENCE or args.only) else ():
            modes = args.modes or [*MODES, "freeze"]
            jobs.append([Job(mode, "inference", model, args.threads, batch) for mode in modes])
    peak = Peak(args.product, args.threads)
    results = []
    for each in jobs:
        results.append(measure(each, peak, args.rounds, args.seconds))
        show(results[-1])
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
