"""Layers of Fast R-CNN, R-FCN and DeepLab for regions, losses and accuracy, against NumPy from the definitions."""

import math

import numpy as np
import pytest
from one_layer import RNG, close, message_of, net_of, run

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import LayerError


def round_half_up(x: float) -> int:
    """To the nearest whole number, halves away from 0."""
    return int(math.copysign(math.floor(abs(x) + 0.5), x))


# ---- regions ----

REGIONS = np.array(
    [
        [0, 0, 0, 15, 11],  # the whole map of image 0
        [1, 4.4, 3.6, 9.5, 8.5],
        [1, -20, -20, 60, 50],  # beyond every border
        [0, 40, 40, 60, 60],  # wholly outside
        [1, 6, 6, 6, 6],  # a single place, fewer than the cells
        [0, 9, 8, 3, 2],  # corners the wrong way round
        [0, 0, 0, 15, 11],
    ]
)
MAPS = (2, 3, 6, 8)


def roi_pooling(x: np.ndarray, regions: np.ndarray, rows: int, columns: int, scale: float) -> np.ndarray:
    y = np.zeros((len(regions), x.shape[1], rows, columns))
    for n, (image, *corners) in enumerate(regions):
        left, above, right, below = (round_half_up(corner * scale) for corner in corners)
        height, width = max(below - above + 1, 1), max(right - left + 1, 1)
        for i, j in np.ndindex(rows, columns):
            top, bottom = above + i * height // rows, above - (-(i + 1) * height // rows)
            first, last = left + j * width // columns, left - (-(j + 1) * width // columns)
            cell = x[int(image), :, max(top, 0) : max(bottom, 0), max(first, 0) : max(last, 0)]
            if cell.size:
                y[n, :, i, j] = cell.max(axis=(1, 2))
    return y


@pytest.mark.parametrize(("rows", "columns", "scale"), [(2, 3, 0.5), (1, 1, 0.5), (7, 7, 0.25), (4, 2, 1.0)])
def test_roi_pooling(rows: int, columns: int, scale: float) -> None:
    fields = f"pooled_h: {rows} pooled_w: {columns} spatial_scale: {scale}"
    net = net_of(f'type: "ROIPooling" roi_pooling_param {{ {fields} }}', MAPS, REGIONS.shape)
    x = net.blobs["x0"].data.copy()
    close(run(net, x, REGIONS), roi_pooling(x, REGIONS, rows, columns, scale))


def psroi_pooling(x: np.ndarray, regions: np.ndarray, outputs: int, group: int, scale: float) -> np.ndarray:
    y = np.zeros((len(regions), outputs, group, group))
    maps = x.reshape(x.shape[0], outputs, group, group, *x.shape[2:])
    for n, (image, *corners) in enumerate(regions):
        left, above, right, below = (round_half_up(corner) for corner in corners)
        height, width = max((below + 1 - above) * scale, 0.1), max((right + 1 - left) * scale, 0.1)
        for i, j in np.ndindex(group, group):
            top, bottom = (
                math.floor(above * scale + i * height / group),
                math.ceil(above * scale + (i + 1) * height / group),
            )
            first, last = (
                math.floor(left * scale + j * width / group),
                math.ceil(left * scale + (j + 1) * width / group),
            )
            cell = maps[int(image), :, i, j, max(top, 0) : max(bottom, 0), max(first, 0) : max(last, 0)]
            if cell.size:
                y[n, :, i, j] = cell.mean(axis=(1, 2))
    return y


@pytest.mark.parametrize(("outputs", "group", "scale"), [(3, 2, 0.5), (2, 4, 0.25), (5, 1, 1.0)])
def test_psroi_pooling(outputs: int, group: int, scale: float) -> None:
    fields = f"output_dim: {outputs} group_size: {group} spatial_scale: {scale}"
    shape = (2, outputs * group * group, 6, 8)
    net = net_of(f'type: "PSROIPooling" psroi_pooling_param {{ {fields} }}', shape, (*REGIONS.shape, 1, 1))
    x = net.blobs["x0"].data.copy()
    close(run(net, x, REGIONS[..., None, None]), psroi_pooling(x, REGIONS, outputs, group, scale))


@pytest.mark.parametrize("row", [[2, 0, 0, 1, 1], [-1, 0, 0, 1, 1], [0, 0, np.nan, 1, 1], [0, 0, 0, 1e30, 1]])
def test_regions_that_make_no_sense(row: list[float]) -> None:
    for layer in (
        'type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 2 }',
        'type: "PSROIPooling" psroi_pooling_param { output_dim: 1 group_size: 2 spatial_scale: 1 }',
    ):
        net = net_of(layer, (2, 4, 3, 3), (1, 5))
        with pytest.raises(LayerError, match="region 0 "):
            run(net, np.zeros((2, 4, 3, 3)), np.array([row]))


# ---- losses ----


