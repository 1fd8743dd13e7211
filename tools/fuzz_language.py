"""Throws texts at the compiler, the importer and the formatter: small programs that ask for much, and random ones.

python tools/fuzz_language.py [SECONDS [SEED]]

Each must answer with a result or with a ModelError, for a text of less than 10 kB within LIMIT_SECONDS of CPU; anything
else is printed with the text, and the exit status is 1. Memory is bounded for the whole process. First the programs of
HOSTILE run, each in a process of its own, with the time and the memory that they take.
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


NET = "net N { data: Input([8, 3, 16, 16])\n"


def _doubling(first: str, again: str, times: int) -> str:
    """Definitions of a0 to a`times`, each made of two of the one before."""
    lines = [f"let a0 = {first}", *(f"let a{i + 1} = {again.replace('x', f'a{i}')}" for i in range(times))]
    return "\n".join(lines) + "\n"


def _blocks(body: str, times: int) -> str:
    """Blocks b0 to b`times`; `body` is the use of the block before, as `B`."""
    lines = ["block x -> b0() { x -> r: ReLU }"]
    lines += [f"block x -> b{i + 1}() {{ x -> {body.replace('B', f'b{i}()')} }}" for i in range(times)]
    return "\n".join(lines) + "\n"


# Each is shorter than 10 kB and would, unbounded, take minutes or gigabytes.
HOSTILE = {
    "many ranges": "".join(f"let a{i} = range(100000)\n" for i in range(300)) + NET + "}",
    "comparing large lists": _doubling("[1, 2, 3]", "[x, x]", 14)
    + "".join(f"let b{i} = a14 == a14\n" for i in range(300))
    + NET
    + "}",
    "long names made in a loop": _doubling('"xxxxxxxxxx"', "x + x", 13)
    + NET
    + "data -> for i in range(5000) { `{a13}{i}`: ReLU } }",
    "long names in a loop": NET + "data -> for i in range(9990) { `" + "x" * 3000 + "{i}`: ReLU } }",
    "doubling strings": _doubling('"xxxxxxxxxx"', "x + x", 40) + NET + "}",
    "numbers that double": _doubling("10", "x * x", 60) + NET + "}",
    "a range beyond memory": "let a = range(1000000000)\n" + NET + "}",
    "many parameters": NET + "data -> InnerProduct(3, lr_mult=range(99999)) }",
    "loops in loops": NET + "data -> for i in range(300) { for j in range(400) { `a{i}_{j}`: ReLU } } }",
    "a loop of layers": NET + "data -> for i in range(99999) { `a{i}`: ReLU } }",
    "as many layers as may be": NET + "data -> for i in range(9000) { `a{i}`: Convolution(8, 3, pad=1) } }",
    "a loop of one name": NET + "data -> for i in range(9000) { a: ReLU } }",
    "a misspelt type in a loop": NET + "data -> for i in range(99999) { `fc{i}`: InnerPerProduct(i) } }",
    "doubling blocks": _blocks("p: B -> q: B", 20) + NET + "data -> z: b20() }",
    "blocks that hold nothing": _blocks("B -> B", 40).replace("-> r: ReLU ", "") + NET + "data -> b40() }",
    "blocks of long names": _blocks("p" * 200 + ": B -> " + "q" * 200 + ": B", 13) + NET + "data -> z: b13() }",
    "a split into thousands": "block x -> f(n) { x -> `a{n}`: ReLU\n x -> `b{n}`: ReLU }\n"
    + NET
    + "data -> for i in range(30000) { f(i) } }",
    "one blob read by all": NET + 'data -> for i in range(9000) { `a{i}`: ReLU(bottom=["data"]) } }',
    "many bottoms": "let b = ["
    + '"data", ' * 1000
    + "]\n"
    + NET
    + "data -> for i in range(9000) { `c{i}`: Concat(bottom=b) } }",
    "many rules": NET + "data -> for i in range(9000) { `a{i}`: ReLU(include=[" + "{phase=TRAIN}, " * 300 + "]) } }",
    "many fields": NET
    + "data -> for i in range(9000) { `a{i}`: InnerProduct(3, lr_mult=[1, 2], weight_filler=gaussian(0.1)) } }",
    "an error in each of thousands": NET + "data -> for i in range(9990) { `a{i}`: Convolution(3, 3)! } }",
    "a thousand errors of the engine": NET + "data -> for i in range(9990) { `a{i}`: Pooling(MAX, 99) } }",
    "many values in scope": "".join(f"let a{i} = {i}\n" for i in range(600))
    + NET
    + "data -> for i in range(99999) { if i < 0 { r: ReLU } } }",
}


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
    weights = [1 / (100 + len(text)) for _, text in starts]  # many small texts find more than few large ones
    wrong: list[str] = []
    tried = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        kind, start = chance.choices(starts, weights)[0]
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


def measure(name: str) -> str:
    """What one program of HOSTILE takes, and what is said about it."""
    begin = time.process_time()
    said = "compiles"
    try:
        compile_text(HOSTILE[name])
    except ModelError as error:
        said = str(error).splitlines()[0]
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return f"{name:<32} {time.process_time() - begin:5.2f} s {used:4} MB  {said[:60]}"


if __name__ == "__main__":
    import multiprocessing
    import tempfile

    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for line in pool.imap(measure, HOSTILE, chunksize=1):
            print(line)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory() as made:
        found = run(
            float(sys.argv[1]) if len(sys.argv) > 1 else 60.0,
            int(sys.argv[2]) if len(sys.argv) > 2 else 1,
            pathlib.Path(made),
        )
    print("\n\n".join(found))
    sys.exit(bool(found))
