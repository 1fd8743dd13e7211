"""Nets to start from, and mutations of them, for tools/fuzz_engine.py."""

import math
import pathlib
import random
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import DecodeError, Message

from sparknet_dsl import caffe_ext, compile_file
from sparknet_dsl.proto import caffe_pb2

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = ("lenet", "digits", "adult", "siamese", "char_lstm", "cifar10_full")

INPUT = 'layer { name: "in" type: "Input" top: "x" top: "z" top: "n" input_param { SHAPES } }'
X, Y = "bottom: 'x'", "top: 'y'"
# Layers with their settings, and the shapes of x and, behind a ";", of z; n has a value for each row of x. Types that
# are not here start without settings.
LAYERS = [
    (f"type: 'Convolution' {X} {Y} convolution_param {{ num_output: 4 kernel_size: 3 pad: 1 group: 2 }}", "2 4 6 5"),
    (f"type: 'Convolution' {X} {Y} convolution_param {{ num_output: 20 kernel_size: 3 dilation: 2 }}", "2 16 7 7"),
    (f"type: 'Convolution' {X} {Y} convolution_param {{ num_output: 3 kernel_size: 2 stride: 2 }}", "2 2 4 4 5"),
    (f"type: 'Deconvolution' {X} {Y} convolution_param {{ num_output: 2 kernel_size: 3 stride: 2 }}", "2 4 3 3"),
    (f"type: 'Im2col' {X} {Y} convolution_param {{ kernel_size: 3 stride: 2 pad: 1 dilation: 1 }}", "2 3 5 5"),
    (f"type: 'Pooling' {X} {Y} pooling_param {{ kernel_size: 3 stride: 2 pad: 1 }}", "2 3 7 7"),
    (f"type: 'Pooling' {X} {Y} top: 'm' pooling_param {{ kernel_h: 2 kernel_w: 3 stride: 2 }}", "2 3 7 7"),
    (f"type: 'Pooling' {X} {Y} pooling_param {{ pool: AVE kernel_size: 3 stride: 2 pad: 1 }}", "2 16 7 6"),
    (f"type: 'Pooling' {X} {Y} pooling_param {{ pool: STOCHASTIC kernel_size: 3 stride: 3 }}", "2 3 7 6"),
    (f"type: 'SPP' {X} {Y} spp_param {{ pyramid_height: 2 }}", "2 3 7 7"),
    (f"type: 'LRN' {X} {Y} lrn_param {{ local_size: 3 alpha: 0.5 }}", "2 5 4 4"),
    (f"type: 'LRN' {X} {Y} lrn_param {{ local_size: 3 norm_region: WITHIN_CHANNEL }}", "2 5 4 4"),
    (f"type: 'InnerProduct' {X} {Y} inner_product_param {{ num_output: 3 axis: 1 }}", "4 3 2"),
    (f"type: 'Embed' bottom: 'n' {Y} embed_param {{ num_output: 3 input_dim: 4 }}", "4 2"),
    (f"type: 'LSTM' {X} bottom: 'z' {Y} recurrent_param {{ num_output: 3 }}", "3 2 4 ; 3 2"),
    (f"type: 'RNN' {X} bottom: 'z' {Y} recurrent_param {{ num_output: 3 expose_hidden: false }}", "3 2 4 ; 3 2"),
    (f"type: 'BatchNorm' {X} {Y} batch_norm_param {{ eps: 1e-3 moving_average_fraction: 0.9 }}", "3 4 2 2"),
    (f"type: 'Scale' {X} {Y} scale_param {{ axis: 1 num_axes: 1 bias_term: true }}", "3 4 2 2"),
    (f"type: 'Bias' {X} bottom: 'z' {Y} bias_param {{ axis: 1 }}", "3 4 2 2 ; 4"),
    (f"type: 'MVN' {X} {Y} mvn_param {{ eps: 1e-5 across_channels: true }}", "3 4 2 2"),
    (f"type: 'Eltwise' {X} bottom: 'z' {Y} eltwise_param {{ operation: SUM coeff: 1 coeff: -1 }}", "2 3 ; 2 3"),
    (f"type: 'Eltwise' {X} bottom: 'z' {Y} eltwise_param {{ operation: MAX }}", "2 3 ; 2 3"),
    (f"type: 'Concat' {X} bottom: 'z' {Y} concat_param {{ axis: 1 }}", "2 3 4 ; 2 1 4"),
    (f"type: 'Slice' {X} {Y} top: 'v' slice_param {{ axis: 1 slice_point: 1 }}", "2 3 4"),
    (f"type: 'Crop' {X} bottom: 'z' {Y} crop_param {{ axis: 1 offset: 1 }}", "2 3 4 ; 2 2 2"),
    (f"type: 'Reshape' {X} {Y} reshape_param {{ shape {{ dim: 0 dim: -1 dim: 2 }} axis: 0 num_axes: -1 }}", "2 3 4"),
    (f"type: 'Flatten' {X} {Y} flatten_param {{ axis: 1 end_axis: 2 }}", "2 3 4"),
    (f"type: 'Tile' {X} {Y} tile_param {{ axis: 1 tiles: 3 }}", "2 3 4"),
    (f"type: 'Reduction' {X} {Y} reduction_param {{ operation: SUMSQ axis: 1 coeff: 2 }}", "2 3 4"),
    (f"type: 'ArgMax' {X} {Y} argmax_param {{ top_k: 2 axis: 1 out_max_val: true }}", "2 3 4"),
    (f"type: 'BatchReindex' {X} bottom: 'n' {Y}", "4 3"),
    (f"type: 'Filter' {X} bottom: 'n' {Y}", "4 3"),
    (f"type: 'Softmax' {X} {Y} softmax_param {{ axis: 1 }}", "2 3 4"),
    (f"type: 'SoftmaxWithLoss' {X} bottom: 'n' {Y} loss_param {{ ignore_label: 1 }}", "4 3"),
    (f"type: 'InfogainLoss' {X} bottom: 'n' bottom: 'z' {Y} infogain_loss_param {{ axis: 1 }}", "4 3 ; 3 3"),
    (f"type: 'HingeLoss' {X} bottom: 'n' {Y} hinge_loss_param {{ norm: L2 }}", "4 3"),
    (f"type: 'MultinomialLogisticLoss' {X} bottom: 'n' {Y}", "4 3"),
    (f"type: 'SigmoidCrossEntropyLoss' {X} bottom: 'z' {Y} loss_param {{ normalization: VALID }}", "4 3 ; 4 3"),
    (f"type: 'EuclideanLoss' {X} bottom: 'z' {Y}", "4 3 ; 4 3"),
    (f"type: 'ContrastiveLoss' {X} bottom: 'z' bottom: 'n' {Y} contrastive_loss_param {{ margin: 1 }}", "4 3 ; 4 3"),
    (f"type: 'Accuracy' {X} bottom: 'n' {Y} top: 'each' accuracy_param {{ top_k: 1 axis: 1 }}", "4 3"),
    (f"type: 'Dropout' {X} {Y} dropout_param {{ dropout_ratio: 0.4 }}", "2 3 4"),
    (f"type: 'PReLU' {X} {Y} prelu_param {{ channel_shared: false }}", "2 3 4"),
    (f"type: 'DummyData' {Y} dummy_data_param {{ shape {{ dim: 2 dim: 3 }} data_filler {{ type: 'uniform' }} }}", "2"),
    (f"type: 'Parameter' {Y} parameter_param {{ shape {{ dim: 2 dim: 3 }} }}", "2"),
    (f"type: 'Power' {X} {Y} power_param {{ power: 2 scale: 0.5 shift: 1 }}", "2 3 4"),
    *((f"type: '{kind}' {X} {Y}", "2 3 4") for kind in ("ReLU", "Sigmoid", "TanH", "ELU", "AbsVal", "BNLL", "Exp")),
    *((f"type: '{kind}' {X} {Y}", "2 3 4") for kind in ("Log", "Swish", "Threshold", "Clip", "Split", "Silence")),
]

