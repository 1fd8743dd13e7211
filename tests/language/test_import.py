"""The world's model files as input: published nets and solvers, the forks' dialects, what nobody knows."""

import json
import pathlib
from typing import Any

import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from shared import ROOT

from sparknet_dsl import caffe_ext, compile_file, compile_text, load
from sparknet_dsl.caffe_ext import Net, Solver
from sparknet_dsl.cli_compile import compile_command
from sparknet_dsl.emit import to_text
from sparknet_dsl.errors import EngineError, ModelError
from sparknet_dsl.proto import caffe_pb2

CORPUS = ROOT / "corpus/prototxt"
FILES = sorted(path for path in CORPUS.glob("*/*.prototxt"))
SOLVERS = [path for path in FILES if "solver" in path.name]
NETS = [path for path in FILES if path not in SOLVERS]

NET = """
name: "n"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 7 dim: 7 } } }
"""
POOL = 'layer { name: "p" type: "Pooling" bottom: "data" top: "p" pooling_param { kernel_size: 2 stride: 2 %s } }\n'


def names(path: pathlib.Path) -> str:
    return f"{path.parent.name}/{path.name}"


def expected() -> dict[str, Any]:
    path = ROOT / "corpus/test_phase_shapes.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write(tmp_path: pathlib.Path, text: str) -> pathlib.Path:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", NETS, ids=names)
def test_published_nets(path: pathlib.Path) -> None:
    model = load(path)
    assert model.net.layer
    assert not any(layer.unknown_field for layer in model.net.layer)
    missing = {layer.type for layer in model.net.layer} - set(caffe_ext.layer_types())
    assert {found.code for found in model.diagnostics} <= ({"S311"} if missing else set())
    assert text_format.Parse(to_text(model.net), caffe_pb2.NetParameter()) == model.net
    if missing or names(path) not in expected():
        return
    want = expected()[names(path)]
    report = model.reports["TEST"]
    blobs = {name: list(shape) for name, shape in report.blobs.items() if shape is not None}
    assert {name: blobs.get(name) for name in want["blobs"]} == want["blobs"]
    params = {layer.name: [list(shape) for shape in layer.param_shapes] for layer in report.layers}
    assert {name: params.get(name) for name in want["params"]} == want["params"]


