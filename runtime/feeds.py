"""Which source and which of its columns feed the data layers of a net."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .. import caffe_ext
from ..errors import DataError, ModelError
from ..proto import caffe_pb2
from .data import Column, Phase, Source, open_source, parse_uri
from .data.tables import Table
from .feeding import Feed

# A source of one of Caffe's own data layers, as the compiler names it, that cannot be read: R-CNN's windows.
UNREADABLE = "windows"


class Fed(NamedTuple):
    """A phase's data: its source, the URI that named it, and the feeds of all data layers."""

    uri: str
    source: Source
    feeds: tuple[Feed, ...]


def data_layers(net: caffe_pb2.NetParameter, phase: Phase) -> list[caffe_pb2.LayerParameter]:
    """The layers of `net` that are fed from outside in `phase`, in the net's order."""
    number = caffe_ext.TRAIN if phase == "TRAIN" else caffe_ext.TEST
    report = caffe_ext.check_net(net, number, level=net.state.level)
    return [net.layer[layer.index] for layer in report.layers if layer.type == "Input" and layer.index >= 0]


def named_source(layers: Sequence[caffe_pb2.LayerParameter]) -> str | None:
    """The URI that the layers name; None when they name none, or one that only Caffe reads.

    Raises ModelError when they name several.
    """
    found: dict[str, str] = {}
    for layer in layers:
        uri = parse_uri(layer.data_param.source)
        if uri is not None and uri.scheme and uri.scheme != UNREADABLE:
            found[layer.data_param.source] = layer.name
    if len(found) > 1:
        (first, first_layer), (second, second_layer) = list(found.items())[:2]
        raise ModelError(
            f"layer `{first_layer}` reads {first} but layer `{second_layer}` reads {second}: all data layers of a "
            "phase are fed from the rows of one source"
        )
    return next(iter(found), None)


def feed_net(net: caffe_pb2.NetParameter, phase: Phase, given: str | Source | None, folder: str = "") -> Fed | None:
    """Opens the source of `phase` (`given`, else the one that the net names) and pairs its columns with the net's tops.

    None: the net has no data layer in this phase, or none that names a source that can be read. The tops of all
    data layers, in the net's order, take the columns that `?columns=` names, else those of their own names, the
    others the other columns in their order. transform_param applies to a layer's first top, as in Caffe. Relative
    paths that the net names are looked for in the model's `folder`, too. Raises DataError, ModelError.
    """
    layers = data_layers(net, phase)
    tops = [top for layer in layers for top in layer.top]
    name: str | Source | None = given or named_source(layers)
    if not tops or name is None:
        return None
    if given:
        source = open_source(given, phase)
    else:
        with naming_option(phase):
            source = open_source(name, phase, folder)
    asked = [name, *(layer.data_param.source for layer in layers)]
    columns = dict(zip(tops, columns_of(name, source, asked, tops), strict=True))
    if isinstance(source, Table):
        source = source.only({columns[top].name: shape for top, shape in _shapes(layers).items()})
        known = {column.name: column for column in source.columns}
        columns = {top: known[column.name] for top, column in columns.items()}
    feeds = []
    for layer in layers:
        for index, top in enumerate(layer.top):
            _check_shape(name, layer, index, columns[top])
            if index == 0 and layer.HasField("transform_param"):
                transform = layer.transform_param
                feed = Feed(top, columns[top].name, transform.SerializeToString(), transform.mean_file)
            else:
                feed = Feed(top, columns[top].name)
            feeds.append(feed)
    return Fed(str(name), source, tuple(feeds))


def feed_tests(
    model: str, net: caffe_pb2.NetParameter, train: str | Source | None, test: str | Source | None, folder: str
) -> tuple[Fed | None, str]:
    """What feeds phase TEST as `feed_net` says, and, where nothing does, why; `model` is what messages call it.

    A model that is trained on other data than its own (`train`) may name test data that are not here.
    """
    try:
        fed = feed_net(net, "TEST", test, folder)
    except DataError as error:
        if train is None or test is not None:
            raise
        return None, str(error)
    return fed, "" if fed else no_source(model, data_layers(net, "TEST"), "TEST")


