"""The reference of layer types: from the engine's registry, the messages' descriptors and the comments beside them."""

from __future__ import annotations

import functools
import pathlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from . import schema, terminal
from .proto import caffe_pb2, sparknet_pb2

if TYPE_CHECKING:
    from .schema import LayerType

_PROTO = pathlib.Path(__file__).parent / "proto"
_IMAGE = "data: Input([2, 8, 12, 12])"
_SCORES = "data: Input([4, 10])\n  label: Input([4])"
_PRIORS = "image: Input([2, 3, 96, 96])\n  map: Input([2, 8, 12, 12])\n  map, image -> boxes: PriorBox(30, 60, 2)"
_SEQUENCE = (
    "data: Input([5, 2, 8])        # time steps, streams, numbers\n  cont: Input([5, 2])           # 0 where one begins"
)

# Examples of types that need more than a bottom or two of the usual shape: the statements of a net.
EXAMPLES: dict[str, str] = {
    "Accuracy": f"{_SCORES}\n  data, label -> top1: Accuracy\n  data, label -> top5: Accuracy(5)",
    "ArgMax": "data: Input([4, 10])\n  data -> best: ArgMax(top_k=3, axis=1)",
    "Axpy": "factor: Input([2, 8])\n  branch: Input([2, 8, 12, 12])\n  shortcut: Input([2, 8, 12, 12])\n"
    "  factor, branch, shortcut -> sum: Axpy",
    "BatchNorm": f"{_IMAGE}\n  data -> bn: BatchNorm -> scale: Scale(bias_term=true)! -> relu: ReLU!",
    "BatchReindex": "data: Input([4, 10])\n  which: Input([6])\n  data, which -> y: BatchReindex",
    "Bias": f"{_IMAGE}\n  data -> y: Bias(filler=constant(1))",
    "BN": f"{_IMAGE}\n  data -> pspnet: BN(slope_filler=constant(1), bias_filler=constant(0), momentum=0.95)\n"
    "  data -> segnet: BN(scale_filler=constant(1), shift_filler=constant(0.001))",
    "BoxAnnotatorOHEM": "regions: Input([300, 5])\n  loss: Input([300])\n  label: Input([300])\n"
    "  weights: Input([300, 8])\n"
    "  regions, loss, label, weights -> hard_label, hard_weights: BoxAnnotatorOHEM(128)",
    "Clip": f"{_IMAGE}\n  data -> y: Clip(0, 6)",
    "Concat": "a: Input([2, 8, 12, 12])\n  b: Input([2, 4, 12, 12])\n  a, b -> both: Concat",
    "ContrastiveLoss": "a: Input([4, 2])\n  b: Input([4, 2])\n  alike: Input([4])\n"
    "  a, b, alike -> loss: ContrastiveLoss(margin=1)",
    "Convolution": f"{_IMAGE}\n  data -> conv: Convolution(16, 3, pad=1, weight_filler=msra, lr_mult=[1, 2])\n"
    "       -> depthwise: Convolution(16, 3, stride=2, group=16, bias_term=false)",
    "ConvolutionDepthwise": f"{_IMAGE}\n  data -> y: ConvolutionDepthwise(3, pad=1, weight_filler=msra)",
    "Crop": "data: Input([2, 8, 12, 12])\n  like: Input([2, 3, 6, 6])\n  data, like -> y: Crop(axis=2, offset=3)",
    "Data": 'data, label: Data("path/of/lmdb", batch_size=64, backend=LMDB, crop_size=24) is [_, 3, 24, 24]',
    "Deconvolution": f"{_IMAGE}\n  # Twice the size, by bilinear interpolation that is not learned.\n"
    "  data -> up: Deconvolution(8, 4, stride=2, pad=1, group=8, bias_term=false, weight_filler=bilinear, lr_mult=[0])",
    "DepthwiseConvolution": f"{_IMAGE}\n  data -> y: DepthwiseConvolution(8, 3, group=8, pad=1, weight_filler=msra)",
    "DetectionOutput": f"{_PRIORS}\n  offsets: Input([2, 2304])       # 4 for each of 576 boxes\n"
    "  scores: Input([2, 12096])      # 21 for each\n"
    "  offsets, scores, boxes -> found: DetectionOutput(21, code_type=CENTER_SIZE, keep_top_k=200) @test",
    "Dropout": f"{_IMAGE}\n  data -> y: Dropout(0.4)",
    "DummyData": "data: DummyData([2, 8, 12, 12], data_filler=gaussian(1))",
    "Eltwise": "a: Input([2, 8])\n  b: Input([2, 8])\n  a, b -> sum: Eltwise\n  a, b -> most: Eltwise(MAX)\n"
    "  a, b -> difference: Eltwise(SUM, coeff=[1, -1])",
    "Embed": "words: Input([4, 7])\n  words -> vectors: Embed(16, input_dim=1000, weight_filler=gaussian(1))",
    "Filter": "data: Input([4, 10])\n  chosen: Input([4, 1])\n  data, chosen -> y: Filter",
    "Flatten": f"{_IMAGE}\n  data -> rows: Flatten\n  data -> planes: Flatten(2, 3)",
    "HDF5Data": 'data, label: HDF5Data("list.txt", batch_size=64) is [_, 8], [_]',
    "HDF5Output": f'{_SCORES}\n  data, label -> HDF5Output(file_name="rows.h5")',
    "HingeLoss": f"{_SCORES}\n  data, label -> loss: HingeLoss(L2)",
    "Im2col": f"{_IMAGE}\n  data -> columns: Im2col(kernel_size=3, pad=1)",
    "ImageData": 'data, label: ImageData("list.txt", batch_size=16, new_height=24, new_width=24) is [_, 3, 24, 24]',
    "InfogainLoss": "prob: Input([4, 2])\n  label: Input([4])\n  gains: Input([1, 1, 2, 2])\n"
    "  prob, label, gains -> loss: InfogainLoss",
    "InnerProduct": f"{_IMAGE}\n  data -> ip1: InnerProduct(32, weight_filler=xavier, bias_filler=constant)\n"
    "       -> relu: ReLU! -> ip2: InnerProduct(10)",
    "Input": "data: Input([64, 3, 32, 32])\n  a, b: Input([[64, 10], [64]])",
    "Interp": f"{_IMAGE}\n  data -> larger: Interp(24, 24)\n  data -> smaller: Interp(shrink_factor=2)",
    "LRN": f"{_IMAGE}\n  data -> y: LRN(5, 0.0001, 0.75)",
    "LSTM": f"{_SEQUENCE}\n  data, cont -> h: LSTM(16, weight_filler=uniform(-0.1, 0.1), bias_filler=constant)",
    "LSTMUnit": "before: Input([1, 4, 16])\n  sums: Input([1, 4, 64])\n  cont: Input([1, 4])\n"
    "  before, sums, cont -> c, h: LSTMUnit",
    "MemoryData": "data, label: MemoryData(batch_size=64, channels=3, height=32, width=32)",
    "MultiBoxLoss": f"{_PRIORS}\n  offsets: Input([2, 2304])       # 4 for each of 576 boxes\n"
    "  scores: Input([2, 12096])      # 21 for each\n"
    "  truth: Input([1, 1, 5, 8])     # image, class, -, xmin, ymin, xmax, ymax, difficult\n"
    "  offsets, scores, boxes, truth -> loss: MultiBoxLoss(21, code_type=CENTER_SIZE)",
    "MultinomialLogisticLoss": f"{_SCORES}\n  data -> prob: Softmax\n  prob, label -> loss: MultinomialLogisticLoss",
    "Normalize": f"{_IMAGE}\n  data -> y: Normalize(across_spatial=false, scale_filler=constant(20))",
    "Parameter": "table: Parameter([10, 8])",
    "Permute": f"{_IMAGE}\n  data -> y: Permute([0, 2, 3, 1])     # channels last",
    "Pooling": f"{_IMAGE}\n  data -> most: Pooling(MAX, 3, 2) -> mean: Pooling(AVE, global_pooling=true)",
    "Power": f"{_IMAGE}\n  data -> y: Power(2, 0.5, 1)     # (1 + 0.5 x)²",
    "PriorBox": "image: Input([2, 3, 96, 96])\n  map: Input([2, 8, 12, 12])\n"
    "  map, image -> boxes: PriorBox(30, 60, 2, variance=[0.1, 0.1, 0.2, 0.2])",
    "PSROIPooling": "maps: Input([1, 189, 14, 14])\n  regions: Input([300, 5])\n"
    "  maps, regions -> y: PSROIPooling(21, 3, 0.0625)",
    "RDDData": 'data, label: RDDData([[32, 1, 28, 28], [32]], source="mnist:DIR", scale=1/256)',
    "Reduction": f"{_IMAGE}\n  data -> norms: Reduction(SUMSQ, axis=1)",
    "Reshape": f"{_IMAGE}\n  data -> y: Reshape([0, 2, 4, -1])     # 0: as it is, -1: what is left",
    "RNN": f"{_SEQUENCE}\n  data, cont -> h: RNN(16, weight_filler=uniform(-0.1, 0.1), bias_filler=constant)",
    "ROIPooling": "maps: Input([1, 8, 14, 14])\n  regions: Input([300, 5])     # image, x1, y1, x2, y2\n"
    "  maps, regions -> y: ROIPooling(7, 7, 0.0625)",
    "Scale": f"{_IMAGE}\n  factor: Input([2, 8])\n  data -> learned: Scale(bias_term=true)\n"
    "  data, factor -> given: Scale(axis=0)",
    "SegAccuracy": "scores: Input([2, 21, 12, 12])\n  label: Input([2, 1, 12, 12])\n"
    "  scores, label -> accuracy: SegAccuracy(ignore_label=255) @test",
    "ShuffleChannel": f"{_IMAGE}\n  data -> y: ShuffleChannel(4)",
    "SigmoidCrossEntropyLoss": "scores: Input([4, 10])\n  targets: Input([4, 10])\n"
    "  scores, targets -> loss: SigmoidCrossEntropyLoss",
    "Python": (
        f"{_IMAGE}\n"
        "  # Python code decides on the shape: it is known once the net runs.\n"
        '  data -> y: Python("my_layers", "Gain", "1.5")'
    ),
    "Silence": f"{_IMAGE}\n  data -> Silence",
    "Slice": f"{_IMAGE}\n  data -> a, b: Slice(axis=1, slice_point=3)",
    "SmoothL1Loss": "offsets: Input([4, 8])\n  targets: Input([4, 8])\n  offsets, targets -> loss: SmoothL1Loss(3)",
    "SmoothL1LossOHEM": "offsets: Input([4, 8])\n  targets: Input([4, 8])\n"
    "  offsets, targets -> loss, each: SmoothL1LossOHEM(loss_weight=[1, 0])",
    "Softmax": "data: Input([4, 10])\n  data -> prob: Softmax",
    "SoftmaxWithLoss": f"{_SCORES}\n  data, label -> loss: SoftmaxWithLoss(ignore_label=255, loss_weight=0.3)",
    "SoftmaxWithLossOHEM": f"{_SCORES}\n"
    "  data, label -> loss, prob, each: SoftmaxWithLossOHEM(ignore_label=-1, loss_weight=[1, 0, 0])",
    "Split": f"{_IMAGE}\n  data -> a, b: Split     # rarely written: two readers of one value do the same",
    "SPP": f"{_IMAGE}\n  data -> y: SPP(3, MAX)",
    "Tile": f"{_IMAGE}\n  data -> y: Tile(axis=1, tiles=2)",
    "Upsample": f"{_IMAGE}\n  data -> most, where: Pooling(MAX, 2, 2)\n"
    "  most, where -> back: Upsample     # to where it came from\n"
    "  data -> larger: Upsample(2)       # each value 2 × 2 times",
    "WindowData": 'data, label: WindowData("windows.txt", batch_size=16, crop_size=24) is [_, 3, 24, 24]',
}

