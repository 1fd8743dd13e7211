"""Throws mutated nets and weight files at the engine: it must answer with a result or with a SparkNetError.

python tools/fuzz_engine.py [SECONDS [SEED [FOLDER]]]     FOLDER: more nets to start from, its *.prototxt
python tools/fuzz_engine.py --case NUMBER [SEED [FOLDER]]  one case again, in this process

Case NUMBER is a function of SEED and of what there is to start from. The cases run in a child process, so that one that
crashes it, or takes more than LIMIT_SECONDS of CPU, is known and printed; the next child goes on after it. Memory is
bounded by the engine's own limit. The exit status is 1 when anything went wrong.
"""

import json
import math
import os
import pathlib
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from google.protobuf import text_format
from mutate_nets import REALS, damage, mutate_field, mutated, seeds

from sparknet_dsl import caffe_ext
from sparknet_dsl.caffe_ext.messages import net_message
from sparknet_dsl.errors import DivergedError, LayerError, SparkNetError
from sparknet_dsl.proto import caffe_pb2

LIMIT_SECONDS = 10
MEMORY = 256 << 20  # bytes of the engine's arrays
COST = 20_000_000  # multiply-adds and values up to which a net is run
FILES, ROWS = 0.1, 0.03  # of the cases are weight files, and rows to be transformed


# ---- one case ----


def fill_inputs(net: caffe_ext.Net, chance: random.Random) -> None:
    """Small whole numbers (which may be labels), real ones, and now and then what nobody would feed."""
    draw = np.random.default_rng(chance.randrange(2**32))
    for name in net.inputs:
        values = net.blobs[name].data
        if values.ndim <= 1 or chance.random() < 0.3:
            values[...] = draw.integers(0, 3, values.shape)
        else:
            values[...] = draw.standard_normal(values.shape)
        if values.size and chance.random() < 0.1:
            values.reshape(-1)[chance.randrange(values.size)] = chance.choice(REALS)


def solver_param(chance: random.Random) -> caffe_pb2.SolverParameter:
    """Settings of a solver that neither tests nor writes files, nor has passes without end."""
    param = caffe_pb2.SolverParameter(base_lr=0.1, lr_policy="fixed", stepsize=3, max_iter=10)
    param.type = chance.choice(("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"))
    param.lr_policy = chance.choice(("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid"))
    for _ in range(chance.choice((0, 1, 2, 4))):
        mutate_field(param, chance)
    for field in ("net", "net_param", "train_net", "train_net_param", "test_net", "test_net_param", "test_iter"):
        param.ClearField(field)
    for field in ("snapshot", "snapshot_prefix", "weights", "test_state", "train_state"):
        param.ClearField(field)
    param.iter_size = min(param.iter_size, 3)
    return param


def run_net(net: caffe_pb2.NetParameter, chance: random.Random) -> None:
    """Checks, builds and uses the net; errors of the tree are answers."""
    phase = chance.choice((caffe_ext.TRAIN, caffe_ext.TEST))
    caffe_ext.set_num_threads(2 if chance.random() < 0.1 else 1)
    try:
        message = net_message(net)
        report = caffe_ext.check_net(message, phase, stages=list(message.state.stage))
    except SparkNetError:
        return
    cost = sum(layer.multiply_adds for layer in report.layers)
    for shape in [shape for layer in report.layers for shape in [*layer.top_shapes, *layer.param_shapes]]:
        cost += math.prod(shape or ())
    try:
        built = caffe_ext.Net(net, phase, seed=1)
    except LayerError as error:
        agreed = (
            report.problems
            or error.kind in ("memory", "data", "code")
            or None in [s for each in report.layers for s in each.top_shapes]
        )
        assert agreed, f"the dry run found nothing, building did: {error}"
        return
    if cost > COST:
        return
    actions: list[Callable[[], object]] = [built.forward, built.backward, built.forward, built.backward, built.reshape]

    def reshape_blob() -> None:
        blob = chance.choice(list(built.blobs.values()))
        shape = [chance.choice((extent, extent, 1, 3, 0)) for extent in blob.shape]
        blob.reshape(*shape)
        blob.data.reshape(-1)[:1] = 1.0

    def read_all() -> None:
        kept = [(blob.data.copy(), blob.diff.copy()) for blob in built.blobs.values()]
        assert all(data.shape == diff.shape for data, diff in kept)

    def step() -> None:
        solver = caffe_ext.Solver(solver_param(chance), net, seed=2)
        fill_inputs(solver.net, chance)
        solver.step(2)

    if not built.blobs:
        return
    order = [*actions, *chance.choices([*actions, reshape_blob, reshape_blob, read_all, step], k=chance.randint(0, 6))]
    for action in order:
        try:
            fill_inputs(built, chance)
            action()
        except SparkNetError as error:
            check_message(error)