def no_source(model: str, layers: Sequence[caffe_pb2.LayerParameter], phase: Phase) -> str:
    """Why nothing feeds `phase`, and what to do."""
    option = "--test" if phase == "TEST" else "--train"
    if not layers:
        return f"{model} has no data layer in phase {phase}"
    named = next((layer.data_param.source for layer in layers if layer.data_param.source), "")
    reason = f"names {named}, which cannot be read here" if named else "names no source"
    return (
        f"data layer `{layers[0].name}` ({phase}) of {model} {reason}: say {option} SRC, for example {option} mnist:DIR"
    )


@contextlib.contextmanager
def naming_option(phase: Phase) -> Iterator[None]:
    """In this block a model's source is opened; where it cannot be, the error names the option for another."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{error}; or name other data: --{phase.lower()} SRC") from error


def columns_of(name: str | Source, source: Source, asked: Sequence[str | Source], tops: Sequence[str]) -> list[Column]:
    """The columns of `source`, which is called `name`, that feed `tops`; raises DataError.

    Those that the first of the URIs `asked` names which names any; else those of the tops' names, and for the other
    tops the other columns, in their order.
    """
    known = {column.name: column for column in source.columns}
    here = f"{name} has the columns {', '.join(known)}"
    wanted = next((uri.columns for uri in map(parse_uri, asked) if uri and uri.columns), ())
    if wanted:
        if len(wanted) != len(tops):
            raise DataError(
                f"{len(wanted)} columns ({', '.join(wanted)}) cannot feed {len(tops)} tops ({', '.join(tops)})"
            )
        missing = [column for column in wanted if column not in known]
        if missing:
            raise DataError(f"there is no column `{missing[0]}`: {here}")
        return [known[column] for column in wanted]
    if len(tops) > len(known):
        raise DataError(f"{here}: too few for the tops {', '.join(tops)}")
    others = (column for column in source.columns if column.name not in tops)
    return [known[top] if top in known else next(others) for top in tops]


def _check_shape(name: str | Source, layer: caffe_pb2.LayerParameter, index: int, column: Column) -> None:
    shapes = layer.input_param.shape
    wanted = tuple((shapes[index] if index < len(shapes) else shapes[0]).dim)[1:]
    found = column.shape
    if column.encoded:
        # How large the images are shows when they are decoded.
        channels = found[0] or wanted[0] if wanted else 0
        found = (channels, *wanted[1:])
    crop = layer.transform_param.crop_size if index == 0 else 0
    if crop and len(found) == 3:
        scaled = layer.transform_param.HasField("random_resized_crop")
        if crop > min(found[1:]) and not column.encoded and not scaled:
            raise DataError(f"layer `{layer.name}` crops {crop}×{crop} from images of {_sizes(found[1:])} ({name})")
        found = (found[0], crop, crop)
    # A label's top may be declared (N), (N, 1) or (N, 1, 1, 1).
    if tuple(size for size in wanted if size != 1) != tuple(size for size in found if size != 1):
        raise DataError(
            f"column `{column.name}` of {name} has rows of {_sizes(found)}, but top `{layer.top[index]}` of layer "
            f"`{layer.name}` wants {_sizes(wanted)}"
        )


def _shapes(layers: Sequence[caffe_pb2.LayerParameter]) -> dict[str, tuple[int, ...]]:
    """The shape of a row of each top, as the net states it; () where images are cropped to it."""
    shapes = {}
    for layer in layers:
        stated = layer.input_param.shape
        for index, top in enumerate(layer.top):
            cropped = index == 0 and layer.transform_param.crop_size
            shapes[top] = () if cropped else tuple((stated[index] if index < len(stated) else stated[0]).dim)[1:]
    return shapes


def _sizes(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "one number"