# What the fields of Caffe's messages mean, where the name alone does not say it and the .proto file does not either.
MEANINGS: dict[str, str] = {
    "ConvolutionParameter.num_output": "filters, and so the top's channels",
    "ConvolutionParameter.kernel_size": "height and width; one number for both, or one for each axis",
    "ConvolutionParameter.pad": "zeros around the bottom, at each side",
    "ConvolutionParameter.stride": "step between windows; 1 unless given",
    "ConvolutionParameter.dilation": "distance of neighbouring elements of the kernel; 1 unless given",
    "ConvolutionParameter.group": "groups of channels that see only themselves; num_output for depthwise",
    "ConvolutionParameter.bias_term": "whether to add a learned number to each channel",
    "ConvolutionParameter.axis": "the axis of the channels; those behind it are the plane",
    "ConvolutionParameter.engine": "read and ignored",
    "ConvolutionParameter.force_nd_im2col": "read and ignored",
    "PoolingParameter.pool": "what a window becomes",
    "PoolingParameter.kernel_size": "height and width of the window",
    "PoolingParameter.stride": "step between windows; the last may stand out (sizes round up)",
    "PoolingParameter.global_pooling": "one window: the whole plane",
    "PoolingParameter.engine": "read and ignored",
    "InnerProductParameter.num_output": "numbers in each row of the top",
    "InnerProductParameter.axis": "this axis and those behind it are a row",
    "InnerProductParameter.transpose": "whether the weights lie as inputs × outputs",
    "DropoutParameter.dropout_ratio": "the share that becomes 0",
    "LRNParameter.local_size": "neighbours in the sum, an odd number",
    "LRNParameter.alpha": "weight of the sum of squares",
    "LRNParameter.beta": "power of the divisor",
    "LRNParameter.k": "what the divisor begins with",
    "LRNParameter.norm_region": "neighbours in other channels, or around in the same",
    "ReLUParameter.negative_slope": "slope below 0",
    "EltwiseParameter.coeff": "a factor for each bottom of a SUM; 1 unless given",
    "ConcatParameter.axis": "the axis that grows",
    "ConcatParameter.concat_dim": "the old name of axis",
    "SliceParameter.slice_point": "where the second, third, ... top begins; equal parts unless given",
    "SliceParameter.slice_dim": "the old name of axis",
    "BatchNormParameter.use_global_stats": "normalise by the running statistics; unless given: in TEST",
    "BatchNormParameter.moving_average_fraction": "how slowly the running statistics follow",
    "BatchNormParameter.eps": "added to the variance",
    "ScaleParameter.bias_term": "whether to add a learned number too",
    "ScaleParameter.axis": "the first axis that the factors run along",
    "ScaleParameter.num_axes": "along how many axes; -1: all from there, 0: one factor for all",
    "AccuracyParameter.top_k": "right if the label is among the k highest scores",
    "AccuracyParameter.ignore_label": "rows of this label do not count",
    "LossParameter.ignore_label": "elements of this label do not count",
    "LossParameter.normalization": "what the sum is divided by",
    "LossParameter.normalize": "the old form of normalization",
    "SoftmaxParameter.axis": "the axis of the scores",
    "TransformationParameter.scale": "factor of every value, after the mean is taken off",
    "TransformationParameter.mirror": "mirror half of the images, drawn at random, while training",
    "TransformationParameter.crop_size": "a square, drawn at random while training, the middle in TEST",
    "TransformationParameter.mean_file": "a mean image to take off",
    "TransformationParameter.mean_value": "numbers to take off, one for all channels or one for each",
    "TransformationParameter.random_rotation": "turned by an angle drawn at random (docs/augmentation.md)",
    "TransformationParameter.random_resized_crop": "a part drawn at random, scaled to crop_size (docs/augmentation.md)",
    "TransformationParameter.color_jitter": "colours changed at random (docs/augmentation.md)",
    "TransformationParameter.cutout": "squares of zeros (docs/augmentation.md)",
    "TransformationParameter.mixup": "each row a mean of itself and another (docs/augmentation.md)",
    "RecurrentParameter.num_output": "numbers in the state",
    "EmbedParameter.num_output": "numbers in a vector",
    "EmbedParameter.input_dim": "vectors in the table: indices run from 0 up to it",
    "ContrastiveLossParameter.margin": "distance beyond which an unlike pair costs nothing",
    "ContrastiveLossParameter.legacy_version": "the formula of an older Caffe",
    "InputParameter.shape": "one for each top, or one for all",
    "ReshapeParameter.shape": "0: as the bottom, -1: what is left",
    "DataParameter.source": "path of the database; of an RDDData, URI of the data",
}