def smooth_l1(x: np.ndarray, sigma: float) -> np.ndarray:
    return np.where(np.abs(x) < 1 / sigma**2, 0.5 * (sigma * x) ** 2, np.abs(x) - 0.5 / sigma**2)


@pytest.mark.parametrize("bottoms", [2, 3, 4])
def test_smooth_l1_loss(bottoms: int) -> None:
    shapes = [(5, 8), (5, 8, 1, 1), (5, 8), (5, 8)][:bottoms]
    net = net_of('type: "SmoothL1Loss" smooth_l1_loss_param { sigma: 1.5 }', *shapes)
    a, b, inside, outside = (
        net.blobs[f"x{i}"].data.reshape(5, 8).copy() if i < bottoms else np.ones((5, 8)) for i in range(4)
    )
    assert run(net) == pytest.approx((outside * smooth_l1(inside * (a - b), 1.5)).sum() / 5, rel=1e-5)


@pytest.mark.parametrize(("mode", "by"), [("VALID", 24), ("FULL", 24), ("BATCH_SIZE", 4), ("NONE", 1)])
def test_smooth_l1_loss_ohem(mode: str, by: int) -> None:
    layer = f'type: "SmoothL1LossOHEM" loss_param {{ normalization: {mode} }}'
    net = net_of(layer, *[(4, 5, 2, 3)] * 3, tops='top: "y" top: "each"')
    a, b, weight = (net.blobs[f"x{i}"].data.copy() for i in range(3))
    losses = smooth_l1(weight * (a - b), 1.0)
    assert run(net) == pytest.approx(losses.sum() / by, rel=1e-5)
    close(net.blobs["each"].data, losses.sum(axis=1, keepdims=True))


def test_softmax_with_loss_ohem() -> None:
    layer = 'type: "SoftmaxWithLossOHEM" loss_param { ignore_label: -1 }'
    net = net_of(layer, (5, 3), (5,), tops='top: "y" top: "prob" top: "each"')
    scores, labels = net.blobs["x0"].data.copy(), np.array([0, 2, -1, 1, 1])
    prob = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    losses = np.where(labels < 0, 0, -np.log(prob[np.arange(5), labels]))
    assert run(net, scores, labels) == pytest.approx(losses.sum() / 4, rel=1e-5)
    close(net.blobs["prob"].data, prob[..., None, None])
    close(net.blobs["each"].data.ravel(), losses)


@pytest.mark.parametrize("given", [[0.5, 2.0, 1.0], []])
def test_softmax_with_loss_of_segnet(given: list[float]) -> None:
    layer = (
        f'type: "SoftmaxWithLoss" loss_param {{ ignore_label: 3 weight_by_label_freqs: true class_weighting: {given} }}'
    )
    net = net_of(layer, (2, 3, 2, 2), (2, 1, 2, 2))
    scores, labels = net.blobs["x0"].data.copy(), np.array([0, 0, 0, 1, 3, 2, 2, 3]).reshape(2, 1, 2, 2)
    weights = given or [1 / 3, 1, 1 / 2]
    prob = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    losses = [
        -weights[label] * np.log(prob[n, label, h, w]) for (n, _, h, w), label in np.ndenumerate(labels) if label < 3
    ]
    assert run(net, scores, labels) == pytest.approx(sum(losses) / 6, rel=1e-5)


def test_box_annotator_ohem() -> None:
    layer = 'type: "BoxAnnotatorOHEM" box_annotator_ohem_param { roi_per_img: 2 ignore_label: -1 }'
    net = net_of(layer, (6, 5), (6, 1, 1, 1), (6,), (6, 8), tops='top: "y" top: "weights"')
    images = np.array([0, 1, 0, 0, 1, 0])
    regions = np.column_stack([images, np.zeros((6, 4))])
    losses = np.array([0.5, 0.1, 2.0, 0.5, 0.3, 0.1])  # of the equal ones the first is taken
    labels, weights = np.arange(1, 7), net.blobs["x3"].data.copy()
    got = run(net, regions, losses.reshape(6, 1, 1, 1), labels, weights)
    kept = np.array([True, True, True, False, True, False])
    np.testing.assert_array_equal(got.ravel(), np.where(kept, labels, -1))
    close(net.blobs["weights"].data[..., 0, 0], weights * kept[:, None])


def test_box_annotator_ohem_refuses_nan() -> None:
    layer = 'type: "BoxAnnotatorOHEM" box_annotator_ohem_param { roi_per_img: 2 }'
    net = net_of(layer, (2, 5), (2,), (2,), (2, 8), tops='top: "y" top: "weights"')
    net.blobs["x1"].data[1] = np.nan
    with pytest.raises(LayerError, match="the loss of region 1 is not a number"):
        net.forward()


