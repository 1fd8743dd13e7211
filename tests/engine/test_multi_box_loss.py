"""SSD's MultiBoxLoss against NumPy written from the paper's definition, and its corner cases."""

from collections.abc import Callable

import numpy as np
import pytest
from box_reference import VARIANCE, decode, encode, overlap, prior_blob, random_boxes
from one_layer import check_refused, net_of, run

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import LayerError


def matches(boxes: np.ndarray, truths: np.ndarray, per_box: bool, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """For each box the truth that it stands for (-1: none), and its largest overlap; as the paper words it."""
    table = np.array([[overlap(box, truth) for truth in truths] for box in boxes])
    best = table.max(axis=1)
    result = np.full(len(boxes), -1)
    free = table.copy()
    while free.max(initial=0) > 0:
        box, truth = np.unravel_index(free.argmax(), free.shape)
        result[box] = truth
        free[box, :] = free[:, truth] = 0
    if per_box:
        result = np.where((result < 0) & (best >= threshold), table.argmax(axis=1), result)
    return result, best


def smooth_l1(x: np.ndarray) -> float:
    return float(np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5).sum())


def squares(x: np.ndarray) -> float:
    return float((x**2).sum() / 2)


def softmax_loss(scores: np.ndarray, label: int) -> float:
    return float(np.log(np.exp(scores).sum()) - scores[label])


def logistic_loss(scores: np.ndarray, label: int) -> float:
    p = 1 / (1 + np.exp(-scores))
    return float(-np.log(np.where(np.arange(len(scores)) == label, p, 1 - p)).sum())


TRUTHS = np.array(
    [
        [0, 1, 0, 0.1, 0.1, 0.4, 0.5, 0],
        [2, 2, 0, 0.2, 0.3, 0.8, 0.7, 0],
        [0, 3, 0, 0.4, 0.2, 0.9, 0.8, 1],
        [-1] * 8,
        [2, 1, 0, 0.0, 0.0, 0.3, 0.3, 0],
    ]
)
IMAGES, BOXES, CLASSES = 3, 40, 4  # image 1 has no truth


def loss_net(fields: str, located: int = 1, rest: str = "", truths: np.ndarray = TRUTHS) -> caffe_ext.Net:
    shapes = [(IMAGES, BOXES * located * 4), (IMAGES, BOXES * CLASSES), (1, 2, BOXES * 4), (1, 1, *truths.shape)]
    layer = f'type: "MultiBoxLoss" multibox_loss_param {{ num_classes: {CLASSES} {fields} }} {rest}'
    net = net_of(layer, *shapes, force=True)
    net.blobs["x2"].data[...] = prior_blob(random_boxes(BOXES))
    net.blobs["x3"].data[...] = truths
    return net


def priors_of(net: caffe_ext.Net) -> np.ndarray:
    return np.array(net.blobs["x2"].data[0, 0]).reshape(-1, 4).astype(np.float64)


def truths_of(image: int, difficult: bool) -> np.ndarray:
    chosen = (TRUTHS[:, 0] == image) & (difficult | (TRUTHS[:, 7] == 0))
    return TRUTHS[chosen]


LOSSES = {"SMOOTH_L1": smooth_l1, "L2": squares}
CLASS_LOSSES: dict[str, Callable[[np.ndarray, int], float]] = {"SOFTMAX": softmax_loss, "LOGISTIC": logistic_loss}


