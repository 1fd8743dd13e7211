"""What all commands have in common: versions, how much they say, colours, completion, what they make of mistakes."""

import configparser
import importlib
import io
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import click
import pytest
from click.testing import CliRunner

import sparknet_dsl
from sparknet_dsl import cli, cli_compile, cli_local, terminal

ROOT = pathlib.Path(__file__).parents[2]


def scripts() -> dict[str, str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options.entry_points"]["console_scripts"].split("\n")
    return dict(map(str.strip, line.split("=")) for line in lines if line.strip())  # type: ignore[arg-type]


SCRIPTS = scripts()


def command(script: str) -> click.Command:
    module, _, name = SCRIPTS[script].partition(":")
    found = getattr(importlib.import_module(module), name)
    assert isinstance(found, click.Command)
    return found


def completed(script: str, words: str, shell: str = "bash") -> list[str]:
    """What the command answers when a shell asks it to complete `words`."""
    line = f"{script} {words}"
    before, _, begun = line.rpartition(" ")
    # As the scripts in cli_complete.py ask.
    asked = {
        "bash": {"COMP_WORDS": line},
        "zsh": {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))},
        "fish": {"COMP_WORDS": before, "COMP_CWORD": begun},
    }[shell]
    ran = CliRunner().invoke(command(script), env={"SPARKNET_COMPLETE": f"{shell}_complete", **asked}, prog_name=script)
    assert ran.exit_code == 0, ran.output
    return [line for line in ran.stdout.splitlines() if line]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_tells_its_version_and_teaches(script: str) -> None:
    ran = CliRunner().invoke(command(script), ["--version"], prog_name=script)
    assert (ran.exit_code, ran.output) == (0, f"{script} {sparknet_dsl.__version__}\n")
    ran = CliRunner().invoke(command(script), ["-h"])
    assert "Exit status:" in ran.output and script in ran.output.partition("\n\n")[2]


@pytest.mark.parametrize("script", sorted(SCRIPTS.keys() - {"sparknet-lsp", "sparknet-data"}))
def test_every_command_may_say_less_or_more(script: str) -> None:
    options = {option for each in command(script).params for option in each.opts}
    assert {"-q", "--quiet", "-v", "--verbose"} <= options
    ran = CliRunner().invoke(command(script), ["-q", "-v", "x", "y", "z"][: 5 if script == "sparknet-predict" else 3])
    assert ran.exit_code == 2


