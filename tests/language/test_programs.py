"""Whole programs: the six of the language's design, against the Caffe files they stand for."""

import pathlib
import shutil

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message
from shared import shared

from sparknet_dsl import Model, compile_file, load
from sparknet_dsl.proto import caffe_pb2

PROGRAMS = pathlib.Path(__file__).parent / "programs"
MODELS = pathlib.Path(__file__).parents[2] / "models"

ORIGINALS = {
    "lenet": ("examples_mnist_lenet_train_test", "examples_mnist_lenet_solver"),
    "cifar10_quick": ("examples_cifar10_cifar10_quick_train_test", "examples_cifar10_cifar10_quick_solver"),
    "caffenet": ("models_bvlc_reference_caffenet_train_val", "models_bvlc_reference_caffenet_solver"),
    "googlenet": ("models_bvlc_googlenet_train_val", None),
}


def original(name: str, kind: type[Message]) -> Message:
    text = shared(f"corpus/prototxt/BVLC+caffe/{name}.prototxt").read_text(encoding="utf-8")
    return text_format.Parse(text, kind())


@pytest.mark.parametrize("name", sorted(ORIGINALS))
def test_program_equals_its_original(name: str) -> None:
    net, solver = ORIGINALS[name]
    model = load(PROGRAMS / f"{name}.snet")
    assert model.net == original(net, caffe_pb2.NetParameter)
    if solver and model.solver is not None:
        assert model.solver == original(solver, caffe_pb2.SolverParameter)
    assert model.diagnostics == []


def test_resnet50() -> None:
    model = load(PROGRAMS / "resnet50.snet")
    layers = {layer.name: layer for layer in model.net.layer}
    assert len(model.net.layer) == 232
    assert list(layers["res2a"].bottom) == ["res2a_branch1", "res2a_branch2c"]
    assert list(layers["res2b"].bottom) == ["res2a", "res2b_branch2c"]  # an identity shortcut, ReLU in place
    assert list(layers["scale5c_branch2c"].top) == ["res5c_branch2c"]
    assert layers["res3a_branch2a"].convolution_param.stride == [2]


def test_style_spark_changes_a_published_net(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "models" / "bvlc_reference_caffenet"
    folder.mkdir(parents=True)
    for name in ("train_val", "solver"):
        text = shared(f"corpus/prototxt/BVLC+caffe/models_bvlc_reference_caffenet_{name}.prototxt")
        shutil.copy(text, folder / f"{name}.prototxt")
    shutil.copy(PROGRAMS / "style_spark.snet", tmp_path)
    model = compile_file(tmp_path / "style_spark.snet", defines={"batch": "32"})
    base = original("models_bvlc_reference_caffenet_train_val", caffe_pb2.NetParameter)
    assert model.name == "CaffeNetStyle"
    assert len(model.net.layer) == len(base.layer) + 1
    train, test = model.net.layer[0], model.net.layer[1]
    assert [train.type, test.type] == ["Input", "Input"]
    assert [list(shape.dim) for shape in train.input_param.shape] == [[32, 3, 227, 227], [32]]
    layers = {layer.name: layer for layer in model.net.layer}
    assert "fc8" not in layers
    changed = layers["fc8_style"]
    assert (changed.inner_product_param.num_output, list(changed.top)) == (20, ["fc8"])
    assert [(spec.lr_mult, spec.decay_mult) for spec in changed.param] == [(10, 1), (20, 0)]
    assert [(spec.lr_mult, spec.decay_mult) for spec in layers["conv1"].param] == [(0, 0), (0, 0)]
    assert list(model.net.layer)[-1].name == "top5"
    assert list(layers["top5"].bottom) == ["fc8", "label"]
    solver = model.solver
    assert solver is not None
    assert (solver.net, solver.base_lr, solver.gamma, solver.max_iter) == (
        "style.prototxt",
        pytest.approx(0.001),
        pytest.approx(0.1),
        100000,
    )


@pytest.mark.parametrize(("name", "most"), [("lenet", 15), ("googlenet", 60), ("resnet50", 40)])
def test_programs_are_short(name: str, most: int) -> None:
    assert len((PROGRAMS / f"{name}.snet").read_text(encoding="utf-8").splitlines()) <= most


def solver_model(name: str, tmp_path: pathlib.Path) -> Model:
    """A solver of the corpus in a folder with the net that it names."""
    solver = shared(f"corpus/prototxt/BVLC+caffe/{name}_solver.prototxt")
    shutil.copy(solver, tmp_path / "solver.prototxt")
    net = shared(f"corpus/prototxt/BVLC+caffe/{name}_train_test.prototxt")
    shutil.copy(net, tmp_path / (name.removeprefix("examples_mnist_") + "_train_test.prototxt"))
    shapes = {phase: [(1, 28, 28), ()] for phase in ("TRAIN", "TEST")}
    return compile_file(tmp_path / "solver.prototxt", data_shapes=shapes)


def test_a_solver_of_caffes_with_its_net(tmp_path: pathlib.Path) -> None:
    model = solver_model("examples_mnist_lenet", tmp_path)
    assert model.net == compile_file(MODELS / "lenet.snet").net
    assert model.solver == original("examples_mnist_lenet_solver", caffe_pb2.SolverParameter)