@dataclass(frozen=True)
class FieldDoc:
    """A field: its name, type as one writes it, default (empty: none) and meaning (empty: its name says it)."""

    name: str
    type: str
    default: str
    meaning: str


@dataclass(frozen=True)
class TypeDoc:
    """All about a layer type. `shapes` are those of the example's blobs."""

    name: str
    summary: str
    facts: tuple[str, ...]
    fields: tuple[tuple[str, tuple[FieldDoc, ...]], ...]
    example: str
    shapes: tuple[tuple[str, str], ...]


def type_doc(name: str) -> TypeDoc:
    """Raises KeyError for a type that the engine does not have; compiles the example."""
    from .compile import compile_text
    from .table import dims

    info = schema.layer_types()[name]
    fields = []
    for message in info.messages:
        descriptor = schema.message_of(message)
        fields.append((message, tuple(field_docs(descriptor, info.positional))))
    example = f"net example {{\n  {example_of(info)}\n}}\n"
    report = compile_text(example, f"example of {name}").reports["TRAIN"]
    shapes = tuple((blob, dims(shape)) for blob, shape in report.blobs.items())
    return TypeDoc(name, info.summary, tuple(_facts(info)), tuple(fields), example, shapes)


def example_of(info: LayerType) -> str:
    """The statements of a net that uses the type."""
    if info.name in EXAMPLES:
        return EXAMPLES[info.name]
    shape = "[4, 10]" if info.loss else "[2, 8, 12, 12]"
    bottoms = "abcdefgh"[: info.min_bottoms] if info.min_bottoms > 1 else ["data"]
    sources = [f"{bottom}: Input({shape})" for bottom in bottoms]
    label = "loss" if info.loss else "y"
    return "\n  ".join([*sources, f"{', '.join(bottoms)} -> {label}: {info.name}"])