@pytest.mark.parametrize(
    ("script", "words", "found"),
    [
        ("sparknet-compile", "goog", ["googlenet"]),
        ("sparknet-run", "resnet1", ["resnet152", "resnet18"]),
        ("sparknet-run", "lenet --train mni", ["mnist:"]),
        ("sparknet-run", "lenet --train=mni", ["mnist:"]),
        ("sparknet-run", "lenet --train images:here/a", ["images:here/a.snet", "images:here/among/"]),
        ("sparknet-run", "here/", ["here/a.snet", "here/among/"]),
        ("sparknet-run", "here/among/", []),
        ("sparknet-predict", "lenet here/among/w", ["here/among/weights.caffemodel"]),
        ("sparknet-train", "lenet --weights a,here/among/w", ["a,here/among/weights.caffemodel"]),
        ("sparknet-predict", "lenet w digits: --out pa", ["parquet:"]),
        ("sparknet-run", "lenet --outer-", ["--outer-rate", "--outer-momentum", "--outer-nesterov"]),
        ("sparknet-run", "lenet --master local[", ["local[2]"]),
        ("sparknet-compile", "adult -D h", ["hidden="]),
        ("sparknet-compile", "--explain s104", ["S104"]),
        ("sparknet-compile", "--doc innerp", ["InnerProduct"]),
        ("sparknet-compile", "lenet --emit s", ["snet", "summary"]),
        ("sparknet-data", "con", ["convert"]),
        ("sparknet-data", "get fash", ["fashion-mnist"]),
        ("sparknet-data", "convert digits: lm", ["lmdb:"]),
        ("sparknet-completion", "z", ["zsh"]),
    ],
)
def test_completes(
    script: str, words: str, found: list[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "among").mkdir(parents=True)
    (tmp_path / "here" / "a.snet").touch()
    (tmp_path / "here" / "among" / "weights.caffemodel").touch()
    assert completed(script, words) == found


def test_other_shells_hear_what_a_word_means() -> None:
    said = "GoogLeNet: photographs in a thousand classes (ImageNet), as BVLC Caffe's model zoo has it."
    assert completed("sparknet-compile", "goog", "zsh") == [f"googlenet\t{said}"]
    assert completed("sparknet-compile", "goog", "fish") == [f"googlenet\t{said}"]
    assert completed("sparknet-run", "lenet --train mni", "fish")[0].startswith("mnist:\t")


def script_of(shell: str) -> str:
    ran = CliRunner().invoke(command("sparknet-completion"), [shell])
    assert ran.exit_code == 0
    return ran.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_script_names_every_command_and_is_right(shell: str) -> None:
    text = script_of(shell)
    assert all(script in text.split() for script in SCRIPTS)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    checked = subprocess.run([shell, "-n"], input=text, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_itself_completes(tmp_path: pathlib.Path) -> None:
    (tmp_path / "two words").mkdir()
    asks = r"""
        ask() { COMP_LINE=$1 COMP_POINT=${#1}; _sparknet_complete "${1%% *}"; printf '%s|' "${COMPREPLY[@]}"; echo; }
        ask 'sparknet-compile goog'
        ask 'sparknet-run lenet --train mni'
        ask 'sparknet-run lenet --train images:tw'
        ask 'sparknet-run lenet --train=images:tw'
        ask 'sparknet-run lenet --roun'
    """
    # bash calls the commands by their names: they are to be found beside this Python.
    environment = {**os.environ, "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"}
    ran = subprocess.run(
        ["bash", "--norc", "-c", script_of("bash") + asks],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    # Of a word with a colon bash replaces what stands behind it.
    assert ran.stdout.splitlines() == ["googlenet|", "mnist:|", r"two\ words/|", r"two\ words/|", "--rounds|"]


@pytest.mark.parametrize(
    ("script", "args", "said"),
    [
        ("sparknet-run", ["lenet", "--wrokers", "2"], "error: there is no option --wrokers: did you mean --workers?"),
        ("sparknet-data", ["verfiy", "digits:"], "error: there is no command verfiy: did you mean verify?"),
        ("sparknet-time", ["lenet", "--phase", "x"], "error: invalid value for '--phase': 'x' is not one of"),
        ("sparknet-train", [], "error: missing argument 'MODEL'"),
        ("sparknet-compile", ["-q", "-v", "lenet"], "error: --quiet says less, --verbose more: give one of them"),
    ],
)
def test_mistakes_in_the_command_line_look_like_other_errors(script: str, args: list[str], said: str) -> None:
    ran = CliRunner().invoke(command(script), args, prog_name=script)
    assert ran.exit_code == 2
    first, usage, more = ran.stderr.splitlines()
    assert first.startswith(said)
    assert usage.startswith(f"Usage: {script} ")
    assert more.startswith(f"`{script}") and more.endswith("--help` tells more")


@pytest.mark.parametrize(
    ("script", "args", "status"),
    [
        ("sparknet-compile", ["lenett"], 1),
        ("sparknet-run", ["lenett"], 1),
        ("sparknet-train", ["lenett"], 1),
        ("sparknet-time", ["lenett"], 1),
        ("sparknet-test", ["lenett", "--weights", "w"], 1),
        ("sparknet-predict", ["lenett", "w", "digits:"], 1),
    ],
)
def test_every_command_knows_the_librarys_models_by_name(script: str, args: list[str], status: int) -> None:
    ran = CliRunner().invoke(command(script), args)
    assert ran.exit_code == status
    assert "did you mean `lenet`?" in ran.stderr


def test_quiet_leaves_the_result(tmp_path: pathlib.Path) -> None:
    warned = tmp_path / "m.snet"
    warned.write_text("block x -> unused() { x }\nnet N { data: Input([1, 3]) }")
    ran = CliRunner().invoke(cli_compile.compile_command, ["-q", str(warned), "-o", str(tmp_path / "out")])
    assert (ran.exit_code, ran.output) == (0, "")
    assert (tmp_path / "out" / "m.prototxt").exists()
    ran = CliRunner().invoke(cli_local.time_command, ["-q", "lenet", "--iterations", "1"])
    assert len(ran.output.splitlines()) == 1 and ran.output.startswith("forward ")
    assert not terminal.quiet()


def test_verbose_tells_what_the_compiler_does(tmp_path: pathlib.Path) -> None:
    ran = CliRunner().invoke(cli_compile.compile_command, ["-v", "lenet", "-o", str(tmp_path)])
    assert ran.exit_code == 0
    assert [line.split(": ")[1].split(",")[0] for line in ran.stderr.splitlines()][:3] == ["parse", "resolve", "expand"]
    ran = CliRunner().invoke(cli_compile.compile_command, ["lenet", "-o", str(tmp_path)])
    assert ran.stderr == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "wanted"),
    [
        (io.StringIO(), {}, False),
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"FORCE_COLOR": "1"}, True),
        (io.StringIO(), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours(stream: Any, environment: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert terminal.colours(stream) == wanted
    # A pipe gets colours if they are asked for, but no lines that change.
    assert terminal.live(stream) == (isinstance(stream, Terminal) and environment.get("TERM") != "dumb")
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit):
        cli.run_command(["--wrokers"])
    assert ("\x1b[" in stream.getvalue()) == wanted
    stream.truncate(0)
    terminal.console().print("[bold red]said[/]")
    assert ("\x1b[" in stream.getvalue()) == wanted
