"""Messages printed as `.snet`: they compile back to equal messages, and read as a person would have written them."""

import json
import pathlib
import subprocess
import sys

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from language.test_properties import messages
from shared import ROOT, shared

from sparknet_dsl import compile_text, load, prototxt
from sparknet_dsl.diagnostics import Diagnostics
from sparknet_dsl.errors import ModelError, UsageError
from sparknet_dsl.outputs import KINDS, render
from sparknet_dsl.print_items import number, quote
from sparknet_dsl.print_snet import to_snet
from sparknet_dsl.proto import caffe_pb2

CORPUS = sorted((ROOT / "corpus" / "prototxt").rglob("*.prototxt"))
MODELS = pathlib.Path(__file__).parents[2] / "models"


def read(path: pathlib.Path) -> Message:
    return prototxt.read(path, Diagnostics()).message


def net(text: str) -> caffe_pb2.NetParameter:
    return text_format.Parse(text, caffe_pb2.NetParameter())


def stripped(text: str) -> str:
    return "\n".join(line[4:] for line in text.strip("\n").splitlines()).rstrip() + "\n"


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_corpus_comes_back(path: pathlib.Path) -> None:
    message = read(path)
    if isinstance(message, caffe_pb2.SolverParameter):
        written = to_snet(None, message)
        tiny = "net tiny { data: Input([1, 2]) @test data: Input([1, 2]) @train data -> a: InnerProduct(1) }\n"
        try:
            assert compile_text(tiny + written).solver == message
        except ModelError as error:  # its policy or type is wrong by today's rules: what Caffe says too
            assert {found.code for found in error.diagnostics} <= {"S401", "S402", "S403"}
        return
    assert isinstance(message, caffe_pb2.NetParameter)
    written = to_snet(message)
    assert "layer1:" not in written  # no layer needed the escape alone
    assert to_snet(message) == written
    model = load_text(written)
    assert model == message
    assert len(written.splitlines()) < 60


def load_text(text: str) -> caffe_pb2.NetParameter:
    return compile_text(text, keep_data_layers=True).net


@pytest.mark.parametrize(
    ("path", "most", "blocks"),
    [
        ("BVLC+caffe/models_bvlc_googlenet_train_val", 90, {"inception", "loss"}),
        ("KaimingHe+deep-residual-networks/prototxt_ResNet-50-deploy", 80, {"res", "res_unit"}),
    ],
)
def test_budgets(path: str, most: int, blocks: set[str]) -> None:
    message = read(shared(f"corpus/prototxt/{path}.prototxt"))
    assert isinstance(message, caffe_pb2.NetParameter)
    written = to_snet(message)
    assert len(written.splitlines()) <= most
    assert {line.split("-> ")[1].split("(")[0] for line in written.splitlines() if line.startswith("block ")} == blocks


def test_inception_reads_well() -> None:
    written = to_snet(read(shared("corpus/prototxt/BVLC+caffe/models_bvlc_googlenet_train_val.prototxt")))  # type: ignore[arg-type]
    expected = """
    block x -> inception(n_1x1, n_3x3_reduce, n_3x3, n_5x5_reduce, n_5x5, n_pool_proj) {
      x -> `1x1`: Convolution(n_1x1, 1) -> relu_1x1: ReLU!
      x -> `3x3_reduce`: Convolution(n_3x3_reduce, 1) -> relu_3x3_reduce: ReLU!
          -> `3x3`: Convolution(n_3x3, 3, pad=1) -> relu_3x3: ReLU!
      x -> `5x5_reduce`: Convolution(n_5x5_reduce, 1) -> relu_5x5_reduce: ReLU!
          -> `5x5`: Convolution(n_5x5, 5, pad=2) -> relu_5x5: ReLU!
      x -> pool: Pooling(MAX, 3, 1, pad=1) -> pool_proj: Convolution(n_pool_proj, 1) -> relu_pool_proj: ReLU!
      relu_1x1, relu_3x3, relu_5x5, relu_pool_proj -> output: Concat
    }
    """
    assert stripped(expected) in written


