"""`sparknet-predict`: what it writes, shows and counts, against NumPy."""

import csv
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from linear import LINEAR

from sparknet_dsl import caffe_ext, cli_local, compile_text
from sparknet_dsl.errors import DataError, OutputError
from sparknet_dsl.runtime import outputs
from sparknet_dsl.runtime.data import BadRecords, open_source
from sparknet_dsl.runtime.predict import regrouped
from sparknet_dsl.runtime.scores import Confusion, best, picture
from sparknet_dsl.runtime.spark import Cluster


@pytest.fixture(autouse=True)
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A model and weights of it in the working directory."""
    monkeypatch.chdir(tmp_path)
    pathlib.Path("linear.snet").write_text(LINEAR)
    pathlib.Path("names.txt").write_text("one\ntwo\n")
    caffe_ext.Net(compile_text(LINEAR).net, caffe_ext.TRAIN, seed=5).save("w.caffemodel")
    return tmp_path


def run(*args: object) -> Result:
    words = ["linear.snet", "w.caffemodel", "digits:", *map(str, args)]
    return CliRunner().invoke(cli_local.predict_command, words)


def expected() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, hidden units and probabilities of the test rows, by NumPy."""
    chunks = list(open_source("digits:", "TEST").read(0, 1, BadRecords()))
    images = np.concatenate([chunk["image"] for chunk in chunks]).reshape(-1, 64) / 16
    labels = np.concatenate([chunk["label"] for chunk in chunks])
    params = caffe_ext.read_weights("w.caffemodel")
    hidden = np.maximum(images @ params["hidden"][0].T + params["hidden"][1], 0)
    scores = hidden @ params["ip"][0].T + params["ip"][1]
    exponential = np.exp(scores - scores.max(axis=1, keepdims=True))
    return labels, hidden, exponential / exponential.sum(axis=1, keepdims=True)


def test_csv() -> None:
    assert run("--out", "csv:a.csv", "--top", 2).exit_code == 0
    labels, _, probabilities = expected()
    with pathlib.Path("a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["label"]) for row in rows] == list(labels)
    order = np.argsort(-probabilities, axis=1)
    assert [int(row["prediction"]) for row in rows] == list(order[:, 0])
    assert [int(row["top_1"]) for row in rows] == list(order[:, 1])
    second = np.take_along_axis(probabilities, order[:, 1:2], axis=1)[:, 0]
    np.testing.assert_allclose([float(row["top_probability_1"]) for row in rows], second, rtol=1e-4)


def test_blobs_as_arrays_in_the_same_order_by_several_threads() -> None:
    assert run("--blobs", "hidden,ip", "--out", "npz:a.npz", "--workers", 3, "--batch", 7).exit_code == 0
    labels, hidden, _ = expected()
    with np.load("a.npz") as arrays:
        assert sorted(arrays) == ["hidden", "ip", "label"]
        np.testing.assert_array_equal(arrays["label"], labels)
        np.testing.assert_allclose(arrays["hidden"], hidden, atol=1e-5)


def test_json_lines_and_parquet_hold_the_same() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pathlib.Path("names.txt").write_text("".join(f"n0000000{i} number {i}\n" for i in range(10)))
    for kind in ("json:a.json", "parquet:folder"):
        result = run("--out", kind, "--labels", "names.txt")
        assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in pathlib.Path("a.json").read_text().splitlines()]
    assert rows[0]["class"] == f"number {rows[0]['prediction']}"
    table = parquet.read_table("folder").to_pylist()
    assert [row["top"] for row in table] == [row["top"] for row in rows]
    assert [row["probability"] for row in table] == pytest.approx([row["probability"] for row in rows])
    result = run("--out", "parquet:folder")
    assert result.exit_code == 1 and "exists already" in result.stderr


def test_eval_counts() -> None:
    result = run("--eval", "--json", "e.json", "--confusion", "c.png", "--top", 3)
    assert result.exit_code == 0, result.output
    labels, _, probabilities = expected()
    found = json.loads(pathlib.Path("e.json").read_text())
    predicted = probabilities.argmax(axis=1)
    assert found["rows"] == 360
    assert found["accuracy"] == (predicted == labels).mean()
    among = [label in order[:3] for label, order in zip(labels, np.argsort(-probabilities, axis=1), strict=True)]
    assert found["top3"] == np.mean(among)
    for number, entry in enumerate(found["classes"]):
        assert entry["support"] == (labels == number).sum()
        assert entry["recall"] == ((predicted == number) & (labels == number)).sum() / entry["support"]
        if (predicted == number).any():
            assert (
                entry["precision"] == ((predicted == number) & (labels == number)).sum() / (predicted == number).sum()
            )
        else:
            assert entry["precision"] is None
    assert np.array(found["confusion"])[labels[0], predicted[0]] > 0 and np.sum(found["confusion"]) == 360
    assert cv2.imread("c.png").shape[2] == 3
    assert "accuracy" in result.stdout and "confusion matrix: c.png" in result.stdout


