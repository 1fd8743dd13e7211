"""Every example of docs/language.md and docs/augmentation.md does what the page says."""

import pathlib
import re

import pytest

from sparknet_dsl import compile_file, compile_text
from sparknet_dsl.errors import ModelError

DOCS = pathlib.Path(__file__).parents[2] / "docs"
PAGE = "\n".join((DOCS / name).read_text(encoding="utf-8") for name in ("language.md", "augmentation.md"))
BLOCKS = re.findall(r"^```(\w+)( error)?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {match[1]: text for _, _, text in BLOCKS if (match := re.match(r"# file: (\S+)\n", text))}
PROGRAMS = [text for kind, error, text in BLOCKS if kind == "snet" and not error and not text.startswith("# file:")]


@pytest.mark.parametrize("text", PROGRAMS, ids=lambda text: re.search(r"net (\w+)", text)[1])
def test_examples_compile(text: str) -> None:
    model = compile_text(text)
    assert {found.code for found in model.diagnostics} <= {"S311"}
    assert len(model.net.layer) > 1


def test_examples_of_several_files(tmp_path: pathlib.Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    model = compile_file(tmp_path / "fine_tuned.snet", defines={"batch": "32"})
    assert [layer.name for layer in model.net.layer] == [
        "data",
        "fc_20",
        "side/a",
        "side/b",
        "side_fc",
        "sum",
        "loss",
    ]
    assert model.reports["TRAIN"].blobs["sum"] == (32, 20)


def test_the_import_of_a_fork(tmp_path: pathlib.Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    model = compile_file(tmp_path / "imported.snet")
    assert [layer.type for layer in model.net.layer] == ["Input", "Pooling", "Proposal", "InnerProduct"]
    assert model.reports["TRAIN"].blobs["pool"] == (1, 3, 15, 15)
    assert [(found.code, found.severity) for found in model.diagnostics] == [("S311", "warning")]


def test_the_message_is_the_one_shown() -> None:
    (wrong,) = [text for _, error, text in BLOCKS if error]
    (shown,) = [text for kind, _, text in BLOCKS if kind == "text"]
    with pytest.raises(ModelError) as caught:
        compile_text(wrong, "wrong.snet")
    assert str(caught.value) + "\n" == shown


def test_the_python_examples(capsys: pytest.CaptureFixture[str]) -> None:
    reading, building = [text for kind, _, text in BLOCKS if kind == "python"]
    exec(reading, {})
    assert 'type: "ReLU"' in capsys.readouterr().out
    exec(building, {})
    said = capsys.readouterr().out
    assert said.startswith("digits, batches of 32\n")
    assert said.endswith("(32, 10)\n")


def test_names_of_blocks_are_as_the_page_says() -> None:
    (text,) = [text for text in PROGRAMS if "net blocks" in text]
    names = [layer.name for layer in compile_text(text).net.layer]
    assert names == ["data", "left/reduce", "left", "right/reduce", "right", "out/main_sum", "out/relu", "spare"]


def keras_cells() -> list[str]:
    """The layers and losses in the second column of docs/keras.md's tables."""
    page = (DOCS / "keras.md").read_text(encoding="utf-8")
    tables = page[page.index("## Layers") : page.index("## Optimizers")]
    return [cell for row in re.findall(r"^\| `.*$", tables, re.MULTILINE) for cell in in_code(row.split(" | ")[1])]


def in_code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("cell", keras_cells())
def test_what_keras_has_is_here_what_the_page_says(cell: str) -> None:
    inputs = "x, y, target: Input([[4, 8, 12, 12], [4, 8, 12, 12], [4, 8, 12, 12]]) label: Input([4]) "
    inputs += "steps: Input([5, 2, 8]) cont: Input([5, 2]) "
    flow = cell if cell[0].islower() else f"x -> {cell}"
    if "label" in cell:
        inputs += "x -> scores: InnerProduct(10) "
        flow = flow.replace("x, label", "scores, label")
    model = compile_text(f"net t {{ {inputs} {flow} }}")
    assert not [found for found in model.diagnostics if found.code != "S311"]


def test_what_keras_says_of_solvers_is_here_what_the_page_says() -> None:
    page = (DOCS / "keras.md").read_text(encoding="utf-8")
    table = page[page.index("## Optimizers") : page.index("There is no initializer")]
    rows = [row.split(" | ")[1] for row in re.findall(r"^\| .*$", table, re.MULTILINE)[2:]]
    assert len(rows) > 12
    net = "net t { data: Input([2, 3]) label: Input([2]) data -> ip: InnerProduct(4) ip, label -> l: SoftmaxWithLoss } "
    for cell in [cell for row in rows for cell in in_code(row)]:
        if re.match(r"weight_filler|lr_mult|decay_mult", cell):
            compile_text(net.replace("(4)", f"(4, {cell})"))
        elif cell != "default":
            given = {"base_lr": "0.1", "lr_policy": '"fixed"', "max_iter": "10", "gamma": "0.1", "power": "1"}
            rest = "".join(f", {name}={value}" for name, value in given.items() if f"{name}=" not in cell)
            compile_text(f"{net} solver ({cell}{rest})")
