"""Every layer's backward pass against differences of its forward pass, for each bottom and each parameter.

The registry says which types there are; a type without a row here fails `test_every_type_has_a_row`. A row is one
layer and the inputs that it is tried on, chosen so that no kink (ReLU at 0, a maximum that changes hands) lies within
the step.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import EngineError
from sparknet_dsl.proto import caffe_pb2

pytestmark = pytest.mark.usefixtures("one_thread")

Maker = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

# Half the distance of the two points of a difference. Rounding of a float32 result of size 1 costs 1e-7 / STEP of the
# quotient, curvature STEP² / 6 of the third derivative.
STEP = 1e-2


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape)


def apart(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """No two values, and none and 0, closer than 5 steps: nothing changes sign or order within a step."""
    count = int(np.prod(shape))
    return ((rng.permutation(count) - count // 2 + 0.5) * 5 * STEP).reshape(shape)


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(0.5, 1.5, shape)


def unit(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(0.1, 0.9, shape)


def small(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return 0.3 * rng.standard_normal(shape)


def around_one(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """From about -1.3 to 1.3, none within a step of -1 and 1, where a hinge has its kinks."""
    return 4.3 * apart(rng, shape)


def indicators(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Continuation indicators: all streams begin anew, so that no state of an earlier pass plays a part."""
    values = rng.integers(0, 2, shape)
    values[0] = 0
    values[1] = 1
    return values


def labels(classes: int) -> Maker:
    return lambda rng, shape: rng.integers(0, classes, shape)


@pytest.fixture(autouse=True, scope="module")
def matrix_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """H.binaryproto, as InfogainLoss reads it: 3 × 3."""
    matrix = caffe_pb2.BlobProto(data=[1, 0.2, -0.3, 0, 2, 0.5, 0.1, 0.4, 0.7])
    matrix.shape.dim.extend([3, 3])
    folder = tmp_path_factory.mktemp("matrix")
    (folder / "H.binaryproto").write_bytes(matrix.SerializeToString())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


@dataclass(frozen=True)
class Row:
    """One layer under test."""

    type: str
    case: str
    fields: str  # of the layer: bottoms, tops, settings
    inputs: Mapping[str, tuple[int, ...]]
    values: Mapping[str, Maker] = field(default_factory=dict)  # of inputs; others: normal
    no_gradient: frozenset[str] = frozenset()  # inputs for which there is none (labels)
    params: Maker = normal
    statistics: int = 0  # so many of the parameters, the last ones, are statistics, which have no gradient
    phase: int = caffe_ext.TRAIN
    in_place: bool = True  # whether also to be tried in place, where the type can
    # False: force_backward asks for gradients that there are not; loss_weight in `fields` asks for the others.
    force: bool = True
    sample: int = 0  # compare at so many places of each array, chosen at random; 0: at all

    @property
    def id(self) -> str:
        return f"{self.type}-{self.case}"


X = {"x": (2, 3, 4, 5)}
XY = {"x": (2, 3, 4), "z": (2, 3, 4)}
XYW = {**XY, "w": (2, 3, 4)}
ONE = 'bottom: "x" top: "y"'
TWO = 'bottom: "x" bottom: "z" top: "y"'
LOSS = 'bottom: "x" bottom: "label" top: "loss"'
LABEL = frozenset({"label"})
SEQUENCE = 'bottom: "x" bottom: "cont" top: "y"'
STATIC = 'bottom: "x" bottom: "cont" bottom: "z" top: "y"'
STEPS = {"x": (4, 2, 3), "cont": (4, 2)}
STEPS_STATIC = {"x": (3, 2, 2, 2), "cont": (3, 2), "z": (2, 3)}
INDICATORS = {"cont": indicators}
CONT = frozenset({"cont"})