@pytest.mark.parametrize("reset", [True, False])
def test_seg_accuracy(reset: bool) -> None:
    layer = f'type: "SegAccuracy" seg_accuracy_param {{ ignore_label: 9 ignore_label: 8 reset: {str(reset).lower()} }}'
    net = net_of(layer, (2, 5, 3, 4), (2, 1, 3, 4))
    counts = np.zeros((5, 5))
    for _ in range(2):
        scores = RNG.standard_normal((2, 5, 3, 4))
        scores[:, 4] = -10  # class 4 is neither label nor answer, class 3 no label
        labels = RNG.choice([0, 1, 2, 8, 9], (2, 1, 3, 4))
        if reset:
            counts[...] = 0
        for label, answer in zip(labels.ravel(), scores.argmax(axis=1).ravel(), strict=True):
            if label < 5:
                counts[label, answer] += 1
        got = run(net, scores, labels)
    hits, labelled, answered = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    either = labelled + answered - hits
    union = np.where(either == 0, 1.0, hits / np.maximum(either, 1))
    recalls = hits[labelled > 0] / labelled[labelled > 0]
    close(got.ravel(), np.array([hits.sum() / counts.sum(), recalls.mean(), union.mean()]))


def test_seg_accuracy_without_labels() -> None:
    net = net_of('type: "SegAccuracy" seg_accuracy_param { ignore_label: 0 }', (1, 2, 2, 2), (1, 1, 2, 2))
    np.testing.assert_array_equal(run(net, np.zeros((1, 2, 2, 2)), np.zeros((1, 1, 2, 2))).ravel(), [0, 0, 1])


MAP = (2, 4, 6, 6)
ROI = 'type: "ROIPooling" roi_pooling_param { %s }'
PSROI = 'type: "PSROIPooling" psroi_pooling_param { %s }'
ANNOTATOR = 'type: "BoxAnnotatorOHEM" box_annotator_ohem_param { %s }'
REFUSED: list[tuple[str, list[tuple[int, ...]], str, str]] = [
    (ROI % "pooled_h: 2", [MAP, (3, 5)], "pooled_w must be at least 1", 'top: "y"'),
    (ROI % "pooled_h: 2 pooled_w: 2 spatial_scale: 0", [MAP, (3, 5)], "spatial_scale must be above 0", 'top: "y"'),
    (ROI % "pooled_h: 2 pooled_w: 2", [MAP, (3, 4)], "must be rows of 5 numbers", 'top: "y"'),
    (ROI % "pooled_h: 2 pooled_w: 2", [(2, 4), (3, 5)], "must be N × C × H × W", 'top: "y"'),
    (ROI % "pooled_h: 100000 pooled_w: 100000", [MAP, (3, 5)], "more than 2^31 - 1 elements", 'top: "y"'),
    (PSROI % "output_dim: 2 group_size: 2", [MAP, (3, 5)], "spatial_scale is missing", 'top: "y"'),
    (
        PSROI % "output_dim: 2 group_size: 2 spatial_scale: 1",
        [MAP, (3, 5)],
        "output_dim × group_size² = 8 channels",
        'top: "y"',
    ),
    (
        PSROI % "output_dim: 2000000000 group_size: 2000000000 spatial_scale: 1",
        [MAP, (3, 5)],
        "more than 2^31 - 1",
        'top: "y"',
    ),
    ('type: "SmoothL1Loss" smooth_l1_loss_param { sigma: 0 }', [(2, 3), (2, 3)], "sigma must be above 0", 'top: "y"'),
    ('type: "SmoothL1Loss"', [(2, 3), (2, 3), (2, 4)], "`x0` is 2 × 3 and `x2` is 2 × 4", 'top: "y"'),
    ('type: "SegAccuracy"', [(2, 3, 4, 4), (2, 1, 4, 5)], "needs 32 labels", 'top: "y"'),
    (
        'type: "SoftmaxWithLoss" loss_param { class_weighting: 1 }',
        [(2, 3), (2,)],
        "class_weighting counts with weight_by_label_freqs: true only",
        'top: "y"',
    ),
    (
        'type: "SoftmaxWithLoss" loss_param { weight_by_label_freqs: true class_weighting: 1 }',
        [(2, 3), (2,)],
        "class_weighting has 1 values, but there are 3 classes",
        'top: "y"',
    ),
    (ANNOTATOR % "", [(2, 5), (2,), (2,), (2, 8)], "roi_per_img must be at least 1", 'top: "y" top: "v"'),
    (ANNOTATOR % "roi_per_img: 1", [(2, 5), (2,), (3,), (2, 8)], "`x2` is 3", 'top: "y" top: "v"'),
]


@pytest.mark.parametrize(("layer", "shapes", "reason", "tops"), REFUSED, ids=[case[2] for case in REFUSED])
def test_refused(layer: str, shapes: list[tuple[int, ...]], reason: str, tops: str) -> None:
    with pytest.raises(LayerError) as error:
        net_of(layer, *shapes, tops=tops)
    assert reason in str(error.value)
    assert error.value.layer == "l"
    (problem,) = caffe_ext.check_net(message_of(layer, *shapes, tops=tops), caffe_ext.TRAIN).problems
    assert reason in problem.reason
