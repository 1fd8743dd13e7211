"""Brings networks and solvers in older syntax up to date, as Caffe does when it reads them.

V0 is the syntax of 2013 (`layers { layer { type: "conv" } }`), V1 that of 2014 (`layers { type: CONVOLUTION }`), V2
today's (`layer { type: "Convolution" }`).
"""

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from . import caffe_pb2, text

_V1 = caffe_pb2.V1LayerParameter
_CONV, _FC, _POOL, _LRN = "convolution_param", "inner_product_param", "pooling_param", "lrn_param"
_DATA, _HDF5, _IMAGES, _WINDOWS = "data_param", "hdf5_data_param", "image_data_param", "window_data_param"

# Names of layer types in V0, and in V1 where they are not simply in capitals.
_V0_TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}

# Where V0's fields went: by layer type, the message and the name there; "" stands for any type.
_V0_FIELDS: dict[str, dict[str, tuple[str, str]]] = {
    "num_output": {"conv": (_CONV, "num_output"), "innerproduct": (_FC, "num_output")},
    "biasterm": {"conv": (_CONV, "bias_term"), "innerproduct": (_FC, "bias_term")},
    "weight_filler": {"conv": (_CONV, "weight_filler"), "innerproduct": (_FC, "weight_filler")},
    "bias_filler": {"conv": (_CONV, "bias_filler"), "innerproduct": (_FC, "bias_filler")},
    "pad": {"conv": (_CONV, "pad"), "pool": (_POOL, "pad")},
    "kernelsize": {"conv": (_CONV, "kernel_size"), "pool": (_POOL, "kernel_size")},
    "group": {"conv": (_CONV, "group")},
    "stride": {"conv": (_CONV, "stride"), "pool": (_POOL, "stride")},
    "pool": {"pool": (_POOL, "pool")},
    "dropout_ratio": {"dropout": ("dropout_param", "dropout_ratio")},
    "local_size": {"lrn": (_LRN, "local_size")},
    "alpha": {"lrn": (_LRN, "alpha")},
    "beta": {"lrn": (_LRN, "beta")},
    "k": {"lrn": (_LRN, "k")},
    "source": {
        "data": (_DATA, "source"),
        "hdf5_data": (_HDF5, "source"),
        "images": (_IMAGES, "source"),
        "window_data": (_WINDOWS, "source"),
        "infogain_loss": ("infogain_loss_param", "source"),
    },
    "scale": {"": ("transform_param", "scale")},
    "meanfile": {"": ("transform_param", "mean_file")},
    "cropsize": {"": ("transform_param", "crop_size")},
    "mirror": {"": ("transform_param", "mirror")},
    "batchsize": {
        "data": (_DATA, "batch_size"),
        "hdf5_data": (_HDF5, "batch_size"),
        "images": (_IMAGES, "batch_size"),
        "window_data": (_WINDOWS, "batch_size"),
    },
    "rand_skip": {"data": (_DATA, "rand_skip"), "images": (_IMAGES, "rand_skip")},
    "shuffle_images": {"images": (_IMAGES, "shuffle")},
    "new_height": {"images": (_IMAGES, "new_height")},
    "new_width": {"images": (_IMAGES, "new_width")},
    "concat_dim": {"concat": ("concat_param", "concat_dim")},
    "det_fg_threshold": {"window_data": (_WINDOWS, "fg_threshold")},
    "det_bg_threshold": {"window_data": (_WINDOWS, "bg_threshold")},
    "det_fg_fraction": {"window_data": (_WINDOWS, "fg_fraction")},
    "det_context_pad": {"window_data": (_WINDOWS, "context_pad")},
    "det_crop_mode": {"window_data": (_WINDOWS, "crop_mode")},
}

# V1's layer types whose name today is not the words of the old one (INNER_PRODUCT, InnerProduct).
_V1_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BN": "BN",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "LRN": "LRN",
    "MVN": "MVN",
    "PRELU": "PReLU",
    "PSROI_POOLING": "PSROIPooling",
    "RELU": "ReLU",
    "ROI_POOLING": "ROIPooling",
    "SMOOTH_L1_LOSS": "SmoothL1Loss",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}