def _facts(info: LayerType) -> Iterator[str]:
    bottoms = _range(info.min_bottoms, info.max_bottoms, "bottom")
    yield bottoms + (f" ({', '.join(info.bottom_names)})" if info.bottom_names else "")
    yield "as many tops as bottoms" if info.same_tops else _range(info.min_tops, info.max_tops, "top")
    if info.positional:
        yield f"by position: {', '.join(info.positional)}"
    if info.max_params is None:
        yield "parameters: as many as it declares"
    elif info.max_params:
        yield f"parameters: {'up to ' if info.max_params > 1 else ''}{info.max_params}"
    if info.in_place:
        yield "may work in place, `!`"
    if info.loss:
        yield "a loss: it counts in the objective unless loss_weight says otherwise"


def _range(least: int, most: int | None, noun: str) -> str:
    if least == most:
        return f"{least or 'no'} {noun}{'s' * (least != 1)}"
    return f"{least} or more {noun}s" if most is None else f"{least} to {most} {noun}s"


def field_docs(descriptor: Descriptor, first: Iterable[str] = ()) -> list[FieldDoc]:
    """The fields of a message, those in `first` first."""
    order = {name: index for index, name in enumerate(first)}
    fields = sorted(descriptor.fields, key=lambda field: order.get(field.name, len(order)))
    return [
        FieldDoc(field.name, _type(field), _default(field), meaning(descriptor, field))
        for field in fields
        if field.name != "unknown_field"
    ]


