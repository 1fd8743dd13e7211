"""Small files that ask for much: they are refused, with a message, before they take the machine."""

import importlib.util
import pathlib

import pytest

from sparknet_dsl import compile_text
from sparknet_dsl.errors import ModelError

NET = "net N { data: Input([1, 2]) "
HOSTILE = {
    "many ranges": "".join(f"let a{i} = range(100000)\n" for i in range(300)) + NET + "}",
    "comparing large lists": "let a0 = [1, 2, 3]\n"
    + "".join(f"let a{i + 1} = [a{i}, a{i}]\n" for i in range(14))
    + "".join(f"let b{i} = a14 == a14\n" for i in range(300))
    + NET
    + "}",
    "long names in a loop": 'let s0 = "xxxxxxxxxx"\n'
    + "".join(f"let s{i + 1} = s{i} + s{i}\n" for i in range(13))
    + NET
    + "-> for i in range(5000) { `{s13}{i}`: ReLU } }",
    "doubling strings": 'let a0 = "xxxxxxxxxx"\n'
    + "".join(f"let a{i + 1} = a{i} + a{i}\n" for i in range(40))
    + NET
    + "}",
    "many parameters": NET + "-> InnerProduct(3, lr_mult=range(99999)) }",
    "a range beyond memory": "let a = range(1000000000)\n" + NET + "}",
    "numbers that double": "let a0 = 10\n" + "".join(f"let a{i + 1} = a{i} * a{i}\n" for i in range(60)) + NET + "}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        compile_text(HOSTILE[name])
    assert {found.code for found in caught.value.diagnostics} & {"S004", "S105"}


def test_guesses_are_bounded() -> None:
    long, other = "a" * 4000, "b" * 4000
    with pytest.raises(ModelError, match="no value"):
        compile_text(f"net N {{ {long}: Input([1, 2])  {other} -> x: ReLU }}")


def test_a_slice_of_the_fuzzer_finds_nothing(tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(__file__).parents[2] / "tools" / "fuzz_language.py"
    spec = importlib.util.spec_from_file_location("fuzz_language", path)
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    fuzz.LIMIT_SECONDS = float("inf")  # how fast this machine is just now is no matter of right and wrong
    assert not fuzz.run(4, 20261122, tmp_path, report=False)