WHOLE = (
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    16,
    17,
    31,
    33,
    64,
    100,
    255,
    1000,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63 - 1,
)
REALS = (0.0, 1.0, -1.0, 0.5, 1e-30, -1e30, 3.4e38, math.nan, math.inf, -math.inf, 2.0, 1e-7)
WORDS = (
    "",
    "x",
    "y",
    "z",
    "in",
    "gaussian",
    "xavier",
    "msra",
    "bilinear",
    "uniform",
    "positive_unitball",
    "ReLU",
    "é" * 40,
    "a" * 3000,
)


def small_net(layer: str, shapes: str) -> caffe_pb2.NetParameter:
    """One of LAYERS below a small convolution's worth of inputs."""
    given = [shape.split() for shape in shapes.split(";")]
    given = [given[0], given[1] if len(given) > 1 else ["3"], given[0][:1]]
    text = " ".join(f"shape {{ {' '.join(f'dim: {extent}' for extent in shape)} }}" for shape in given)
    return text_format.Parse(
        f"force_backward: true {INPUT.replace('SHAPES', text)} layer {{ name: 'l' {layer} }}", caffe_pb2.NetParameter()
    )


def seeds(folder: pathlib.Path | None) -> list[caffe_pb2.NetParameter]:
    """Nets to start from: one for every layer type, some models with small batches, and what is in the folder."""
    nets = [small_net(*row) for row in LAYERS]
    for name in sorted(caffe_ext.layer_types().keys() - {net.layer[1].type for net in nets}):
        kind = caffe_ext.layer_types()[name]
        names = [f"bottom: '{bottom}'" for bottom in ("x", "z", "n")[: kind.min_bottoms]]
        names += [f"top: 'y{i}'" for i in range(max(kind.min_tops, 1))]
        nets.append(small_net(f"type: '{name}' {' '.join(names)}", "2 4 6 5 ; 2 4 6 5"))
    for name in MODELS:
        net = compile_file(ROOT / "models" / f"{name}.snet").net
        for layer in net.layer:
            for shape in layer.input_param.shape:
                shape.dim[0] = min(shape.dim[0], 2)
        nets.append(net)
    for path in sorted(folder.rglob("*.prototxt")) if folder is not None else []:
        try:
            nets.append(text_format.Parse(path.read_text(), caffe_pb2.NetParameter()))
        except text_format.ParseError:
            continue  # a solver, or what only Caffe's own parser takes
    return nets


