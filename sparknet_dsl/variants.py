"""Two changes to an expanded net: data layers that Spark feeds, and the deploy variant."""

import urllib.parse
from collections.abc import Callable, Mapping, Sequence

from .diagnostics import Diagnostics
from .layers import PHASES, Layer, Network, active
from .proto import caffe_pb2
from .schema import DATA_LAYERS, RDD_TYPE, own_message

DataShapes = Mapping[str, Sequence[tuple[int, ...]]]
# Of a phase and a source's URI the shape of a row of each of the tops that it feeds; () where that is not known.
RowsOf = Callable[[str, str, Sequence[str]], Sequence[tuple[int, ...]]]


def feed_from_rdd(
    network: Network,
    data_shapes: DataShapes | None,
    keep_data_layers: bool,
    diagnostics: Diagnostics,
    rows_of: RowsOf | None = None,
) -> None:
    """Turns RDDData layers, and unless told to keep them Caffe's data layers, into Input layers that are fed.

    `data_shapes` gives, by phase, the shape of one row for each top, without the batch axis and before cropping (an
    extent of 0 is not known);
    `rows_of` those of the source that a layer names, asked where the layer does not state its shapes itself.
    """
    for layer in network.layers:
        kind = layer.message.type
        if kind == RDD_TYPE or (kind in DATA_LAYERS and not keep_data_layers):
            _feed(layer, data_shapes or {}, rows_of, diagnostics)


def _feed(layer: Layer, data_shapes: DataShapes, rows_of: RowsOf | None, diagnostics: Diagnostics) -> None:
    old = layer.message
    source = _with_query(source_of(old), layer.columns)
    rows = _rows(layer, source, data_shapes, rows_of)
    shapes = [_shape(layer, index, rows, diagnostics) for index in range(len(old.top))]
    if any(shape is None for shape in shapes):
        layer.broken = True
        return
    fed = caffe_pb2.LayerParameter(name=old.name, type="Input", top=old.top, include=old.include, exclude=old.exclude)
    if old.HasField("phase"):
        fed.phase = old.phase
    if old.HasField("transform_param"):
        fed.transform_param.CopyFrom(old.transform_param)
    if source:
        fed.data_param.source = source
    for shape in shapes:
        fed.input_param.shape.add(dim=shape)
    layer.message.CopyFrom(fed)


def source_of(layer: caffe_pb2.LayerParameter) -> str:
    """The URI of the data that a data layer names; empty when it names none."""
    if layer.type == RDD_TYPE:
        return layer.data_param.source
    scheme = DATA_LAYERS[layer.type]
    source = getattr(getattr(layer, own_message(layer.type)), "source", "")
    if not source:
        return ""
    options: dict[str, str] = {}
    if layer.type == "Data":
        scheme = caffe_pb2.DataParameter.DB.Name(layer.data_param.backend).lower()
        transform = layer.transform_param
        options = {"color": "true"} if transform.force_color else {"gray": "true"} if transform.force_gray else {}
    elif layer.type == "ImageData":
        options = _image_options(layer.image_data_param)
    query = "&".join(f"{name}={urllib.parse.quote(value, safe='/:')}" for name, value in options.items())
    return _with_query(f"{scheme}:{source}", f"?{query}" if query else "")


def _image_options(fields: caffe_pb2.ImageDataParameter) -> dict[str, str]:
    """What an ImageData layer says of its images, as the options of a source."""
    options = {}
    if fields.root_folder:
        options["root"] = fields.root_folder
    if fields.new_height and fields.new_width:
        options["resize"] = f"{fields.new_height}x{fields.new_width}"
    if not fields.is_color:
        options["gray"] = "true"
    return options


def _with_query(source: str, query: str) -> str:
    """`source` with another option (`?name=value`) behind those that it has."""
    return source + (query.replace("?", "&", 1) if "?" in source and "=" in source.rpartition("?")[2] else query)


def batch_of(layer: caffe_pb2.LayerParameter) -> int | None:
    """The batch size that a data layer states itself."""
    if layer.type == RDD_TYPE:
        return layer.data_param.batch_size or None
    message = getattr(layer, own_message(layer.type))
    return int(message.batch_size) or None


def _rows(layer: Layer, source: str, data_shapes: DataShapes, rows_of: RowsOf | None) -> Sequence[tuple[int, ...]]:
    phases = [phase for phase in PHASES if active(layer.message, phase)]
    given = next((data_shapes[phase] for phase in phases if phase in data_shapes), None)
    if given is not None or rows_of is None or not source or _stated(layer):
        return given or ()
    return next((rows for phase in phases if (rows := rows_of(phase, source, layer.message.top))), ())


def _stated(layer: Layer) -> bool:
    """Whether the layer itself says what its rows look like."""
    shapes: Sequence[Sequence[int | None]] = [shape.dim for shape in layer.message.input_param.shape]
    if not shapes and layer.shapes is not None:
        shapes = layer.shapes.shapes
    return len(shapes) >= len(layer.message.top) and all(None not in shape[1:] for shape in shapes)


