"""A net as a picture, as pycaffe's `draw` has it: layers and the blobs between them. Needs Graphviz.

`sparknet-compile --emit dot` draws more: blocks, phases, shapes.
"""

import os
import pathlib
import shutil
import subprocess

from ..errors import EngineError
from ..files import write_atomic
from ..proto import caffe_pb2
from .messages import net_message


def dot(net: caffe_pb2.NetParameter, rankdir: str = "LR", phase: int | None = None) -> str:
    """The graph in Graphviz's language, laid out from left to right (`rankdir` "LR") or from top to bottom ("TB").

    Of the layers that `phase`, if given, lets in.
    """
    net = net_message(net)
    lines = [f"digraph {_quoted(net.name or 'Net')} {{", f"  rankdir={_quoted(rankdir)};"]
    blobs: dict[str, str] = {}
    for number, layer in enumerate(net.layer):
        if phase is not None and not _included(layer, phase):
            continue
        node = f"layer{number}"
        lines.append(f"  {node} [shape=box, style=filled, fillcolor={_quoted(_color(layer.type))}, {_label(layer)}];")
        for blob in dict.fromkeys([*layer.bottom, *layer.top]):
            if blob not in blobs:
                blobs[blob] = f"blob{len(blobs)}"
                lines.append(f"  {blobs[blob]} [shape=octagon, label={_quoted(blob)}];")
        lines += [f"  {blobs[blob]} -> {node};" for blob in layer.bottom if blob not in layer.top]
        lines += [
            f"  {node} -> {blobs[blob]}{' [dir=both]' if blob in layer.bottom else ''};"
            for blob in dict.fromkeys(layer.top)
        ]
    return "\n".join([*lines, "}"]) + "\n"


def draw_net(
    caffe_net: caffe_pb2.NetParameter, rankdir: str = "LR", ext: str = "png", phase: int | None = None
) -> bytes:
    """The picture in the format `ext` (png, svg, pdf and what else Graphviz writes; dot: its text).

    Raises EngineError when Graphviz is not installed, or refuses.
    """
    text = dot(caffe_net, rankdir, phase)
    if ext in ("dot", "raw"):
        return text.encode()
    program = shutil.which("dot")
    if program is None:
        raise EngineError("drawing needs Graphviz: install it (apt install graphviz), or write a file .dot")
    done = subprocess.run([program, f"-T{ext}"], input=text.encode(), capture_output=True, check=False)
    if done.returncode != 0:
        raise EngineError(f"Graphviz cannot draw the net as {ext}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def draw_net_to_file(
    caffe_net: caffe_pb2.NetParameter,
    filename: str | os.PathLike[str],
    rankdir: str = "LR",
    phase: int | None = None,
) -> None:
    """Draws the net into a file, in the format that its ending names; raises as `draw_net`, and OutputError."""
    ext = pathlib.Path(filename).suffix.lstrip(".").lower() or "png"
    write_atomic(filename, draw_net(caffe_net, rankdir, ext, phase))


def _included(layer: caffe_pb2.LayerParameter, phase: int) -> bool:
    """By the rules' phases alone, as in pycaffe."""
    if layer.include:
        return any(not rule.HasField("phase") or rule.phase == phase for rule in layer.include)
    return not any(rule.HasField("phase") and rule.phase == phase for rule in layer.exclude)


def _label(layer: caffe_pb2.LayerParameter) -> str:
    lines = [f"{layer.name} ({layer.type})"]
    window = layer.convolution_param if layer.type in ("Convolution", "Deconvolution") else None
    if window is not None:
        sizes = [list(window.kernel_size) or [window.kernel_h, window.kernel_w], list(window.stride), list(window.pad)]
        lines += [
            f"{what} {'×'.join(map(str, size))}"
            for what, size in zip(("kernel", "stride", "pad"), sizes, strict=True)
            if size
        ]
    elif layer.type == "Pooling":
        pooling = layer.pooling_param
        method = caffe_pb2.PoolingParameter.PoolMethod.Name(pooling.pool)
        lines.append(f"{method} {pooling.kernel_size}, stride {pooling.stride}, pad {pooling.pad}")
    return f"label={_quoted(*lines)}"


def _color(type_name: str) -> str:
    return {
        "Convolution": "#f0a090",
        "Deconvolution": "#f0a090",
        "Pooling": "#f5c98a",
        "InnerProduct": "#c9a5e6",
    }.get(type_name, "#a8cdee")


def _quoted(*lines: str) -> str:
    escaped = [line.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") for line in lines]
    return '"' + "\\n".join(escaped) + '"'