# ---- mutations ----


def number(chance: random.Random) -> int:
    """Small numbers, and those at which 32 and 64 bits end."""
    if chance.random() < 0.5:
        return chance.randint(-2, 9)
    return chance.choice(WHOLE) * chance.choice((1, 1, 1, -1)) + chance.choice((0, 0, 0, 1, -1))


def value_for(field: Any, chance: random.Random) -> Any:
    """A value that the field can hold; what it means does not matter."""
    kind = field.cpp_type
    if kind == field.CPPTYPE_ENUM:
        return chance.choice(field.enum_type.values).number
    if kind == field.CPPTYPE_BOOL:
        return chance.random() < 0.5
    if kind == field.CPPTYPE_STRING:
        word = chance.choice(WORDS)
        return word.encode() if field.type == field.TYPE_BYTES else word
    if kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return chance.choice(REALS) if chance.random() < 0.6 else chance.uniform(-3, 3)
    low, high = {
        field.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
        field.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
        field.CPPTYPE_UINT32: (0, 2**32 - 1),
        field.CPPTYPE_UINT64: (0, 2**64 - 1),
    }[kind]
    return min(max(number(chance), low), high)


def mutate_field(message: Message, chance: random.Random) -> None:
    """Sets, adds, doubles or clears one field of the message, or goes one message deeper."""
    written = [field for field, _ in message.ListFields() if field.name != "blobs"]
    any_field = [field for field in message.DESCRIPTOR.fields if field.number < 1000 and field.name != "blobs"]
    field = chance.choice(written) if written and chance.random() < 0.8 else chance.choice(any_field)
    if field.message_type is not None:
        if field.is_repeated:
            items = getattr(message, field.name)
            if not items or chance.random() < 0.1:
                items.add()
            mutate_field(chance.choice(items), chance)
        else:
            inner = getattr(message, field.name)
            inner.SetInParent()
            mutate_field(inner, chance)
        return
    if chance.random() < 0.1:
        message.ClearField(field.name)
    elif field.is_repeated:
        items = getattr(message, field.name)
        choice = chance.randrange(4)
        if choice == 0 or not items:
            items.extend([value_for(field, chance)] * chance.choice((1, 1, 2, 5)))
        elif choice == 1:
            del items[chance.randrange(len(items))]
        else:
            items[chance.randrange(len(items))] = value_for(field, chance)
    else:
        setattr(message, field.name, value_for(field, chance))