def _shape(layer: Layer, index: int, rows: Sequence[tuple[int, ...]], diagnostics: Diagnostics) -> list[int] | None:
    """The shape of one top: what the file states, filled up with what is known of the rows; None once reported."""
    message = layer.message
    batch = batch_of(message)
    wanted: list[int | None] | None = None
    if index < len(message.input_param.shape):
        wanted = list(message.input_param.shape[index].dim)
    elif layer.shapes is not None and index < len(layer.shapes.shapes):
        wanted = list(layer.shapes.shapes[index])
    if wanted and wanted[0] is None:
        wanted[0] = batch
    known = _known(message, index, rows, batch)
    where = layer.shapes.span if layer.shapes else layer.place("shape")
    if wanted is None:
        wanted = known
    elif known is not None:
        if len(known) == len(wanted) and known[0] is None:
            known[0] = wanted[0]
        merged = [a if b is None else b for a, b in zip(wanted, known, strict=False)]
        if len(known) != len(wanted) or any(
            a is not None and b is not None and a != b for a, b in zip(wanted[1:], known[1:], strict=True)
        ):
            diagnostics.error(
                "S310",
                f"`{message.top[index]}` is {_dims(wanted)} here, but its source gives {_dims(known)}",
                where,
                notes=["the source is another data set than the net was written for"],
            )
            return None
        wanted = [b if a is None else a for a, b in zip(wanted, merged, strict=True)]
    if wanted is None or any(dim is None for dim in wanted):
        missing = "the batch size" if wanted and wanted[0] is None and None not in wanted[1:] else "the shape"
        label = f"is [{batch or '_'}, channels, height, width]" if index == 0 else ""
        diagnostics.error(
            "S308",
            f"{missing} of `{message.top[index]}` is not known",
            layer.place(),
            f"write `{label}` behind it" if label else "",
            help="or name the data: sparknet-run --train SRC --test SRC; or keep Caffe's layer: --keep-data-layers",
        )
        return None
    return [dim for dim in wanted if dim is not None]


def _known(
    message: caffe_pb2.LayerParameter, index: int, rows: Sequence[tuple[int, ...]], batch: int | None
) -> list[int | None] | None:
    """What the rows, the cropping and the layer's own fields say about a top."""
    transform = message.transform_param
    crop = transform.crop_size
    if index < len(rows):
        # 0: it differs from row to row.
        row = [size or None for size in rows[index]]
        if index == 0 and crop and len(row) == 3:
            row[1:] = [crop, crop]
        return [batch, *row]
    if message.type == "MemoryData" and index == 0:
        sizes = message.memory_data_param
        return [batch, sizes.channels, sizes.height, sizes.width]
    if index > 0 and message.type in DATA_LAYERS:
        return [batch]
    if index == 0 and crop:
        channels = 1 if transform.force_gray else 3 if transform.force_color or len(transform.mean_value) == 3 else None
        return [batch, channels, crop, crop]
    return None


def _dims(shape: Sequence[int | None]) -> str:
    return "×".join("?" if dim is None else str(dim) for dim in shape) or "a scalar"


def deploy_layers(network: Network) -> list[Layer]:
    """The layers that the values marked @deploy need, in order; none when nothing is marked.

    Sources of the TEST phase stand among them, to be replaced by Input layers; what only a loss or an accuracy needs
    is not there, since nothing marked @deploy reads it.
    """
    candidates = [
        layer for layer in network.layers if layer.in_deploy or (layer.in_net and active(layer.message, "TEST"))
    ]
    own = {top for layer in candidates if layer.in_deploy and not layer.message.bottom for top in layer.message.top}
    needed: set[str] = set()
    kept: list[Layer] = []
    for layer in reversed(candidates):
        tops = set(layer.message.top)
        replaced = not layer.message.bottom and not layer.in_deploy and tops & own
        if (layer.in_deploy or tops & needed) and not replaced:
            kept.append(layer)
            needed -= tops - set(layer.message.bottom)
            needed |= set(layer.message.bottom)
    return kept[::-1]


def deploy_net(network: Network, layers: Sequence[Layer]) -> caffe_pb2.NetParameter:
    """The deploy variant of a net whose data layers are fed or kept: Input layers for data, no phases."""
    net = caffe_pb2.NetParameter()
    net.CopyFrom(network.message)
    net.ClearField("layer")
    net.ClearField("state")
    needed = {bottom for layer in layers for bottom in layer.message.bottom}
    for layer in layers:
        copy = net.layer.add()
        copy.CopyFrom(layer.message)
        copy.ClearField("include")
        copy.ClearField("exclude")
        copy.ClearField("phase")
        if copy.type == "Input" and not layer.in_deploy:
            _keep_needed_tops(copy, needed)
    return net


def _keep_needed_tops(layer: caffe_pb2.LayerParameter, needed: set[str]) -> None:
    """An Input layer of the deploy variant: only the tops that are read, no source, no transformation."""
    kept = [(top, shape) for top, shape in zip(layer.top, list(layer.input_param.shape), strict=False) if top in needed]
    shapes = [caffe_pb2.BlobShape(dim=shape.dim) for _, shape in kept]
    for field in ("data_param", "transform_param", "input_param", "top"):
        layer.ClearField(field)
    layer.top.extend(top for top, _ in kept)
    layer.name = layer.top[0] if len(layer.top) == 1 else layer.name
    layer.input_param.shape.extend(shapes)