def meaning(descriptor: Descriptor, field: FieldDescriptor) -> str:
    """What a field means: from the table above, else from the comment beside it."""
    name = f"{descriptor.name}.{field.name}"
    return MEANINGS.get(name) or _comments().get(name, "")


_SCALARS = {
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_FLOAT: "number",
    FieldDescriptor.CPPTYPE_DOUBLE: "number",
    FieldDescriptor.CPPTYPE_STRING: "string",
    FieldDescriptor.CPPTYPE_INT32: "whole number",
    FieldDescriptor.CPPTYPE_INT64: "whole number",
    FieldDescriptor.CPPTYPE_UINT32: "whole number ≥ 0",
    FieldDescriptor.CPPTYPE_UINT64: "whole number ≥ 0",
}


def _type(field: FieldDescriptor) -> str:
    if field.message_type is schema.FILLER:
        one = "filler"
    elif field.message_type is schema.SHAPE:
        one = "shape"
    elif field.message_type is not None:
        one = field.message_type.name
    elif field.enum_type is not None:
        one = ", ".join(schema.enum_names(field))
    else:
        one = _SCALARS[field.cpp_type]
    return f"list of {one}" if field.is_repeated else one


def _default(field: FieldDescriptor) -> str:
    if not field.has_default_value:
        return ""
    value = field.default_value
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[value].name)
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


