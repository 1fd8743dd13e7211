"""The model library: each model compiles, its comment is true, and it equals what its authors published."""

import json
import pathlib
import re

import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from google.protobuf.message import Message
from shared import shared

from sparknet_dsl import compile_file, library, load
from sparknet_dsl.cli_compile import compile_command
from sparknet_dsl.errors import ModelError
from sparknet_dsl.format import format_text
from sparknet_dsl.proto import caffe_pb2
from sparknet_dsl.proto.upgrade import upgrade_net
from sparknet_dsl.table import costs

MODELS = pathlib.Path(__file__).parents[2] / "models"
NAMES = sorted(path.stem for path in MODELS.glob("*.snet"))

# Net and solver in Caffe's files.
ORIGINALS = {
    "lenet": ("BVLC+caffe/examples_mnist_lenet_train_test", "BVLC+caffe/examples_mnist_lenet_solver"),
    "cifar10_quick": (
        "BVLC+caffe/examples_cifar10_cifar10_quick_train_test",
        "BVLC+caffe/examples_cifar10_cifar10_quick_solver",
    ),
    "cifar10_full": (
        "BVLC+caffe/examples_cifar10_cifar10_full_train_test",
        "BVLC+caffe/examples_cifar10_cifar10_full_solver",
    ),
    "caffenet": (
        "BVLC+caffe/models_bvlc_reference_caffenet_train_val",
        "BVLC+caffe/models_bvlc_reference_caffenet_solver",
    ),
    "alexnet": ("BVLC+caffe/models_bvlc_alexnet_train_val", "BVLC+caffe/models_bvlc_alexnet_solver"),
    "googlenet": ("BVLC+caffe/models_bvlc_googlenet_train_val", "BVLC+caffe/models_bvlc_googlenet_solver"),
    "siamese": (
        "BVLC+caffe/examples_siamese_mnist_siamese_train_test",
        "BVLC+caffe/examples_siamese_mnist_siamese_solver",
    ),
    "squeezenet": (
        "forresti+SqueezeNet/SqueezeNet_v1.1_train_val",
        "forresti+SqueezeNet/SqueezeNet_v1.1_solver",
    ),
    "mnist_autoencoder": (
        "BVLC+caffe/examples_mnist_mnist_autoencoder",
        "BVLC+caffe/examples_mnist_mnist_autoencoder_solver",
    ),
}

# Deploy files, and what differs there: what only training reads (fillers, learning rates), the name in CIFAR-10's, and
# use_global_stats, which the authors of ResNet write out although it is BatchNorm's rule in TEST anyway.
DEPLOYS = {
    "lenet": ("BVLC+caffe/examples_mnist_lenet", set()),
    "cifar10_quick": ("BVLC+caffe/examples_cifar10_cifar10_quick", {"filler", "name"}),
    "cifar10_full": ("BVLC+caffe/examples_cifar10_cifar10_full", {"filler", "name"}),
    "caffenet": ("BVLC+caffe/models_bvlc_reference_caffenet_deploy", {"filler", "param"}),
    "alexnet": ("BVLC+caffe/models_bvlc_alexnet_deploy", {"filler"}),
    "googlenet": ("BVLC+caffe/models_bvlc_googlenet_deploy", {"std"}),
    "squeezenet": ("forresti+SqueezeNet/SqueezeNet_v1.1_deploy", {"filler"}),
    "resnet50": ("KaimingHe+deep-residual-networks/prototxt_ResNet-50-deploy", {"filler", "use_global_stats"}),
    "resnet152": ("KaimingHe+deep-residual-networks/prototxt_ResNet-152-deploy", {"filler", "use_global_stats"}),
}

# What is commonly given for the same architectures (torchvision's weights, the descriptions of Caffe's models, papers),
# written down from memory: a guard against changes, no more evidence than that.
PUBLISHED_PARAMETERS = {
    "vgg16": 138357544,
    "resnet18": 11689512,
    "resnet50": 25557032 + 64,  # the authors' Caffe file has a bias in conv1
    "resnet152": 60192808,
    "squeezenet": 1235496,
    "densenet121": 7978856,
    "inception_v3": 23834568,
    "googlenet": 6998552,
    "alexnet": 60965224,
    "caffenet": 60965224,
    "mobilenet": 4231976,
    "lenet": 431080,
    # Of VGG-16 all but its last inner product; 1x1 scores of three of its values; three upsamplings.
    "fcn8s": 134260544 + 21 * (4097 + 513 + 257) + 21 * 21 * (4 * 4 + 4 * 4 + 16 * 16),
}
PUBLISHED_MULTIPLY_ADDS = {
    "mobilenet": 569e6,
    "resnet18": 1.8e9,
    "resnet50": 3.8e9,
    "resnet152": 11.3e9,
    "vgg16": 15.47e9,
    "inception_v3": 5.71e9,
    "alexnet": 724e6,
    "googlenet": 1.58e9,
}


def original(name: str, kind: type[Message]) -> Message:
    message = text_format.Parse(shared(f"corpus/prototxt/{name}.prototxt").read_text(encoding="utf-8"), kind())
    if isinstance(message, caffe_pb2.NetParameter):
        upgrade_net(message)
    return message