@pytest.mark.parametrize("mining", ["NONE", "MAX_NEGATIVE", "HARD_EXAMPLE"])
@pytest.mark.parametrize(
    ("loc", "conf", "code", "match", "difficult", "in_target"),
    [
        ("SMOOTH_L1", "SOFTMAX", "CENTER_SIZE", "PER_PREDICTION", True, False),
        ("L2", "LOGISTIC", "CORNER", "BIPARTITE", False, True),
        ("SMOOTH_L1", "SOFTMAX", "CORNER_SIZE", "PER_PREDICTION", False, True),
    ],
)
def test_multi_box_loss(
    mining: str, loc: str, conf: str, code: str, match: str, difficult: bool, in_target: bool
) -> None:
    fields = f"loc_loss_type: {loc} conf_loss_type: {conf} code_type: {code} match_type: {match} mining_type: {mining} "
    fields += f"use_difficult_gt: {str(difficult).lower()} encode_variance_in_target: {str(in_target).lower()} "
    net = loss_net(fields + "overlap_threshold: 0.45 neg_overlap: 0.4 neg_pos_ratio: 2 sample_size: 7 loc_weight: 1.5")
    offsets = net.blobs["x0"].data.reshape(IMAGES, BOXES, 4).astype(np.float64)
    scores = net.blobs["x1"].data.reshape(IMAGES, BOXES, CLASSES).astype(np.float64)
    priors = priors_of(net)
    # Without in_target offsets count in variances; with it their differences do. Either way the error is the same, but
    # for what the prediction means.
    location = confidence = 0.0
    number = 0
    for image in range(IMAGES):
        truths = truths_of(image, difficult)
        if not len(truths) and mining != "NONE":
            continue
        found = np.full(BOXES, -1)
        best = np.zeros(BOXES)
        if len(truths):
            found, best = matches(priors, truths[:, 3:7], match == "PER_PREDICTION", 0.45)
        labels = np.array([int(truths[t, 1]) if t >= 0 else 0 for t in found])
        class_losses = np.array([CLASS_LOSSES[conf](scores[image, i], labels[i]) for i in range(BOXES)])
        errors = np.zeros((BOXES, 4))
        for i in np.flatnonzero(found >= 0):
            wanted = encode(code, truths[found[i], 3:7], priors[i]) / VARIANCE
            errors[i] = offsets[image, i] / (VARIANCE if in_target else 1) - wanted
        box_losses = np.array([LOSSES[loc](error) for error in errors])
        positive = found >= 0
        counted = np.ones(BOXES, bool)
        if mining == "MAX_NEGATIVE":
            candidates = np.flatnonzero((found < 0) & (best < 0.4))
            hardest = candidates[np.argsort(-class_losses[candidates], kind="stable")][: 2 * positive.sum()]
            counted = positive | np.isin(np.arange(BOXES), hardest)
        elif mining == "HARD_EXAMPLE":
            counted = np.isin(np.arange(BOXES), np.argsort(-(class_losses + box_losses), kind="stable")[:7])
            positive &= counted
        number += positive.sum()
        location += box_losses[positive].sum()
        confidence += class_losses[counted].sum()
    assert number > 0
    assert run(net) == pytest.approx((1.5 * location + confidence) / number, rel=1e-4)


@pytest.mark.parametrize("by_prior", [True, False])
def test_a_box_of_its_own_for_each_class(by_prior: bool) -> None:
    fields = f"share_location: false mining_type: NONE use_prior_for_matching: {str(by_prior).lower()}"
    net = loss_net(fields, located=CLASSES)
    net.blobs["x0"].data[...] *= 0.3
    offsets = net.blobs["x0"].data.reshape(IMAGES, BOXES, CLASSES, 4).astype(np.float64)
    scores = net.blobs["x1"].data.reshape(IMAGES, BOXES, CLASSES).astype(np.float64)
    priors = priors_of(net)
    location = confidence = 0.0
    number = 0
    for image in range(IMAGES):
        labels = np.zeros(BOXES, int)
        for label in range(1, CLASSES):
            truths = truths_of(image, True)
            boxes = priors
            if not by_prior:
                truths = truths[truths[:, 1] == label]
                boxes = np.array(
                    [decode("CORNER", offsets[image, i, label] * VARIANCE, priors[i]) for i in range(BOXES)]
                )
            if not len(truths):
                continue
            found, _ = matches(boxes, truths[:, 3:7], True, 0.5)
            for i in np.flatnonzero(found >= 0):
                if truths[found[i], 1] != label:
                    continue
                wanted = encode("CORNER", truths[found[i], 3:7], priors[i]) / VARIANCE
                location += smooth_l1(offsets[image, i, label] - wanted)
                labels[i] = label
                number += 1
        confidence += sum(softmax_loss(scores[image, i], labels[i]) for i in range(BOXES))
    assert number > 0
    assert run(net) == pytest.approx((location + confidence) / number, rel=1e-4)


def test_without_truth_nothing_counts() -> None:
    net = loss_net("", truths=np.full((1, 8), -1.0))
    assert run(net) == 0
    net.backward()
    assert not net.blobs["x0"].diff.any() and not net.blobs["x1"].diff.any()
    # Without mining all boxes are background; divided by 1, for want of matches.
    net = loss_net("mining_type: NONE", truths=np.full((1, 8), -1.0))
    scores = net.blobs["x1"].data.reshape(-1, CLASSES)
    assert run(net) == pytest.approx(sum(softmax_loss(row, 0) for row in scores), rel=1e-4)
    net.backward()
    assert not net.blobs["x0"].diff.any() and net.blobs["x1"].diff.any()


