"""`sparknet-time`: how long each layer of a net takes, how much it computes and moves, in which layouts."""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from rich.table import Table
from rich.text import Text

from .. import caffe_ext, compile_file, terminal
from ..errors import ModelError
from ..proto import caffe_pb2
from .command import check_counts
from .data import Phase
from .plan import phase_net
from .progress import Bar, progress

# Passes before the clock counts: the first makes primitives and touches new memory.
WARM_UP = 2
FLOAT = 4
# Columns of a terminal below which the table has no layouts, and no megabytes either.
NARROW, NARROWER = 100, 75
SEED = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerTime:
    """A layer's part of a pass; times are medians over the passes, in milliseconds.

    forward_ms, backward_ms: backward 0 where no gradient is asked of the layer
    forward_flop, backward_flop: two for each multiply-add; backward as many for the bottoms' gradients, and for the
                  parameters', where they are computed; 0 where nothing is multiplied (Pooling, ReLU)
    forward_bytes, backward_bytes: what has to be read and written at least, each array once; nothing for inputs, and
                  for tops that are another name for a bottom's memory
    layouts       of each top: oneDNN's name for its layout after its forward pass, "" row-major
    within        the layer whose forward pass does this one's, too, and whose backward pass does, where backward_ms is
                  0; "" for none
    """

    name: str
    type: str
    forward_ms: float
    backward_ms: float
    forward_flop: int
    backward_flop: int
    forward_bytes: int
    backward_bytes: int
    layouts: tuple[str, ...]
    within: str

    @property
    def ms(self) -> float:
        """Both passes."""
        return self.forward_ms + self.backward_ms

    @property
    def gflops(self) -> float:
        """GFLOP/s over both passes."""
        return rate(self.forward_flop + self.backward_flop, self.ms)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetTime:
    """What was measured; `forward_ms` and `backward_ms` are medians of the whole passes, all layers added up."""

    name: str
    phase: Phase
    batch: int
    iterations: int
    threads: int
    isa: str
    precision: str
    forward_ms: float
    backward_ms: float
    layers: tuple[LayerTime, ...]

    @property
    def ms(self) -> float:
        """A forward and a backward pass."""
        return self.forward_ms + self.backward_ms

    @property
    def flop(self) -> int:
        """What all layers compute in both passes."""
        return sum(layer.forward_flop + layer.backward_flop for layer in self.layers)

    @property
    def bytes(self) -> int:
        """What all layers move in both passes."""
        return sum(layer.forward_bytes + layer.backward_bytes for layer in self.layers)


def rate(flop: int, ms: float) -> float:
    """GFLOP/s; 0 for no time."""
    return flop / ms / 1e6 if ms else 0.0


