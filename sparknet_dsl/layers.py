"""What expansion makes: layers with their spans, and the blobs that flows carry."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import ast
from .diagnostics import Span
from .proto import caffe_pb2

if TYPE_CHECKING:
    from .schema import LayerType

PHASES = ("TRAIN", "TEST")


@dataclass(frozen=True, eq=False)
class BlockUse:
    """One use of a block; `label` is its own name, if it has one. Layers of one use share one such object."""

    block: str
    label: str | None


@dataclass(eq=False)
class Layer:
    """A layer of the net under construction. Identity matters: two blobs of one name differ by who wrote them."""

    message: caffe_pb2.LayerParameter
    info: "LayerType | None"
    span: Span | None  # the whole use, labels included
    type_span: Span | None
    label_span: Span | None
    bottoms: "list[Blob]" = field(default_factory=list)
    bottom_spans: list[Span] = field(default_factory=list)
    field_spans: dict[str, Span] = field(default_factory=dict)
    bang: Span | None = None
    shapes: "Asserted | None" = None
    in_net: bool = True  # not a layer of the deploy variant only
    in_deploy: bool = False  # marked @deploy
    columns: str = ""  # of an RDDData, as its source's query
    trail: tuple[str, ...] = ()  # the block uses that led here, as messages tell them
    uses: tuple[BlockUse, ...] = ()  # and as they are, the outermost first
    broken: bool = False  # an error was reported about it

    def place(self, *fields: str) -> Span | None:
        """The best span for a message about one of the fields, else the type's name, else the whole."""
        for name in fields:
            if name in self.field_spans:
                return self.field_spans[name]
        return self.type_span or self.span

    def bottom_place(self, index: int) -> Span | None:
        """The span of a bottom's name, where it was written."""
        return self.bottom_spans[index] if index < len(self.bottom_spans) else self.place()


@dataclass(frozen=True, eq=False)
class Blob:
    """A value in a flow: the blob's name and the layers that may have written what is meant (one for each phase).

    Without producers any version of the blob is meant, as in nets read from text format.
    """

    name: str
    producers: tuple[Layer, ...] = ()


# Stands for a value whose statement failed: what reads it is checked as far as possible and left out of the net.
GHOST = Blob("")


@dataclass(frozen=True, slots=True)
class Mention:
    """A name of a value in the text, where it is defined (`defined` is `span`, or that of another phase) or read.

    `name` is the whole name with what was interpolated. What stands in a block is mentioned once for each of its uses.
    """

    span: Span
    name: str
    blob: Blob
    defined: Span


@dataclass(frozen=True)
class Asserted:
    """`is` with its names resolved; None stands for `_`."""

    span: Span
    shapes: tuple[tuple[int | None, ...], ...]


@dataclass
class Network:
    """An expanded net: its own fields, its layers in order, and what flows assert of blobs."""

    message: caffe_pb2.NetParameter
    layers: list[Layer]
    span: Span | None
    node: ast.Net | None = None
    assertions: list[tuple[Blob, Span, tuple[int | None, ...]]] = field(default_factory=list)
    mentions: list[Mention] = field(default_factory=list)
    labels: dict[str, Blob] = field(default_factory=dict)  # what the net's own statements may read, at its end


def active(layer: caffe_pb2.LayerParameter, phase: str, level: int = 0, stages: tuple[str, ...] = ()) -> bool:
    """Whether Caffe keeps the layer for that state: any include rule met, or no exclude rule met."""
    if layer.include:
        return any(_meets(rule, phase, level, stages) for rule in layer.include)
    if not layer.exclude:
        return True
    return not any(_meets(rule, phase, level, stages) for rule in layer.exclude)


def _meets(rule: caffe_pb2.NetStateRule, phase: str, level: int, stages: tuple[str, ...]) -> bool:
    if rule.HasField("phase") and caffe_pb2.Phase.Name(rule.phase) != phase:
        return False
    if rule.HasField("min_level") and level < rule.min_level:
        return False
    if rule.HasField("max_level") and level > rule.max_level:
        return False
    return all(stage in stages for stage in rule.stage) and not any(stage in stages for stage in rule.not_stage)