SMALL = {
    "flows, positions, fillers, phases, in place": (
        """
        name: "Small"
        layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
                transform_param { scale: 0.00390625 } data_param { source: "train" batch_size: 64 backend: LMDB } }
        layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
                transform_param { scale: 0.00390625 } data_param { source: "test" batch_size: 100 backend: LMDB } }
        layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 } param { lr_mult: 2 }
                convolution_param { num_output: 20 kernel_size: 5 weight_filler { type: "xavier" } } }
        layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
        layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
                inner_product_param { num_output: 10 weight_filler { type: "gaussian" std: 0.01 } } }
        layer { name: "top 1" type: "Accuracy" bottom: "ip" bottom: "label" top: "top 1" include { phase: TEST } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "objective" }
        """,
        """
    default Data (scale=1/256, backend=LMDB)

    net Small {
      data, label: Data("train", batch_size=64) @train
      data, label: Data("test", batch_size=100) @test
      data -> conv: Convolution(20, 5, weight_filler=xavier, lr_mult=[1, 2]) -> relu: ReLU!
          -> ip: InnerProduct(10, weight_filler=gaussian(0.01))
      ip, label -> `top 1`: Accuracy @test
      ip, label -> objective: SoftmaxWithLoss(name="loss")
    }
        """,
    ),
    "the escape": (
        r"""
        layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 } } }
        layer { name: "a`b\n" type: "Odd one" bottom: "data" top: "x{y}" loss_weight: -0.5 relu_param {} param {}
                include { phase: TEST stage: "val" } exclude { min_level: 1 } }
        layer { name: "net" type: "ReLU" bottom: "data" top: "net" relu_param { negative_slope: 0 } }
        """,
        r"""
    net "" (name=none) {
      data: Input([1, 2])
      data -> layer2: Layer(lr_mult=[_], loss_weight=-0.5, exclude=[{min_level=1}], relu_param={}, type="Odd one", top=["x{y}"], name="a`b\n", include=[{phase=TEST, stage="val"}])
      data -> `net`: ReLU(0)
    }
        """,  # noqa: E501
    ),
    "what repeats becomes a block": (
        'name: "Towers" layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 } } }'
        + "".join(
            f"""
            layer {{ name: "ip{i}" type: "InnerProduct" bottom: "{"data" if i == 1 else f"out{i - 1}"}" top: "ip{i}"
                     inner_product_param {{ num_output: {8 * i} weight_filler {{ type: "xavier" }} }} }}
            layer {{ name: "relu{i}" type: "ReLU" bottom: "ip{i}" top: "ip{i}" }}
            layer {{ name: "drop{i}" type: "Dropout" bottom: "ip{i}" top: "out{i}"
                     dropout_param {{ dropout_ratio: 0.3 }} }}
            """
            for i in range(1, 7)
        ),
        """
    default InnerProduct (weight_filler=xavier)

    block x -> out(u, n) {
      x -> `ip{u}`: InnerProduct(n) -> `relu{u}`: ReLU! -> `out{u}`: Dropout(0.3, name="drop" + str(u))
    }

    net Towers {
      data: Input([1, 2])
      data -> out(1, 8) -> out(2, 16) -> out(3, 24) -> out(4, 32) -> out(5, 40) -> out(6, 48)
    }
        """,
    ),
}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_small_nets_read_well(name: str) -> None:
    text, expected = SMALL[name]
    assert to_snet(net(text)) == stripped(expected.rstrip(" "))


