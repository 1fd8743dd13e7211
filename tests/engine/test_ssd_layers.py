"""SSD's layer types, but for the loss, against NumPy written from the paper's definitions; corner cases."""

import itertools

import numpy as np
import pytest
from box_reference import VARIANCE, decode, overlap, prior_blob, random_boxes
from one_layer import RNG, check_refused, close, net_of, run

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import LayerError

# ---- normalising, permuting ----


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_normalize(across: bool, shared: bool) -> None:
    flags = f"across_spatial: {str(across).lower()} channel_shared: {str(shared).lower()}"
    net = net_of(f'type: "Normalize" norm_param {{ {flags} scale_filler {{ value: 20 }} eps: 0.01 }}', (2, 3, 4, 5))
    x = net.blobs["x0"].data.copy()
    norm = np.sqrt((x**2).sum(axis=(1, 2, 3) if across else 1, keepdims=True) + 0.01)
    close(run(net), 20 * x / norm)
    (scale,) = net.params["l"]
    assert scale.data.shape == (() if shared else (3,))
    scale.data[...] = 2 if shared else [1, 2, 3]
    close(run(net), (2 if shared else np.array([1, 2, 3]).reshape(3, 1, 1)) * x / norm)


@pytest.mark.parametrize("order", [*itertools.permutations(range(3)), (), (2,), (1,)])
def test_permute(order: tuple[int, ...]) -> None:
    net = net_of(f'type: "Permute" permute_param {{ order: {list(order)} }}', (2, 3, 4))
    x = net.blobs["x0"].data.copy()
    rest = [axis for axis in range(3) if axis not in order]
    np.testing.assert_array_equal(run(net), x.transpose(*order, *rest))


# ---- prior boxes ----


def prior_boxes(
    rows: int, columns: int, image: tuple[int, int], step: tuple[float, float], sizes: list[tuple[float, float]]
) -> np.ndarray:
    boxes = []
    for row, column, (width, height) in itertools.product(range(rows), range(columns), sizes):
        x, y = (column + 0.5) * step[1], (row + 0.5) * step[0]
        boxes.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    return np.array(boxes) / [image[1], image[0], image[1], image[0]]


def test_prior_boxes_of_ssd300() -> None:
    fields = "min_size: 30 max_size: 60 aspect_ratio: 2 aspect_ratio: 1 flip: true step: 8"
    fields += " variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2"
    got = run(net_of(f'type: "PriorBox" prior_box_param {{ {fields} }}', (1, 4, 3, 5), (1, 3, 24, 40)))
    root, wide = np.sqrt(30 * 60), np.sqrt(2)
    sizes = [(30, 30), (root, root), (30 * wide, 30 / wide), (30 / wide, 30 * wide)]
    close(got[0, 0].reshape(-1, 4), prior_boxes(3, 5, (24, 40), (8, 8), sizes))
    close(got[0, 1].reshape(-1, 4), np.tile(VARIANCE, (60, 1)))


def test_prior_boxes_by_default() -> None:
    layer = 'type: "PriorBox" prior_box_param { min_size: 10.9 min_size: 4 aspect_ratio: 3 flip: false clip: true }'
    got = run(net_of(layer, (1, 4, 2, 2), (1, 3, 30, 20)))
    wide = np.sqrt(3)
    sizes = [(10, 10), (10 * wide, 10 / wide), (4, 4), (4 * wide, 4 / wide)]  # 10.9 loses its fraction
    close(got[0, 0].reshape(-1, 4), prior_boxes(2, 2, (30, 20), (15, 10), sizes).clip(0, 1))
    close(got[0, 1], np.full(64, 0.1))


def test_prior_boxes_of_a_given_image() -> None:
    layer = 'type: "PriorBox" prior_box_param { min_size: 4 img_h: 16 img_w: 32 step_h: 2 step_w: 4 }'
    got = run(net_of(layer, (1, 1, 2, 3), (1, 3, 99, 98)))
    close(got[0, 0].reshape(-1, 4), prior_boxes(2, 3, (16, 32), (2, 4), [(4, 4)]))


# ---- DetectionOutput ----


