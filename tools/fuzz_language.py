"""Throws random and mutated texts at the compiler, the importer and the formatter.

python tools/fuzz_language.py [SECONDS [SEED]]

Each must answer with a result or with a ModelError, for a text of less than 10 kB within LIMIT_SECONDS of CPU; anything
else is printed with the text, and the exit status is 1. Memory is bounded for the whole process.
"""

import functools
import pathlib
import random
import resource
import sys
import time
import traceback
from collections.abc import Callable

from sparknet_dsl import compile_file, compile_text
from sparknet_dsl.errors import ModelError
from sparknet_dsl.format import format_text

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMIT_SECONDS = 1.0
MEMORY = 2 << 30
SIZE = 10_000
PIECES = [
    *(
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "->",
        ":",
        ",",
        '"',
        "`",
        "!",
        "#",
        "\\",
        "+",
        "-",
        "*",
        "//",
        "==",
        "=",
        ".",
        "\n",
    ),
    *(
        "@train",
        "not ",
        "and ",
        " as ",
        " else ",
        "self",
        "none",
        "_",
        "inf",
        "1e308",
        "1000000000",
        "-1",
        "0",
        "é",
        "\0",
    ),
    *("for i in range(9) {", "if true {", "is [_, 2]", "range(100000)", "`a{i}`", "block x -> f(n) {", "let a = "),
    *(
        "layer {",
        'name: "x"',
        "input_dim: 4",
        "0x10",
        "'a' 'b'",
        "<",
        ">",
        ";",
        'from "../x"',
        'import "/etc/passwd" as a',
    ),
]


def seeds() -> list[tuple[str, str]]:
    """Texts to start from, with their kind: the models and the cases of the tests."""
    found = [path for folder in ("models", "tests/language") for path in (ROOT / folder).rglob("*.snet")]
    texts = [("snet", path.read_text(encoding="utf-8")) for path in sorted(found)]
    net = 'name: "n" layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 dim: 4 } } }\n'
    solver = f'net_param {{ {net} }} base_lr: 0.1 lr_policy: "fixed" max_iter: 5\n'
    old = 'input: "d" input_dim: 1 input_dim: 2 layers { name: "r" type: RELU bottom: "d" top: "r" }\n'
    return [*texts, ("prototxt", net), ("prototxt", solver), ("prototxt", old)]


def mutated(text: str, chance: random.Random) -> str:
    """The text with some pieces inserted, doubled, moved or left out."""
    for _ in range(chance.randint(1, 8)):
        at = chance.randint(0, len(text))
        to = min(len(text), at + chance.randint(0, chance.choice((3, 40, 400))))
        kind = chance.randrange(4)
        if kind == 0:
            text = text[:at] + chance.choice(PIECES) + text[at:]
        elif kind == 1:
            text = text[:at] + text[to:]
        elif kind == 2:
            text = text[:to] + text[at:to] * chance.randint(1, 4) + text[to:]
        else:
            text = text[:at] + chance.choice(PIECES) * chance.randint(1, 30) + text[to:]
    return text[: SIZE - 1]


def run(seconds: float, seed: int, folder: pathlib.Path, report: bool = True) -> list[str]:
    """What went wrong within the time, each with its text; `folder` holds the file under test."""
    chance = random.Random(seed)
    starts = seeds()
    wrong: list[str] = []
    tried = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        kind, start = chance.choice(starts)
        if chance.random() < 0.2:
            start = "".join(chance.choice(PIECES) + chance.choice((" ", "")) for _ in range(chance.randint(1, 60)))
        text = mutated(start, chance)
        tried += 1
        begin = time.process_time()
        try:
            if kind == "snet":
                _answered(functools.partial(compile_text, text))
                _answered(functools.partial(format_text, text))
            else:
                path = folder / "fuzz.prototxt"
                path.write_bytes(text.encode())
                _answered(functools.partial(compile_file, path))
        except Exception:
            wrong.append(f"{traceback.format_exc(limit=-4)}\n{text!r}")
        spent = time.process_time() - begin
        if spent > 2 * LIMIT_SECONDS:  # two passes
            wrong.append(f"{spent:.1f} s\n{text!r}")
    if report:
        print(f"{tried} texts, {len(wrong)} wrong answers")
    return wrong


def _answered(call: Callable[[], object]) -> None:
    try:
        call()
    except ModelError as error:
        assert str(error)


if __name__ == "__main__":
    import tempfile

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory() as made:
        found = run(
            float(sys.argv[1]) if len(sys.argv) > 1 else 60.0,
            int(sys.argv[2]) if len(sys.argv) > 2 else 1,
            pathlib.Path(made),
        )
    print("\n\n".join(found))
    sys.exit(bool(found))