def test_a_net_that_caffe_runs_and_the_language_forbids() -> None:
    message = net(
        """
        name: "n"
        layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
        layer { name: "norm" type: "LRN" bottom: "data" top: "norm" }
        layer { name: "norm2" type: "LRN" bottom: "norm" top: "norm2" }
        layer { name: "relu" type: "ReLU" bottom: "norm2" top: "norm2" }
        """
    )
    written = to_snet(message)
    assert 'relu: ReLU(top=["norm2"])' in written
    model = compile_text(written)
    assert model.net == message
    assert [found.code for found in model.diagnostics] == ["S206"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "-0.0"),
        (0.1, "0.1"),
        (1 / 256, "1/256"),
        (1e-5, "1e-5"),
        (100000.0, "100000"),
        (1e30, "1e30"),
        (16777216.0, "16777216"),
        (float("inf"), "inf"),
        (float("-inf"), "-inf"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_strings_are_escaped() -> None:
    assert quote('a"\\\n\0é\u2028') == r'"a\"\\\n\x00é\U00002028"'


@st.composite
def nets(draw: st.DrawFn) -> caffe_pb2.NetParameter:
    """Nets with any field set, and wired at random."""
    message = draw(messages(caffe_pb2.NetParameter))
    assert isinstance(message, caffe_pb2.NetParameter)
    names = st.sampled_from(["data", "a", "b", "conv1", "in place", "x/y"])
    for layer in message.layer:
        del layer.bottom[:]
        layer.bottom.extend(draw(st.lists(names, max_size=3)))
        if draw(st.booleans()):
            del layer.top[:]
            layer.top.extend(draw(st.lists(names, max_size=3)))
            layer.type = draw(st.sampled_from(["Convolution", "ReLU", "Data", "LRN", "Silence", "Odd", "Input"]))
            layer.name = draw(names)
    return message


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(nets())
def test_any_net_can_be_printed(message: caffe_pb2.NetParameter) -> None:
    assert to_snet(message)  # which compares what it prints with the message


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(messages(caffe_pb2.SolverParameter, 2))
def test_any_solver_can_be_printed(message: caffe_pb2.SolverParameter) -> None:
    assert to_snet(None, message)


def test_every_output_is_deterministic() -> None:
    model = load(MODELS / "lenet.snet")
    for kind in KINDS:
        assert render(model, kind) == render(load(MODELS / "lenet.snet"), kind)
    assert caffe_pb2.NetParameter.FromString(render(model, "binary")) == model.net
    assert text_format.Parse(render(model, "prototxt").decode(), caffe_pb2.NetParameter()) == model.net
    assert set(json.loads(render(model, "json"))) == {"name", "net", "deploy", "solver", "spark"}
    again = compile_text(render(model, "snet").decode(), keep_data_layers=True)
    assert (again.net, again.solver, again.spark) == (model.net, model.solver, model.spark)


BLOCKS = """
block x -> pair() { x -> a: InnerProduct(4) -> b: ReLU! }
net n { data: Input([2, 3]) -> one: pair() -> pair() as end  end -> p: Softmax @test }
"""


def test_graphs_have_clusters_and_shapes() -> None:
    model = compile_text(BLOCKS)
    assert render(model, "dot").decode() == stripped(
        """
    digraph "n" {
      node [shape=box];
      n0 [label="data\\nInput"];
      subgraph cluster_0 { label="one: pair";
        n1 [label="one/a\\nInnerProduct"];
        n2 [label="one/b\\nReLU"];
      }
      subgraph cluster_1 { label="pair";
        n3 [label="a\\nInnerProduct"];
        n4 [label="b\\nReLU"];
      }
      n5 [label="p\\nSoftmax @test", style=dashed];
      n0 -> n1 [label="2×3"];
      n1 -> n2 [label="2×4"];
      n2 -> n3 [label="2×4"];
      n3 -> n4 [label="2×4"];
      n4 -> n5 [label="2×4"];
    }
        """.rstrip(" ")
    )
    assert '  subgraph b0["one: pair"]\n    n1["one/a<br/>InnerProduct"]\n' in render(model, "mermaid").decode()


def test_no_graph_without_a_net() -> None:
    model = compile_text(BLOCKS)
    model.net.Clear()
    model.solver = caffe_pb2.SolverParameter(base_lr=1)
    assert render(model, "snet") == b"solver (base_lr=1)\n"
    with pytest.raises(UsageError, match="has no net"):
        render(model, "dot")


def test_command_emits(tmp_path: pathlib.Path) -> None:
    (tmp_path / "n.snet").write_text(BLOCKS, encoding="utf-8")

    def run(*args: str) -> subprocess.CompletedProcess[bytes]:
        code = "from sparknet_dsl.cli_compile import compile_command as c; c()"
        command = [sys.executable, "-c", code, "n.snet", *args]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)

    wanted = render(compile_text(BLOCKS), "prototxt")
    assert run("--emit", "prototxt").stdout == wanted
    assert run("--emit", "prototxt", "-o", "out/").stdout == b""
    assert (tmp_path / "out" / "n.prototxt").read_bytes() == wanted
    assert run("--emit", "snet", "-o", "n.snet").returncode == 2
    assert run("--emit", "snet", "--format", "json").returncode == 2


def test_two_layers_of_one_name() -> None:
    message = net(
        """
        name: "n"
        layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "data" top: "a" inner_product_param { num_output: 4 } }
        layer { name: "ip" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { num_output: 4 } }
        """
    )
    written = to_snet(message)
    assert "data -> a: InnerProduct(4" in written
    assert 'layer3: InnerProduct(name="ip", bottom=["a"], top=["b"]' in written
    assert load_text(written) == message
