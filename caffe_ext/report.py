"""What the engine finds out about a net without building it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..proto import caffe_pb2
from . import _native

TRAIN = 0
TEST = 1

# In which a net multiplies.
Precision = Literal["float32", "bf16"]
Memory = Literal["all", "reuse", "lean"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerReport:
    """A layer that is in: `index` is its place in `net.layer`, -1 for an automatic Split.

    `top_shapes` has None for what is not known, because of an error or of a source without a shape. `multiply_adds`
    counts one forward pass.
    """

    index: int
    name: str
    type: str
    bottoms: list[str]
    tops: list[str]
    top_shapes: list[Shape | None]
    param_shapes: list[Shape]
    multiply_adds: int


@dataclass(frozen=True)
class LayerProblem:
    """One thing that is wrong with a layer.

    `kind` is type (unknown type), bottoms or tops (wrong number), blob (unknown bottom), duplicate (top defined twice),
    shape, field (a setting makes no sense), param (sharing, too many), phase, memory or state; `bottom` tells which
    bottom is to blame, if any.
    """

    index: int
    layer: str
    kind: str
    reason: str
    bottom: int | None


@dataclass(frozen=True)
class NetReport:
    """All layers that the phase, level and stages let in, every problem, every blob's shape (None: not known)."""

    layers: list[LayerReport]
    problems: list[LayerProblem]
    blobs: dict[str, Shape | None]
    inputs: list[str]
    outputs: list[str]


def check_net(
    net: caffe_pb2.NetParameter,
    phase: int,
    *,
    level: int = 0,
    stages: Sequence[str] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> NetReport:
    """Builds `net` without allocating any array, and goes on after an error.

    What a faulty layer would make is unknown, and layers that read it are not asked. `shapes` supplies the shapes of
    source tops (by blob) that the net itself does not tell, or replaces them. `phase`, `level` and `stages` choose
    layers by their include and exclude rules. `net` is in current syntax (`proto.upgrade`). Raises nothing for a faulty
    net; EngineError for arguments that make no sense.
    """
    found = _native.check_net(net, phase, level, [*net.state.stage, *stages], shapes or {})
    return NetReport(
        [LayerReport(*layer) for layer in found["layers"]],
        [LayerProblem(*problem) for problem in found["problems"]],
        found["blobs"],
        found["inputs"],
        found["outputs"],
    )