def measure(
    message: caffe_pb2.NetParameter,
    phase: Phase,
    iterations: int,
    clock: Callable[[], float] = time.perf_counter,
    *,
    precision: caffe_ext.Precision = "float32",
    memory: caffe_ext.Memory = "reuse",
    bar: Bar | None = None,
) -> NetTime:
    """Runs `message` layer by layer, `iterations` times after a warm-up; in phase TEST forward only.

    Inputs hold random numbers from [0, 1), which count as class 0 where they are labels. `bar` is told of each pass.
    Raises LayerError.
    """
    number = caffe_ext.TRAIN if phase == "TRAIN" else caffe_ext.TEST
    net = caffe_ext.Net(message, number, level=message.state.level, seed=SEED, memory=memory, precision=precision)
    report = caffe_ext.check_net(message, number, level=message.state.level)
    random = np.random.default_rng(SEED)
    for name in net.inputs:
        net.blobs[name].data[...] = random.random(net.blobs[name].shape, np.float32)
    count = len(net.layers)
    forward = np.zeros((iterations, count))
    backward = np.zeros((iterations, count))
    native = net._native
    # Layers that run as one are timed as one.
    absorbed = native.absorbed()
    groups = _groups([forward for forward, _ in absorbed])
    backward_groups = _groups([backward for _, backward in absorbed])
    layouts: dict[str, str] = {}
    for i in range(-WARM_UP, iterations):
        native.clear_param_diffs()
        for at, end in groups:
            began = clock()
            native.forward(at, end)
            if i >= 0:
                forward[i, at] = clock() - began
            if i == -1:
                found = dict(zip(net.blob_names, native.layouts(), strict=True))
                layouts |= {top: found[top] for layer in net.layers[at:end] for top in net.top_names[layer.name]}
        for at, end in reversed(backward_groups if phase == "TRAIN" else []):
            began = clock()
            native.backward(at, end)
            if i >= 0:
                backward[i, at] = clock() - began
        if bar is not None:
            bar.advance(1)
    within = {at: net.layers[begin].name for begin, end in groups for at in range(begin + 1, end)}
    shared = native.shared()
    none: tuple[list[bool], list[bool]] = ([], [])
    gradients = native.gradients() if phase == "TRAIN" else [none] * count
    layers = []
    for at, layer in enumerate(net.layers):
        bottoms, params = gradients[at]
        learns = any(bottoms) + any(params)
        layers.append(
            LayerTime(
                name=layer.name,
                type=layer.type,
                forward_ms=statistics.median(forward[:, at]) * 1e3,
                backward_ms=statistics.median(backward[:, at]) * 1e3 if learns else 0.0,
                forward_flop=2 * report.layers[at].multiply_adds,
                backward_flop=2 * report.layers[at].multiply_adds * learns,
                forward_bytes=_forward_bytes(net, layer, shared[at]),
                backward_bytes=_backward_bytes(net, layer, shared[at], bottoms, params),
                layouts=tuple(layouts[top] for top in net.top_names[layer.name]),
                within=within.get(at, ""),
            )
        )
    inputs = [net.blobs[name].shape for name in net.inputs]
    return NetTime(
        name=net.name,
        phase=phase,
        batch=inputs[0][0] if inputs and inputs[0] else 0,
        iterations=iterations,
        threads=caffe_ext.num_threads(),
        isa=caffe_ext.isa(),
        precision=precision,
        forward_ms=statistics.median(forward.sum(axis=1)) * 1e3,
        backward_ms=statistics.median(backward.sum(axis=1)) * 1e3,
        layers=tuple(layers),
    )


