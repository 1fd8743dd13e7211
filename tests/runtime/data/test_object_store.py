"""Tables in an object store, read by one process and by Spark's: ranges, retries, keys nowhere to be seen."""

import pathlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from s3_server import KEY, SECRET, Server, s3_server
from source_files import coded, noise, parts_of, write_tar

from sparknet_dsl.errors import DataError
from sparknet_dsl.runtime.data import BadRecords, open_source

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

MODEL = """
net small {
  data, label: RDDData([[16, 1, 6, 6], [16]], scale=1/256) @train
  data, label: RDDData([[16, 1, 6, 6], [16]], scale=1/256) @test
  data -> ip: InnerProduct(3, weight_filler=xavier)
  ip, label -> accuracy: Accuracy @test
  ip, label -> loss: SoftmaxWithLoss
}
solver (base_lr=0.1, lr_policy="fixed", max_iter=4, random_seed=3)
spark (tau=2, workers=2)
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with s3_server(monkeypatch) as server:
        yield server


def write(folder: pathlib.Path, files: int = 3, rows: int = 400) -> list[pathlib.Path]:
    rng = np.random.default_rng(0)
    paths = []
    for index in range(files):
        table = pa.table(
            {
                "image": [rng.bytes(36) for _ in range(rows)],
                "unused": [rng.bytes(20_000) for _ in range(rows)],
                "label": rng.integers(0, 3, rows),
            }
        )
        paths.append(folder / f"part-{index}.parquet")
        pq.write_table(table, paths[-1], row_group_size=100, compression="none")
    return paths


def test_a_part_reads_its_row_groups_and_columns_only(server, tmp_path):
    files = write(tmp_path)
    server.put("bucket", files, "table/")
    source = open_source("parquet:s3://bucket/table?columns=image,label", "TRAIN")
    local = open_source(f"parquet:{tmp_path}?columns=image,label", "TRAIN")
    server.asked.clear()
    for part in range(2):
        remote, here = (list(each.read(part, 2, BadRecords())) for each in (source, local))
        assert len(remote) == len(here)
        for ours, theirs in zip(remote, here, strict=True):
            np.testing.assert_array_equal(ours["image"], theirs["image"])
            np.testing.assert_array_equal(ours["label"], theirs["label"])
    ranges = [part for file in files for part in server.ranges(f"bucket/table/{file.name}")]
    assert ranges and None not in ranges
    read = sum(int(end) - int(begin) + 1 for begin, end in (part[6:].split("-") for part in ranges if part))
    assert read < sum(file.stat().st_size for file in files) / 5
    assert server.unsigned == 0


@pytest.mark.parametrize("how", ["503", "cut"])
def test_reading_goes_on_where_the_store_fails_at_first(server, tmp_path, how):
    server.put("bucket", write(tmp_path, 1))
    source = open_source("parquet:s3://bucket/part-0.parquet?columns=label", "TRAIN")
    server.fail, server.how = 1, how
    assert sum(len(chunk["label"]) for chunk in source.read(0, 1, BadRecords())) == 400
    assert server.fail == 0


def test_imagenets_tars_are_read_from_the_store(server, tmp_path):
    images = [coded(image) for image in noise(12)]
    tars = [
        write_tar(tmp_path / f"train.{n}.tar", {f"{i}.png": images[i] for i in range(4 * n, 4 * n + 4)})
        for n in range(3)
    ]
    (tmp_path / "train.txt").write_text("".join(f"{i}.png {i % 5}\n" for i in range(12)))
    server.put("bucket", [*tars, tmp_path / "train.txt"], "imagenet/")
    source = open_source("imagenet:s3://bucket/imagenet", "TRAIN")
    server.fail = 1
    parts = parts_of(source, 2)
    assert server.fail == 0 and server.unsigned == 0
    read = {image: label for part in parts for image, label in zip(part["image"], part["label"], strict=True)}
    assert read == {image: i % 5 for i, image in enumerate(images)}
    assert [len(part["label"]) for part in parts] == [6, 6]


def test_workers_read_the_store_and_nobody_shows_a_key(server, tmp_path):
    (tmp_path / "small.snet").write_text(MODEL)
    server.put("bucket", write(tmp_path), "table/")
    command = "from sparknet_dsl.cli import run_command; run_command()"
    data = ["--train", "parquet:s3://bucket/table", "--test", "parquet:s3://bucket/table/part-0.parquet"]
    done = subprocess.run(
        [sys.executable, "-c", command, "small.snet", *data, "--workers", "2", "--json", "events.jsonl"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    events = (tmp_path / "events.jsonl").read_text()
    assert '"train_rows": 1200' in events
    assert server.unsigned == 0
    for said in (done.stdout, done.stderr, events):
        assert SECRET not in said and KEY not in said


def test_keys_in_a_uri_are_refused_before_anything_else():
    with pytest.raises(DataError, match="the URL held a user, or keys") as caught:
        open_source(f"parqet:s3://{KEY}:{SECRET}@bucket/x", "TRAIN")
    assert SECRET not in str(caught.value)