def detections(
    offsets: np.ndarray, scores: np.ndarray, priors: np.ndarray, code: str, background: int, least: float,
    threshold: float, top: int, keep: int, in_target: bool,
) -> np.ndarray:  # fmt: skip
    """`offsets`: images × boxes × classes × 4; `scores`: images × boxes × classes."""
    rows = []
    for image in range(len(scores)):
        found = []
        for label in range(scores.shape[2]):
            if label == background:
                continue
            boxes = [
                decode(code, o * (1 if in_target else VARIANCE), p)
                for o, p in zip(offsets[image, :, label], priors, strict=True)
            ]
            order = [i for i in np.argsort(-scores[image, :, label], kind="stable") if scores[image, i, label] > least]
            kept: list[int] = []
            for i in order[:top]:
                if all(overlap(boxes[i], boxes[other]) <= threshold for other in kept):
                    kept.append(int(i))
            found += [[image, label, scores[image, i, label], *boxes[i]] for i in kept]
        best = sorted(found, key=lambda row: -row[2])[:keep]
        rows += sorted(best, key=lambda row: (row[1], -row[2]))
    return np.array(rows)


@pytest.mark.parametrize("code", ["CORNER", "CENTER_SIZE", "CORNER_SIZE"])
@pytest.mark.parametrize(("share", "background", "in_target"), [(True, 0, False), (False, 2, True), (False, -1, False)])
def test_detection_output(code: str, share: bool, background: int, in_target: bool) -> None:
    fields = f"num_classes: 4 share_location: {str(share).lower()} background_label_id: {background} code_type: {code} "
    fields += "nms_param { nms_threshold: 0.4 top_k: 12 } keep_top_k: 17 confidence_threshold: 0.2 "
    fields += f"variance_encoded_in_target: {str(in_target).lower()}"
    priors = random_boxes(30)
    offsets = 0.3 * RNG.standard_normal((2, 30, 1 if share else 4, 4))
    scores = RNG.uniform(0, 1, (2, 30, 4)).astype(np.float32)
    layer = f'type: "DetectionOutput" detection_output_param {{ {fields} }}'
    net = net_of(layer, (2, offsets[0].size), (2, 120), (1, 2, 120), phase=caffe_ext.TEST)
    assert net.blobs["y"].shape == (1, 1, 1, 7)
    got = run(net, offsets.reshape(2, -1), scores.reshape(2, -1), prior_blob(priors))
    each = np.broadcast_to(offsets, (2, 30, 4, 4))
    want = detections(each, scores, priors, code, background, 0.2, 0.4, 12, 17, in_target)
    assert got.shape == (1, 1, len(want), 7)
    close(got[0, 0], want)


def one_class(scores: list[float], boxes: np.ndarray, fields: str) -> np.ndarray:
    """What is found of the boxes themselves, by their scores as class 1."""
    layer = f'type: "DetectionOutput" detection_output_param {{ num_classes: 2 {fields} }}'
    count = len(scores)
    net = net_of(layer, (1, 4 * count), (1, 2 * count), (1, 2, 4 * count), phase=caffe_ext.TEST)
    both = np.column_stack([np.ones(count), scores]).reshape(1, -1)
    return run(net, np.zeros((1, 4 * count)), both, prior_blob(boxes))[0, 0]


def test_of_equal_scores_the_first_suppresses() -> None:
    boxes = np.array([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.55], [0.5, 0, 1, 0.5]])  # the last one only touches
    got = one_class([0.7, 0.7, 0.7], boxes, "")
    close(got[:, 3:], boxes[[0, 2]])


def test_a_shrinking_threshold() -> None:
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.7], [0, 0, 1, 0.45]])  # overlaps 0.7, 0.45 with the first; 0.643
    assert len(one_class([0.9, 0.8, 0.7], boxes, "nms_param { nms_threshold: 0.75 }")) == 3
    # After two kept ones the threshold is 0.75 × 0.8² = 0.48, above the first overlap of the third, below the second.
    assert len(one_class([0.9, 0.8, 0.7], boxes, "nms_param { nms_threshold: 0.75 eta: 0.8 }")) == 2


