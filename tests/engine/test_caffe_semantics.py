"""Where Caffe does what nobody would guess: which tests show, point by point, that this engine does the same.

The points are those of reference/caffe_semantics.md in the shared material, by number. `layers/x`, `solvers/x` and the
like are runs of Caffe's own (test_golden_layers.py, test_solver.py, test_weights.py compare with them), `rejects/x`
nets that it refuses, the others tests of ours. docs/caffe.md says where this engine differs.
"""

import ast
import json
import pathlib
import re

import numpy as np
import pytest
from google.protobuf import text_format
from shared import shared, shared_names

from sparknet_dsl import caffe_ext as caffe
from sparknet_dsl.errors import LayerError
from sparknet_dsl.proto import caffe_pb2

TESTS = pathlib.Path(__file__).resolve().parent.parent

SHOWN_BY = {
    # Net
    1: "layers/net_two_losses layers/reduction_as_loss test_net::test_loss_weights "
    "test_caffe_semantics::test_the_loss_weight_lies_in_the_tops_diff",
    2: "layers/net_frozen_lr0 layers/net_propagate_down test_net::test_without_objective_nothing_runs_backward "
    "test_net::test_force_backward_reaches_inputs_and_frozen_parameters "
    "test_net::test_propagate_down_false_stops_gradients",
    3: "layers/net_shared_params layers/prelu_shared rejects/shared_param_lr_mismatch rejects/shared_param_shape "
    "test_net::test_parameter_gradients_add_up_until_cleared "
    "test_net::test_permissive_sharing_wants_equal_counts_only test_net::test_multipliers_of_shared_parameters",
    4: "rejects/accuracy_force_backward rejects/embed_force_backward rejects/threshold_force_backward "
    "test_caffe_semantics::test_types_without_a_gradient_refuse_force_backward",
    5: "layers/net_reshape_shares_data layers/net_inplace_then_split "
    "test_losses_and_joins::test_top_shares_values_and_gradient",
    6: "layers/split_implicit3 layers/net_siamese test_net::test_split_names_are_caffes",
    7: "layers/rules_state_in_file layers/rules_test_level2 "
    "test_net::test_arguments_override_the_files_state_but_stages_add_up",
    # Layers
    8: "layers/pool_max_empty_window layers/pool_max_pad_clip layers/pool_ave_pad1 layers/pool_max_ties "
    "layers/pool_max_mask test_layer_rules::test_average_of_an_empty_window_is_zero "
    "test_layer_rules::test_maximum_of_an_empty_window_gets_no_gradient",
    9: "layers/mvn layers/mvn_across layers/mvn_mean_only",
    10: "layers/contrastive layers/contrastive_legacy",
    11: "layers/sigmoidce layers/sigmoidce_full layers/sigmoidce_ignore_valid layers/softmaxloss_batchsize "
    "layers/softmaxloss_normalize_false layers/softmaxloss_full_ignore layers/infogain_grad",
    12: "rejects/softmaxloss_two_tops test_losses_and_joins::test_two_tops_are_refused",
    13: "layers/softmaxloss_extreme layers/multinomial_zero rejects/softmaxloss_label_count "
    "test_caffe_semantics::test_losses_want_rows_in_equal_number",
    14: "layers/infogain_grad layers/infogain_bottom3 layers/infogain_source_file",
    15: "layers/accuracy layers/accuracy_axis_perclass layers/accuracy_top3_ignore",
    16: "layers/argmax_ties layers/argmax_maxval_top5 layers/argmax_axis_maxval_topk",
    17: "layers/eltwise_max layers/eltwise_max3 layers/eltwise_prod_unstable layers/eltwise_prod_stable_zeros",
    18: "layers/relu_slope layers/prelu layers/absval layers/clip layers/threshold",
    19: "layers/batchnorm_train layers/batchnorm_scale0 layers/batchnorm_test_local solvers/sgd_batchnorm "
    "test_net::test_statistics_are_not_learned_but_lie_in_the_flat_arrays",
    20: "layers/lrn_within layers/lrn_across layers/lrn_across_k2",
    21: "layers/scale_two_bottoms_bias layers/bias_scalar layers/scale_axis2_numaxes2_bias",
    22: "layers/power_scale0 layers/power_power0 layers/exp layers/log",
    23: "layers/crop_none layers/crop_axis1_offsets",
    24: "layers/reshape_insert_axis layers/reshape_neg_axis layers/reshape_axis1_numaxes1",
    25: "layers/spp_max3 layers/spp_ave2 test_caffe_semantics::test_a_pyramid_of_one_level_has_four_axes",
    26: "layers/lstm layers/lstm_carry layers/lstm_expose layers/lstm_static layers/rnn "
    "test_recurrent::test_the_state_is_carried_from_pass_to_pass",
    27: "layers/parameter test_sources::test_a_parameter_is_its_top",
    28: "layers/filter layers/filter_grad layers/dummydata_constant test_sources::test_dummy_data",
    29: "layers/hinge_l1 layers/hinge_l2",
    30: "layers/conv_axis2 layers/conv_kernel_hw layers/conv_repeated_fields layers/deconv_pad_group "
    "rejects/conv_kernel_and_kernel_h test_layer_rules::test_convolution_axis_counts_from_the_end",
    # Solvers
    31: "solvers/sgd_clip solvers/sgd_itersize3_clip solvers/adam_wd_itersize2",
    32: "solvers/sgd_momentum_wd solvers/sgd_step solvers/sgd_l1 solvers/adagrad_wd_l1",
    33: "solvers/adam solvers/adadelta solvers/adagrad solvers/rmsprop solvers/rmsprop_default_decay",
    34: "solvers/sgd_multistep solvers/sgd_poly solvers/sgd_sigmoid test_solver::test_poly_ends_at_zero "
    "test_caffe_semantics::test_reading_the_rate_takes_a_step_at_most",
    35: "solvers/snapshot_sgd_binaryproto solvers/snapshot_adadelta_binaryproto solvers/snapshot_adam_hdf5 "
    "test_hdf5_files::test_caffes_weights test_hdf5_files::test_our_files_are_laid_out_as_caffes "
    "test_solver::test_restoring_goes_on_bit_for_bit test_caffe_semantics::test_snapshots_without_a_prefix",
    # Fillers, data, formats
    36: "test_fillers::test_fixed_values test_fillers::test_statistics",
    37: "interop/transforms test_data_layers::test_caffes_transforms test_data_layers::test_caffes_hdf5_data "
    "test_databases::test_encoded_datums_take_their_channels_from_the_file test_databases::test_images "
    "test_transform::test_test_phase test_transform::test_refused",
    38: "interop/cifar_rawlog_leveldb test_databases::test_caffes_databases "
    "test_databases::test_lmdb_files_are_read_as_lmdb_reads_them",
    39: "test_upgrade::test_nets test_upgrade::test_padding_layers_override_the_convolutions_own "
    "test_upgrade::test_transform_fields_stay_in_todays_nets layers/input_legacy_fields",
    40: "test_weights::test_legacy_files test_weights::test_other_layers_stay_and_unknown_ones_are_ignored "
    "test_weights_files::test_reads_what_caffe_wrote",
    41: "layers/textformat_style1 test_text_format::test_values test_text_format::test_lists_of_messages",
}