@pytest.mark.parametrize(("mode", "factor"), [("FULL", IMAGES * BOXES), ("BATCH_SIZE", IMAGES), ("NONE", 1)])
def test_what_the_loss_is_divided_by(mode: str, factor: int) -> None:
    net = loss_net("", rest=f"loss_param {{ normalization: {mode} }}")
    plain = loss_net("", rest="loss_param { normalization: NONE }")
    for i in range(4):
        plain.blobs[f"x{i}"].data[...] = net.blobs[f"x{i}"].data
    assert run(net) * factor == pytest.approx(run(plain), rel=1e-5)


def test_no_gradient_from_outside_the_image() -> None:
    net = loss_net("bp_inside: true match_type: BIPARTITE")
    net.blobs["x2"].data[0, 0, 0::4] -= 0.5  # all boxes begin left of the image
    net.forward()
    net.backward()
    gradient = net.blobs["x0"].diff.reshape(-1, 4)
    assert not gradient[:, 0].any() and gradient[:, 1:].any()


def test_boxes_across_the_border_are_ignored() -> None:
    net = loss_net("ignore_cross_boundary_bbox: true mining_type: MAX_NEGATIVE")
    net.blobs["x2"].data[0, 0, 3::4] = 1.1  # none is wholly inside: no match, no negative
    assert run(net) == 0


def test_parts_that_may_not_propagate_do_not_count() -> None:
    net = loss_net("mining_type: NONE", rest="propagate_down: [false, true, false, false]")
    scores = net.blobs["x1"].data.reshape(IMAGES, BOXES, CLASSES)
    total = 0.0
    number = 0
    for image in range(IMAGES):
        truths = truths_of(image, True)
        found = matches(priors_of(net), truths[:, 3:7], True, 0.5)[0] if len(truths) else np.full(BOXES, -1)
        number += (found >= 0).sum()
        total += sum(softmax_loss(scores[image, i], int(truths[t, 1]) if t >= 0 else 0) for i, t in enumerate(found))
    assert run(net) == pytest.approx(total / number, rel=1e-4)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([3, 1, 0, 0, 0, 1, 1, 0], "true box 0 is of image 3, but there are 3 in the batch"),
        ([0, 0, 0, 0, 0, 1, 1, 0], "of class 0, the background"),
        ([0, 4, 0, 0, 0, 1, 1, 0], "class 4 of true box 0 is not one of the 4 classes"),
    ],
)
def test_truth_that_makes_no_sense(row: list[float], reason: str) -> None:
    with pytest.raises(LayerError, match=reason):
        loss_net("", truths=np.array([row])).forward()


def test_scores_that_are_not_numbers_show_in_the_loss() -> None:
    net = loss_net("")
    net.blobs["x1"].data[0, 0] = np.nan
    assert np.isnan(run(net))


LOSS = 'type: "MultiBoxLoss" multibox_loss_param { %s }'
THREE = [(2, 8), (2, 6), (1, 2, 8)]
FOUR = [*THREE, (1, 1, 4, 8)]
REFUSED: list[tuple[str, list[tuple[int, ...]], str]] = [
    (LOSS % "", FOUR, "num_classes is missing"),
    (LOSS % "num_classes: 3 do_neg_mining: false", FOUR, "do_neg_mining contradicts mining_type MAX_NEGATIVE"),
    (LOSS % "num_classes: 3 share_location: false", FOUR, "mining_type MAX_NEGATIVE needs share_location: true"),
    (LOSS % "num_classes: 3 background_label_id: 3", FOUR, "background_label_id 3 is not one of the 3 classes"),
    (LOSS % "num_classes: 3 neg_pos_ratio: 0", FOUR, "neg_pos_ratio must be above 0"),
    (LOSS % "num_classes: 3 mining_type: HARD_EXAMPLE sample_size: 0", FOUR, "sample_size must be at least 1"),
    (LOSS % "num_classes: 3 map_object_to_agnostic: true", FOUR, "map_object_to_agnostic needs num_classes 2"),
    (LOSS % "num_classes: 3 nms_param { top_k: 3 }", FOUR, "nms_param is not known here"),
    (LOSS % "num_classes: 3", [*THREE, (1, 1, 4, 7)], "must be rows of 8 numbers"),
]


@pytest.mark.parametrize(("layer", "shapes", "reason"), REFUSED, ids=[case[2] for case in REFUSED])
def test_refused(layer: str, shapes: list[tuple[int, ...]], reason: str) -> None:
    check_refused(layer, shapes, reason)