def regions(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Regions of 2 images, the last beyond every border."""
    rows = np.array(
        [[0, 1.2, 0.2, 5.2, 4.2], [1, 0.1, 2.2, 3.2, 5.4], [0, 4.2, 4.3, 4.4, 4.2], [1, -3.3, -2.2, 30, 20]]
    )
    return rows[: shape[0]]


def priors(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Prior boxes around the true ones of `truths`, and their variances."""
    corners = rng.uniform(0.05, 0.45, (shape[2] // 4, 2))
    boxes = np.hstack([corners, corners + rng.uniform(0.2, 0.5, corners.shape)]).ravel()
    return np.stack([boxes, np.tile([0.5, 0.5, 0.8, 0.8], shape[2] // 4)])[None]


def truths(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """True boxes of classes 1 and 2 in images 0 and 1, and one row that is none."""
    rows = [[0, 1, 0, 0.1, 0.1, 0.5, 0.6, 0], [1, 2, 0, 0.3, 0.2, 0.8, 0.7, 0], [1, 1, 0, 0, 0, 0.4, 0.4, 1]]
    return np.array([*rows, [-1] * 8])[None, None]


def places(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Where pooling by 2 × 2 windows may have found its maxima."""
    h, w = np.indices(shape[2:])
    return (2 * h + rng.integers(0, 2, shape)) * 2 * shape[3] + 2 * w + rng.integers(0, 2, shape)


ROIS = 'bottom: "x" bottom: "r" top: "y"'
SMOOTH = 'bottom: "x" bottom: "z" bottom: "in" bottom: "out" top: "loss"'
FOUR = {"x": (3, 4), "z": (3, 4), "in": (3, 4), "out": (3, 4)}
BOXES = 'bottom: "x" bottom: "c" bottom: "p" bottom: "t" top: "loss"'
BOX_SHAPES = {"x": (2, 24), "c": (2, 18), "p": (1, 2, 24), "t": (1, 1, 4, 8)}
BOX_VALUES: dict[str, Maker] = {"p": priors, "t": truths}
PT = frozenset({"p", "t"})

MULTIBOX = "multibox_loss_param { num_classes: 3 code_type: CENTER_SIZE use_difficult_gt: false }"

PAIRS = 'bottom: "x" bottom: "z" bottom: "label" top: "loss"'
PAIR_SHAPES = {"x": (6, 3), "z": (6, 3), "label": (6,)}
SIMILAR = {"label": labels(2)}


ALL_AT_ONCE = (
    "num_output: 4 group: 2 kernel_size: 3 kernel_size: 2 dilation: 2 dilation: 1 stride: 2 stride: 1 pad: 2 pad: 1"
)


def conv(settings_text: str, fields: str = ONE) -> str:
    return f"{fields} convolution_param {{ {settings_text} }}"


ROWS = [
    Row("Accuracy", "", LOSS, {"x": (4, 3), "label": (4,)}, {"label": labels(3)}, frozenset({"x", "label"})),
    Row("AbsVal", "", ONE, X, {"x": apart}),
    Row("ArgMax", "", ONE, {"x": (3, 4)}, no_gradient=frozenset("x")),
    Row("Axpy", "", 'bottom: "x" bottom: "z" bottom: "w" top: "y"', {"x": (2, 3), "z": (2, 3, 4), "w": (2, 3, 4)}),
    Row(
        "BatchReindex",
        "",
        f"{TWO} propagate_down: true propagate_down: false loss_weight: 0.5",
        {"x": (3, 2), "z": (5,)},
        {"z": labels(3)},
        frozenset("z"),
        force=False,
    ),
    Row("BatchNorm", "train", ONE, X, statistics=3),
    Row("BatchNorm", "test", ONE, X, params=positive, statistics=3, phase=caffe_ext.TEST),
    Row("BatchNorm", "2d", f"{ONE} batch_norm_param {{ eps: 0.1 }}", {"x": (5, 3)}, statistics=3),
    Row("BatchNorm", "1d", f"{ONE} batch_norm_param {{ eps: 0.1 }}", {"x": (7,)}, statistics=3),
    Row(
        "BatchNorm",
        "train-stored",
        f"{ONE} batch_norm_param {{ use_global_stats: true }}",
        X,
        {},
        params=positive,
        statistics=3,
    ),
    Row(
        "BatchNorm",
        "test-own",
        f"{ONE} batch_norm_param {{ use_global_stats: false }}",
        X,
        statistics=3,
        phase=caffe_ext.TEST,
    ),
    Row("Bias", "", ONE, X),
    Row("Bias", "axes", f"{ONE} bias_param {{ axis: 1 num_axes: 2 }}", X),
    Row("Bias", "scalar", f"{ONE} bias_param {{ num_axes: 0 }}", X),
    Row("Bias", "last", f"{ONE} bias_param {{ axis: -1 }}", X),
    Row("Bias", "all", f"{ONE} bias_param {{ axis: 0 num_axes: -1 }}", {"x": (2, 3, 4)}),
    Row("Bias", "two", TWO, {"x": (2, 3, 4), "z": (3,)}, in_place=False),
    Row("Bias", "two-axis0", f"{TWO} bias_param {{ axis: 0 }}", {"x": (2, 3, 4), "z": (2, 3)}, in_place=False),
    Row("BN", "train", f"{ONE} bn_param {{ momentum: 0.8 eps: 0.01 }}", X, params=positive, statistics=2),
    Row("BN", "test", f"{ONE} bn_param {{ frozen: false }}", X, params=positive, statistics=2, phase=caffe_ext.TEST),
    Row("BN", "frozen", f"{ONE} bn_param {{ frozen: true }}", X, params=positive, statistics=4),
    Row("BN", "older", f"{ONE} bn_param {{ decay: 0.1 var_eps: 0.1 }}", X, params=positive, statistics=2),
    Row("BN", "segnet", f"{ONE} bn_param {{ bn_mode: LEARN }}", {"x": (3, 2, 2, 2)}),
    Row("BN", "segnet-inference", f"{ONE} bn_param {{ bn_mode: INFERENCE }}", X),
    Row("BNLL", "", ONE, X),
    Row(
        "BoxAnnotatorOHEM",
        "",
        'bottom: "x" bottom: "z" bottom: "l" bottom: "w" top: "y" top: "v" box_annotator_ohem_param { roi_per_img: 1 }',
        {"x": (3, 5), "z": (3,), "l": (3,), "w": (3, 4)},
        {"x": regions},
        frozenset({"x", "z", "l", "w"}),
    ),
    Row("Clip", "", f"{ONE} clip_param {{ min: -0.5 max: 1 }}", X, {"x": apart}),
    Row("Concat", "", TWO, {"x": (2, 3, 4), "z": (2, 2, 4)}),
    Row("Concat", "axis0", f"{TWO} concat_param {{ axis: 0 }}", {"x": (2, 3), "z": (1, 3)}),
    Row("Concat", "last", f"{TWO} concat_param {{ axis: -1 }}", {"x": (2, 3, 1), "z": (2, 3, 4)}),
    Row("Concat", "one", ONE, {"x": (2, 3)}),
    Row("Concat", "twice", 'bottom: "x" bottom: "z" bottom: "x" top: "y" concat_param { axis: 2 }', XY),
    Row("ContrastiveLoss", "", f"{PAIRS} contrastive_loss_param {{ margin: 3 }}", PAIR_SHAPES, SIMILAR, LABEL),
    Row(
        "ContrastiveLoss",
        "legacy",
        f"{PAIRS} contrastive_loss_param {{ margin: 6 legacy_version: true }} loss_weight: 2",
        PAIR_SHAPES,
        SIMILAR,
        LABEL,
    ),
    Row("Convolution", "3x3", conv("num_output: 2 kernel_size: 3"), X),
    Row("Convolution", "stride-pad", conv("num_output: 2 kernel_size: 3 stride: 2 pad: 1"), X),
    Row("Convolution", "nobias", conv("num_output: 4 kernel_size: 1 bias_term: false"), X),
    Row("Convolution", "group", conv("num_output: 4 kernel_size: 2 group: 2"), {"x": (2, 4, 3, 4)}),
    Row("Convolution", "dilation", conv("num_output: 2 kernel_size: 2 dilation: 2"), X),
    Row("Convolution", "rectangle", conv("num_output: 2 kernel_h: 1 kernel_w: 3 pad_w: 1 stride_h: 2 stride_w: 1"), X),
    Row("Convolution", "1d", conv("num_output: 3 kernel_size: 3 pad: 1"), {"x": (2, 3, 6)}),
    Row("Convolution", "3d", conv("num_output: 2 kernel_size: 2 stride: 2 pad: 1"), {"x": (2, 2, 3, 3, 2)}),
    Row("Convolution", "depthwise", conv("num_output: 6 kernel_size: 3 pad: 1 group: 3"), X),
    Row(
        "Convolution",
        "all-at-once",
        conv(ALL_AT_ONCE),
        {"x": (2, 4, 4, 3)},
    ),
    Row("Convolution", "axis2", conv("num_output: 2 kernel_size: 2 axis: 2"), {"x": (2, 2, 3, 4)}),
    Row("Convolution", "no-spatial", conv("num_output: 2"), {"x": (3, 4)}),
    Row(
        "Convolution",
        "two",
        conv("num_output: 2 kernel_size: 2", 'bottom: "x" bottom: "z" top: "y" top: "v"'),
        {"x": (2, 3, 3, 3), "z": (2, 3, 3, 3)},
    ),
    # Those that save multiplications (core/winograd.h) take whole blocks of 16 channels, and some tiles.
    Row("Convolution", "winograd3", conv("num_output: 16 kernel_size: 3 pad: 1"), {"x": (2, 16, 16, 16)}, sample=99),
    Row(
        "Convolution",
        "winograd5",
        conv("num_output: 32 kernel_size: 5 pad: 2 group: 2"),
        {"x": (8, 32, 8, 7)},
        sample=99,
    ),
    Row("ConvolutionDepthwise", "", conv("kernel_size: 3 pad: 1 stride: 2"), X),
    Row("Crop", "", f"{TWO} crop_param {{ offset: 1 offset: 2 }}", {"x": (2, 3, 4, 5), "z": (1, 1, 2, 3)}),
    Row("Crop", "axis", f"{TWO} crop_param {{ axis: 0 offset: 1 }}", {"x": (3, 4), "z": (2, 2)}),
    Row("Deconvolution", "3x3", conv("num_output: 2 kernel_size: 3"), X),
    Row("Deconvolution", "stride-pad", conv("num_output: 2 kernel_size: 3 stride: 2 pad: 1"), X),
    Row("Deconvolution", "nobias", conv("num_output: 4 kernel_size: 1 bias_term: false"), X),
    Row("Deconvolution", "group", conv("num_output: 6 kernel_size: 2 group: 2"), {"x": (2, 4, 3, 4)}),
    Row("Deconvolution", "dilation", conv("num_output: 2 kernel_size: 2 dilation: 2"), X),
    Row("Deconvolution", "1d", conv("num_output: 2 kernel_size: 3 stride: 3"), {"x": (2, 3, 4)}),
    Row("Deconvolution", "3d", conv("num_output: 2 kernel_size: 2 stride: 2 pad: 1"), {"x": (2, 2, 2, 2, 3)}),
    Row(
        "Deconvolution",
        "depthwise",
        conv("num_output: 3 kernel_size: 4 stride: 2 pad: 1 group: 3"),
        {"x": (2, 3, 3, 2)},
    ),
    Row(
        "Deconvolution",
        "all-at-once",
        conv(ALL_AT_ONCE),
        {"x": (2, 4, 3, 3)},
    ),
    Row("Deconvolution", "axis2", conv("num_output: 2 kernel_size: 2 axis: 2"), {"x": (2, 2, 3, 4)}),
    Row("Deconvolution", "no-spatial", conv("num_output: 2"), {"x": (3, 4)}),
    Row(
        "Deconvolution",
        "two",
        conv("num_output: 2 kernel_size: 2", 'bottom: "x" bottom: "z" top: "y" top: "v"'),
        {"x": (2, 3, 3, 3), "z": (2, 3, 3, 3)},
    ),
    Row("Deconvolution", "winograd3", conv("num_output: 16 kernel_size: 3 pad: 1"), {"x": (2, 16, 16, 16)}, sample=99),
    Row("DepthwiseConvolution", "", conv("num_output: 6 group: 3 kernel_size: 2"), X),
    Row(
        "DetectionOutput",
        "",
        'bottom: "x" bottom: "c" bottom: "p" top: "y" detection_output_param { num_classes: 3 }',
        {name: BOX_SHAPES[name] for name in "xcp"},
        BOX_VALUES,
        frozenset("xcp"),
    ),
    Row("Dropout", "unscaled", f"{ONE} dropout_param {{ scale_train: false }}", X),
    Row("Dropout", "unscaled-test", f"{ONE} dropout_param {{ scale_train: false }}", X, phase=caffe_ext.TEST),
    Row("Dropout", "train", f"{ONE} dropout_param {{ dropout_ratio: 0.4 }}", X),
    Row("Dropout", "test", ONE, X, phase=caffe_ext.TEST),
    # Without bottoms and parameters there is nothing to get a gradient; backward passes over it.
    Row("DummyData", "", 'top: "y" dummy_data_param { shape { dim: 2 } data_filler { type: "gaussian" } }', {}),
    Row("Eltwise", "sum", TWO, XY),
    Row(
        "Eltwise",
        "coeff",
        'bottom: "x" bottom: "z" bottom: "w" top: "y" eltwise_param { coeff: 2 coeff: -0.5 coeff: 0 }',
        XYW,
    ),
    Row("Eltwise", "prod", f"{TWO} eltwise_param {{ operation: PROD }}", XY),
    Row("Eltwise", "prod3", 'bottom: "x" bottom: "z" bottom: "w" top: "y" eltwise_param { operation: PROD }', XYW),
    Row(
        "Eltwise",
        "prod-unstable",
        f"{TWO} eltwise_param {{ operation: PROD stable_prod_grad: false }}",
        XY,
        {"x": positive, "z": positive},
    ),
    Row(
        "Eltwise",
        "max",
        'bottom: "x" bottom: "z" bottom: "w" top: "y" eltwise_param { operation: MAX }',
        XYW,
        # Multiples of 0.05, of 0.05 plus 0.017, of 0.05 plus 0.034: never equal, and not within a step.
        {"x": apart, "z": lambda rng, s: apart(rng, s) + 1.7 * STEP, "w": lambda rng, s: apart(rng, s) + 3.4 * STEP},
    ),
    Row("ELU", "", ONE, X, {"x": lambda rng, s: apart(rng, s) / 2}),
    Row("ELU", "alpha", f"{ONE} elu_param {{ alpha: 0.3 }}", {"x": (3, 4)}, {"x": apart}),
    Row(
        "Embed",
        "",
        f"{ONE} loss_weight: 0.5 embed_param {{ input_dim: 4 num_output: 3 }}",
        {"x": (2, 3)},
        {"x": labels(4)},
        frozenset("x"),
        force=False,
    ),
    Row(
        "Embed",
        "nobias",
        f"{ONE} loss_weight: 1 embed_param {{ input_dim: 4 num_output: 3 bias_term: false }}",
        {"x": (5,)},
        {"x": labels(4)},
        frozenset("x"),
        force=False,
    ),
    Row("EuclideanLoss", "", 'bottom: "x" bottom: "z" top: "loss"', XY),
    Row("EuclideanLoss", "weight", 'bottom: "x" bottom: "z" top: "loss" loss_weight: 0.5', XY),
    Row("Exp", "", ONE, X),
    Row("Exp", "base", f"{ONE} exp_param {{ base: 2 scale: -0.5 shift: 1 }}", X),
    Row(
        "Filter",
        "",
        'bottom: "x" bottom: "z" bottom: "w" top: "y" top: "v" loss_weight: 1 loss_weight: -0.5 '
        "propagate_down: true propagate_down: true propagate_down: false",
        {"x": (4, 3), "z": (4, 2, 2), "w": (4, 1)},
        {"w": lambda rng, shape: np.array([1, 0, 0, -1]).reshape(shape)},
        frozenset("w"),
        force=False,
    ),
    Row("Flatten", "", ONE, X),
    Row("Flatten", "middle", f"{ONE} flatten_param {{ axis: 1 end_axis: 2 }}", X),
    Row("HDF5Output", "", 'bottom: "x" bottom: "z" hdf5_output_param { file_name: "rows" }', {"x": (2, 3), "z": (2,)}),
    Row("HingeLoss", "L1", LOSS, {"x": (4, 3), "label": (4,)}, {"x": around_one, "label": labels(3)}, LABEL),
    Row(
        "HingeLoss",
        "L2",
        f"{LOSS} hinge_loss_param {{ norm: L2 }} loss_weight: -2",
        {"x": (4, 3), "label": (4, 1)},
        {"x": around_one, "label": labels(3)},
        LABEL,
    ),
    Row(
        "InfogainLoss",
        "",
        f'{LOSS} infogain_loss_param {{ source: "H.binaryproto" }}',
        {"x": (4, 3), "label": (4,)},
        {"label": labels(3)},
        LABEL,
    ),
    Row(
        "InfogainLoss",
        "ignore",
        f'{LOSS} infogain_loss_param {{ source: "H.binaryproto" axis: 2 }} loss_param {{ ignore_label: 1 }}',
        {"x": (2, 2, 3, 2), "label": (2, 2, 2)},
        {"label": labels(3)},
        LABEL,
    ),
    Row(
        "InfogainLoss",
        "fed",
        f'{LOSS} bottom: "z" loss_weight: 1 propagate_down: true propagate_down: false propagate_down: false '
        "loss_param { normalization: BATCH_SIZE }",
        {"x": (2, 3, 2), "label": (2, 2), "z": (3, 3)},
        {"label": labels(3)},
        frozenset({"label", "z"}),
        force=False,
    ),
    Row("Im2col", "", conv("kernel_size: 3 stride: 2 pad: 1"), X),
    Row("Im2col", "dilation", conv("kernel_size: 2 dilation: 2"), X),
    Row("Im2col", "1d", conv("kernel_size: 3 pad: 2"), {"x": (2, 2, 4)}),
    Row("Im2col", "3d", conv("kernel_size: 2 pad: 1 stride: 2 axis: 0"), {"x": (2, 3, 3, 2)}),
    Row("InnerProduct", "", f"{ONE} inner_product_param {{ num_output: 3 }}", {"x": (2, 3, 2)}),
    Row("InnerProduct", "nobias", f"{ONE} inner_product_param {{ num_output: 3 bias_term: false }}", {"x": (3, 4)}),
    Row("InnerProduct", "transpose", f"{ONE} inner_product_param {{ num_output: 3 transpose: true }}", {"x": (3, 4)}),
    Row("InnerProduct", "axis2", f"{ONE} inner_product_param {{ num_output: 3 axis: 2 }}", {"x": (2, 2, 4)}),
    Row(
        "InnerProduct",
        "transpose-axis2",
        f"{ONE} inner_product_param {{ num_output: 3 axis: -1 transpose: true bias_term: false }}",
        {"x": (2, 2, 4)},
    ),
    Row("Log", "", ONE, X, {"x": positive}),
    Row("Log", "base", f"{ONE} log_param {{ base: 2 scale: 3 shift: 0.5 }}", X, {"x": positive}),
    Row("Interp", "larger", f"{ONE} interp_param {{ height: 7 width: 9 }}", X),
    Row("Interp", "cut", f"{ONE} interp_param {{ zoom_factor: 3 pad_beg: -1 pad_end: -1 }}", X),
    Row("Interp", "smaller", f"{ONE} interp_param {{ shrink_factor: 2 }}", X),
    Row("LRN", "across", f"{ONE} lrn_param {{ local_size: 3 alpha: 0.5 }}", {"x": (2, 5, 3, 3)}),
    Row("LRN", "k", f"{ONE} lrn_param {{ local_size: 5 alpha: 1 beta: 0.6 k: 2 }}", {"x": (2, 7, 2, 2)}),
    Row(
        "LRN",
        "within",
        f"{ONE} lrn_param {{ local_size: 3 alpha: 0.5 norm_region: WITHIN_CHANNEL }}",
        {"x": (2, 2, 4, 5)},
    ),
    Row("LRN", "wide", f"{ONE} lrn_param {{ local_size: 7 alpha: 2 }}", {"x": (2, 3, 2, 3)}),
    Row(
        "LRN",
        "within-wide",
        f"{ONE} lrn_param {{ local_size: 5 alpha: 2 beta: 0.5 norm_region: WITHIN_CHANNEL }}",
        {"x": (2, 2, 3, 2)},
    ),
    Row("LSTM", "", f"{SEQUENCE} recurrent_param {{ num_output: 3 }}", STEPS, INDICATORS, CONT, small),
    Row("LSTM", "static", f"{STATIC} recurrent_param {{ num_output: 2 }}", STEPS_STATIC, INDICATORS, CONT, small),
    Row(
        "LSTMUnit",
        "",
        'bottom: "x" bottom: "z" bottom: "cont" top: "y" top: "v"',
        {"x": (1, 3, 2), "z": (1, 3, 8), "cont": (1, 3)},
        {"cont": lambda rng, shape: np.array([[0.0, 1.0, 1.0]])},
        CONT,
    ),
    Row("MultiBoxLoss", "", f"{BOXES} {MULTIBOX}", BOX_SHAPES, BOX_VALUES, PT),
    Row(
        "MultiBoxLoss",
        "all",
        f"{BOXES} multibox_loss_param {{ num_classes: 3 mining_type: NONE loc_loss_type: L2 conf_loss_type: LOGISTIC "
        "loc_weight: 0.5 encode_variance_in_target: true } loss_param { normalization: NONE } loss_weight: 2",
        BOX_SHAPES,
        BOX_VALUES,
        PT,
    ),
    Row(
        "MultiBoxLoss",
        "apart",
        f"{BOXES} multibox_loss_param {{ num_classes: 3 mining_type: NONE share_location: false "
        "code_type: CORNER_SIZE }",
        {**BOX_SHAPES, "x": (2, 72)},
        BOX_VALUES,
        PT,
    ),
    Row(
        "MultinomialLogisticLoss",
        "",
        f"{LOSS} loss_weight: 0.5",
        {"x": (4, 3), "label": (4,)},
        {"x": positive, "label": labels(3)},
        LABEL,
    ),
    Row("MVN", "", ONE, X),
    Row("MVN", "across", f"{ONE} mvn_param {{ across_channels: true }}", X),
    Row("MVN", "across-mean", f"{ONE} mvn_param {{ across_channels: true normalize_variance: false }}", X),
    Row("MVN", "mean", f"{ONE} mvn_param {{ normalize_variance: false }}", {"x": (3, 2, 4)}),
    Row("Normalize", "", ONE, X),
    Row("Normalize", "places", f"{ONE} norm_param {{ across_spatial: false channel_shared: false eps: 0.1 }}", X),
    Row("Parameter", "", 'top: "y" parameter_param { shape { dim: 2 dim: 3 } }', {}),
    Row("Permute", "", f"{ONE} permute_param {{ order: [0, 2, 3, 1] }}", X),
    Row("Permute", "one", f"{ONE} permute_param {{ order: 2 }}", X),
    Row("Pooling", "max", f"{ONE} pooling_param {{ kernel_size: 2 stride: 2 }}", X, {"x": apart}),
    Row("Pooling", "max-overlap", f"{ONE} pooling_param {{ kernel_size: 3 stride: 2 pad: 1 }}", X, {"x": apart}),
    # Windows that reach beyond the input, that begin beyond it and are dropped, that are rounded away.
    Row(
        "Pooling", "max-ceil", f"{ONE} pooling_param {{ kernel_size: 2 stride: 2 }}", {"x": (2, 2, 3, 5)}, {"x": apart}
    ),
    Row("Pooling", "max-dropped", f"{ONE} pooling_param {{ kernel_size: 2 stride: 2 pad: 1 }}", X, {"x": apart}),
    Row(
        "Pooling",
        "max-floor",
        f"{ONE} pooling_param {{ kernel_size: 3 stride: 2 round_mode: FLOOR }}",
        {"x": (2, 2, 4, 6)},
        {"x": apart},
    ),
    Row(
        "Pooling", "max-places", f'{ONE} top: "m" pooling_param {{ kernel_size: 3 stride: 2 pad: 1 }}', X, {"x": apart}
    ),
    Row("Pooling", "max-global", f"{ONE} pooling_param {{ global_pooling: true }}", X, {"x": apart}),
    Row("Pooling", "ave-ceil", f"{ONE} pooling_param {{ pool: AVE kernel_size: 2 stride: 2 }}", {"x": (2, 2, 3, 5)}),
    Row(
        "Pooling",
        "ave-ceil-pad",
        f"{ONE} pooling_param {{ pool: AVE kernel_h: 3 kernel_w: 2 stride: 2 pad_h: 1 pad_w: 1 }}",
        {"x": (2, 2, 4, 5)},
    ),
    Row(
        "Pooling",
        "ave-gaps",
        f"{ONE} pooling_param {{ pool: AVE kernel_size: 1 stride: 3 }}",
        {"x": (2, 2, 4, 6)},
    ),
    Row(
        "Pooling",
        "stochastic-train",
        f"{ONE} pooling_param {{ pool: STOCHASTIC kernel_size: 2 stride: 2 }}",
        {"x": (1, 2, 2, 2)},
        {"x": positive},
    ),
    Row(
        "Pooling",
        "stochastic-test",
        f"{ONE} pooling_param {{ pool: STOCHASTIC kernel_size: 3 stride: 2 }}",
        {"x": (2, 2, 5, 5)},
        {"x": positive},
        phase=caffe_ext.TEST,
    ),
    Row("Pooling", "ave", f"{ONE} pooling_param {{ pool: AVE kernel_size: 2 stride: 2 }}", X),
    Row("Pooling", "ave-overlap", f"{ONE} pooling_param {{ pool: AVE kernel_size: 3 stride: 2 pad: 1 }}", X),
    Row("Pooling", "global", f"{ONE} pooling_param {{ pool: AVE global_pooling: true }}", X),
    Row("Power", "linear", f"{ONE} power_param {{ scale: -1.5 shift: 2 }}", X),
    Row("Power", "square", f"{ONE} power_param {{ power: 2 scale: 0.5 shift: 1 }}", X, in_place=False),
    Row("Power", "root", f"{ONE} power_param {{ power: 0.5 shift: 0.2 }}", X, {"x": positive}, in_place=False),
    Row("Power", "cube", f"{ONE} power_param {{ power: 3 }}", {"x": (2, 3)}, {"x": apart}, in_place=False),
    Row("Power", "constant", f"{ONE} power_param {{ power: 2 scale: 0 shift: 3 }}", X),
    Row("PReLU", "", ONE, X, {"x": apart}),
    Row(
        "PriorBox",
        "",
        f"{TWO} prior_box_param {{ min_size: 2 max_size: 3 aspect_ratio: 2 }}",
        {"x": (1, 2, 2, 3), "z": (1, 1, 8, 9)},
    ),
    Row(
        "PSROIPooling",
        "",
        f"{ROIS} psroi_pooling_param {{ output_dim: 2 group_size: 2 spatial_scale: 0.5 }}",
        {"x": (2, 8, 4, 5), "r": (4, 5)},
        {"r": regions},
        frozenset("r"),
    ),
    Row("PReLU", "2d", ONE, {"x": (3, 4)}, {"x": apart}),
    Row("PReLU", "shared", f"{ONE} prelu_param {{ channel_shared: true }}", X, {"x": apart}),
    Row("ReLU", "", ONE, X, {"x": apart}),
    Row("ReLU6", "", f"{ONE} relu6_param {{ threshold: 1 }}", X, {"x": apart}),
    Row("ReLU", "slope", f"{ONE} relu_param {{ negative_slope: 0.1 }}", X, {"x": apart}),
    Row(
        "Python",
        "",
        f'{ONE} python_param {{ module: "python_layers" layer: "Gain" param_str: "1" }}',
        {"x": (2, 3, 4, 4)},
    ),
    Row("Reduction", "sum", ONE, X),
    Row("Reduction", "asum", f"{ONE} reduction_param {{ operation: ASUM axis: 1 coeff: 2 }}", X, {"x": apart}),
    Row("Reduction", "sumsq", f"{ONE} reduction_param {{ operation: SUMSQ axis: -1 coeff: -0.5 }}", X),
    Row("Reduction", "mean", f"{ONE} reduction_param {{ operation: MEAN axis: 2 }}", X),
    Row("Reduction", "loss", f"{ONE} loss_weight: 0.3 reduction_param {{ operation: SUMSQ }}", {"x": (2, 3)}),
    Row("Reshape", "", f"{ONE} reshape_param {{ shape {{ dim: 0 dim: -1 dim: 2 }} }}", X),
    Row("Reshape", "axes", f"{ONE} reshape_param {{ axis: 1 num_axes: 2 shape {{ dim: 2 dim: -1 }} }}", X),
    Row("RNN", "", f"{SEQUENCE} recurrent_param {{ num_output: 3 }}", STEPS, INDICATORS, CONT, small),
    Row("RNN", "static", f"{STATIC} recurrent_param {{ num_output: 2 }}", STEPS_STATIC, INDICATORS, CONT, small),
    Row(
        "ROIPooling",
        "",
        f"{ROIS} roi_pooling_param {{ pooled_h: 2 pooled_w: 3 }}",
        {"x": (2, 2, 6, 7), "r": (4, 5)},
        {"x": apart, "r": regions},
        frozenset("r"),
    ),
    Row("Scale", "", f"{ONE} scale_param {{ }}", X),
    Row("Scale", "bias", f"{ONE} scale_param {{ axis: 1 num_axes: 2 bias_term: true }}", X),
    Row("Scale", "scalar", f"{ONE} scale_param {{ num_axes: 0 bias_term: true }}", X),
    Row("Scale", "last", f"{ONE} scale_param {{ axis: -1 bias_term: true }}", X),
    Row("Scale", "all", f"{ONE} scale_param {{ axis: 0 num_axes: -1 }}", {"x": (2, 3, 4)}),
    Row("Scale", "two", TWO, {"x": (2, 3, 4), "z": (3,)}, in_place=False),
    Row("Scale", "two-axis0", f"{TWO} scale_param {{ axis: 0 }}", {"x": (2, 3, 4), "z": (2, 3)}, in_place=False),
    Row("Scale", "two-bias", f"{TWO} scale_param {{ bias_term: true }}", {"x": (2, 3, 4), "z": (3,)}, in_place=False),
    Row("Sigmoid", "", ONE, X),
    Row(
        "SigmoidCrossEntropyLoss",
        "",
        LOSS,
        {"x": (4, 3), "label": (4, 3)},
        {"label": unit},
        LABEL,
    ),
    Row(
        "SigmoidCrossEntropyLoss",
        "ignore",
        f"{LOSS} loss_param {{ ignore_label: 1 normalization: VALID }} loss_weight: 2",
        {"x": (4, 3), "label": (4, 3)},
        {"label": labels(2)},
        LABEL,
    ),
    Row("SegAccuracy", "", LOSS, {"x": (2, 3, 4), "label": (2, 4)}, {"label": labels(3)}, frozenset({"x", "label"})),
    Row("SeLu", "", ONE, X, {"x": lambda rng, s: apart(rng, s) / 2}),
    Row("SeLuDropout", "train", f"{ONE} selu_dropout_param {{ dropout_ratio: 0.4 }}", X),
    Row("SeLuDropout", "test", ONE, X, phase=caffe_ext.TEST),
    Row("ShuffleChannel", "", f"{ONE} shuffle_channel_param {{ group: 3 }}", {"x": (2, 6, 2, 2)}),
    *(
        Row(
            "SigmoidCrossEntropyLoss",
            mode.lower(),
            f"{LOSS} loss_param {{ normalization: {mode} }}",
            {"x": (2, 3), "label": (2, 3)},
            {"label": unit},
            LABEL,
        )
        for mode in ("FULL", "NONE")
    ),
    Row("Silence", "", 'bottom: "x" bottom: "z"', XY),
    Row("Slice", "", 'bottom: "x" top: "y" top: "v" top: "w"', X),
    Row(
        "Slice",
        "points",
        'bottom: "x" top: "y" top: "v" slice_param { axis: -1 slice_point: 2 }',
        {"x": (2, 3, 5)},
    ),
    Row("Slice", "one", ONE, X),
    Row(
        "Slice",
        "axis0",
        'bottom: "x" top: "y" top: "v" top: "w" slice_param { axis: 0 slice_point: 1 slice_point: 3 }',
        {"x": (6, 2, 2)},
    ),
    Row(
        "SmoothL1Loss",
        "",
        f"{SMOOTH} smooth_l1_loss_param {{ sigma: 2 }} loss_weight: 3",
        FOUR,
        {"in": positive, "out": positive},
        frozenset({"in", "out"}),
    ),
    Row("SmoothL1Loss", "plain", 'bottom: "x" bottom: "z" top: "loss"', {"x": (3, 4), "z": (3, 4)}),
    Row(
        "SmoothL1LossOHEM",
        "",
        'bottom: "x" bottom: "z" bottom: "in" top: "loss" loss_weight: 2',
        {"x": (3, 4), "z": (3, 4), "in": (3, 4)},
        {"in": positive},
        frozenset({"in"}),
    ),
    Row("Softmax", "", ONE, {"x": (3, 4)}),
    Row("Softmax", "spatial", ONE, X),
    Row("Softmax", "axis0", f"{ONE} softmax_param {{ axis: 0 }}", {"x": (3, 4)}),
    Row("SoftmaxWithLoss", "", LOSS, {"x": (4, 3), "label": (4,)}, {"label": labels(3)}, LABEL),
    Row(
        "SoftmaxWithLoss",
        "ignore",
        f"{LOSS} loss_param {{ ignore_label: 1 }}",
        {"x": (4, 3, 2), "label": (4, 2)},
        {"label": labels(3)},
        LABEL,
    ),
    Row(
        "SoftmaxWithLoss",
        "classes",
        f"{LOSS} loss_param {{ ignore_label: 1 weight_by_label_freqs: true class_weighting: [2, 1, 0.5] }}",
        {"x": (4, 3, 2), "label": (4, 2)},
        {"label": labels(3)},
        LABEL,
    ),
    Row(
        "SoftmaxWithLoss",
        "frequencies",
        f"{LOSS} loss_param {{ weight_by_label_freqs: true }}",
        {"x": (4, 3, 2), "label": (4, 2)},
        {"label": labels(3)},
        LABEL,
    ),
    Row(
        "SoftmaxWithLoss",
        "weight",
        f"{LOSS} loss_weight: -0.7 loss_param {{ normalization: NONE }}",
        {"x": (4, 3), "label": (4, 1)},
        {"label": labels(3)},
        LABEL,
    ),
    Row(
        "SoftmaxWithLossOHEM",
        "",
        f"{LOSS} loss_param {{ ignore_label: 1 }}",
        {"x": (4, 3), "label": (4,)},
        {"label": labels(3)},
        LABEL,
    ),
    Row("SPP", "max", f"{ONE} spp_param {{ pyramid_height: 3 }}", {"x": (2, 2, 7, 8)}, {"x": apart}),
    Row("SPP", "ave", f"{ONE} spp_param {{ pyramid_height: 2 pool: AVE }}", {"x": (2, 2, 4, 5)}),
    Row("SPP", "one", f"{ONE} spp_param {{ pyramid_height: 1 }}", X, {"x": apart}),
    Row("SPP", "rectangle", f"{ONE} spp_param {{ pyramid_height: 3 pool: AVE }}", {"x": (2, 2, 4, 7)}),
    Row("Split", "", 'bottom: "x" top: "y" top: "v" top: "w"', {"x": (2, 3, 4)}),
    Row("Swish", "", ONE, X),
    Row("Swish", "beta", f"{ONE} swish_param {{ beta: 1.7 }}", {"x": (3, 4)}),
    Row("TanH", "", ONE, X),
    Row("Threshold", "", ONE, {"x": (3, 4)}, no_gradient=frozenset("x")),
    Row("Tile", "", f"{ONE} tile_param {{ tiles: 3 }}", X),
    Row("Tile", "axis0", f"{ONE} tile_param {{ axis: 0 tiles: 2 }}", {"x": (2, 3)}),
    Row("Tile", "last", f"{ONE} tile_param {{ axis: -1 tiles: 3 }}", {"x": (2, 3)}),
    Row("Upsample", "", TWO, {"x": (2, 2, 2, 3), "z": (2, 2, 2, 3)}, {"z": places}, frozenset("z")),
    Row("Upsample", "one", f"{ONE} upsample_param {{ scale_h: 2 scale_w: 3 }}", {"x": (2, 2, 2, 3)}),
]

# Types whose gradient does not exist, and why.
WITHOUT_GRADIENT = {
    "Accuracy": "counts hits: its derivative is 0 wherever it exists, and Caffe has none",
    "ArgMax": "its result is places: the derivative is 0 wherever it exists, and Caffe has none",
    "BoxAnnotatorOHEM": "chooses rows: its fork has none",
    "DetectionOutput": "chooses boxes: its fork has none",
    "SegAccuracy": "counts hits: its derivative is 0 wherever it exists, and its fork has none",
    "Threshold": "a step: its derivative is 0 wherever it exists, and Caffe has none",
}

TYPES = caffe_ext.layer_types()
OWN_ROWS = [row for row in ROWS if row.type in TYPES and row.type not in WITHOUT_GRADIENT]


def build(row: Row, in_place: bool = False) -> caffe_ext.Net:
    net = caffe_pb2.NetParameter(force_backward=row.force)
    for name, shape in row.inputs.items():
        net.layer.add(name=name, type="Input", top=[name]).input_param.shape.add(dim=shape)
    if not row.force:
        # Something to learn below the layer, which adds 0: else nobody would want the inputs' gradients.
        for name in row.inputs.keys() - row.no_gradient:
            net.layer.add(name=f"below_{name}", type="Bias", bottom=[name], top=[name])
    layer = net.layer.add(name="l", type=row.type)
    text_format.Merge(row.fields, layer)
    if in_place:
        layer.top[0] = layer.bottom[0]
    return caffe_ext.Net(net, row.phase, seed=1)


class Check:
    """A layer as a function from its inputs and parameters to one number, with its gradient by backward()."""

    def __init__(self, row: Row, in_place: bool = False) -> None:
        rng = np.random.default_rng(sum(map(ord, row.id)))
        self.row = row
        self.net = build(row, in_place)
        self.params = [blob.data for blob in self.net.params.get("l", [])]
        for values in self.params:
            values[...] = row.params(rng, values.shape)
        self.inputs = {
            name: row.values.get(name, normal)(rng, shape).astype(np.float32) for name, shape in row.inputs.items()
        }
        for name, values in self.inputs.items():
            self.net.blobs[name].data[...] = values
        self.net.forward()  # Filter's tops have their shapes only then
        self.loss_weights = {top: self.net.blob_loss_weights[top] for top in self.net.top_names["l"]}
        self.weights = {
            top: np.full(self.net.blobs[top].shape, weight)
            if weight
            else rng.standard_normal(self.net.blobs[top].shape)
            for top, weight in self.loss_weights.items()
        }

    def forward(self) -> float:
        """The weighted sum of all tops' values."""
        for name, values in self.inputs.items():
            self.net.blobs[name].data[...] = values
        self.net.set_seed(3)  # the same elements drop out each time
        self.net.forward()
        return sum(
            float(np.sum(weight * self.net.blobs[top].data.astype(np.float64))) for top, weight in self.weights.items()
        )

    def gradients(self) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        """Of forward() with respect to the inputs that have one, and to the parameters."""
        self.forward()
        self.net.clear_param_diffs()
        for top, weight in self.weights.items():
            if not self.loss_weights[top]:
                self.net.blobs[top].diff[...] = weight
        self.net.backward()
        wanted = [name for name in self.inputs if name not in self.row.no_gradient]
        return (
            {name: self.net.blobs[name].diff.astype(np.float64) for name in wanted},
            [blob.diff.astype(np.float64) for blob in self.net.params.get("l", [])],
        )

    def difference(self, values: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """The gradient with respect to `values` (an input or a parameter, changed in place) by central differences.

        `gradient` where the row does not ask for it.
        """
        result = gradient.copy()
        places = list(np.ndindex(values.shape))
        if 0 < self.row.sample < len(places):
            chosen = np.random.default_rng(len(places)).choice(len(places), self.row.sample, replace=False)
            places = [places[i] for i in chosen]
        for place in places:
            kept = values[place]
            ends = []
            for step in (STEP, -STEP):
                values[place] = kept + np.float32(step)
                ends.append((self.forward(), float(values[place])))
            values[place] = kept
            # Divided by the step that float32 really made.
            result[place] = (ends[0][0] - ends[1][0]) / (ends[0][1] - ends[1][1])
        return result


def assert_close(got: np.ndarray, want: np.ndarray, what: str) -> None:
    bound = 2e-3 * max(1.0, float(np.abs(want).max(initial=0.0)))
    np.testing.assert_allclose(got, want, rtol=0, atol=bound, err_msg=what)


def test_every_type_has_a_row() -> None:
    rows = {row.type for row in ROWS}
    without = [name for name, spec in TYPES.items() if not spec.source and name not in rows]
    assert not without, f"layer types without a row in {__name__}: {', '.join(without)}"


@pytest.mark.parametrize("row", OWN_ROWS, ids=lambda row: row.id)
def test_gradient(row: Row) -> None:
    check = Check(row)
    inputs, params = check.gradients()
    for name, gradient in inputs.items():
        assert_close(gradient, check.difference(check.inputs[name], gradient), f"gradient of input {name}")
    for i, gradient in enumerate(params):
        if i >= len(params) - row.statistics:
            np.testing.assert_array_equal(gradient, 0)
        else:
            assert_close(gradient, check.difference(check.params[i], gradient), f"gradient of parameter {i}")


# Statistics have no gradient, and the top of a Parameter layer is its parameter: who writes one writes both.
ADDING_UP = [row for row in OWN_ROWS if row.type not in ("BatchNorm", "Parameter")]


@pytest.mark.parametrize("row", ADDING_UP, ids=lambda r: r.id)
def test_parameter_gradients_add_up_and_inputs_are_overwritten(row: Row) -> None:
    check = Check(row)
    inputs, params = check.gradients()
    inputs = {name: values.copy() for name, values in inputs.items()}
    params = [values.copy() for values in params]
    for top, weight in check.weights.items():
        if not check.loss_weights[top]:
            check.net.blobs[top].diff[...] = weight
    check.net.backward()
    for name, values in inputs.items():
        np.testing.assert_allclose(check.net.blobs[name].diff, values, rtol=1e-5, atol=1e-6)
    for blob, values in zip(check.net.params.get("l", []), params, strict=True):
        np.testing.assert_allclose(blob.diff, 2 * values, rtol=1e-5, atol=1e-5)


IN_PLACE = [row for row in OWN_ROWS if TYPES[row.type].in_place and row.in_place]


@pytest.mark.parametrize("row", IN_PLACE, ids=lambda row: row.id)
def test_in_place_gives_the_same(row: Row) -> None:
    apart_check, inside = Check(row), Check(row, in_place=True)
    for values, same in zip(inside.params, apart_check.params, strict=True):
        values[...] = same
    weight = next(iter(apart_check.weights.values()))
    inside.weights = {"x": weight}
    inside.loss_weights = {"x": 0.0}
    assert apart_check.forward() == pytest.approx(inside.forward(), rel=1e-5)
    for want, got in zip(apart_check.gradients(), inside.gradients(), strict=True):
        want_list = list(want.values()) if isinstance(want, dict) else want
        got_list = list(got.values()) if isinstance(got, dict) else got
        for a, b in zip(want_list, got_list, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("row", [row for row in ROWS if row.type in WITHOUT_GRADIENT], ids=lambda row: row.id)
def test_types_without_gradient_say_so(row: Row) -> None:
    check = Check(row)
    check.forward()
    with pytest.raises(EngineError, match="has no gradient"):
        check.net.backward()
    check.forward()  # still usable


# Layers between two convolutions, where values lie in oneDNN's blocked layouts; 20 channels do not fill whole blocks.
BLOCKED = {
    "AbsVal": 'bottom: "a" top: "y"',
    "BNLL": 'bottom: "a" top: "y"',
    "BN": 'bottom: "a" top: "y" bn_param { bn_mode: LEARN shift_filler { type: "gaussian" } }',
    "BatchNorm": 'bottom: "a" top: "y"',
    "Bias": 'bottom: "a" top: "y" bias_param { filler { type: "gaussian" } }',
    "Clip": 'bottom: "a" top: "y" clip_param { min: 0.1 max: 0.4 }',
    "Concat": 'bottom: "a" bottom: "b" top: "y"',
    "Concat-axis2": 'bottom: "a" bottom: "b" top: "y" concat_param { axis: 2 }',
    "Concat-mixed": 'bottom: "x" bottom: "a" bottom: "b" top: "y"',
    "ConvolutionDepthwise": 'bottom: "a" top: "y" convolution_param { kernel_size: 3 '
    'weight_filler { type: "gaussian" } }',
    "Crop": 'bottom: "a" bottom: "x" top: "y"',
    "Deconvolution": 'bottom: "a" top: "y" convolution_param { num_output: 20 kernel_size: 3 stride: 2 '
    'weight_filler { type: "gaussian" std: 0.1 } bias_filler { type: "gaussian" } }',
    "Deconvolution-depthwise": 'bottom: "a" top: "y" convolution_param { num_output: CHANNELS group: CHANNELS '
    'kernel_size: 4 stride: 2 pad: 1 weight_filler { type: "bilinear" } }',
    "Dropout": 'bottom: "a" top: "y"',
    "Eltwise": 'bottom: "a" bottom: "b" top: "y" eltwise_param { coeff: 1 coeff: -2 }',
    "Eltwise-max": 'bottom: "a" bottom: "b" top: "y" eltwise_param { operation: MAX }',
    "Eltwise-prod": 'bottom: "a" bottom: "b" bottom: "a" top: "y" eltwise_param { operation: PROD }',
    "Eltwise-unstable": 'bottom: "a" bottom: "b" top: "y" eltwise_param { operation: PROD stable_prod_grad: false }',
    "ELU": 'bottom: "a" top: "y"',
    "Exp": 'bottom: "a" top: "y"',
    "Flatten": 'bottom: "a" top: "y"',
    "Log": 'bottom: "a" top: "y" log_param { shift: 40 scale: 0.1 }',
    "Interp": 'bottom: "a" top: "y" interp_param { zoom_factor: 2 }',
    "LRN": 'bottom: "a" top: "y"',
    "LRN-within": 'bottom: "a" top: "y" lrn_param { norm_region: WITHIN_CHANNEL }',
    "Pooling": 'bottom: "a" top: "y" pooling_param { kernel_size: 2 stride: 2 }',
    "Pooling-ave": 'bottom: "a" top: "y" pooling_param { pool: AVE kernel_size: 3 stride: 2 }',
    "Power": 'bottom: "a" top: "y" power_param { power: 2 shift: 1 }',
    "MVN": 'bottom: "a" top: "y"',
    "PReLU": 'bottom: "a" top: "y" prelu_param { filler { type: "gaussian" } }',
    "PReLU-shared": 'bottom: "a" top: "y" prelu_param { channel_shared: true }',
    "Normalize": 'bottom: "a" top: "y" norm_param { across_spatial: false }',
    "Permute": 'bottom: "a" top: "y" permute_param { order: [0, 1, 3] }',
    "ReLU": 'bottom: "a" top: "y"',
    "ReLU6": 'bottom: "a" top: "y" relu6_param { threshold: 0.3 }',
    "Scale": 'bottom: "a" top: "y" scale_param { bias_term: true filler { type: "gaussian" } }',
    "SeLu": 'bottom: "a" top: "y"',
    "ShuffleChannel": 'bottom: "a" top: "y" shuffle_channel_param { group: 4 }',
    "Sigmoid": 'bottom: "a" top: "y"',
    "Slice": 'bottom: "a" top: "y" top: "u"',
    "Softmax": 'bottom: "a" top: "y"',
    "Split": 'bottom: "a" top: "y" top: "u"',
    "Swish": 'bottom: "a" top: "y"',
    "TanH": 'bottom: "a" top: "y"',
    "Tile": 'bottom: "a" top: "y" tile_param { tiles: 2 }',
    "Upsample": 'bottom: "a" top: "y"',
}


@pytest.mark.parametrize("channels", [16, 20])
@pytest.mark.parametrize("case", [case for case in BLOCKED if case.split("-")[0] in TYPES])
def test_between_convolutions(case: str, channels: int) -> None:
    """A layer gives the same between convolutions, in their layouts, as alone on row-major values."""
    inner = (
        "kernel_size: 3 pad: 1 weight_filler { type: 'gaussian' std: 0.1 } bias_filler { type: 'gaussian' std: 0.1 }"
    )
    net = caffe_pb2.NetParameter(force_backward=True)
    net.layer.add(name="x", type="Input", top=["x"]).input_param.shape.add(dim=[2, channels, 6, 7])
    for name in ("a", "b"):
        layer = net.layer.add(name=name, type="Convolution", bottom=["x"], top=[name])
        text_format.Parse(f"num_output: {channels} {inner}", layer.convolution_param)
    text_format.Merge(
        BLOCKED[case].replace("CHANNELS", str(channels)), net.layer.add(name="l", type=case.split("-")[0])
    )
    last = net.layer.add(name="c", bottom=["y"], top=["c"])
    if case == "Flatten":
        last.type = "InnerProduct"
        text_format.Parse("num_output: 3 weight_filler { type: 'xavier' }", last.inner_product_param)
    else:
        last.type = "Convolution"
        text_format.Parse(f"num_output: 16 {inner}", last.convolution_param)

    rng = np.random.default_rng(0)
    flowing = caffe_ext.Net(net, caffe_ext.TEST, seed=4)
    flowing.blobs["x"].data[...] = rng.standard_normal((2, channels, 6, 7))
    flowing.forward()
    for top in {"c", "u"} & set(flowing.blobs):
        flowing.blobs[top].diff[...] = rng.standard_normal(flowing.blobs[top].shape)
    flowing.backward()

    single = caffe_pb2.NetParameter(force_backward=True)
    bottoms = sorted(set(net.layer[3].bottom))
    for name in bottoms:
        single.layer.add(name=name, type="Input", top=[name]).input_param.shape.add(dim=[2, channels, 6, 7])
    single.layer.add().CopyFrom(net.layer[3])
    alone = caffe_ext.Net(single, caffe_ext.TEST)
    for name in bottoms:
        alone.blobs[name].data[...] = flowing.blobs[name].data
    for mine, theirs in zip(alone.params.get("l", []), flowing.params.get("l", []), strict=True):
        mine.data[...] = theirs.data
    alone.forward()
    for top in net.layer[3].top:
        alone.blobs[top].diff[...] = flowing.blobs[top].diff
    alone.backward()

    for top in net.layer[3].top:
        assert_same(flowing.blobs[top].data, alone.blobs[top].data, top)
    for name in set(bottoms) - {"x"}:  # the convolutions' gradients go to x too
        assert_same(flowing.blobs[name].diff, alone.blobs[name].diff, name)
    for i, (mine, theirs) in enumerate(zip(alone.params.get("l", []), flowing.params.get("l", []), strict=True)):
        if case != "BatchNorm":  # statistics, which have no gradient
            assert_same(theirs.diff, mine.diff, f"parameter {i}")
    # What the next convolution read was right too.
    tail = caffe_pb2.NetParameter(force_backward=True)
    tail.layer.add(name="y", type="Input", top=["y"]).input_param.shape.add(dim=flowing.blobs["y"].shape)
    tail.layer.add().CopyFrom(last)
    after = caffe_ext.Net(tail, caffe_ext.TEST)
    for mine, theirs in zip(after.params["c"], flowing.params["c"], strict=True):
        mine.data[...] = theirs.data
    after.blobs["y"].data[...] = flowing.blobs["y"].data
    after.forward()
    assert_same(flowing.blobs["c"].data, after.blobs["c"].data, "c")


def assert_same(got: np.ndarray, want: np.ndarray, what: str) -> None:
    assert np.isfinite(got).all(), what
    assert np.any(want), f"{what} is all 0"
    bound = 2e-5 * max(1.0, float(np.abs(want).max()))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=bound, err_msg=what)


def assert_directional(row: Row) -> None:
    """One difference along a random direction through all inputs at once."""
    check = Check(row)
    gradients, _ = check.gradients()
    rng = np.random.default_rng(1)
    directions = {name: rng.standard_normal(values.shape) for name, values in gradients.items()}
    analytic = sum(float(np.sum(gradients[name] * directions[name])) for name in gradients)
    start = {name: values.copy() for name, values in check.inputs.items()}
    ends = []
    for sign in (1, -1):
        for name, direction in directions.items():
            check.inputs[name] = (start[name] + sign * STEP / 4 * direction).astype(np.float32)
        ends.append(check.forward())
    scale = sum(float(np.sum(np.abs(gradients[name] * directions[name]))) for name in gradients)
    assert (ends[0] - ends[1]) / (STEP / 2) == pytest.approx(analytic, abs=5e-3 * max(1.0, scale))


small_shape = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)
quick = settings(deadline=None, derandomize=True, max_examples=40)


@quick
@given(shape=small_shape, extents=st.lists(st.integers(1, 4), min_size=1, max_size=4), data=st.data())
def test_concat_of_any_shapes(shape: tuple[int, ...], extents: list[int], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    at = axis % len(shape)
    inputs = {f"x{i}": (*shape[:at], extent, *shape[at + 1 :]) for i, extent in enumerate(extents)}
    bottoms = " ".join(f'bottom: "{name}"' for name in inputs)
    row = Row("Concat", "any", f'{bottoms} top: "y" concat_param {{ axis: {axis} }}', inputs)
    check = Check(row)
    check.forward()
    np.testing.assert_array_equal(check.net.blobs["y"].data, np.concatenate(list(check.inputs.values()), at))
    gradients, _ = check.gradients()
    parts = np.split(check.weights["y"].astype(np.float32), np.cumsum(extents)[:-1], at)
    for name, part in zip(inputs, parts, strict=True):
        np.testing.assert_array_equal(gradients[name], part)


@quick
@given(shape=small_shape, bottoms=st.integers(2, 4), operation=st.sampled_from(["SUM", "PROD"]))
def test_eltwise_of_any_shape(shape: tuple[int, ...], bottoms: int, operation: str) -> None:
    inputs = {f"x{i}": shape for i in range(bottoms)}
    names = " ".join(f'bottom: "{name}"' for name in inputs)
    assert_directional(Row("Eltwise", "any", f'{names} top: "y" eltwise_param {{ operation: {operation} }}', inputs))


@quick
@given(shape=small_shape, data=st.data())
def test_softmax_along_any_axis(shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    row = Row("Softmax", "any", f"{ONE} softmax_param {{ axis: {axis} }}", {"x": shape})
    check = Check(row)
    check.forward()
    exponential = np.exp(check.inputs["x"].astype(np.float64))
    want = exponential / exponential.sum(axis=axis, keepdims=True)
    np.testing.assert_allclose(check.net.blobs["y"].data, want, rtol=1e-5)
    assert_directional(row)


@quick
@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple),
    mode=st.sampled_from(["FULL", "VALID", "BATCH_SIZE", "NONE"]),
    ignore=st.sampled_from([None, 0, 1]),
    data=st.data(),
)
def test_softmax_loss_of_any_shape(shape: tuple[int, ...], mode: str, ignore: int | None, data: st.DataObject) -> None:
    axis = data.draw(st.integers(1, len(shape) - 1))
    loss = f"normalization: {mode}" + ("" if ignore is None else f" ignore_label: {ignore}")
    row = Row(
        "SoftmaxWithLoss",
        "any",
        f"{LOSS} softmax_param {{ axis: {axis} }} loss_param {{ {loss} }}",
        {"x": shape, "label": (*shape[:axis], *shape[axis + 1 :])},
        {"label": labels(shape[axis])},
        LABEL,
    )
    check = Check(row)
    got = check.forward()
    scores = np.moveaxis(check.inputs["x"].astype(np.float64), axis, -1)
    logs = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    truth = check.inputs["label"].astype(int)
    items = -np.take_along_axis(logs, truth[..., None], -1)[..., 0]
    valid = truth != ignore if ignore is not None else np.ones_like(truth, bool)
    by = {"FULL": truth.size, "VALID": valid.sum(), "BATCH_SIZE": int(np.prod(shape[:axis])), "NONE": 1}[mode]
    assert got == pytest.approx(items[valid].sum() / max(1, by), rel=1e-4, abs=1e-5)
    assert_directional(row)
