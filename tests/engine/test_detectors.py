"""Layers of detectors together, wired as published nets wire them."""

import numpy as np
import pytest
from box_reference import overlap
from google.protobuf import text_format
from one_layer import net_of

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import LayerError
from sparknet_dsl.proto import caffe_pb2

pytestmark = pytest.mark.usefixtures("one_thread")


TINY = """
force_backward: false
layer {{ name: "data" type: "Input" top: "data" top: "truth"
  input_param {{ shape {{ dim: [8, 2, 16, 16] }} shape {{ dim: [1, 1, 8, 8] }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 16 kernel_size: 4 stride: 4 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "norm" type: "Normalize" bottom: "conv" top: "norm"
  norm_param {{ across_spatial: false scale_filler {{ value: 10 }} channel_shared: false }} }}
{heads}
layer {{ name: "prior" type: "PriorBox" bottom: "norm" bottom: "data" top: "prior"
  prior_box_param {{ min_size: 4 aspect_ratio: 2 variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 }} }}
layer {{ name: "loss" type: "MultiBoxLoss" bottom: "flat_loc" bottom: "flat_conf" bottom: "prior" bottom: "truth"
  top: "loss" multibox_loss_param {{ num_classes: 3 code_type: CENTER_SIZE overlap_threshold: 0.4 }}
  include {{ phase: TRAIN }} }}
layer {{ name: "rows" type: "Reshape" bottom: "flat_conf" top: "rows" reshape_param {{ shape {{ dim: [0, -1, 3] }} }}
  include {{ phase: TEST }} }}
layer {{ name: "prob" type: "Softmax" bottom: "rows" top: "prob" softmax_param {{ axis: 2 }}
  include {{ phase: TEST }} }}
layer {{ name: "flat" type: "Flatten" bottom: "prob" top: "flat" include {{ phase: TEST }} }}
layer {{ name: "found" type: "DetectionOutput" bottom: "flat_loc" bottom: "flat" bottom: "prior" top: "found"
  detection_output_param {{ num_classes: 3 code_type: CENTER_SIZE keep_top_k: 1 confidence_threshold: 0.3 }}
  include {{ phase: TEST }} }}
"""
HEAD = """
layer {{ name: "{name}" type: "Convolution" bottom: "norm" top: "{name}"
  convolution_param {{ num_output: {outputs} kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "perm_{name}" type: "Permute" bottom: "{name}" top: "perm_{name}"
  permute_param {{ order: [0, 2, 3, 1] }} }}
layer {{ name: "flat_{name}" type: "Flatten" bottom: "perm_{name}" top: "flat_{name}" }}
"""


def test_a_tiny_detector_learns() -> None:
    """The layers together: boxes of two kinds, on an otherwise empty image, are found after some steps."""
    heads = HEAD.format(name="loc", outputs=12) + HEAD.format(name="conf", outputs=9)
    net = text_format.Parse(TINY.format(heads=heads), caffe_pb2.NetParameter())
    solver = caffe_ext.Solver(
        caffe_pb2.SolverParameter(
            net_param=net, base_lr=0.02, lr_policy="fixed", type="Adam", momentum=0.9, random_seed=1
        )
    )
    rng = np.random.default_rng(0)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        images, rows = np.zeros((8, 2, 16, 16)), np.zeros((8, 8))
        for i in range(8):
            kind, x, y = rng.integers(1, 3), *rng.integers(0, 12, 2)
            images[i, kind - 1, y : y + 4, x : x + 4] = 1
            rows[i] = [i, kind, 0, x / 16, y / 16, (x + 4) / 16, (y + 4) / 16, 0]
        return images, rows

    def feed(step: int) -> None:
        images, rows = draw()
        solver.net.blobs["data"].data[...] = images
        solver.net.blobs["truth"].data[0, 0] = rows

    solver.step(100, feed)
    test = caffe_ext.Net(net, caffe_ext.TEST)
    for name, blobs in solver.net.params.items():
        for mine, learned in zip(test.params[name], blobs, strict=True):
            mine.data[...] = learned.data
    images, rows = draw()
    test.blobs["data"].data[...] = images
    found = test.forward()["found"][0, 0]
    assert len(found) == 8
    np.testing.assert_array_equal(found[:, :2], rows[:, :2])
    overlaps = [overlap(got[3:], want[3:7]) for got, want in zip(found, rows, strict=True)]
    assert min(overlaps) > 0.5


