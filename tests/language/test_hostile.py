"""Small files that ask for much: they are refused, with a message, before they take the machine."""

import importlib.util
import pathlib

import pytest

from sparknet_dsl import compile_file, compile_text
from sparknet_dsl.errors import ModelError

_path = pathlib.Path(__file__).parents[2] / "tools" / "fuzz_language.py"
_spec = importlib.util.spec_from_file_location("fuzz_language", _path)
assert _spec is not None and _spec.loader is not None
fuzz = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzz)
# What asks for too much is refused; the others are as large as may be, or wrong, and are compiled to their end.
REFUSED = {"S003", "S004", "S006", "S105"}
OTHERWISE = {
    "as many layers as may be": set(),
    "one blob read by all": set(),
    "a misspelt type in a loop": {"S101"},
    "a loop of one name": {"S207"},
    "an error in each of thousands": {"S205"},
    "a thousand errors of the engine": {"S303"},
}


@pytest.mark.parametrize("name", fuzz.HOSTILE)
def test_it_ends(name: str) -> None:
    assert len(fuzz.HOSTILE[name]) < 10_000
    try:
        found = compile_text(fuzz.HOSTILE[name]).diagnostics
    except ModelError as error:
        found = error.diagnostics
    codes = {each.code for each in found if each.severity == "error"}
    assert codes == OTHERWISE[name] if name in OTHERWISE else codes & REFUSED


def test_guesses_are_bounded() -> None:
    long, other = "a" * 4000, "b" * 4000
    with pytest.raises(ModelError, match="no value"):
        compile_text(f"net N {{ {long}: Input([1, 2])  {other} -> x: ReLU }}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.prototxt", f'net: "{"a" * 5000}" base_lr: 0.1'),
        ("s.snet", f'solver (net="{"a" * 5000}", base_lr=0.1)'),
        ("s.snet", f'import "{"a" * 5000}" as a\nsolver (base_lr=0.1)'),
        ("s.snet", f'net N from "{"a" * 5000}" {{ }}'),
        ("s.snet", 'import "a\\0.snet" as a\nsolver (base_lr=0.1)'),
        ("s.snet", 'import "a\0.snet" as a\nsolver (base_lr=0.1)'),
        ("s.snet", 'solver (net="a\0.snet", base_lr=0.1)'),
        ("s.prototxt", 'net: "a\\0.prototxt" base_lr: 0.1'),
        ("s.snet", 'solver (net="s.snet", base_lr=0.1)'),
        ("s.prototxt", 'net: "../../../../../../etc/hostname" base_lr: 0.1'),
        ("s.prototxt", 'net: "/etc/hostname" base_lr: 0.1'),
        ("s.prototxt", "base_lr: 0" + "1" * 400),
        ("s.prototxt", "base_lr: " + "1" * 5000),
        ("s.prototxt", "max_iter: " + "1" * 5000),
    ],
)
def test_names_and_numbers_that_nobody_should_have_written(name: str, text: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        compile_file(tmp_path / name)
    assert {found.code for found in caught.value.diagnostics} <= {"S004", "S005", "S115", "S404"}


def test_a_slice_of_the_fuzzer_finds_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        fuzz, "LIMIT_SECONDS", float("inf")
    )  # how fast this machine is now is no matter of right or wrong
    assert not fuzz.run(4, 20261122, tmp_path, report=False)
