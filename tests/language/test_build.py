"""Models written in Python, and what a Model can show of itself."""

import pathlib
import re
import xml.etree.ElementTree

import pytest

from sparknet_dsl import Model, build, compile_file, compile_text
from sparknet_dsl.build import MAX, Net, gaussian, xavier
from sparknet_dsl.errors import ModelError

TINY = """
net tiny {
  data, label: RDDData([[32, 1, 8, 8], [32]], source="digits:", scale=1/16) @train
  data, label: RDDData([[10, 1, 8, 8], [10]], source="digits:", scale=1/16) @test
  default Convolution, InnerProduct (lr_mult=[1, 2], weight_filler=xavier)
  data -> conv1: Convolution(16, 3, weight_filler=gaussian(0.01), decay_mult=[_, 0]) -> relu1: ReLU!
       -> pool1: Pooling(MAX, 2, 2) is [_, 16, 3, 3] -> ip1: InnerProduct(10)
  ip1, label -> accuracy: Accuracy @test
  ip1, label -> loss: SoftmaxWithLoss
  ip1 -> prob: Softmax @deploy
}
solver (base_lr=0.05, lr_policy="fixed", max_iter=500)
spark (tau=20)
"""


def tiny() -> Net:
    net = Net("tiny")
    for phase, batch in (("train", 32), ("test", 10)):
        data, label = net.RDDData(
            [[batch, 1, 8, 8], [batch]], source="digits:", scale=1 / 16, label=["data", "label"], phase=phase
        )
    net.default("Convolution", "InnerProduct", lr_mult=[1, 2], weight_filler=xavier)
    x = net.Convolution(data, 16, 3, weight_filler=gaussian(0.01), decay_mult=[None, 0], label="conv1")
    x = net.ReLU(x, in_place=True)
    x = net.Pooling(x, MAX, 2, 2, label="pool1", shape_is=[None, 16, 3, 3])
    x = net.InnerProduct(x, 10, label="ip1")
    net.Accuracy(x, label, label="accuracy", phase="test")
    net.SoftmaxWithLoss(x, label, label="loss")
    net.Softmax(x, label="prob", phase=["deploy"])
    net.solver(base_lr=0.05, lr_policy="fixed", max_iter=500)
    net.spark(tau=20)
    return net


def test_python_and_text_give_the_same_messages() -> None:
    made, written = tiny().compile(), compile_text(TINY)
    assert made.net == written.net
    assert made.deploy == written.deploy
    assert made.solver == written.solver
    assert made.spark == written.spark
    assert made.diagnostics == []


def errors_of(net: Net) -> list[tuple[str, str, str]]:
    with pytest.raises(ModelError) as caught:
        net.compile()
    for found in caught.value.diagnostics:
        assert found.span is not None
        assert found.span.file.endswith("test_build.py")
    return [(each.code, each.span.text, str(each.fix or "")) for each in caught.value.diagnostics]


def test_mistakes_are_shown_at_their_calls_all_at_once() -> None:
    net = Net("wrong")
    data = net.Input([1, 3, 8, 8], label="data")
    x = net.Convolution(data, 20, kernal_size=5)
    net.Pooling(data, build.MIN, 2, label="ünïcode")
    net.ReLU(
        x,
        negative_slope="steep",
    )
    net.Convolutoin(data, 4)
    assert errors_of(net) == [
        ("S104", "kernal_size", "kernal_size -> kernel_size"),
        ("S106", "build.MIN", ""),
        ("S105", '"steep"', ""),
        ("S101", "net.Convolutoin(data, 4)", ""),
    ]


def test_rules_of_the_graph_hold_for_python() -> None:
    net = Net("wrong")
    data = net.Input([1, 3, 8, 8], label="data")
    normed = net.LRN(data, label="norm")
    net.ReLU(normed, in_place=True)
    net.Convolution(normed, 8, 3)  # overwritten above
    assert [code for code, _, _ in errors_of(net)] == ["S206", "S204"] or errors_of(net)[0][0] in ("S204", "S206")


def test_arguments_that_python_hides_point_at_the_whole_call() -> None:
    net = Net("wrong")
    fields = {"kernal_size": 3}
    net.Convolution(net.Input([1, 3, 8, 8], label="data"), 8, **fields)
    ((code, where, _),) = errors_of(net)
    assert code == "S104"
    assert where == 'net.Convolution(net.Input([1, 3, 8, 8], label="data"), 8, **fields)'


def test_layers_by_name_escapes_and_layers_without_tops() -> None:
    net = Net("odd", force_backward=True)
    data = net.layer("Input", [1, 3, 8, 8], label="data")
    net.layer("Layer", data, type="Odd", relu_param={"negative_slope": 0.5}, label="odd")
    net.Silence(data)
    model = net.compile()
    assert model.net.force_backward
    assert [layer.type for layer in model.net.layer] == ["Input", "Odd", "Silence"]
    assert list(model.net.layer[2].top) == []
    assert model.net.layer[1].relu_param.negative_slope == 0.5


def test_code_without_a_file_still_gives_the_message() -> None:
    scope = {"Net": Net}
    exec('net = Net("n")\nnet.Convolution(net.Input([1, 3]), 8, kernal_size=3)', scope)
    with pytest.raises(ModelError, match="Convolution has no field `kernal_size`"):
        scope["net"].compile()


def test_values_of_another_net_and_odd_python_values() -> None:
    one, other = Net("one"), Net("other")
    with pytest.raises(ValueError, match="a value of another net, one"):
        other.ReLU(one.Input([1, 3]))
    with pytest.raises(TypeError, match="not object"):
        one.Input(object())
    with pytest.raises(AttributeError, match="layer types begin with a capital"):
        one.convolution()
    with pytest.raises(AttributeError):
        build._repr_html_()


# What a model shows


@pytest.fixture(scope="module")
def model() -> Model:
    return compile_text(TINY)


def test_summary_is_the_table_of_the_command(model: Model) -> None:
    lines = model.summary().splitlines()
    assert lines[0] == "tiny, batches of 32"
    assert re.search(r"^conv1 +Convolution +32×16×6×6 +160 +165,888$", model.summary(), re.MULTILINE)
    assert lines[-1].startswith("8 layers")


def test_shapes_by_phase(model: Model) -> None:
    assert set(model.shapes) == {"TRAIN", "TEST", "DEPLOY"}
    assert model.shapes["TRAIN"]["ip1"] == (32, 10)
    assert model.shapes["DEPLOY"]["prob"] == (10, 10)
    assert "accuracy" not in model.shapes["TRAIN"]


def test_save_writes_what_the_command_writes(model: Model, tmp_path: pathlib.Path) -> None:
    written = model.save(tmp_path / "build")
    assert [path.name for path in written] == [
        "tiny.prototxt",
        "tiny_solver.prototxt",
        "tiny_deploy.prototxt",
        "tiny_spark.prototxt",
    ]
    assert compile_file(written[0]).net == model.net
    assert next(path.name for path in model.save(tmp_path, "other")) == "other.prototxt"


def test_notebooks_get_the_page_in_a_frame(model: Model) -> None:
    frame = xml.etree.ElementTree.fromstring(model._repr_html_())
    assert (frame.tag, frame.get("sandbox"), frame.get("title")) == ("iframe", "allow-scripts", "tiny")
    page = frame.get("srcdoc")
    assert page is not None and page.startswith("<!doctype html>") and '"name":"conv1"' in page


def test_hostile_names_stay_text() -> None:
    net = Net("<script>")
    net.Input([1, 3], label='<b>"&')
    html = net.compile()._repr_html_()
    assert "<script>" not in html
    assert "<b>&quot;" not in html
