"""How a net is trained on a DataFrame: the model with an Estimator's Params in it, the columns, the labels."""

import pathlib
import re
import tempfile
from collections.abc import Callable

from pyspark.sql import DataFrame
from pyspark.sql import functions as sql
from pyspark.sql.types import NumericType

from .. import Model, caffe_ext, compile_file, compile_text
from ..errors import DataError, ModelError, UsageError
from ..proto import caffe_pb2
from ..runtime import Trainer, deploy
from ..runtime.command import solver_of
from ..runtime.data import DataFrame as FrameSource
from ..runtime.feeds import data_layers
from ..runtime.plan import phase_net
from ..variants import DataShapes
from .params import TrainingParams
from .udf import check_column

# Looks at the labels of a DataFrame, for a net of phase TRAIN.
Check = Callable[[DataFrame, caffe_pb2.NetParameter], None]
# What a text in Caffe's format has, and one in ours has not.
_PROTOTXT = re.compile(r"^\s*(layers?\s*\{|name\s*:|net\s*:|base_lr\s*:)", re.MULTILINE)


def train(
    dataset: DataFrame,
    params: TrainingParams,
    folder: str,
    check_net: Callable[[caffe_pb2.NetParameter], None],
    check_labels: Check,
) -> tuple[Model, pathlib.Path]:
    """Trains as `params` say; the model, and the file with its weights in `folder`.

    Before that `check_net` looks at the net that will predict, `check_labels` at the labels.
    """
    try:
        model = compiled(params, None)
    except ModelError as error:
        if not any(each.code == "S308" for each in error.diagnostics):
            raise
        # It leaves the shape of its rows to its data.
        model = compiled(params, {"TRAIN": [_row_shape(dataset, params), ()]})
    solver = adjusted(model, params)
    net = phase_net(model.net, solver, "TRAIN")
    columns = training_columns(dataset, net, params)
    check_net(deploy.deploy_net(model))
    if deploy.label_top(net) is not None:
        check_labels(dataset, net)
    names = ("workers", "tau", "seed", "weights")
    settings = {name: params.getOrDefault(name) for name in names if params.isDefined(name)}
    trainer = Trainer(
        model,
        dataset.sparkSession,
        show=params.getVerbose(),
        report=False,
        snapshot_dir=folder,
        precision=params.getPrecision(),
        **settings,
    )
    rows = dataset.select(*(dataset[f"`{column}`"].alias(top) for top, column in columns.items()))
    result = trainer.fit(FrameSource(rows, **_reading(params)))
    weights = result.files[0]
    assert isinstance(weights, pathlib.Path)
    return model, weights


def adjusted(model: Model, params: TrainingParams) -> caffe_pb2.SolverParameter:
    """The solver of `model`, whose settings `params` replace; its data layers name no sources, so nothing is tested."""
    solver = solver_of(model)
    if params.isDefined(params.maxIter):
        solver.max_iter = params.getMaxIter()
        if model.spark is not None:
            model.spark.ClearField("rounds")
    if params.isDefined(params.baseLr):
        solver.base_lr = params.getBaseLr()
    if model.spark is not None:
        model.spark.snapshot_every = 0
    for layer in model.net.layer:
        if layer.type == "Input":
            layer.ClearField("data_param")
            if params.isDefined(params.batchSize):
                for shape in layer.input_param.shape:
                    shape.dim[0] = params.getBatchSize()
    return solver


def _reading(params: TrainingParams) -> dict[str, str]:
    """Options of the source that the DataFrame is."""
    return {"resize": params.getResize()} if params.isDefined(params.resize) else {}


def _row_shape(dataset: DataFrame, params: TrainingParams) -> tuple[int, ...]:
    column = params.getFeaturesCol()
    check_column(dataset, column)
    (found,) = FrameSource(dataset.select(f"`{column}`"), **_reading(params)).columns
    return found.first if found.encoded else found.shape


def compiled(params: TrainingParams, shapes: DataShapes | None) -> Model:
    """The model that `params` name; raises UsageError, ModelError."""
    if not params.isDefined(params.model):
        raise UsageError(
            "name the model: model=... (a .snet file or its text, a file of Caffe's, or the library's name)"
        )
    defines = {}
    for define in params.getDefines() if params.isDefined(params.defines) else []:
        name, equals, value = define.partition("=")
        if not equals:
            raise UsageError(f"defines: {define!r} is not of the form name=value")
        defines[name] = value
    text = params.getModel()
    if "\n" not in text and "{" not in text:
        return compile_file(text, defines=defines, data_shapes=shapes)
    if not _PROTOTXT.search(text):
        return compile_text(text, "model", defines=defines, data_shapes=shapes)
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(text)
        file.flush()
        model = compile_file(file.name, defines=defines, data_shapes=shapes)
        model.path = None
        return model


def training_columns(dataset: DataFrame, net: caffe_pb2.NetParameter, params: TrainingParams) -> dict[str, str]:
    """The column for each input of `net`; raises DataError for one that is not there or cannot feed a net."""
    tops = [top for layer in data_layers(net, "TRAIN") for top in layer.top]
    if not tops:
        raise ModelError(f"{net.name} has no data layer in phase TRAIN: nothing feeds it")
    label = deploy.label_top(net)
    first = next((top for top in tops if top != label), None)
    columns = {}
    for top in tops:
        columns[top] = params.getLabelCol() if top == label else params.getFeaturesCol() if top == first else top
        check_column(dataset, columns[top])
    return columns


def check_classes(dataset: DataFrame, column: str, net: caffe_pb2.NetParameter) -> None:
    """Raises DataError unless the labels in `column` are whole numbers from 0 up, below the number of classes.

    Reads the column once.
    """
    kind = dataset.schema[column].dataType
    if not isinstance(kind, NumericType):
        raise DataError(
            f"the labels in `{column}` are of the type {kind.simpleString()}: numbers 0, 1, ... are wanted "
            "(StringIndexer makes them of names)"
        )
    loss = next((layer for layer in net.layer if layer.type == "SoftmaxWithLoss"), None)
    if loss is None:
        raise ModelError(f"{net.name} has no SoftmaxWithLoss: a classifier learns from one")
    shape = caffe_ext.check_net(net, caffe_ext.TRAIN, level=net.state.level).blobs[loss.bottom[0]] or ()
    classes = shape[loss.softmax_param.axis]
    label = sql.col(f"`{column}`")
    if loss.loss_param.HasField("ignore_label"):
        dataset = dataset.filter((label != loss.loss_param.ignore_label) | label.isNull())
    found = dataset.agg(
        sql.count(sql.lit(1)).alias("rows"),
        sql.count(label).alias("labels"),
        sql.min(label).alias("least"),
        sql.max(label).alias("most"),
        sql.sum((label != sql.floor(label)).cast("long")).alias("broken"),
    ).first()
    assert found is not None
    if not found.rows:
        raise DataError("the DataFrame has no rows")
    if found.labels < found.rows:
        raise DataError(f"{found.rows - found.labels:,} of {found.rows:,} labels in `{column}` are null")
    if found.broken or found.least < 0 or found.most >= classes:
        raise DataError(
            f"the labels in `{column}` go from {found.least} to {found.most}"
            f"{', not all of them whole numbers' if found.broken else ''}, but {net.name} tells {classes} classes, "
            f"0 to {classes - 1} (`{loss.bottom[0]}` of layer `{loss.name}`)"
        )
