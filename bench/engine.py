"""Times training steps of our engine against PyTorch on the same CPU, net, weights and batch.

    python bench/engine.py [models/lenet.snet:1x28x28 models/cifar10_quick.snet:3x32x32:100 ...] [--json FILE]

Without models, those of NETS. Each engine runs in a process of its own; they take turns, so that noise of the machine
meets all. PyTorch (pip install torch==2.13.0) runs eager, channels_last and compiled, SGD step included. Prints
milliseconds per step (median over the rounds), images per second, the ratio to PyTorch's best mode, and peak memory.
Nets are compared without Dropout.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import IO, Any

MODES = ["ours", "eager", "channels_last", "compile"]
MODELS = pathlib.Path(__file__).resolve().parent.parent / "models"
NETS = [
    f"{MODELS / name}.snet:{row}:{batch}"
    for name, row, batch in (
        ("lenet", "1x28x28", 64),
        ("cifar10_quick", "3x32x32", 100),
        ("caffenet", "3x227x227", 64),
        ("googlenet", "3x224x224", 32),
        ("resnet50", "3x224x224", 16),
        ("vgg16", "3x224x224", 8),
        ("mobilenet", "3x224x224", 16),
    )
]


def load(path: str, row: tuple[int, ...], batch: int) -> Any:
    """The TRAIN net of `path` with batches of `batch` rows and without Dropout."""
    import sparknet_dsl

    model = sparknet_dsl.compile_file(path, data_shapes={phase: [row, ()] for phase in ("TRAIN", "TEST")})
    net = model.net
    kept = [layer for layer in net.layer if layer.type != "Dropout" or layer.top[0] != layer.bottom[0]]
    del net.layer[:]
    net.layer.extend(kept)
    for layer in net.layer:
        if layer.type == "Input":
            for shape in layer.input_param.shape:
                shape.dim[0] = batch
    return net


def our_step(args: argparse.Namespace) -> Callable[[], float]:
    import numpy as np

    from sparknet_dsl import caffe_ext
    from sparknet_dsl.proto import caffe_pb2

    caffe_ext.set_num_threads(args.threads)
    net = load(args.model, args.row, args.batch)
    param = caffe_pb2.SolverParameter(
        base_lr=args.lr, lr_policy="fixed", momentum=0.9, weight_decay=0.0005, max_iter=1 << 30
    )
    solver = caffe_ext.Solver(param, net, seed=1)
    if not pathlib.Path(args.weights).exists():
        arrays = {f"{n}:{i}": b.data for n, blobs in solver.net.params.items() for i, b in enumerate(blobs)}
        np.savez(args.weights, **arrays)
    data, label = batch_of(args)
    solver.net.blobs["data"].data[...] = data
    solver.net.blobs["label"].data[...] = label
    return lambda: float(solver.step(1)[0])


def torch_step(args: argparse.Namespace) -> Callable[[], float]:
    import numpy as np
    import torch
    from torch_net import TorchNet

    torch.set_num_threads(args.threads)
    params: dict[str, list[torch.Tensor]] = {}
    with np.load(args.weights) as arrays:
        for key in arrays.files:
            params.setdefault(key.rpartition(":")[0], []).append(torch.from_numpy(arrays[key]))
    net = TorchNet(load(args.model, args.row, args.batch), params)
    optimizer = torch.optim.SGD(net.groups(args.lr, 0.0005), lr=args.lr, momentum=0.9)
    data, label = (torch.from_numpy(array) for array in batch_of(args))
    if args.mode != "eager":
        net = net.to(memory_format=torch.channels_last)
        data = data.contiguous(memory_format=torch.channels_last)
    forward = torch.compile(net) if args.mode == "compile" else net
    label = label.long()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = forward(data, label)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def batch_of(args: argparse.Namespace) -> Any:
    import numpy as np

    random = np.random.default_rng(0)
    data = random.standard_normal((args.batch, *args.row), dtype=np.float32)
    return data, random.integers(0, 10, args.batch).astype(np.float32)


def child(args: argparse.Namespace) -> None:
    """Answers each number n on standard input with the times and losses of n steps."""
    step = our_step(args) if args.mode == "ours" else torch_step(args)
    for line in sys.stdin:
        times, losses = [], []
        for _ in range(int(line)):
            start = time.perf_counter()
            losses.append(step())
            times.append((time.perf_counter() - start) * 1000)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"ms": times, "losses": losses, "peak_mb": peak}), flush=True)


def ask(process: "subprocess.Popen[str]", steps: int) -> dict[str, Any]:
    def pipe(stream: IO[str] | None) -> IO[str]:
        assert stream is not None
        return stream

    pipe(process.stdin).write(f"{steps}\n")
    pipe(process.stdin).flush()
    answer = pipe(process.stdout).readline()
    if not answer:
        sys.exit(f"a measured process ended early (status {process.wait()})")
    result: dict[str, Any] = json.loads(answer)
    return result


def measure(spec: str, args: argparse.Namespace) -> dict[str, Any]:
    model, row, *rest = spec.split(":")
    batch = int(rest[0]) if rest else args.batch
    with tempfile.TemporaryDirectory() as folder:
        processes = {}
        losses = {}
        times: dict[str, list[float]] = {mode: [] for mode in args.modes}
        peaks = {}
        for mode in args.modes:
            command = [sys.executable, __file__, "--child", mode, "--batch", str(batch), "--lr", str(args.lr)]
            command += ["--threads", str(args.threads), "--weights", f"{folder}/weights.npz", f"{model}:{row}"]
            processes[mode] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None, text=True
            )
            # The first writes the weights that the others start from; its first steps are the warm-up.
            losses[mode] = ask(processes[mode], 3)["losses"]
        for mode in args.modes[1:]:
            for step, (ours, theirs) in enumerate(zip(losses[args.modes[0]], losses[mode], strict=True)):
                # Updates magnify what is rounded differently, most where there is batch normalisation.
                if abs(ours - theirs) > (2e-2 if step else 1e-3) * max(1.0, abs(ours)):
                    sys.exit(f"{model}: losses differ, {losses[args.modes[0]]} and {losses[mode]} ({mode})")
        for _ in range(args.rounds):
            for mode, process in processes.items():
                answer = ask(process, args.steps)
                times[mode].append(statistics.median(answer["ms"]))
                peaks[mode] = answer["peak_mb"]
        for process in processes.values():
            process.communicate()
    result: dict[str, Any] = {"model": model, "batch": batch, "threads": args.threads, "loss": losses[args.modes[0]]}
    result["ms"] = {mode: statistics.median(values) for mode, values in times.items()}
    result["peak_mb"] = peaks
    rivals = [mode for mode in args.modes if mode != "ours"]
    if rivals and "ours" in args.modes:
        best = min(rivals, key=lambda mode: result["ms"][mode])
        pairs = [theirs / ours for ours, theirs in zip(times["ours"], times[best], strict=True)]
        result |= {"best": best, "ratio": statistics.median(pairs), "ratio_min": min(pairs), "ratio_max": max(pairs)}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=NETS, metavar="MODEL:CxHxW[:BATCH]")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="steps of each engine in a round")
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--child", dest="mode", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.mode:
        args.model, row = args.models[0].split(":")
        args.row = tuple(int(extent) for extent in row.split("x"))
        child(args)
        return
    results = []
    for spec in args.models:
        result = measure(spec, args)
        results.append(result)
        print(f"{pathlib.Path(result['model']).stem}, batch {result['batch']}, {result['threads']} threads")
        for mode, ms in result["ms"].items():
            rate = result["batch"] / ms * 1000
            print(f"  {mode:14}{ms:10.2f} ms/step{rate:10.0f} images/s{result['peak_mb'][mode]:8.0f} MB")
        if "ratio" in result:
            print(
                f"  PyTorch's best ({result['best']}) takes {result['ratio']:.2f} times as long "
                f"({result['ratio_min']:.2f} to {result['ratio_max']:.2f})"
            )
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