RFCN = """
layer { name: "data" type: "Input" top: "maps" top: "rois" top: "labels" top: "targets" top: "weights" input_param {
  shape { dim: [1, 6, 14, 14] } shape { dim: [6, 5] } shape { dim: 6 } shape { dim: [6, 8] } shape { dim: [6, 8] } } }
layer { name: "cls" type: "Convolution" bottom: "maps" top: "cls" param { } param { }
  convolution_param { num_output: 27 kernel_size: 1 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "box" type: "Convolution" bottom: "maps" top: "box" param { } param { }
  convolution_param { num_output: 72 kernel_size: 1 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "cls_rois" type: "PSROIPooling" bottom: "cls" bottom: "rois" top: "cls_rois"
  psroi_pooling_param { spatial_scale: 0.0625 output_dim: 3 group_size: 3 } }
layer { name: "cls_score" type: "Pooling" bottom: "cls_rois" top: "cls_score"
  pooling_param { pool: AVE kernel_size: 3 stride: 3 } }
layer { name: "box_rois" type: "PSROIPooling" bottom: "box" bottom: "rois" top: "box_rois"
  psroi_pooling_param { spatial_scale: 0.0625 output_dim: 8 group_size: 3 } }
layer { name: "box_pred" type: "Pooling" bottom: "box_rois" top: "box_pred"
  pooling_param { pool: AVE kernel_size: 3 stride: 3 } }
layer { name: "roi_loss_cls" type: "SoftmaxWithLossOHEM" bottom: "cls_score" bottom: "labels" top: "temp_loss_cls"
  top: "temp_prob" top: "roi_loss_cls" loss_weight: 0 loss_weight: 0 loss_weight: 0
  propagate_down: false propagate_down: false }
layer { name: "roi_loss_box" type: "SmoothL1LossOHEM" bottom: "box_pred" bottom: "targets" bottom: "weights"
  top: "temp_loss_box" top: "roi_loss_box" loss_weight: 0 loss_weight: 0
  propagate_down: false propagate_down: false propagate_down: false }
layer { name: "roi_loss" type: "Eltwise" bottom: "roi_loss_cls" bottom: "roi_loss_box" top: "roi_loss"
  propagate_down: false propagate_down: false }
layer { name: "hard" type: "BoxAnnotatorOHEM" bottom: "rois" bottom: "roi_loss" bottom: "labels" bottom: "weights"
  top: "hard_labels" top: "hard_weights" box_annotator_ohem_param { roi_per_img: 2 ignore_label: -1 }
  propagate_down: false propagate_down: false propagate_down: false propagate_down: false }
layer { name: "silence" type: "Silence" bottom: "temp_loss_cls" bottom: "temp_prob" bottom: "temp_loss_box" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "cls_score" bottom: "hard_labels" top: "loss_cls" loss_weight: 1
  loss_param { ignore_label: -1 } propagate_down: true propagate_down: false }
layer { name: "loss_box" type: "SmoothL1LossOHEM" bottom: "box_pred" bottom: "targets" bottom: "hard_weights"
  top: "loss_box" loss_weight: 1 loss_param { normalization: NONE }
  propagate_down: true propagate_down: false propagate_down: false }
"""


def test_only_the_hardest_regions_of_rfcn_learn() -> None:
    net = caffe_ext.Net(text_format.Parse(RFCN, caffe_pb2.NetParameter()), caffe_ext.TRAIN, seed=1)
    rng = np.random.default_rng(0)
    net.blobs["maps"].data[...] = rng.standard_normal((1, 6, 14, 14))
    corners = 16 * rng.integers(0, 8, (6, 2))
    net.blobs["rois"].data[...] = np.hstack([np.zeros((6, 1)), corners, corners + 80])
    net.blobs["labels"].data[...] = [0, 1, 2, 0, 1, 2]
    net.blobs["targets"].data[...] = rng.standard_normal((6, 8))
    net.blobs["weights"].data[...] = 1
    net.forward()
    net.backward()
    hardest = np.argsort(-net.blobs["roi_loss"].data.ravel())[:2]
    learning = net.blobs["cls_score"].diff.reshape(6, -1).any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(learning), np.sort(hardest))
    np.testing.assert_array_equal(net.blobs["box_pred"].diff.reshape(6, -1).any(axis=1), learning)
    assert all(blob.diff.any() for name in ("cls", "box") for blob in net.params[name])


@pytest.mark.parametrize(
    ("layer", "shapes", "smaller"),
    [
        (
            'type: "ROIPooling" roi_pooling_param { pooled_h: 1 pooled_w: 1 }',
            [(2, 3, 8, 8), (1, 5)],
            [(1, 3, 2, 2), (1, 5)],
        ),
        (
            'type: "PSROIPooling" psroi_pooling_param { output_dim: 3 group_size: 1 spatial_scale: 1 }',
            [(2, 3, 8, 8), (1, 5)],
            [(1, 3, 2, 2), (1, 5)],
        ),
        (
            'type: "MultiBoxLoss" multibox_loss_param { num_classes: 2 mining_type: NONE }',
            [(2, 12), (2, 6), (1, 2, 12), (1, 1, 1, 8)],
            [(1, 4), (1, 2), (1, 2, 4), (1, 1, 1, 8)],
        ),
    ],
)
def test_a_backward_pass_for_other_shapes_than_forward_had(
    layer: str, shapes: list[tuple[int, ...]], smaller: list[tuple[int, ...]]
) -> None:
    net = net_of(layer, *shapes, force=True)
    for i in range(2 if len(shapes) == 2 else 0):
        net.blobs[f"x{i}"].data[...] = np.ones(shapes[i])
    if len(shapes) == 4:
        net.blobs["x2"].data[...] = np.ones(shapes[2])
        net.blobs["x3"].data[...] = -1
    net.forward()
    net.backward()
    for i, shape in enumerate(smaller):
        net.blobs[f"x{i}"].reshape(*shape)
    net.reshape()
    with pytest.raises(LayerError, match="backward needs a forward pass before it"):
        net.backward()