@pytest.mark.parametrize("path", SOLVERS, ids=names)
def test_published_solvers(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    model = load(path)
    assert model.solver is not None
    assert model.solver.base_lr > 0
    if not model.solver.HasField("net"):
        return
    # Its net is elsewhere: that is said, and the solver is there all the same.
    assert [(found.code, found.severity) for found in model.diagnostics] == [("S404", "warning")]
    assert not model.net.layer
    with pytest.raises(ModelError, match="is not there"):
        compile_file(path)
    # Beside it, under its base name, it is found.
    beside = path.with_name(model.solver.net.replace("/", "_"))
    if beside.exists():
        (tmp_path / "solver.prototxt").write_text(path.read_text())
        (tmp_path / pathlib.Path(model.solver.net).name).write_text(beside.read_text())
        assert load(tmp_path / "solver.prototxt").net == load(beside).net


def test_the_corpus_was_there() -> None:
    if not CORPUS.exists():
        pytest.skip(f"needs {CORPUS}")
    assert len(NETS) >= 35
    assert len(SOLVERS) >= 25


# A layer as the forks' files have it, the shapes of its bottoms, and those of its tops; None where the engine does not
# have the type.
DIALECTS: list[tuple[str, list[list[int]], list[list[int]] | None]] = [
    (
        'type: "ROIPooling" roi_pooling_param { pooled_h: 7 pooled_w: 6 spatial_scale: 0.0625 }',
        [[2, 3, 14, 14], [9, 5]],
        [[9, 3, 7, 6]],
    ),
    (
        'type: "PSROIPooling" psroi_pooling_param { spatial_scale: 0.0625 output_dim: 21 group_size: 7 }',
        [[1, 1029, 14, 14], [9, 5, 1, 1]],
        [[9, 21, 7, 7]],
    ),
    ('type: "SmoothL1Loss" smooth_l1_loss_param { sigma: 3 }', [[9, 8]] * 4, [[]]),
    ('type: "SmoothL1LossOHEM" loss_param { normalize: false }', [[9, 8, 1, 1]] * 3, [[], [9, 1, 1, 1]]),
    ('type: "SoftmaxWithLossOHEM"', [[9, 21], [9]], [[], [9, 21, 1, 1], [9, 1, 1, 1]]),
    (
        'type: "BoxAnnotatorOHEM" box_annotator_ohem_param { roi_per_img: 128 ignore_label: -1 }',
        [[9, 5], [9, 1, 1, 1], [9], [9, 8]],
        [[9, 1, 1, 1], [9, 8, 1, 1]],
    ),
    (
        'type: "Proposal" proposal_param { feat_stride: 16 ratio: [0.5, 1, 2] scale: [8, 16, 32] nms_thresh: 0.7 }',
        [[1]],
        None,
    ),
    (
        'type: "BN" bn_param { slope_filler { value: 1 } bias_filler { value: 0 } frozen: true momentum: 0.95 }',
        [[2, 3, 7, 7]],
        [[2, 3, 7, 7]],
    ),
    (
        'type: "BN" bn_param { scale_filler { value: 1 } shift_filler { value: 0.001 } bn_mode: INFERENCE }',
        [[2, 3, 7, 7]],
        [[2, 3, 7, 7]],
    ),
    (
        'type: "Upsample" upsample_param { scale: 2 upsample_w: 60 upsample_h: 45 pad_out_h: true }',
        [[2, 3, 23, 30]] * 2,
        [[2, 3, 45, 60]],
    ),
    ('type: "Upsample" upsample_param { scale: 2 pad_out_h: true }', [[2, 3, 23, 30]] * 2, [[2, 3, 45, 60]]),
    ('type: "Upsample" upsample_param { scale: 2 }', [[1, 256, 13, 13]], [[1, 256, 26, 26]]),
    ('type: "Interp" interp_param { height: 60 width: 60 pad_beg: 0 pad_end: 0 }', [[1, 3, 7, 7]], [[1, 3, 60, 60]]),
    ('type: "Interp" interp_param { zoom_factor: 8 }', [[1, 21, 41, 41]], [[1, 21, 321, 321]]),
    ('type: "DenseImageData" dense_image_data_param { source: "list.txt" batch_size: 4 shuffle: true }', [], None),
    (
        'type: "ImageSegData" image_data_param { label_type: PIXEL } transform_param { scale_factors: [0.5, 1.5] }',
        [],
        None,
    ),
    (
        'type: "SegAccuracy" seg_accuracy_param { ignore_label: 255 reset: false }',
        [[2, 21, 7, 7], [2, 1, 7, 7]],
        [[1, 1, 1, 3]],
    ),
    ('type: "ConvolutionDepthwise" convolution_param { kernel_size: 3 }', [[2, 3, 7, 7]], [[2, 3, 5, 5]]),
    (
        'type: "DepthwiseConvolution" convolution_param { num_output: 3 kernel_size: 3 group: 3 engine: CAFFE }',
        [[2, 3, 7, 7]],
        [[2, 3, 5, 5]],
    ),
    (
        'type: "Normalize" norm_param { across_spatial: false scale_filler { value: 20 } channel_shared: false }',
        [[2, 3, 7, 7]],
        [[2, 3, 7, 7]],
    ),
    ('type: "Permute" permute_param { order: [0, 2, 3, 1] }', [[2, 3, 7, 8]], [[2, 7, 8, 3]]),
    (
        'type: "PriorBox" prior_box_param { min_size: 30 max_size: 60 aspect_ratio: 2 flip: true clip: false '
        "variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 step: 8 offset: 0.5 }",
        [[1, 512, 38, 38], [1, 3, 300, 300]],
        [[1, 2, 23104]],
    ),
    (
        'type: "MultiBoxLoss" include { phase: TRAIN } multibox_loss_param { loc_loss_type: SMOOTH_L1 num_classes: 21 '
        "conf_loss_type: SOFTMAX loc_weight: 1 share_location: true match_type: PER_PREDICTION overlap_threshold: 0.5 "
        "use_prior_for_matching: true background_label_id: 0 use_difficult_gt: true neg_pos_ratio: 3 neg_overlap: 0.5 "
        "code_type: CENTER_SIZE ignore_cross_boundary_bbox: false mining_type: MAX_NEGATIVE } "
        "propagate_down: [true, true, false, false] loss_param { normalization: VALID }",
        [[2, 34928], [2, 183372], [1, 2, 34928], [1, 1, 5, 8]],
        [[]],
    ),
    (
        'type: "DetectionOutput" include { phase: TEST } detection_output_param { num_classes: 21 share_location: true '
        "background_label_id: 0 nms_param { nms_threshold: 0.45 top_k: 400 } code_type: CENTER_SIZE keep_top_k: 200 "
        'save_output_param { label_map_file: "labelmap.prototxt" } confidence_threshold: 0.01 }',
        [[1, 34928], [1, 183372], [1, 2, 34928]],
        [[1, 1, 1, 7]],
    ),
    (
        'type: "DetectionEvaluate" detection_evaluate_param { num_classes: 21 evaluate_difficult_gt: false }',
        [[1]],
        None,
    ),
    (
        'type: "AnnotatedData" annotated_data_param { batch_sampler { sampler { min_scale: 0.3 } } } transform_param { '
        "resize_param { height: 300 width: 300 interp_mode: [LINEAR, AREA] } expand_param { prob: 0.5 } "
        "distort_param { hue_prob: 0.5 } emit_constraint { emit_type: CENTER } noise_param { prob: 0 } }",
        [],
        None,
    ),
    ('type: "ShuffleChannel" shuffle_channel_param { group: 3 }', [[2, 6, 7, 7]], [[2, 6, 7, 7]]),
    ('type: "Axpy"', [[2, 3, 1, 1], [2, 3, 7, 7], [2, 3, 7, 7]], [[2, 3, 7, 7]]),
    ('type: "ReLU6"', [[2, 3]], [[2, 3]]),
    ('type: "SeLu" selu_param { alpha: 1.67 lambda: 1.05 }', [[2, 3]], [[2, 3]]),
    ('type: "SeLuDropout" selu_dropout_param { dropout_ratio: 0.05 }', [[2, 3]], [[2, 3]]),
    ('type: "FocalLoss" focal_loss_param { alpha: 0.25 }', [[1]], None),
    ('type: "CenterLoss" center_loss_param { num_output: 10 center_filler { type: "xavier" } }', [[1]], None),
    ('type: "ROIAlign" roi_align_param { pooled_h: 7 pooled_w: 7 }', [[1]], None),
]


@pytest.mark.parametrize(("body", "bottoms", "tops"), DIALECTS, ids=[case[0].split('"')[1] for case in DIALECTS])
def test_the_forks_fields_are_fields(
    tmp_path: pathlib.Path, body: str, bottoms: list[list[int]], tops: list[list[int]] | None
) -> None:
    written = ""
    for i, shape in enumerate(bottoms):
        written += f'layer {{ name: "x{i}" type: "Input" top: "x{i}" input_param {{ shape {{ dim: {shape} }} }} }}\n'
    names = [f'bottom: "x{i}"' for i in range(len(bottoms))] + [f'top: "y{i}"' for i in range(len(tops or [[]]))]
    model = load(write(tmp_path, f'{written} layer {{ name: "odd" {" ".join(names)} {body} }}'))
    odd = model.net.layer[-1]
    assert not odd.unknown_field
    if tops is None:
        assert {found.code for found in model.diagnostics} == {"S311"}
    else:
        assert not model.diagnostics
        phase = caffe_pb2.Phase.Name(odd.include[0].phase) if odd.include else "TRAIN"
        assert [list(model.reports[phase].blobs[name] or ()) for name in odd.top] == tops
    assert text_format.Parse(to_text(model.net), caffe_pb2.NetParameter()) == model.net


def test_ceil_mode_rounds_down(tmp_path: pathlib.Path) -> None:
    model = load(write(tmp_path, NET + POOL % "ceil_mode: false" + (POOL % "").replace('"p"', '"q"')))
    assert (model.reports["TRAIN"].blobs["p"], model.reports["TRAIN"].blobs["q"]) == ((2, 3, 3, 3), (2, 3, 4, 4))


def test_unknown_fields_and_types(tmp_path: pathlib.Path) -> None:
    path = write(
        tmp_path,
        NET
        + POOL % "strid: 2 odd { x: [1, 2] }"
        + 'layer { name: "m" type: "Mystery" bottom: "p" top: "m" mystery_param { depth: 3 } }\n'
        + 'layer { name: "r" type: "ReLU" bottom: "m" top: "r" }\n',
    )
    model = compile_file(path)
    said = [(found.code, found.severity, found.span.line, found.span.text) for found in model.diagnostics if found.span]
    assert said == [
        ("S104", "warning", 4, "strid"),
        ("S104", "warning", 4, "odd"),
        ("S311", "warning", 5, '"Mystery"'),
        ("S104", "warning", 5, "mystery_param"),
    ]
    labels = ["did you mean `stride`?", "passed on as it is", "passed on as it is", "passed on as it is"]
    assert [found.label for found in model.diagnostics] == labels
    # What comes behind is there, of unknown shape.
    assert model.reports["TRAIN"].blobs == {"data": (2, 3, 7, 7), "p": (2, 3, 4, 4), "m": None, "r": None}
    # Nothing is lost, and what is written says the same when it is read again.
    written = to_text(model.net)
    for piece in ("strid: 2", "odd { x: [1, 2] }", "mystery_param { depth: 3 }", 'type: "Mystery"'):
        assert piece in written
    again = compile_file(write(tmp_path, written))
    assert again.net == model.net
    # As a message in binary form too.
    assert caffe_pb2.NetParameter.FromString(model.net.SerializeToString()) == model.net


def test_what_cannot_be_run_says_so_then(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, NET + 'layer { name: "m" type: "Mystery" bottom: "data" top: "m" }')
    with pytest.raises(EngineError, match=r"`m`.*Mystery"):
        Net(str(path), 1)
    path = write(tmp_path, NET + POOL % "strid: 2")
    with pytest.raises(EngineError, match=r"layer `p` \(Pooling\): the engine does not know `pooling_param.strid: 2`"):
        Net(str(path), 1)
    with pytest.raises(EngineError, match=r"does not know `pooling_param.strid: 2`"):
        Net(compile_file(path).net, 1)
    path = write(tmp_path, NET + POOL % "" + 'layer { name: "d" type: "ReLU" transform_param { crop_h: 2 } }')
    with pytest.raises(EngineError, match=r"layer `d` \(ReLU\): the engine does not know `crop_h`"):
        Net(str(path), 1)
    solver = tmp_path / "solver.prototxt"
    solver.write_text('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" warmup_steps: 3')
    with pytest.raises(EngineError, match="does not know `warmup_steps: 3`"):
        Solver(str(solver))


def test_the_engine_names_the_place_of_an_error(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, NET + "layer { name: 3 }")
    with pytest.raises(EngineError, match=r"net\.prototxt:4:15: `name` wants a string in quotes, not `3`"):
        Net(str(path), 1)


def test_the_engine_reads_old_syntax(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, 'input: "x" input_dim: [1, 2, 3, 3] layers < name: \'r\' type: RELU bottom: "x" top: "y" >')
    assert Net(str(path), 1).blobs["y"].shape == (1, 2, 3, 3)


def test_a_written_net_may_not_have_an_unknown_type() -> None:
    with pytest.raises(ModelError, match="S101"):
        compile_text("net n { data: Input([1, 3]) -> m: Mystery }")
    model = compile_text('net n { data: Input([1, 3]) -> m: Layer(type="Mystery") }')
    assert [found.code for found in model.diagnostics] == ["S311"]


def test_a_base_net_keeps_what_is_unknown(tmp_path: pathlib.Path) -> None:
    write(tmp_path, NET + POOL % "strid: 2")
    path = tmp_path / "a.snet"
    path.write_text('net a from "net.prototxt" { p -> r: ReLU }')
    model = compile_file(path)
    assert [found.code for found in model.diagnostics] == ["S104"]
    assert "strid: 2" in to_text(model.net)


def test_the_command_writes_what_is_unknown(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, NET + POOL % "strid: 2")
    done = CliRunner().invoke(compile_command, [str(path), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0
    assert "warning[S104]: PoolingParameter has no field `strid`" in done.output
    assert "did you mean `stride`?" in done.output
    assert "strid: 2" in (tmp_path / "out" / "net.prototxt").read_text()