_SOLVER_TYPES = {"NESTEROV": "Nesterov", "ADAGRAD": "AdaGrad", "RMSPROP": "RMSProp", "ADADELTA": "AdaDelta"}

# V1's data layers keep copies of these in their own message.
_TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")


def upgrade_net(net: caffe_pb2.NetParameter) -> None:
    """Turns a net in any syntax into today's, in place; what is up to date stays as it is.

    Layers become V2 layers; V0's padding layers become the `pad` of what reads them; `scale`, `mean_file`, `crop_size`
    and `mirror` of V1's data layers move to `transform_param`; `input:` with its shapes becomes one Input layer named
    "input"; a BatchNorm's three explicit `param` get lr_mult and decay_mult 0.

    Raises ValueError for what has no counterpart, or fits nothing, and for names that are no text.
    """
    _refuse_bytes(net)
    if net.layers:
        if net.layer:
            raise ValueError("`layers` (old syntax) and `layer` do not go together: Caffe would ignore the latter")
        if any(layer.HasField("layer") for layer in net.layers):
            _upgrade_v0(net)
        for old in net.layers:
            _upgrade_v1(old, net.layer.add())
        net.ClearField("layers")
    if net.input:
        _upgrade_input(net)
    for layer in net.layer:
        if layer.type == "BatchNorm" and len(layer.param) == 3:
            for spec in layer.param:
                spec.lr_mult = spec.decay_mult = 0


def _refuse_bytes(message: Message) -> None:
    """Raises ValueError where protobuf gives a string's bytes, since they are not in UTF-8."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for item in value if field.is_repeated else [value]:
                _refuse_bytes(item)
        elif field.type == FieldDescriptor.TYPE_STRING:
            for item in value if field.is_repeated else [value]:
                if isinstance(item, bytes):
                    raise ValueError(f"{message.DESCRIPTOR.name}.{field.name} is no text in UTF-8: {item[:40]!r}")


def upgrade_solver(solver: caffe_pb2.SolverParameter) -> None:
    """Turns the deprecated enum `solver_type` into `type`, and the nets inside into today's syntax, in place.

    Raises ValueError when both are given, for a net that cannot be upgraded, and for names that are no text.
    """
    _refuse_bytes(solver)
    if solver.HasField("solver_type"):
        if solver.HasField("type"):
            raise ValueError("solver_type and type exclude each other")
        name = caffe_pb2.SolverParameter.SolverType.Name(solver.solver_type)
        solver.type = _SOLVER_TYPES.get(name, name if name == "SGD" else name.capitalize())
        solver.ClearField("solver_type")
    for field in ("net_param", "train_net_param"):
        if solver.HasField(field):
            upgrade_net(getattr(solver, field))
    for net in solver.test_net_param:
        upgrade_net(net)


def _upgrade_v0(net: caffe_pb2.NetParameter) -> None:
    """V0's layers to V1's, in place."""
    _fold_padding(net)
    for layer in net.layers:
        if not layer.HasField("layer"):
            continue
        old = layer.layer
        layer.name = old.name
        if old.HasField("type"):
            if old.type in _V0_TYPES:
                layer.type = getattr(_V1, _V0_TYPES[old.type])
            else:
                raise ValueError(f"layer `{old.name}`: the syntax of 2013 has no layer type `{old.type}`")
        for field, value in old.ListFields():
            if field.name in ("blobs", "blobs_lr", "weight_decay"):
                getattr(layer, field.name).extend(value)
            elif field.name == "hdf5_output_param" and old.type == "hdf5_output":
                layer.hdf5_output_param.CopyFrom(value)
            elif field.name not in ("name", "type"):
                targets = _V0_FIELDS.get(field.name, {})
                target = targets.get(old.type) or targets.get("")
                if target is None:
                    raise ValueError(f"layer `{old.name}`: {old.type or 'a layer without type'} has no `{field.name}`")
                _put(getattr(layer, target[0]), target[1], value)
        layer.ClearField("layer")


def _put(message: Message, name: str, value: object) -> None:
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.is_repeated:
        getattr(message, name).append(value)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)


def _fold_padding(net: caffe_pb2.NetParameter) -> None:
    """Removes V0's padding layers: the convolutions and poolings that read them pad themselves."""
    padding: dict[str, caffe_pb2.V1LayerParameter] = {}  # by the blob that it makes, unless another layer made it since
    kept = []
    for layer in net.layers:
        name = layer.layer.name
        if layer.layer.type == "padding":
            if len(layer.bottom) != 1 or len(layer.top) != 1:
                raise ValueError(f"padding layer `{name}` must have one bottom and one top")
            padding[layer.top[0]] = layer
            continue
        for index, bottom in enumerate(layer.bottom):
            if bottom in padding:
                if layer.layer.type not in ("conv", "pool") or len(layer.bottom) != 1:
                    raise ValueError(f"layer `{name}` reads padding: only conv and pool with one bottom can")
                layer.layer.pad = padding[bottom].layer.pad
                layer.bottom[index] = padding[bottom].bottom[0]
        for top in layer.top:
            padding.pop(top, None)
        kept.append(layer)
    if len(kept) < len(net.layers):
        copies = [_V1.FromString(layer.SerializeToString()) for layer in kept]
        net.ClearField("layers")
        net.layers.extend(copies)


