"""Delta tables: the files of a version, its folders' columns, and what only Spark can read."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest
from s3_server import KEY, SECRET, s3_server

from sparknet_dsl.errors import DataError
from sparknet_dsl.runtime.data import BadRecords, open_source

pa = pytest.importorskip("pyarrow")
deltalake = pytest.importorskip("deltalake")


def labels(uri: str) -> list[int]:
    chunks = list(open_source(uri, "TRAIN").read(0, 1, BadRecords()))
    return sorted(np.concatenate([chunk["label"] for chunk in chunks]).tolist())


def write(place: str, **settings: Any) -> None:
    for mode, rows in (("error", [0, 1, 2]), ("append", [3, 4]), ("overwrite", [7, 8])):
        table = pa.table({"x": [[1.0, 2.0]] * len(rows), "label": rows})
        deltalake.write_deltalake(place, table, mode=mode, **settings)


@pytest.mark.parametrize("by", [None, ["label"]])
def test_the_files_of_a_version_are_the_table(tmp_path, by):
    write(str(tmp_path / "t"), partition_by=by)
    assert labels(f"delta:{tmp_path}/t") == [7, 8]
    assert labels(f"delta:{tmp_path}/t?version=1") == [0, 1, 2, 3, 4]


def test_a_table_in_an_object_store(monkeypatch):
    with s3_server(monkeypatch) as server:
        server.put("bucket", [])
        keys = {"AWS_ALLOW_HTTP": "true", "AWS_ENDPOINT_URL": server.url, "AWS_REGION": "us-east-1"}
        write("s3://bucket/t", storage_options={**keys, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET})
        assert labels("delta:s3://bucket/t") == [7, 8]


def test_what_only_spark_reads_is_refused(tmp_path):
    write(str(tmp_path / "t"))
    log = tmp_path / "t" / "_delta_log" / "00000000000000000003.json"
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"]}
    log.write_text(json.dumps({"protocol": {**protocol, "writerFeatures": ["deletionVectors"]}}) + "\n")
    with pytest.raises(DataError, match=r"marked beside the files \(deletionVectors\): read it with Spark"):
        open_source(f"delta:{tmp_path}/t", "TRAIN")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "cannot be read as a Delta table"),
        ("?version=x", "write version=3"),
        ("?versions=1", "did you mean `version`"),
    ],
)
def test_what_is_no_table_is_one_clear_error(tmp_path: pathlib.Path, options: str, message: str):
    with pytest.raises(DataError, match=message) as caught:
        open_source(f"delta:{tmp_path}{options}", "TRAIN")
    assert "\n" not in str(caught.value)