def test_the_first_rows_are_shown() -> None:
    result = run()
    assert result.exit_code == 0, result.output
    assert "the first 10 of 360 rows" in result.stdout and "360 rows in" in result.stdout
    assert not pathlib.Path("confusion.png").exists()


def test_a_deploy_net_and_rows_without_labels() -> None:
    compile_text(LINEAR).save(".", "linear")
    net = pathlib.Path("deploy.prototxt")
    net.write_text(
        'name: "d" input: "data" input_shape { dim: 1 dim: 1 dim: 8 dim: 8 } '
        'layer { name: "hidden" type: "InnerProduct" '
        'bottom: "data" top: "h" inner_product_param { num_output: 20 } }'
    )
    result = CliRunner().invoke(
        cli_local.predict_command, ["deploy.prototxt", "w.caffemodel", "digits:?columns=image", "--out", "npz:a.npz"]
    )
    assert result.exit_code == 0, result.output
    with np.load("a.npz") as arrays:
        assert arrays["h"].shape == (360, 20)


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (["--blobs", "nosuch"], 1, "no blob `nosuch`; it has data, hidden, ip, prob"),
        (["--out", "xml:a"], 2, "write csv:FILE, json:FILE, npz:FILE or parquet:DIR"),
        (["--out", "csv:absent/a.csv"], 1, "absent/a.csv"),
        (["--labels", "absent.txt"], 1, "absent.txt cannot be read"),
        (["--labels", "names.txt"], 1, "has 2 lines, for 10 classes"),
        (["--workers", "0"], 2, "--workers 0"),
        (["--confusion", "a.png"], 2, "--confusion draws what --eval counts"),
        (["--conf", "spark.x=1"], 2, "name a --master"),
    ],
)
def test_errors(options: list[str], status: int, says: str) -> None:
    result = run(*options)
    assert result.exit_code == status, result.output
    assert says in result.stderr and len(result.stderr.splitlines()) == 1


def test_weights_of_another_net_are_refused() -> None:
    result = CliRunner().invoke(cli_local.predict_command, ["digits", "w.caffemodel", "digits:"])
    assert result.exit_code == 1 and "has no weights for any layer of digits" in result.stderr


def test_a_failed_write_leaves_nothing(folder: pathlib.Path) -> None:
    for kind in outputs.KINDS:
        with pytest.raises(OutputError), outputs.writing(outputs.Out(kind, f"out.{kind}")) as write:
            write({"a": np.arange(3)})
            raise OSError("disk full")
    assert sorted(entry.name for entry in folder.iterdir()) == ["linear.snet", "names.txt", "w.caffemodel"]


def test_chunks_are_regrouped() -> None:
    whole = np.arange(23)
    chunks = [{"a": whole[start:end]} for start, end in [(0, 3), (3, 4), (4, 15), (15, 23)]]
    found = [chunk["a"].tolist() for chunk in regrouped(chunks, 5)]
    assert [len(chunk) for chunk in found] == [5, 5, 5, 5, 3]
    assert [each for chunk in found for each in chunk] == whole.tolist()


def test_equal_probabilities_go_to_the_first_class() -> None:
    assert best(np.array([[0.2, 0.4, 0.4], [1, 0, 0]], np.float32), 2).tolist() == [[1, 2], [0, 1]]


def test_large_matrices_are_drawn_small() -> None:
    confusion = Confusion.of(1000, 5)
    confusion.matrix[np.arange(1000), np.arange(1000)] = 50
    image = cv2.imdecode(np.frombuffer(picture(confusion.matrix, None), np.uint8), cv2.IMREAD_COLOR)
    assert max(image.shape) < 1400


def test_on_spark_tasks_give_streams_and_write_parquet(spark: Cluster, folder: pathlib.Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")

    def part(partition: int) -> Iterator[Any]:
        for chunk in range(2):
            rows = np.arange(3) + 10 * partition + 3 * chunk
            yield outputs.stream({"a": rows, "b": np.stack([rows, -rows], axis=1).astype(np.float32)})
        yield BadRecords("skip", partition)

    where = str(folder / "out")
    with Cluster("", 2, spark.context) as cluster, cluster.streams(part, where, "a bigint, b array<float>") as given:
        found = list(given)
    assert [each.count for each in found if isinstance(each, BadRecords)] == [0, 1]
    tables = [outputs.table_of(each) for each in found if isinstance(each, bytes)]
    assert np.concatenate([table["a"] for table in tables]).tolist() == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]
    written = parquet.read_table(where).sort_by("a").to_pylist()
    assert written[7] == {"a": 11, "b": [11, -11]} and len(written) == 12

    def fails(partition: int) -> Iterator[Any]:
        yield DataError(f"part {partition} is damaged")

    with pytest.raises(DataError, match="part 0 is damaged"):  # noqa: SIM117
        with Cluster("", 2, spark.context) as cluster, cluster.streams(fails, where, "a bigint"):
            pass
