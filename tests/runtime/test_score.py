"""`sparknet-test`: means over a whole test set, or over batches, and what is refused."""

import json
import pathlib

import numpy as np
import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format

from sparknet_dsl import caffe_ext, cli_local, compile_file
from sparknet_dsl.proto import caffe_pb2
from sparknet_dsl.runtime.data import BadRecords, open_source

MODEL = """
net small {
  data, label: RDDData([[16, 1, 8, 8], [16]], source="digits:", scale=1/16) @train
  data, label: RDDData([[50, 1, 8, 8], [50]], source="digits:", mean_file="far/away/mean.binaryproto") @test
  data -> ip: InnerProduct(10, weight_filler=xavier)
  ip, label -> accuracy: Accuracy @test
  ip, label -> loss: SoftmaxWithLoss
}
"""
OWN = """
name: "Own"
layer { name: "made" type: "DummyData" top: "x"
  dummy_data_param { shape { dim: 2 dim: 3 } data_filler { value: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 2 weight_filler { value: 0.5 } bias_filler { value: 1 } } }
"""


def run(*args: object) -> Result:
    return CliRunner().invoke(cli_local.test_command, [str(arg) for arg in args])


@pytest.fixture
def weights(tmp_path: pathlib.Path) -> pathlib.Path:
    """Weights of the model, with the mean image that training kept beside them."""
    (tmp_path / "small.snet").write_text(MODEL)
    path = tmp_path / "kept" / "w.caffemodel"
    path.parent.mkdir()
    mean = caffe_pb2.BlobProto(num=1, channels=1, height=8, width=8, data=[0.25] * 64)
    (path.parent / "mean.binaryproto").write_bytes(mean.SerializeToString())
    caffe_ext.Net(compile_file(tmp_path / "small.snet").net, caffe_ext.TEST, seed=3).save(path)
    return path


def test_every_row_counts_once(weights: pathlib.Path) -> None:
    model = weights.parent.parent / "small.snet"
    result = run(model, "--weights", weights, "--format", "json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    rows = next(iter(open_source("digits:", "TEST").read(0, 1, BadRecords())))
    matrix, bias = caffe_ext.read_weights(weights)["ip"]
    scores = (rows["image"].reshape(360, 64) - 0.25) @ matrix.T + bias
    assert found["rows"] == 360
    assert found["metrics"]["accuracy"] == pytest.approx((scores.argmax(axis=1) == rows["label"]).mean(), abs=1e-6)
    scores -= scores.max(axis=1, keepdims=True)
    logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    assert found["metrics"]["loss"] == pytest.approx(-logs[np.arange(360), rows["label"]].mean(), rel=1e-4)


def test_nan_is_null_in_json(weights: pathlib.Path) -> None:
    net = caffe_ext.Net(compile_file(weights.parent.parent / "small.snet").net, caffe_ext.TEST)
    net.flat_data[:] = np.nan
    net.save(weights)
    result = run(weights.parent.parent / "small.snet", "--weights", weights, "--format", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["metrics"]["loss"] is None and "NaN" not in result.stdout


def test_batches_of_a_net_of_its_own(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "own.prototxt"
    path.write_text(OWN)
    net = caffe_ext.Net(text_format.Parse(OWN, caffe_pb2.NetParameter()), caffe_ext.TEST)
    net.save(tmp_path / "w.caffemodel")
    result = run(path, "--weights", tmp_path / "w.caffemodel", "--iterations", 3)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:4] == [f"ip[{n},{c}] 4" for n in (0, 1) for c in (0, 1)]
    assert result.stdout.splitlines()[4].startswith("(3 batches in ")


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (["--iterations", "0"], 2, "--iterations 0"),
        (["--iterations", "3"], 2, "of digits: all rows count"),
        (["--threads", "0"], 2, "--threads 0"),
        (["--test", "mnist:absent"], 1, "absent"),
        (["--weights", "absent.caffemodel"], 1, "absent.caffemodel"),
    ],
)
def test_errors(weights: pathlib.Path, options: list[str], status: int, says: str) -> None:
    result = run(weights.parent.parent / "small.snet", "--weights", weights, *options)
    assert result.exit_code == status
    assert says in result.stderr and len(result.stderr.splitlines()) == 1
