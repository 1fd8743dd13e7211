"""`sparknet-time`: what is counted, against numbers worked out by hand; what is shown; what is refused."""

import itertools
import json
import pathlib

import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format

from sparknet_dsl import cli_local
from sparknet_dsl.proto import caffe_pb2
from sparknet_dsl.runtime import timing

NET = """
name: "Timed"
layer {{ name: "in" type: "Input" top: "x" top: "label" {input} }}
layer {{ name: "conv" type: "Convolution" bottom: "x" top: "conv"
  convolution_param {{ num_output: 8 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "flat" type: "Flatten" bottom: "conv" top: "flat" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "flat" top: "ip" inner_product_param {{ num_output: 5 }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""
SHAPES = "input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } shape { dim: 2 } }"
DATA = 'data_param { source: "db" batch_size: 4 }'


def net() -> caffe_pb2.NetParameter:
    return text_format.Parse(NET.format(input=SHAPES), caffe_pb2.NetParameter())


def test_counts_by_hand() -> None:
    found = timing.measure(net(), "TRAIN", 2)
    layers = {layer.name: layer for layer in found.layers}
    assert list(layers) == ["in", "conv", "relu", "flat", "ip", "loss"]
    assert (found.name, found.batch, found.iterations) == ("Timed", 2, 2)
    conv = 2 * 8 * 4 * 4 * 3 * 3 * 3  # multiply-adds
    x, y, weights = 2 * 3 * 6 * 6, 2 * 8 * 4 * 4, 8 * 3 * 3 * 3 + 8
    # No gradient is asked of the images: backward is that of the weights alone.
    assert (layers["conv"].forward_flop, layers["conv"].backward_flop) == (2 * conv, 2 * conv)
    assert layers["conv"].forward_bytes == 4 * (x + y + weights)
    assert layers["conv"].backward_bytes == 4 * (y + x + 2 * weights)  # top's gradient, bottom, weights and theirs
    assert (layers["ip"].forward_flop, layers["ip"].backward_flop) == (2 * 2 * 128 * 5, 2 * 2 * 2 * 128 * 5)
    assert layers["relu"].forward_flop == 0 and layers["relu"].forward_bytes == 4 * 2 * y
    assert layers["flat"].forward_bytes == layers["flat"].backward_bytes == layers["in"].forward_bytes == 0
    assert layers["in"].backward_ms == 0 < layers["conv"].backward_ms
    assert found.flop == 4 * conv + 3 * 2 * 2 * 128 * 5
    assert layers["in"].layouts == ("", "") and len(layers["conv"].layouts) == 1


def test_medians_of_a_clock_that_is_known() -> None:
    """Each reading of the clock is a second later: a layer takes one second in each direction."""
    ticks = itertools.count()
    found = timing.measure(net(), "TRAIN", 3, clock=lambda: float(next(ticks)))
    assert [layer.forward_ms for layer in found.layers] == [1000.0] * 6
    assert [layer.backward_ms for layer in found.layers] == [0, *[1000.0] * 5]
    assert (found.forward_ms, found.backward_ms, found.ms) == (6000, 6000, 12000)
    assert found.layers[1].gflops == pytest.approx(found.layers[1].forward_flop * 2 / 2 / 1e9)


def test_in_test_there_is_no_way_back() -> None:
    found = timing.measure(net(), "TEST", 1)
    assert found.backward_ms == 0 and not any(layer.backward_flop + layer.backward_bytes for layer in found.layers)
    assert "backward" not in timing.summary(found)


# ---- the command ----


def run(*args: object) -> Result:
    return CliRunner().invoke(cli_local.time_command, [str(arg) for arg in args])


def write(folder: pathlib.Path, text: str) -> pathlib.Path:
    path = folder / "net.prototxt"
    path.write_text(text)
    return path


def test_the_table(tmp_path: pathlib.Path) -> None:
    result = run(write(tmp_path, NET.format(input=SHAPES)), "--iterations", 1)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].strip() == "Timed in TRAIN, batches of 2: medians of 1 passes"
    heads = ["layer", "type", "forward", "ms", "backward", "ms", "share", "GFLOP/s", "MB", "layout"]
    assert lines[1].split() == heads
    assert [line.split()[0] for line in lines[2:8]] == ["in", "conv", "relu", "flat", "ip", "loss"]
    assert lines[8].startswith("all layers") and " rows/s (" in lines[9]


def test_json_batch_and_threads(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, NET.format(input=SHAPES))
    result = run(path, "--iterations", 1, "--json", "--batch", 7, "--threads", 1, "--phase", "test")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["batch"], found["threads"], found["phase"]) == (7, 1, "TEST")
    assert found["layers"][1]["forward_flop"] == 2 * 7 * 8 * 4 * 4 * 27
    assert found["flop"] == sum(layer["forward_flop"] for layer in found["layers"])


def test_rows_of_a_database_take_the_shape_given(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, NET.format(input=DATA).replace('"Input"', '"Data"'))
    result = run(path, "--iterations", 1)
    assert result.exit_code == 1 and "the shape of `x` is not known" in result.stderr
    result = run(path, "--iterations", 1, "--row", "3x6x6", "--format", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["batch"] == 4


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (["--iterations", "0"], 2, "--iterations 0"),
        (["--batch", "-3"], 2, "--batch -3"),
        (["--threads", "0"], 2, "--threads 0"),
        (["--row", "3x0"], 2, "not of the form 3x224x224"),
        (["--phase", "DEPLOY"], 2, "DEPLOY"),
        (["-D", "x=1"], 1, "has no options"),
    ],
)
def test_errors(tmp_path: pathlib.Path, args: list[str], status: int, says: str) -> None:
    result = run(write(tmp_path, NET.format(input=SHAPES)), *args)
    assert result.exit_code == status
    assert says in result.stderr and "Traceback" not in result.output


def test_a_phase_that_is_not_there(tmp_path: pathlib.Path) -> None:
    text = NET.format(input=SHAPES + " include { phase: TRAIN }")
    result = run(write(tmp_path, text), "--phase", "TEST")
    assert result.exit_code == 1 and "no data in phase TEST: say --phase TRAIN" in result.stderr