def test_nothing_found() -> None:
    layer = 'type: "DetectionOutput" detection_output_param { num_classes: 3 confidence_threshold: 0.5 }'
    net = net_of(layer, (2, 8), (2, 6), (1, 2, 8), phase=caffe_ext.TEST)
    inputs = np.zeros((2, 8)), np.full((2, 6), 0.5), prior_blob(random_boxes(2))
    np.testing.assert_array_equal(run(net, *inputs)[0, 0], [[image, *[-1] * 6] for image in range(2)])
    # Something the next time, then nothing again.
    assert len(run(net, inputs[0], np.full((2, 6), 0.6), inputs[2])[0, 0]) >= 4
    assert run(net, *inputs).shape == (1, 1, 2, 7)


def test_nan_scores_are_not_found() -> None:
    assert one_class([np.nan, 0.5], random_boxes(2), "")[:, 2] == pytest.approx([0.5])


def test_a_prior_box_without_area() -> None:
    with pytest.raises(LayerError, match="a prior box has no area"):
        one_class([0.5], np.array([[0.5, 0.5, 0.5, 0.6]]), "code_type: CENTER_SIZE")


# ---- what is refused ----

PRIOR = 'type: "PriorBox" prior_box_param { %s }'
FOUND = 'type: "DetectionOutput" detection_output_param { %s }'
MAPS = [(1, 2, 3, 3), (1, 3, 9, 9)]
THREE = [(2, 8), (2, 6), (1, 2, 8)]
REFUSED: list[tuple[str, list[tuple[int, ...]], str]] = [
    ('type: "Normalize"', [(3,)], "must have a channel axis"),
    ('type: "Normalize" norm_param { eps: -1 }', [(2, 3)], "eps must not be below 0"),
    ('type: "Permute" permute_param { order: 0 order: 0 }', [(2, 3)], "order: axis 0 is given twice"),
    ('type: "Permute" permute_param { order: 2 }', [(2, 3)], "order: axis 2 does not exist"),
    (PRIOR % "", MAPS, "min_size is missing"),
    (PRIOR % "min_size: 0", MAPS, "min_size must be at least 1"),
    (PRIOR % "min_size: 3 min_size: 4 max_size: 5", MAPS, "max_size must be given once for each min_size: 2 times"),
    (PRIOR % "min_size: 3 max_size: 3", MAPS, "max_size must be above min_size"),
    (PRIOR % "min_size: 3 aspect_ratio: 0", MAPS, "aspect_ratio must be above 0"),
    (PRIOR % "min_size: 3 variance: 1 variance: 2", MAPS, "variance must be given once or 4 times, not 2"),
    (PRIOR % "min_size: 3 variance: 0", MAPS, "variance must be above 0"),
    (PRIOR % "min_size: 3 step: 1 step_h: 2", MAPS, "step and step_h/step_w exclude each other"),
    (PRIOR % "min_size: 3 img_h: 2", MAPS, "img_h and img_w must be above 0"),
    (PRIOR % "min_size: 3", [(2, 3), (1, 3, 9, 9)], "must be N × C × H × W"),
    (PRIOR % "min_size: 3", [(1, 1, 30000, 30000), (1, 1, 3, 3)], "more than 2^31 - 1 elements"),
    (FOUND % "", THREE, "num_classes is missing"),
    (FOUND % "num_classes: 2", THREE, "must have 4 scores (one for each prior box and class)"),
    (FOUND % "num_classes: 3 share_location: false", THREE, "must have 24 locations"),
    (FOUND % "num_classes: 3", [(2, 8), (2, 6), (1, 1, 8)], "must be 1 × 2 × 4 P"),
    (FOUND % "num_classes: 4000000000", THREE, "more than 2^31 - 1 elements"),
    (FOUND % "num_classes: 3 nms_param { eta: 0 }", THREE, "eta must be above 0 and at most 1"),
    (FOUND % "num_classes: 3 nms_param { nms_threshold: -1 }", THREE, "nms_threshold must not be below 0"),
    (
        FOUND % "num_classes: 3 save_output_param { output_directory: 'out' }",
        THREE,
        "save_output_param.output_directory",
    ),
    (FOUND % "num_classes: 3 visualize: true", THREE, "visualize: detections are not drawn here"),
]


@pytest.mark.parametrize(("layer", "shapes", "reason"), REFUSED, ids=[case[2] for case in REFUSED])
def test_refused(layer: str, shapes: list[tuple[int, ...]], reason: str) -> None:
    check_refused(layer, shapes, reason)
