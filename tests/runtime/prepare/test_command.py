"""The command: what it prints, its exit statuses, and one message for each thing that is wrong."""

import json
import pathlib
import subprocess
import sys

import known_rows
import pytest
import source_files
from click.testing import CliRunner, Result

from sparknet_dsl.cli_data import data_command
from sparknet_dsl.runtime.data.digits import Digits


def run(*words: str) -> Result:
    return CliRunner().invoke(data_command, [*map(str, words)], catch_exceptions=False)


def failed(status: int, *words: str) -> str:
    """What a command that fails prints on standard error: one message."""
    result = run(*words)
    assert result.exit_code == status and "Traceback" not in result.output
    if status == 1:
        assert result.stderr.startswith("error: ") and result.stderr.count("error: ") == 1
    return result.stderr


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_session(folder: pathlib.Path) -> None:
    result = run("convert", "digits:", "lmdb:digits_lmdb")
    assert (result.exit_code, result.stdout) == (
        0,
        "wrote lmdb:digits_lmdb: 1,437 rows (image 1×8×8 uint8, label uint8)\n",
    )
    result = run("mean", "lmdb:digits_lmdb", "-o", "mean.binaryproto")
    assert result.exit_code == 0 and "mean_value of channel 0: 4.8769\nwrote mean.binaryproto\n" in result.stdout
    assert "1,437 rows" in run("show", "lmdb:digits_lmdb", "-o", "sheet.png").stdout
    result = run("verify", "lmdb:digits_lmdb", "--classes", "10")
    assert (result.exit_code, result.stdout) == (0, "lmdb:digits_lmdb: 1,437 rows, nothing wrong\n")
    result = run("split", "lmdb:digits_lmdb", "hdf5:{}.h5", "--into", "train=0.75,test=0.25", "--by-class")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].startswith("wrote hdf5:test.h5: 358 rows")
    result = run("convert", "hdf5:test.h5", "images:test", "--resize", "16x12", "--encode", "jpg")
    assert result.stdout == "wrote images:test/list.txt: 358 rows (image encoded, label int32)\n"
    assert sorted(path.name for path in folder.iterdir()) == [
        *("digits_lmdb", "mean.binaryproto", "sheet.png", "test", "test.h5", "train.h5")
    ]


def test_json(folder: pathlib.Path) -> None:
    found = json.loads(run("show", "digits:", "--phase", "test", "--json").stdout)
    assert found["rows"] == 360 and len(found["classes"]) == 10
    found = json.loads(run("mean", "digits:", "--json").stdout)
    assert (
        found["rows"] == 1437 and found["shape"] == [1, 8, 8] and found["mean_value"][0] == pytest.approx(4.8769, 1e-4)
    )
    result = run("verify", "digits:", "--classes", "9", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1 and not found["good"]
    assert [finding["check"] for finding in found["findings"]] == ["labels"] and found["findings"][0]["count"] == 143


def test_bad_records_fail_or_are_told_of(folder: pathlib.Path) -> None:
    contents = list(known_rows.values("jpg"))
    contents[3] = contents[3][:-60]
    for row, content in enumerate(contents):
        (folder / f"{row}.jpg").write_bytes(content)
    (folder / "list.txt").write_text("\n".join(f"{row}.jpg {row % 2}" for row in range(known_rows.ROWS)))
    message = failed(1, "convert", "images:list.txt", "lmdb:db")
    assert "3.jpg" in message and "cut short" in message and "--bad-records skip" in message
    result = run("convert", "images:list.txt", "lmdb:db", "--bad-records", "skip")
    assert result.exit_code == 0 and "6 rows" in result.stdout
    assert "\n1 record could not be read and was skipped:\n" in result.stdout and "3.jpg" in result.stdout
    result = run("verify", "images:list.txt")
    assert result.exit_code == 1 and "1 records cannot be read [records]" in result.stdout
    assert run("verify", "images:list.txt", "--allow", "records").exit_code == 0


def test_interrupted(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Digits, "read", interrupted)
    result = run("convert", "digits:", "lmdb:db")
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "stopping; the same command goes on from here\ninterrupted\n"
    assert [path.name for path in folder.iterdir()] == [".db.unfinished"]


@pytest.mark.parametrize("command", ["show", "verify", "mean"])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing", "names no data source: write scheme:place"),
        ("lmbd:db", "did you mean `lmdb:db`?"),
        ("lmdb:missing", "missing"),
        ("lmdb:cut", "cut short"),
        ("images:empty.txt", "empty"),
        ("mnist:.", "should hold train-images-idx3-ubyte"),
        ("digits:?size=3", "no option `size`"),
        ("digits:?columns=imgae", "no column `imgae`; there are image, label"),
    ],
)
def test_sources_that_cannot_be_read(command: str, source: str, message: str, folder: pathlib.Path) -> None:
    source_files.write_lmdb(folder / "cut", [source_files.datum(image, 0) for image in source_files.noise(20)])
    data = folder / "cut" / "data.mdb"
    data.write_bytes(data.read_bytes()[:-5000])
    (folder / "empty.txt").write_text("\n")
    assert message in failed(1, command, source)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("convert", "digits:", "lmdb:db", "--resize", "12by10"), "neither of the form 256 nor HEIGHTxWIDTH"),
        (("convert", "digits:", "pickle:db"), "cannot be written"),
        (("split", "digits:", "lmdb:{}", "--into", "train=0.9"), "two parts at least"),
        (("get", "imagenet21k"), "there is no data set `imagenet21k`; there are mnist, "),
        (("mean", "digits:", "--master", "local[2]"), "--master wants --workers"),
        (("verify", "digits:", "--allow", "everything"), "is not one of"),
        (("shwo", "digits:"), "there is no command shwo: did you mean show?"),
    ],
)
def test_wrong_command_lines(words: tuple[str, ...], message: str, folder: pathlib.Path) -> None:
    assert message in failed(2, *words)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("convert", "digits:", "lmdb:file/db"), "cannot write lmdb:file/db"),
        (("convert", "digits:", "lmdb:file"), "is there already"),
        (("mean", "digits:", "-o", "nowhere/mean"), "cannot write nowhere/mean"),
        (("show", "digits:", "-o", "nowhere/sheet.png"), "cannot write nowhere/sheet.png"),
        (("get", "mnist", "file"), "cannot write into file"),
        (("shards", "missing", "out"), "missing"),
    ],
)
def test_what_cannot_be_written(words: tuple[str, ...], message: str, folder: pathlib.Path) -> None:
    (folder / "file").write_text("here first")
    assert message in failed(1, *words)
    assert [path.name for path in folder.iterdir()] == ["file"] and (folder / "file").read_text() == "here first"


def test_help_is_quick_and_has_examples() -> None:
    """Of each command; nothing heavy is imported for it."""
    for name, command in data_command.commands.items():
        text = run(name, "--help").stdout
        assert "Examples:" in text and "Exit status:" in text, name
        assert command.help is not None
    code = (
        "import sys; from sparknet_dsl.cli_data import data_command as run; run(['convert', '--help'], standalone_mode="
        "False); sys.exit(any(name in sys.modules for name in ('numpy', 'pyspark', 'rich', 'h5py')))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=False).returncode == 0