def run_files(start: caffe_pb2.NetParameter, chance: random.Random, folder: pathlib.Path) -> None:
    """Damaged weights, states and means; a net that they are loaded into stays whole."""
    blobs = [caffe_pb2.BlobProto(shape={"dim": [2, 3]}, data=[1, 2, 3, 4, 5, 6]), caffe_pb2.BlobProto(num=1, data=[7])]
    net = text_format.Parse(
        "layer { name: 'in' type: 'Input' top: 'x' input_param { shape { dim: 2 dim: 3 } } } layer { name: 'ip' type: "
        "'InnerProduct' bottom: 'x' top: 'y' inner_product_param { num_output: 2 } }",
        caffe_pb2.NetParameter(),
    )
    weights = caffe_pb2.NetParameter(name="w")
    weights.layer.add(name="ip", type="InnerProduct").blobs.extend(blobs)
    weights.layers.add(name="ip").blobs.extend(blobs)
    state = caffe_pb2.SolverState(iter=3, learned_net=str(folder / "w"), current_step=1, history=blobs)
    mean = caffe_pb2.BlobProto(num=1, channels=1, height=2, width=2, data=[1, 2, 3, 4])
    message: Any = chance.choice([weights, state, mean])
    for _ in range(chance.randint(0, 3)):
        mutate_field(message, chance)
        for blob in chance.choice(([], blobs_of(message))):
            mutate_field(blob, chance)
    raw = bytearray(message.SerializePartialToString())
    if chance.random() < 0.7:
        damage(raw, chance)
    path = folder / "damaged"
    path.write_bytes(raw)
    built = caffe_ext.Net(net, caffe_ext.TRAIN, seed=1)
    before = built.flat_data.copy()
    readers: list[Callable[[], object]] = [
        lambda: built.copy_from(path),
        lambda: caffe_ext.read_state(path),
        lambda: caffe_ext.read_mean(path),
        lambda: caffe_ext.Solver(caffe_pb2.SolverParameter(base_lr=0.1, lr_policy="fixed"), net).restore(path),
    ]
    for reader in readers:
        try:
            reader()
        except SparkNetError as error:
            check_message(error)
            assert np.array_equal(built.flat_data, before, equal_nan=True) or reader is readers[0], (
                "half-loaded weights"
            )
        before = built.flat_data.copy()


def run_rows(chance: random.Random) -> None:
    """Rows of odd shapes through odd transformations."""
    param = caffe_pb2.TransformationParameter()
    for _ in range(chance.randint(0, 4)):
        mutate_field(param, chance)
    draw = np.random.default_rng(chance.randrange(2**32))
    shape = tuple(chance.choice((0, 1, 2, 3, 5, 8)) for _ in range(chance.choice((0, 1, 3, 4, 4, 4, 5))))
    rows = draw.integers(0, 256, shape).astype(chance.choice((np.uint8, np.float32)))
    mean = draw.random(tuple(chance.choice((0, 1, 3, 5, 8)) for _ in range(chance.choice((1, 3, 3)))), np.float32)
    phase = chance.choice((caffe_ext.TRAIN, caffe_ext.TEST))
    transformer = caffe_ext.Transformer(param, phase, mean if chance.random() < 0.5 else None)
    out = np.empty((*shape[:1], *transformer.output_shape(shape[1:])), np.float32)
    transformer(rows, out, chance.randrange(2**64))


def blobs_of(message: Any) -> list[Any]:
    """The BlobProtos in a weights file, a state or a mean."""
    if isinstance(message, caffe_pb2.NetParameter):
        layers: list[Any] = [*message.layer, *message.layers]
        return [blob for layer in layers for blob in layer.blobs]
    return list(message.history) if isinstance(message, caffe_pb2.SolverState) else [message]


def check_message(error: SparkNetError) -> None:
    """An error says something to its reader; the engine's own mistakes are none of theirs."""
    assert str(error) and "internal error" not in str(error), error
    if isinstance(error, LayerError):
        assert error.kind, error
    assert not isinstance(error, DivergedError), error