def _upgrade_v1(old: caffe_pb2.V1LayerParameter, new: caffe_pb2.LayerParameter) -> None:
    for data in (_DATA, _IMAGES, _WINDOWS):
        for name in _TRANSFORM_FIELDS:
            message = getattr(old, data)
            if message.HasField(name):
                setattr(old.transform_param, name, getattr(message, name))
                message.ClearField(name)
    for field, value in old.ListFields():
        name = field.name
        if name == "type":
            new.type = type_name(_V1.LayerType.Name(value))
        elif name in ("param", "blob_share_mode", "blobs_lr", "weight_decay"):
            while len(new.param) < len(value):
                new.param.add()
            target = {"param": "name", "blob_share_mode": "share_mode", "blobs_lr": "lr_mult"}.get(name, "decay_mult")
            for spec, entry in zip(new.param, value, strict=False):
                setattr(spec, target, entry)
        elif name != "unknown_field":
            if field.is_repeated:
                getattr(new, name).extend(value)
            elif field.type == FieldDescriptor.TYPE_MESSAGE:
                getattr(new, name).CopyFrom(value)
            else:
                setattr(new, name, value)
    for unknown in old.unknown_field:
        # A fork's: today's message may have it.
        if unknown.path in ("", "layer"):
            text.read(_with_type(unknown.text), new)
        else:
            new.unknown_field.append(unknown)


def _with_type(written: str) -> str:
    """`type: ROI_POOLING`, which V1's enum does not have, as today's string."""
    name = written.removeprefix("type:").strip()
    return f'type: "{type_name(name)}"' if written.startswith("type:") and name.isidentifier() else written


def type_name(old: str) -> str:
    """Today's name of a V1 layer type: INNER_PRODUCT is InnerProduct."""
    return _V1_TYPES.get(old, "".join(word.capitalize() for word in old.split("_")))


def _upgrade_input(net: caffe_pb2.NetParameter) -> None:
    """`input:` with `input_shape` or `input_dim` to an Input layer. As in Caffe `input_shape` wins."""
    shapes = [list(shape.dim) for shape in net.input_shape]
    if not shapes:
        dims = list(net.input_dim)
        if len(dims) % 4:
            raise ValueError(f"input_dim wants four numbers for each input, got {len(dims)} in all")
        shapes = [dims[at : at + 4] for at in range(0, len(dims), 4)]
    if len(shapes) < len(net.input):
        raise ValueError(f"{len(net.input)} inputs ({', '.join(net.input)}) but {len(shapes)} shapes")
    layer = caffe_pb2.LayerParameter(name="input", type="Input", top=net.input)
    for shape in shapes[: len(net.input)]:
        layer.input_param.shape.add(dim=shape)
    layers = [layer, *net.layer]
    for field in ("input", "input_shape", "input_dim", "layer"):
        net.ClearField(field)
    net.layer.extend(layers)
