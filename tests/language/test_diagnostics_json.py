"""Diagnostics for editors."""

import collections
import json
import pathlib
from typing import Any

import pytest
from click.testing import CliRunner

from sparknet_dsl import cli_compile, compile_text
from sparknet_dsl.errors import ModelError

CASES = pathlib.Path(__file__).parent / "cases"


def document(*args: object, status: int) -> dict[str, Any]:
    result = CliRunner().invoke(cli_compile.compile_command, ["--format", "json", *map(str, args)])
    assert result.exit_code == status, result.output
    assert not result.stderr
    return json.loads(result.stdout)


def test_a_mistake(tmp_path: pathlib.Path) -> None:
    path = CASES / "01_field_typo.snet"
    got = document(path, "-o", tmp_path, status=1)
    assert (got["version"], got["written"]) == (1, [])
    (found,) = got["diagnostics"]
    text = path.read_text(encoding="utf-8")
    start = text.index("kernal_size")
    span = {
        "file": str(path),
        "start": {"line": 3, "column": 34, "offset": start},
        "end": {"line": 3, "column": 45, "offset": start + len("kernal_size")},
    }
    assert found == {
        "code": "S104",
        "severity": "error",
        "message": "Convolution has no field `kernal_size`",
        "file": str(path),
        "span": span,
        "label": "did you mean `kernel_size`?",
        "labels": [],
        "notes": found["notes"],
        "help": None,
        "fix": {"title": "kernal_size -> kernel_size", "edits": [{"span": span, "replacement": "kernel_size"}]},
    }
    assert len(found["notes"]) == 1


def test_secondary_labels_and_help(tmp_path: pathlib.Path) -> None:
    (found,) = document(CASES / "11_overwritten.snet", "-o", tmp_path, status=1)["diagnostics"]
    assert [label["text"] for label in found["labels"]] == ["overwritten here"]
    assert "leave out" in found["help"]


def test_warnings_and_what_was_written(tmp_path: pathlib.Path) -> None:
    got = document(CASES / "26_unused.snet", "-o", tmp_path, status=0)
    assert {found["severity"] for found in got["diagnostics"]} == {"warning"}
    assert str(tmp_path / "26_unused.prototxt") in got["written"]


def test_errors_about_no_place(tmp_path: pathlib.Path) -> None:
    (found,) = document(tmp_path / "missing.snet", status=1)["diagnostics"]
    assert "missing.snet" in found["message"] and found["span"] is None
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    model = tmp_path / "m.snet"
    model.write_text("net N { data: Input([1, 2]) }", encoding="utf-8")
    (found,) = document(model, "-o", blocked, status=1)["diagnostics"]
    assert (found["code"], found["file"]) == (None, None)
    assert str(blocked) in found["message"]


def apply_fixes(path: pathlib.Path, found: list[dict[str, Any]]) -> str:
    """The text with every fix made, the last one first."""
    text = path.read_text(encoding="utf-8")
    edits = {
        (edit["span"]["start"]["offset"], edit["span"]["end"]["offset"]): edit["replacement"]
        for one in found
        if one["fix"]
        for edit in one["fix"]["edits"]
    }
    for (start, end), replacement in sorted(edits.items(), reverse=True):
        text = text[:start] + replacement + text[end:]
    return text


@pytest.mark.parametrize("path", sorted(CASES.glob("*.snet")), ids=lambda path: path.stem)
def test_fixes_remove_what_they_are_for(
    path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CASES)
    result = CliRunner().invoke(cli_compile.compile_command, [path.name, "--format", "json", "-o", str(tmp_path)])
    found = json.loads(result.stdout)["diagnostics"]
    before = collections.Counter((one["code"], one["message"]) for one in found)
    fixable = collections.Counter((one["code"], one["message"]) for one in found if one["fix"])
    try:
        left = compile_text(apply_fixes(path, found), path.name).diagnostics
    except ModelError as error:
        left = error.diagnostics
    after = collections.Counter((one.code, one.message) for one in left)
    assert all(after[key] <= before[key] - count for key, count in fixable.items())