def test_every_point_is_shown() -> None:
    text = shared("reference/caffe_semantics.md").read_text()
    assert sorted(SHOWN_BY) == [int(number) for number in re.findall(r"^(\d+)\. ", text, re.MULTILINE)]


@pytest.mark.parametrize("point", SHOWN_BY)
def test_what_shows_it_is_there(point: int) -> None:
    rejects = {each["name"] for each in json.loads(shared("golden/rejects.json").read_text())}
    for reference in SHOWN_BY[point].split():
        module, _, test = reference.partition("::")
        if test:
            [path] = TESTS.glob(f"*/{module}.py")
            names = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
            assert test in names, reference
        elif reference.startswith("rejects/"):
            assert reference.removeprefix("rejects/") in rejects, reference
        else:
            folder, _, name = reference.partition("/")
            assert name in shared_names(f"golden/{folder}"), reference


# ---- points that no run of Caffe's shows ----


def build(text: str, phase: int = caffe.TRAIN) -> caffe.Net:
    return caffe.Net(text_format.Parse(text, caffe_pb2.NetParameter()), phase, seed=1)


X = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }'
LABEL = 'layer { name: "l" type: "Input" top: "l" input_param { shape { dim: 4 } } }'


def test_the_loss_weight_lies_in_the_tops_diff() -> None:
    net = build(f'force_backward: true {X} layer {{ name: "r" type: "Reduction" bottom: "x" top: "s" loss_weight: 3 }}')
    net.forward(x=np.ones((4, 3)))
    assert (net.loss, net.blobs["s"].data, net.blobs["s"].diff) == (36, 12, 3)
    net.backward()
    assert (net.blobs["x"].diff == 3).all()
    net.blobs["s"].diff[...] = 5
    net.backward()
    assert (net.blobs["x"].diff == 5).all()


@pytest.mark.parametrize("kind", ["Accuracy", "ArgMax", "Threshold"])
def test_types_without_a_gradient_refuse_force_backward(kind: str) -> None:
    label = 'bottom: "l"' if kind == "Accuracy" else ""
    net = build(f'force_backward: true {X} {LABEL} layer {{ name: "k" type: "{kind}" bottom: "x" {label} top: "k" }}')
    net.forward(x=np.eye(4, 3), l=np.zeros(4))
    with pytest.raises(LayerError, match=rf"layer `k` \({kind}\): .*force_backward"):
        net.backward()


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "EuclideanLoss", "HingeLoss", "MultinomialLogisticLoss"])
def test_losses_want_rows_in_equal_number(kind: str) -> None:
    short = LABEL.replace("dim: 4", "dim: 3")
    with pytest.raises(LayerError, match=rf"layer `k` \({kind}\)"):
        build(f'{X} {short} layer {{ name: "k" type: "{kind}" bottom: "x" bottom: "l" top: "k" }}')


def test_a_pyramid_of_one_level_has_four_axes() -> None:
    image = X.replace("dim: 4 dim: 3", "dim: 2 dim: 3 dim: 5 dim: 5")
    net = build(f'{image} layer {{ name: "s" type: "SPP" bottom: "x" top: "s" spp_param {{ pyramid_height: 1 }} }}')
    assert net.blobs["s"].shape == (2, 3, 1, 1)


def test_reading_the_rate_takes_a_step_at_most() -> None:
    param = caffe_pb2.SolverParameter(base_lr=1, gamma=0.1, lr_policy="multistep", stepvalue=[2, 2])
    text_format.Parse(X, param.net_param)
    solver = caffe.get_solver(param)
    solver.iter = 2
    assert [solver.lr for _ in range(3)] == pytest.approx([0.1, 0.01, 0.01])


def test_snapshots_without_a_prefix(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_solver.prototxt").write_text(f'net_param {{ {X} }} base_lr: 1 lr_policy: "fixed"')
    solver = caffe.get_solver("my_solver.prototxt")
    solver.snapshot()
    state = caffe.read_state("my_solver_iter_0.solverstate")
    assert state.learned_net == "my_solver_iter_0.caffemodel"  # relative to the working directory