def made(number: int, seed: int, starts: list[caffe_pb2.NetParameter]) -> tuple[caffe_pb2.NetParameter, random.Random]:
    """The net of a case, and the chance for what is done with it."""
    chance = random.Random(f"{seed}/{number}")
    return mutated(chance.choice(starts), chance), chance


def run_case(number: int, seed: int, starts: list[caffe_pb2.NetParameter], folder: pathlib.Path) -> None:
    """Raises what is no answer."""
    net, chance = made(number, seed, starts)
    kind = chance.random()
    if kind < FILES:
        run_files(net, chance, folder)
        return
    try:
        if kind < FILES + ROWS:
            run_rows(chance)
        else:
            run_net(net, chance)
    except SparkNetError as error:
        check_message(error)


# ---- the child, and who watches over it ----


def child(first: int, seconds: float, seed: int, folder: pathlib.Path | None, note: pathlib.Path) -> None:
    """Runs cases from `first` on; `note` holds the number of the one that is running. Prints findings, one a line."""
    signal.setitimer(signal.ITIMER_PROF, 0)
    starts = seeds(folder)
    caffe_ext.set_memory_limit(MEMORY)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    end = time.monotonic() + seconds
    number = first
    os.chdir(note.parent)
    with note.open("r+b", buffering=0) as mark:
        while time.monotonic() < end:
            mark.seek(0)
            mark.write(struct.pack("<q", number))
            # The default action of SIGPROF ends the process, whatever it is doing.
            signal.setitimer(signal.ITIMER_PROF, LIMIT_SECONDS)
            try:
                run_case(number, seed, starts, note.parent)
            except BaseException:
                print(json.dumps([number, traceback.format_exc(limit=-4)]), flush=True)
            number += 1
        mark.seek(0)
        mark.write(struct.pack("<q", number))


def watch(seconds: float, seed: int, folder: pathlib.Path | None) -> Iterator[tuple[int, str]]:
    """Every finding with its case's number; the last one is the number of cases, with an empty text."""
    end = time.monotonic() + seconds
    first = 0
    with tempfile.TemporaryDirectory() as scratch:
        note = pathlib.Path(scratch) / "case"
        note.write_bytes(struct.pack("<q", 0))
        while (left := end - time.monotonic()) > 0:
            command = [sys.executable, __file__, "--child", str(first), str(left), str(seed), str(note)]
            done = subprocess.run(
                [*command, *([str(folder)] if folder is not None else [])], capture_output=True, text=True, check=False
            )
            for line in done.stdout.splitlines():
                number, what = json.loads(line)
                yield number, what
            [first] = struct.unpack("<q", note.read_bytes())
            if done.returncode == 0:
                break
            reason = f"more than {LIMIT_SECONDS} s" if done.returncode == -signal.SIGPROF else f"exit {done.returncode}"
            yield first, f"{reason}\n{done.stderr[-6000:]}"
            first += 1
    yield first, ""


def run(seconds: float, seed: int, folder: pathlib.Path | None = None, report: bool = True) -> list[str]:
    """What went wrong within the time, each with its net as text."""
    wrong: list[str] = []
    starts = seeds(folder)
    for number, what in watch(seconds, seed, folder):
        if what:
            net, _ = made(number, seed, starts)
            wrong.append(f"case {number} of seed {seed}: {what}\n{text_format.MessageToString(net)[:4000]}")
        elif report:
            print(f"{number} cases, {len(wrong)} wrong answers")
    return wrong


def main(arguments: list[str]) -> int:
    """See the module's docstring."""
    if arguments[:1] == ["--child"]:
        first, seconds, start, note, *rest = arguments[1:]
        child(int(first), float(seconds), int(start), pathlib.Path(rest[0]) if rest else None, pathlib.Path(note))
        return 0
    again = arguments[:1] == ["--case"]
    given = arguments[1:] if again else arguments
    amount = float(given[0]) if given else 60.0
    seed = int(given[1]) if len(given) > 1 else 1
    folder = pathlib.Path(given[2]).resolve() if len(given) > 2 else None
    if not again:
        found = run(amount, seed, folder)
        print("\n\n".join(found))
        return bool(found)
    starts = seeds(folder)
    net, _ = made(int(amount), seed, starts)
    print(text_format.MessageToString(net)[:4000], flush=True)
    caffe_ext.set_memory_limit(MEMORY)
    with tempfile.TemporaryDirectory() as scratch:
        run_case(int(amount), seed, starts, pathlib.Path(scratch))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