def mutate_layer(net: caffe_pb2.NetParameter, chance: random.Random) -> None:
    """Changes one layer's settings, bottoms, tops, parameters or type."""
    layer = chance.choice(net.layer)
    types = caffe_ext.layer_types()
    tops = [top for each in net.layer for top in each.top]
    kind = chance.randrange(10)
    if kind < 5:
        known = types.get(layer.type)
        if known is not None and known.messages:
            settings = getattr(layer, chance.choice(known.messages))
            settings.SetInParent()
            mutate_field(settings, chance)
        else:
            mutate_field(layer, chance)
    elif kind == 5 and tops:
        items = chance.choice((layer.bottom, layer.bottom, layer.top))
        if items and chance.random() < 0.6:
            items[chance.randrange(len(items))] = chance.choice(tops)
        else:
            items.append(chance.choice([*tops, "new"]))
    elif kind == 6:
        layer.loss_weight.append(chance.choice((0.0, 1.0, -2.0, math.nan, 1e38)))
        if chance.random() < 0.5:
            layer.propagate_down.append(chance.random() < 0.5)
    elif kind == 7:
        for _ in range(chance.randint(1, 3)):
            layer.param.add(name=chance.choice(("", "w", "w", "v")), lr_mult=chance.choice((0.0, 1.0, math.nan)))
    elif kind == 8:
        layer.type = chance.choice(list(types))
    else:
        mutate_field(layer, chance)


def mutated(start: caffe_pb2.NetParameter, chance: random.Random) -> caffe_pb2.NetParameter:
    """The net with some of its layers and settings changed."""
    net = caffe_pb2.NetParameter()
    net.CopyFrom(start)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3, 5, 8))):
        kind = chance.randrange(12)
        if not net.layer or kind == 0:
            extra = chance.choice(LAYERS)
            net.layer.add().CopyFrom(small_net(*extra).layer[1])
            net.layer[-1].name = f"extra{len(net.layer)}"
            net.layer[-1].top[:] = [f"{top}{len(net.layer)}" for top in net.layer[-1].top]
        elif kind == 1:
            del net.layer[chance.randrange(len(net.layer))]
        elif kind == 2:
            copy = caffe_pb2.LayerParameter()
            copy.CopyFrom(chance.choice(net.layer))
            copy.name += "_again"
            copy.top[:] = [f"{top}_again" for top in copy.top]
            net.layer.add().CopyFrom(copy)
        elif kind == 3:
            mutate_field(net, chance)
        elif kind == 4:
            shapes = [shape for layer in net.layer for shape in layer.input_param.shape]
            if shapes:
                mutate_field(chance.choice(shapes), chance)
        else:
            mutate_layer(net, chance)
    if chance.random() < 0.03:
        raw = bytearray(net.SerializePartialToString())
        damage(raw, chance)
        try:
            return caffe_pb2.NetParameter.FromString(bytes(raw))
        except DecodeError:
            return net
    return net


def damage(raw: bytearray, chance: random.Random) -> None:
    """Flips, cuts out, doubles or cuts off some bytes."""
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        if not raw:
            return
        at, length = chance.randrange(len(raw)), chance.choice((1, 2, 8, 100))
        kind = chance.randrange(5)
        if kind < 2:
            raw[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            raw[at : at + length] = b""
        elif kind == 3:
            raw[at:at] = raw[at : at + length] if chance.random() < 0.7 else b"\xff" * length
        else:
            del raw[at:]
