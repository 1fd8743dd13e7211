"""Caffe's own files as input, and what is said about those that cannot be read."""

import pathlib

import pytest
from google.protobuf import text_format

from sparknet_dsl import compile_file, load
from sparknet_dsl.errors import ModelError
from sparknet_dsl.proto import caffe_pb2

NET = """
name: "n"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 4 } }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 5\n'


def refusal(path: pathlib.Path) -> str:
    with pytest.raises(ModelError) as caught:
        compile_file(path)
    assert caught.value.exit_code == 1
    return str(caught.value)


def test_text_and_binary_nets(tmp_path: pathlib.Path) -> None:
    text = tmp_path / "net.prototxt"
    text.write_text(NET)
    model = load(text)
    assert model.name == "n"
    binary = tmp_path / "net.bin"
    binary.write_bytes(model.net.SerializeToString())
    assert load(binary).net == model.net == text_format.Parse(NET, caffe_pb2.NetParameter())


def test_inputs_of_older_syntax(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text('input: "x" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4')
    layer = load(path).net.layer[0]
    assert (layer.type, list(layer.top), list(layer.input_param.shape[0].dim)) == ("Input", ["x"], [1, 2, 3, 4])
    path.write_text('input: "x" input_dim: 1')
    assert "four numbers" in refusal(path)


@pytest.mark.parametrize("where", ["net.prototxt", "somewhere/else/net.prototxt"])
def test_a_solvers_net_is_found_beside_it(tmp_path: pathlib.Path, where: str) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    solver = tmp_path / "solver.prototxt"
    solver.write_text(SOLVER.replace("net.prototxt", where))
    model = compile_file(solver)
    assert [layer.name for layer in model.net.layer] == ["data", "ip"]
    assert model.solver is not None
    assert model.solver.net == where


def test_a_solvers_net_is_found_from_the_working_directory(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "net.prototxt").write_text(NET)
    (tmp_path / "b" / "solver.prototxt").write_text(SOLVER.replace("net.prototxt", "a/net.prototxt"))
    monkeypatch.chdir(tmp_path)
    assert len(compile_file("b/solver.prototxt").net.layer) == 2


def test_a_solver_with_its_net_inside(tmp_path: pathlib.Path) -> None:
    solver = tmp_path / "solver.prototxt"
    solver.write_text(f'base_lr: 0.1 lr_policy: "fixed" net_param {{ {NET} }}')
    assert len(compile_file(solver).net.layer) == 2


def test_train_and_test_nets_become_one(tmp_path: pathlib.Path) -> None:
    (tmp_path / "train.prototxt").write_text(NET)
    (tmp_path / "test.prototxt").write_text(NET.replace("dim: 2", "dim: 7"))
    solver = tmp_path / "solver.prototxt"
    solver.write_text(
        SOLVER.replace("net:", "train_net:").replace("net.proto", "train.proto") + 'test_net: "test.prototxt"'
    )
    model = compile_file(solver)
    assert model.reports["TRAIN"].blobs["ip"] == (2, 4)
    assert model.reports["TEST"].blobs["ip"] == (7, 4)


def test_a_snet_solver_may_name_a_net(tmp_path: pathlib.Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    path = tmp_path / "s.snet"
    path.write_text('solver (net="net.prototxt", base_lr=0.1, lr_policy="fixed")')
    assert len(compile_file(path).net.layer) == 2
    path.write_text('solver (base_lr=0.1, lr_policy="fixed")')
    assert "names no net" in refusal(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.prototxt", NET.replace("num_output", "num_outputt"), "has no field `num_outputt`"),
        ("a.prototxt", NET.replace("num_output", "num_outputt"), "a.prototxt:4:"),
        ("a.prototxt", NET.replace("num_output", "num_outputt"), "did you mean `num_output`?"),
        ("a.prototxt", NET + "}", "a.prototxt:5:"),
        ("a.prototxt", 'layers { layer { name: "a" type: "rellu" } }', "no layer type `rellu`"),
        ("a.prototxt", SOLVER, "is not there"),
        ("a.prototxt", "", "has no layers"),
        ("a.bin", b"\x00\x01\x02", "neither text nor"),
        ("a.bin", b"\xff\xfe", "neither text nor"),
        ("a.snet", b"\xff\xfe", "no text in UTF-8"),
        ("a.prototxt", "layer { " * 500, "error"),
    ],
)
def test_clear_refusals(tmp_path: pathlib.Path, name: str, content: str | bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert said in refusal(path)


def test_missing_files_and_folders(tmp_path: pathlib.Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.snet")
    assert "is a folder" in refusal(tmp_path)
    assert "cannot read" in refusal(pathlib.Path("a\0b.snet"))


def test_problems_of_a_published_net_are_placed(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(NET.replace("num_output: 4", "num_output: 0"))
    assert "net.prototxt:4:100" in refusal(path)


def test_what_caffe_lets_pass_is_a_warning(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        """
        layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }
        layer { name: "norm" type: "LRN" bottom: "data" top: "norm" }
        layer { name: "norm2" type: "LRN" bottom: "norm" top: "norm2" }
        layer { name: "relu" type: "ReLU" bottom: "norm2" top: "norm2" }
        """
    )
    assert [found.code for found in compile_file(path).diagnostics] == ["S206"]