@functools.cache
def _comments() -> dict[str, str]:
    """The comments above the fields in the .proto files, by Message.field."""
    found: dict[str, str] = {}
    for path in (_PROTO / "caffe.proto", _PROTO / "sparknet.proto"):
        owner, said = "", []
        for line in path.read_text(encoding="utf-8").splitlines():
            comment = re.match(r"\s*// ?(.*)", line)
            message = re.match(r"message (\w+)", line)
            field = re.match(r"\s+(?:optional|repeated|required) [\w.]+ (\w+) = ", line)
            if comment:
                said.append(comment[1])
                continue
            if message:
                owner = message[1]
            elif field and said:
                found[f"{owner}.{field[1]}"] = " ".join(said)
            said = []
    return found


def markdown() -> str:
    """The whole reference, docs/reference.md."""
    types = schema.layer_types()
    lines = [
        "# Reference",
        "",
        "Written by `python tools/make_reference.py` from the engine's registry and the messages;",
        "`sparknet-compile --doc TYPE` prints one type. How the language works is told in [language.md](language.md).",
        "",
        "Layer types: " + ", ".join(f"[{name}](#{name.lower()})" for name in types) + ".",
        "",
        "## Fields of every layer",
        "",
        "`lr_mult`, `decay_mult`, `param_name` and `share_mode` are lists, an entry for each parameter of the layer.",
        "",
        *_table([doc for doc in field_docs(schema.LAYER) if not doc.name.endswith("_param")]),
        "## Fillers",
        "",
        "| filler | by position |",
        "|---|---|",
        *(f"| `{name}` | {', '.join(args)} |" for name, args in schema.FILLER_POSITIONAL.items()),
        "",
        *_table(field_docs(schema.FILLER)),
        "## The solver",
        "",
        *_table(field_docs(cast(Descriptor, caffe_pb2.SolverParameter.DESCRIPTOR))),
        "## Spark",
        "",
        *_table(field_docs(cast(Descriptor, sparknet_pb2.SparkParameter.DESCRIPTOR))),
        "# Layer types",
        "",
    ]
    for name in types:
        lines += _markdown_of(type_doc(name))
    return "\n".join(lines).rstrip() + "\n"


def _markdown_of(doc: TypeDoc) -> list[str]:
    lines = [f"## {doc.name}", "", f"{_sentence(doc.summary)}", "", *(f"- {fact}" for fact in doc.facts), ""]
    for message, fields in doc.fields:
        lines += [f"`{message}`:", "", *_table(fields)]
    lines += ["```snet", doc.example.rstrip(), "```", ""]
    return [*lines, "Shapes: " + ", ".join(f"`{blob}` {shape}" for blob, shape in doc.shapes) + ".", ""]


def _table(fields: Iterable[FieldDoc]) -> list[str]:
    rows = [f"| `{doc.name}` | {doc.type} | {doc.default} | {_cell(doc.meaning)} |" for doc in fields]
    return ["| field | value | default | |", "|---|---|---|---|", *rows, ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def print_doc(name: str) -> None:
    """Prints one type to standard output; raises KeyError as type_doc does."""
    from rich.table import Table
    from rich.text import Text

    doc = type_doc(name)
    console = terminal.console(width=120)
    console.print(Text.assemble((doc.name, "bold"), f": {doc.summary}"))
    for fact in doc.facts:
        console.print(Text(f"  {fact}"))
    for message, fields in doc.fields:
        table = Table(box=None, pad_edge=False, header_style="bold", title=Text(message), title_justify="left")
        for heading in ("field", "value", "default", ""):
            table.add_column(heading, overflow="fold")
        for field in fields:
            table.add_row(*(Text(cell) for cell in (field.name, field.type, field.default, field.meaning)))
        console.print()
        console.print(table)
    console.print()
    console.print(Text(doc.example.rstrip()))
    console.print(Text("# " + ", ".join(f"{blob} {shape}" for blob, shape in doc.shapes)))