@pytest.mark.parametrize("name", NAMES)
def test_model_compiles(name: str) -> None:
    model = compile_file(MODELS / f"{name}.snet")
    assert model.diagnostics == []
    assert model.solver is not None
    assert model.spark is not None
    assert model.spark.HasField("tau")
    assert all(report.problems == [] for report in model.reports.values())
    fed = [layer for layer in model.net.layer if not layer.bottom]
    assert {layer.type for layer in fed} == {"Input"}
    if name in ORIGINALS:
        assert all(layer.data_param.source for layer in fed)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_laid_out_as_the_formatter_would(name: str) -> None:
    text = (MODELS / f"{name}.snet").read_text(encoding="utf-8")
    assert format_text(text) == text


@pytest.mark.parametrize("name", NAMES)
def test_the_comment_is_true(name: str) -> None:
    (entry,) = [entry for entry in library.entries() if entry.name == name]
    assert (entry.parameters, entry.multiply_adds) == costs(compile_file(MODELS / f"{name}.snet"))
    assert re.fullmatch(r"[A-Z][^:]+: .+\.", entry.what)
    head = (MODELS / f"{name}.snet").read_text(encoding="utf-8").split("\n\n")[0]
    assert re.search(r"\b(19|20)\d\d\b", head), "which paper or data, of which year"


@pytest.mark.parametrize("name", sorted(PUBLISHED_PARAMETERS))
def test_parameters_are_those_commonly_given(name: str) -> None:
    (entry,) = [entry for entry in library.entries() if entry.name == name]
    assert entry.parameters == PUBLISHED_PARAMETERS[name]


@pytest.mark.parametrize("name", sorted(PUBLISHED_MULTIPLY_ADDS))
def test_multiply_adds_are_those_commonly_given(name: str) -> None:
    # Within 2%: publications leave out BatchNorm's scales, or round.
    (entry,) = [entry for entry in library.entries() if entry.name == name]
    assert entry.multiply_adds == pytest.approx(PUBLISHED_MULTIPLY_ADDS[name], rel=0.02)


@pytest.mark.parametrize("name", sorted(ORIGINALS))
def test_equals_its_original(name: str) -> None:
    net, solver = ORIGINALS[name]
    model = load(MODELS / f"{name}.snet")
    assert model.net == original(net, caffe_pb2.NetParameter)
    assert model.solver == original(solver, caffe_pb2.SolverParameter)


def without(net: caffe_pb2.NetParameter, what: set[str]) -> caffe_pb2.NetParameter:
    """The net without the fields that a deploy file may lack."""
    result = caffe_pb2.NetParameter()
    result.CopyFrom(net)
    if "name" in what:
        result.ClearField("name")
    for layer in result.layer:
        if "param" in what:
            layer.ClearField("param")
        for kind in ("convolution_param", "inner_product_param"):
            if layer.HasField(kind) and "filler" in what:
                getattr(layer, kind).ClearField("weight_filler")
                getattr(layer, kind).ClearField("bias_filler")
            elif layer.HasField(kind) and "std" in what:
                getattr(layer, kind).weight_filler.ClearField("std")
        if layer.HasField("batch_norm_param") and "use_global_stats" in what:
            layer.ClearField("batch_norm_param")
    return result


@pytest.mark.parametrize("name", sorted(DEPLOYS))
@pytest.mark.parametrize("keep", [False, True])
def test_deploy_equals_its_original(name: str, keep: bool) -> None:
    file, what = DEPLOYS[name]
    model = compile_file(MODELS / f"{name}.snet", keep_data_layers=keep)
    assert model.deploy is not None
    assert without(model.deploy, what) == without(original(file, caffe_pb2.NetParameter), what)


@pytest.mark.parametrize(("name", "most"), [("lenet", 15), ("googlenet", 60), ("resnet50", 40)])
def test_models_are_short(name: str, most: int) -> None:
    text = (MODELS / f"{name}.snet").read_text(encoding="utf-8")
    _, _, rest = text.partition("\n\n")
    net, _, _ = rest.partition("\nsolver (")
    assert len(net.strip().splitlines()) <= most


def test_a_bare_name_finds_the_library(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert compile_file("lenet").net == compile_file(MODELS / "lenet.snet").net
    ran = CliRunner().invoke(compile_command, ["lenet", "-o", "build"])
    assert ran.exit_code == 0, ran.output
    assert (tmp_path / "build" / "lenet_deploy.prototxt").exists()


def test_a_file_goes_before_the_library(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pathlib.Path("lenet").write_text('name: "mine" layer { name: "d" type: "Input" top: "d" input_param {'
                                     " shape { dim: 1 } } }", encoding="utf-8")  # fmt: skip
    assert compile_file("lenet").name == "mine"


@pytest.mark.parametrize(("name", "hint"), [("googlenett", "did you mean `googlenet`?"), ("quux", "--list")])
def test_an_unknown_name_says_what_there_is(name: str, hint: str) -> None:
    with pytest.raises(ModelError, match=f"no file and no model of the library is called `{name}`") as caught:
        compile_file(name)
    assert hint in str(caught.value)


def test_list_shows_every_model() -> None:
    ran = CliRunner().invoke(compile_command, ["--list"])
    assert ran.exit_code == 0
    lines = ran.output.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *NAMES]
    (shown,) = [line for line in lines if line.startswith("vgg16")]
    assert shown.split()[1:5] == ["138", "M", "15.5", "G"]
    ran = CliRunner().invoke(compile_command, ["--list", "--json"])
    listed = json.loads(ran.output)
    assert [entry["name"] for entry in listed] == NAMES
    assert listed[-1]["parameters"] == 138_357_544 and listed[-1]["multiply_adds"] == 15_470_264_320