def _groups(absorbed: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges of layers, one for each that absorbs those after it or none."""
    groups = []
    at = 0
    while at < len(absorbed):
        groups.append((at, at + 1 + absorbed[at]))
        at = groups[-1][1]
    return groups


def _counts(net: caffe_ext.Net, names: Sequence[str]) -> list[int]:
    return [net.blobs[name].count for name in names]


def _forward_bytes(net: caffe_ext.Net, layer: caffe_ext.Layer, shared: Sequence[bool]) -> int:
    if caffe_ext.layer_types()[layer.type].source or (shared and all(shared)):
        return 0
    bottoms, tops = _counts(net, net.bottom_names[layer.name]), _counts(net, net.top_names[layer.name])
    return FLOAT * (sum(bottoms) + sum(tops) + sum(blob.count for blob in layer.blobs))


def _backward_bytes(
    net: caffe_ext.Net, layer: caffe_ext.Layer, shared: Sequence[bool], bottoms: Sequence[bool], params: Sequence[bool]
) -> int:
    if not any(bottoms) and not any(params):
        return 0
    if shared == [True]:  # the gradient, too, is the bottom's own
        return 0
    known = caffe_ext.layer_types()[layer.type]
    below, above = _counts(net, net.bottom_names[layer.name]), _counts(net, net.top_names[layer.name])
    moved = sum(above) + sum(count for count, wanted in zip(below, bottoms, strict=True) if wanted)
    moved += sum(below) * known.reads_bottom + sum(above) * known.reads_top
    for blob, wanted in zip(layer.blobs, params, strict=True):
        moved += blob.count * (1 + wanted)
    return FLOAT * moved


# ---- showing it ----


def to_json(found: NetTime) -> str:
    """Everything measured, as one JSON object: the fields of NetTime, its `layers` with those of LayerTime."""
    return json.dumps({**dataclasses.asdict(found), "flop": found.flop, "bytes": found.bytes}, indent=1)


def table(found: NetTime, width: int = terminal.PIPED) -> Table:
    """A row for each layer, the totals below, for a terminal `width` columns wide."""
    title = f"{found.name or 'net'} in {found.phase}, batches of {found.batch}: medians of {found.iterations} passes"
    result = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    backward = found.phase == "TRAIN"
    for heading in ("layer", "type", "forward ms", *["backward ms"] * backward, "share", "GFLOP/s", "MB", "layout"):
        left = heading in ("layer", "type", "layout")
        # On a narrow terminal names are cut short, the last columns left out; numbers stay whole.
        result.add_column(heading, justify="left" if left else "right", overflow="ellipsis", no_wrap=True)
    whole = sum(layer.ms for layer in found.layers)
    for layer in found.layers:
        cells = [layer.name, layer.type, _ms(layer.forward_ms) or (f"in {layer.within}" if layer.within else "")]
        cells += [_ms(layer.backward_ms)] * backward
        cells += [f"{layer.ms / whole:.1%}" if whole else "", f"{layer.gflops:,.1f}" if layer.gflops else ""]
        cells.append(_megabytes(layer.forward_bytes + layer.backward_bytes))
        cells.append(", ".join(dict.fromkeys(name or "row-major" for name in layer.layouts)) or "-")
        result.add_row(*map(Text, cells))
    result.add_section()
    total = ["all layers", "", _ms(found.forward_ms), *[_ms(found.backward_ms)] * backward, ""]
    total += [f"{rate(found.flop, found.ms):,.1f}", _megabytes(found.bytes), ""]
    result.add_row(*(Text(cell, style="bold") for cell in total))
    del result.columns[len(result.columns) - (width < NARROW) - (width < NARROWER) :]
    return result


def summary(found: NetTime) -> str:
    """The totals in words."""
    parts = f"forward {found.forward_ms:,.3f} ms"
    if found.phase == "TRAIN":
        parts += f", backward {found.backward_ms:,.3f} ms, together {found.ms:,.3f} ms"
    rows = f", {found.batch / found.ms * 1e3:,.0f} rows/s" if found.batch and found.ms else ""
    return f"{parts}{rows} ({found.threads} threads, {found.isa}, {found.precision})"


def _ms(value: float) -> str:
    return f"{value:,.3f}" if value else ""


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.2f}" if count else ""


# ---- the command ----


def main(
    model: str,
    *,
    iterations: int = 50,
    phase: Phase = "TRAIN",
    batch: int | None = None,
    row: tuple[int, ...] | None = None,
    threads: int | None = None,
    precision: caffe_ext.Precision = "float32",
    memory: caffe_ext.Memory = "reuse",
    defines: Mapping[str, str] = {},
    form: str = "text",
) -> None:
    """Times the model in the file `model` and prints a table, or JSON; `row` is the shape of a row of its data.

    Raises ModelError, UsageError, LayerError.
    """
    check_counts(iterations=iterations, batch=batch, threads=threads)
    if threads is not None:
        caffe_ext.set_num_threads(threads)
    compiled = compile_file(model, defines=defines, data_shapes={"TRAIN": [row], "TEST": [row]} if row else None)
    if phase not in compiled.reports:
        raise ModelError(f"{model} has no data in phase {phase}: say --phase {next(iter(compiled.reports), 'TEST')}")
    net = phase_net(compiled.net, compiled.solver or caffe_pb2.SolverParameter(), phase)
    if batch is not None:
        set_batch(net, batch)
    with progress(f"timing {compiled.name or model}", WARM_UP + iterations, unit="passes") as bar:
        found = measure(net, phase, iterations, precision=precision, memory=memory, bar=bar)
    if form == "json":
        print(to_json(found))
        return
    if not terminal.quiet():
        console = terminal.console()
        console.print(table(found, console.width))
    print(summary(found))


def set_batch(net: caffe_pb2.NetParameter, batch: int) -> None:
    """Gives the inputs a first axis of `batch`."""
    for layer in net.layer:
        for shape in layer.input_param.shape:
            if shape.dim:
                shape.dim[0] = batch
