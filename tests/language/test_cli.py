"""The command lines, run as a user runs them."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format

from sparknet_dsl import cli, cli_compile, cli_local
from sparknet_dsl.proto import caffe_pb2, sparknet_pb2

MODELS = pathlib.Path(__file__).parents[2] / "models"


def run(*args: object) -> Result:
    return CliRunner().invoke(cli_compile.compile_command, [str(arg) for arg in args])


def read(path: pathlib.Path, kind: type) -> object:
    return text_format.Parse(path.read_text(encoding="utf-8"), kind())


def test_writes_every_part_and_prints_a_table(tmp_path: pathlib.Path) -> None:
    result = run(MODELS / "lenet.snet", "-o", tmp_path / "new" / "folder")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "new" / "folder"
    names = ["lenet.prototxt", "lenet_deploy.prototxt", "lenet_solver.prototxt", "lenet_spark.prototxt"]
    assert sorted(path.name for path in folder.iterdir()) == names
    net = read(folder / "lenet.prototxt", caffe_pb2.NetParameter)
    assert [layer.type for layer in net.layer][:2] == ["Input", "Input"]
    assert read(folder / "lenet_solver.prototxt", caffe_pb2.SolverParameter).net == str(folder / "lenet.prototxt")
    assert read(folder / "lenet_spark.prototxt", sparknet_pb2.SparkParameter).tau == 50
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["conv1", "Convolution", "64×20×24×24", "520", "18,432,000"] in lines
    assert ["conv2", "Convolution", "64×50×8×8", "25,050", "102,400,000"] in lines
    assert ["11", "layers", "431,080", "146,752,000"] in lines
    assert result.stdout.splitlines()[-1].startswith("wrote ")


def test_keeps_data_layers_and_the_solvers_path(tmp_path: pathlib.Path) -> None:
    result = run(MODELS / "lenet.snet", "-o", tmp_path, "--keep-data-layers")
    assert result.exit_code == 0, result.output
    assert read(tmp_path / "lenet.prototxt", caffe_pb2.NetParameter).layer[0].type == "Data"
    solver = read(tmp_path / "lenet_solver.prototxt", caffe_pb2.SolverParameter)
    assert solver.net == "examples/mnist/lenet_train_test.prototxt"


def test_what_was_written_compiles_to_the_same(tmp_path: pathlib.Path) -> None:
    run(MODELS / "digits.snet", "-o", tmp_path / "a")
    result = run(tmp_path / "a" / "digits.prototxt", "-o", tmp_path / "b")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "a" / "digits.prototxt").read_text() == (tmp_path / "b" / "digits.prototxt").read_text()
    result = run(tmp_path / "a" / "digits_solver.prototxt", "-o", tmp_path / "c")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "c" / "digits_solver.prototxt").read_text() == (tmp_path / "a" / "digits.prototxt").read_text()


def test_writes_to_the_working_directory_by_default(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(MODELS / "digits.snet", "-D", "batch=8").exit_code == 0
    assert read(tmp_path / "digits.prototxt", caffe_pb2.NetParameter).layer[0].input_param.shape[0].dim[0] == 8
    assert read(tmp_path / "digits_solver.prototxt", caffe_pb2.SolverParameter).net == "digits.prototxt"


def test_does_not_overwrite_its_input(tmp_path: pathlib.Path) -> None:
    run(MODELS / "digits.snet", "-o", tmp_path)
    before = (tmp_path / "digits.prototxt").read_bytes()
    result = run(tmp_path / "digits.prototxt", "-o", tmp_path)
    assert result.exit_code == 2
    assert "would overwrite" in result.stderr
    assert (tmp_path / "digits.prototxt").read_bytes() == before


def test_errors_go_to_stderr_and_nothing_is_written(tmp_path: pathlib.Path) -> None:
    model = tmp_path / "bad.snet"
    model.write_text("net N { data: Input([1, 3, 8, 8]) -> c: Convolution(4, kernal_size=3) }")
    result = run(model, "-o", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "error[S104]: Convolution has no field `kernal_size`" in result.stderr
    assert "\x1b" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_warnings_do_not_fail(tmp_path: pathlib.Path) -> None:
    model = tmp_path / "m.snet"
    model.write_text("block x -> unused() { x }\nnet N { data: Input([1, 3]) }")
    result = run(model, "-o", tmp_path)
    assert result.exit_code == 0
    assert "warning[S210]" in result.stderr


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--no-such-option", "x"],
        [str(MODELS / "digits.snet"), "-D", "batch"],
        [str(MODELS / "digits.snet"), "-D", "1=2"],
        ["--explain", "S999"],
        [str(MODELS / "digits.snet"), "another"],
    ],
)
def test_wrong_command_lines(args: list[str]) -> None:
    assert run(*args).exit_code == 2


def test_missing_model(tmp_path: pathlib.Path) -> None:
    result = run(tmp_path / "none.snet")
    assert result.exit_code == 1
    assert "No such file" in result.stderr


def test_unwritable_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(MODELS / "digits.snet", "-o", tmp_path / "file" / "below")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: cannot make the folder")
    assert len(result.stderr.splitlines()) == 1


def test_unknown_option_of_the_model() -> None:
    result = run(MODELS / "digits.snet", "-D", "bacth=3")
    assert result.exit_code == 1
    assert "did you mean `batch`?" in result.stderr


def test_explain() -> None:
    result = run("--explain", "s206")
    assert result.exit_code == 0
    assert result.stdout.startswith("S206: ")


def test_run_passes_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparknet_dsl.runtime import app

    seen: dict[str, object] = {}

    def main(model: str, **options: object) -> int:
        seen.update(options, model=model)
        return 3

    monkeypatch.setattr(app, "main", main)
    command = "m.snet --workers 2 --master local[4] --train a: --test b: --tau 5 --rounds 6 --seed 7"
    command += " --averaging-share 0.2 --momentum local --outer-rate 0.7 --no-outer-nesterov --exchange int8"
    command += " --snapshot-dir d --weights w --resume --precision bf16 --no-pin -D x=1 -D y=z --json j"
    command += " --memory lean --conf spark.a=1 --conf spark.b=2 --ship-env e.tar.gz --plan --bad-records skip"
    command += " --late drop --overlap-tests --tensorboard t --mlflow http://m --mlflow-experiment e"
    command += " --report r --ui 8080"
    result = CliRunner().invoke(cli.run_command, command.split())
    assert result.exit_code == 3
    assert seen == {
        "model": "m.snet",
        "bad_records": "skip",
        "precision": "bf16",
        "memory": "lean",
        "conf": ("spark.a=1", "spark.b=2"),
        "ship_env": "e.tar.gz",
        "plan": True,
        "pin": False,
        "workers": 2,
        "master": "local[4]",
        "train": "a:",
        "test": "b:",
        "tau": "5",
        "average": None,
        "late": "drop",
        "overlap_tests": True,
        "averaging_share": 0.2,
        "averaging": {"momentum": "LOCAL", "outer_rate": 0.7, "outer_nesterov": False, "exchange": "int8"},
        "rounds": 6,
        "seed": 7,
        "snapshot_dir": "d",
        "weights": "w",
        "resume": True,
        "defines": {"x": "1", "y": "z"},
        "json": "j",
        "tensorboard": "t",
        "mlflow": "http://m",
        "mlflow_experiment": "e",
        "report": "r",
        "ui": "8080",
    }


def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparknet_dsl.runtime import app

    def main(model: str, **options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "main", main)
    assert CliRunner().invoke(cli.run_command, ["m.snet"]).exit_code == 130


@pytest.mark.parametrize(
    "command",
    [
        *(cli_compile.compile_command, cli.run_command, cli_compile.format_command),
        *(cli_local.time_command, cli_local.train_command, cli_local.test_command),
    ],
)
def test_help_teaches(command: object) -> None:
    result = CliRunner().invoke(command, ["--help"])  # type: ignore[arg-type]
    assert result.exit_code == 0
    assert re.search(r"^  Examples:\n    sparknet-\w+ .*\n    sparknet-\w+ ", result.output, re.MULTILINE)
    assert "Exit status:" in result.output


def in_a_process(code: str) -> str:
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True, env=environment
    ).stdout.strip()


def test_imports_are_lazy() -> None:
    heavy = "{'lark', 'numpy', 'rich', 'pyspark', 'sklearn', 'google.protobuf', 'sparknet_dsl.caffe_ext'}"
    code = f"import sys, sparknet_dsl, sparknet_dsl.cli_local; print(sorted({heavy} & set(sys.modules)))"
    assert in_a_process(code) == "[]"
    code = f"import sys; from sparknet_dsl.compile import compile_text; print(sorted({heavy} & set(sys.modules)))"
    assert in_a_process(code) == "['google.protobuf', 'lark']"


def test_public_names() -> None:
    import sparknet_dsl

    for name in sparknet_dsl.__all__:
        assert getattr(sparknet_dsl, name).__module__ == "sparknet_dsl.compile"
    with pytest.raises(AttributeError):
        sparknet_dsl.no_such_name  # noqa: B018
