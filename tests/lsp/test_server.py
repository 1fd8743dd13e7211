"""The language server over its protocol, on models/googlenet.snet."""

import importlib.util
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sparknet_dsl import compile_text
from sparknet_dsl.format import format_text

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOOGLENET = ROOT / "models" / "googlenet.snet"
spec = importlib.util.spec_from_file_location("lsp_client", pathlib.Path(__file__).parent / "client.py")
assert spec is not None and spec.loader is not None
client = importlib.util.module_from_spec(spec)
spec.loader.exec_module(client)


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    editor = client.Editor()
    yield editor
    assert editor.close() == 0


@pytest.fixture
def editor(running: Any) -> Any:
    """With GoogLeNet open, in which nothing is wrong."""
    if (running.uri, running.text) != (GOOGLENET.as_uri(), GOOGLENET.read_text()):
        assert running.open(GOOGLENET) == []
    return running


def labels(completion: dict[str, Any]) -> list[str]:
    return [item["label"] for item in completion["items"]]


def test_what_the_server_can(running: Any) -> None:
    can = running.capabilities
    for feature in ("hover", "completion", "definition", "references", "rename", "documentFormatting", "inlayHint"):
        assert can[f"{feature}Provider"], feature
    assert can["codeActionProvider"] and can["documentSymbolProvider"] and can["semanticTokensProvider"]


# Diagnostics


def test_diagnostics_follow_the_text(editor: Any) -> None:
    found = editor.replace("Convolution(64, 7, pad=3", "Convolution(64, 7, padd=3")
    assert [one["code"] for one in found] == ["S104"]
    assert editor.shown(found[0]["range"]) == "padd" and found[0]["severity"] == 1
    assert editor.replace("padd=3", "pad=3") == []


def test_one_broken_line_leaves_the_others_their_meaning(editor: Any) -> None:
    found = editor.replace("classifier: InnerProduct(1000,", "classifier: InnerProduct(1000,,")
    assert {one["code"] for one in found} == {"S001"}
    found = editor.replace("pool_proj: Convolution(pool_n, 1)", "pool_proj: Convolution(pool_m, 1)")
    assert {one["code"] for one in found} == {"S001", "S105"}
    assert "64×112×112" in editor.ask("textDocument/hover", editor.at("`conv1/7x7_s2`", 3))["contents"]["value"]


def test_several_errors_at_once(editor: Any) -> None:
    editor.replace("-> `pool1/norm1`: LRN", "-> `pool1/norm1`: LRM", wait=False)
    editor.replace("MAX, 3, 1", "MOX, 3, 1", wait=False)
    found = editor.replace("base_lr=0.01", "base_lr=-1")
    assert {"S101", "S106", "S401"} <= {one["code"] for one in found}


def test_unused_names_are_greyed(editor: Any) -> None:
    found = editor.replace("net GoogleNet {", "let spare = 3\nnet GoogleNet {")
    assert [(one["code"], one["severity"], one["tags"]) for one in found] == [("S210", 2, [1])]


def test_quick_fix(editor: Any) -> None:
    (found,) = editor.replace("stride=2", "strode=2")
    params = {"textDocument": {"uri": editor.uri}, "range": found["range"], "context": {"diagnostics": [found]}}
    (action,) = editor.ask("textDocument/codeAction", params)
    assert action["kind"] == "quickfix" and "stride" in action["title"]
    assert editor.edited(action["edit"]["changes"][editor.uri]) == GOOGLENET.read_text()


# Hover


@pytest.mark.parametrize(
    ("place", "shift", "said"),
    [
        ("Convolution(64, 7", 3, ["32×64×112×112", "num_output", "by position: num_output, kernel_size"]),
        ("pad=3", 1, ["**pad**", "whole number", "zeros around the bottom"]),
        ("Pooling(MAX, 3, 2)", 9, ["**pool**", "default `MAX`"]),
        ("inception_3b: inception", 16, ["block x -> inception(n1, r3, n3, r5, n5, pool_n)", "used 9 times"]),
        ("inception_3b:", 3, ["32×480×28×28 (TRAIN)", "50×480×28×28 (TEST)", "10×480×28×28 (DEPLOY)"]),
        ("Convolution(r3, 1)", 12, ["parameter"]),
        ("xavier)", 2, ["filler", "weight_filler"]),
        ("momentum=0.9", 2, ["**momentum**"]),
        ("tau=50", 1, ["**tau**"]),
    ],
)
def test_hover(editor: Any, place: str, shift: int, said: list[str]) -> None:
    value = editor.ask("textDocument/hover", editor.at(place, shift))["contents"]["value"]
    for words in said:
        assert words in value


def test_hover_over_nothing(editor: Any) -> None:
    assert editor.ask("textDocument/hover", editor.at("# GoogLeNet", 0)) is None


# Completion


@pytest.mark.parametrize(
    ("old", "new", "expected", "missing"),
    [
        ("pad=3, stride=2)", "pad=3, str", "stride", "pad"),  # a field, none that is there already
        ("Convolution(64, 7", "Conv", "Convolution", "pad"),
        ("inception_3a: inception(", "inception_3a: ince", "inception", None),
        ("Pooling(MAX, 3, 2) -> `pool1/norm1`", "Pooling(", "MAX", None),
        ("weight_filler=xavier)", "weight_filler=", "xavier", "TRAIN"),
        ("bias_filler=constant(0.2))", "bias_filler=constant(", "value", "num_output"),
        ("backend=LMDB", "backend=", "LEVELDB", None),
        ("mirror=true", "mirror=", "true", None),
        ("Accuracy @test", "Accuracy @", "deploy", "Convolution"),
        ("inception(128, 128, 192, 32, 96, 64)", "inception(", "n1", "kernel_size"),
        ('lr_policy="step"', 'lr_policy="', "poly", None),
        ("momentum=0.9", "mom", "momentum", "kernel_size"),
        ("tau=50", "ta", "tau", "base_lr"),
        ("inception_4a, label", "inc", "inception_4a", "relu_1x1"),  # a blob of the net, none of a block
        ("`loss3/classifier` -> prob", "`loss3", "loss3/classifier", None),
        ("x -> pool:", "relu", "relu_1x1", "inception_3a"),
        ("Convolution(n1, 1)", "Convolution(", "n1", "pool1/norm1"),  # a parameter of the block
        ("solver (", "sol", "solver", None),
    ],
)
def test_completion(editor: Any, old: str, new: str, expected: str, missing: str | None) -> None:
    at = editor.text.index(old)
    editor.replace(old, new, wait=False)
    params = {"textDocument": {"uri": editor.uri}, "position": editor.position(at + len(new))}
    found = editor.ask("textDocument/completion", params)
    assert expected in labels(found)
    assert missing not in labels(found)
    chosen = next(item for item in found["items"] if item["label"] == expected)
    assert expected in editor.edited([chosen["textEdit"]])


# Names


def lines(editor: Any, locations: list[dict[str, Any]]) -> list[str]:
    assert all(one["uri"] == editor.uri for one in locations)
    return [editor.text.splitlines()[one["range"]["start"]["line"]].strip()[:24] for one in locations]


def test_definition(editor: Any) -> None:
    find = "textDocument/definition"
    assert lines(editor, editor.ask(find, editor.at("inception(64, 96", 2))) == ["block x -> inception(n1,"]
    assert lines(editor, editor.ask(find, editor.at("r3, 1)", 0))) == ["block x -> inception(n1,"]
    assert lines(editor, editor.ask(find, editor.at("inception_4a, label", 2))) == ["-> inception_4a: incepti"]
    # One for each phase.
    assert lines(editor, editor.ask(find, editor.at("data -> `conv1", 1))) == [
        'data, label: Data("examp',
        'data, label: Data("examp',
        "data: Input([10, 3, 224,",
    ]
    # Made in a block, read outside of it.
    assert lines(editor, editor.ask(find, editor.at("`loss3/classifier` -> prob", 4))) == ["x -> classifier: InnerPr"]


def test_references(editor: Any) -> None:
    params = {**editor.at("block x -> inception", 12), "context": {"includeDeclaration": False}}
    assert len(editor.ask("textDocument/references", params)) == 9
    params = {**editor.at("relu_3x3:", 2), "context": {"includeDeclaration": True}}
    assert len(editor.ask("textDocument/references", params)) == 2
    params = {**editor.at("block x -> inception", 6), "context": {"includeDeclaration": True}}
    assert len(editor.ask("textDocument/references", params)) == 5


@pytest.mark.parametrize(
    ("place", "shift", "new", "places"),
    [
        ("block x -> inception", 12, "module", 10),
        ("n1, r3", 0, "ones", 2),
        ("inception_4a:", 2, "four_a", 3),
        ("classifier: Inner", 2, "scores", 5),
        ("`conv1/7x7_s2`", 3, "first", 1),
    ],
)
def test_rename(editor: Any, place: str, shift: int, new: str, places: int) -> None:
    where = editor.ask("textDocument/prepareRename", editor.at(place, shift))
    assert editor.shown(where).strip("`") in place
    edits = editor.ask("textDocument/rename", {**editor.at(place, shift), "newName": new})["changes"][editor.uri]
    assert len(edits) == places
    before, after = compile_text(editor.text).net, compile_text(editor.edited(edits)).net
    assert [(layer.type, len(layer.bottom)) for layer in before.layer] == [
        (layer.type, len(layer.bottom)) for layer in after.layer
    ]


@pytest.mark.parametrize(
    ("place", "shift", "new"),
    [
        ("block x -> inception", 12, "score"),  # another block
        ("block x -> inception", 12, "Convolution"),
        ("n1, r3", 0, "n3"),  # another parameter
        ("n1, r3", 0, "net"),
        ("inception_4a:", 2, "inception_4b"),  # another layer
        ("`{top}`", 2, "weight"),
        ("x -> classifier", 0, "label"),
    ],
)
def test_rename_refuses_what_would_clash(editor: Any, place: str, shift: int, new: str) -> None:
    reply = editor.reply("textDocument/rename", {**editor.at(place, shift), "newName": new})
    assert reply["error"]["message"]


# The whole file


def test_formatting(editor: Any) -> None:
    params = {"textDocument": {"uri": editor.uri}, "options": {"tabSize": 2, "insertSpaces": True}}
    assert editor.ask("textDocument/formatting", params) == []
    editor.replace("  x -> pool: Pooling(MAX, 3, 1, pad=1)", "x->pool:Pooling( MAX,3,1,pad = 1 )")
    edits = editor.ask("textDocument/formatting", params)
    assert editor.edited(edits) == format_text(editor.text) == GOOGLENET.read_text()
    editor.replace("x->pool", "x->->pool")
    assert editor.ask("textDocument/formatting", params) is None


def test_inlay_hints(editor: Any) -> None:
    whole = {"start": {"line": 0, "character": 0}, "end": editor.position(len(editor.text))}
    hints = editor.ask("textDocument/inlayHint", {"textDocument": {"uri": editor.uri}, "range": whole})
    by_place = {(hint["position"]["line"], hint["position"]["character"]): hint["label"] for hint in hints}

    def behind(call: str) -> str:
        place = editor.position(editor.text.index(call) + len(call))
        return str(by_place[place["line"], place["character"]])

    assert behind("Convolution(64, 7, pad=3, stride=2)") == "32×64×112×112"
    assert behind("inception(64, 96, 128, 16, 32, 32)") == "32×256×28×28"
    assert behind("Pooling(MAX, 3, 1, pad=1)").startswith("32×192×28×28 (+")


def test_outline(editor: Any) -> None:
    found = editor.ask("textDocument/documentSymbol", {"textDocument": {"uri": editor.uri}})
    assert [one["name"] for one in found] == ["inception", "score", "aux", "GoogleNet", "solver", "spark"]
    children = [one["name"] for one in found[3]["children"]]
    assert children[:3] == ["data", "label", "data"] and children[-2:] == ["loss3", "prob"]


def test_semantic_tokens(editor: Any) -> None:
    legend = editor.capabilities["semanticTokensProvider"]["legend"]["tokenTypes"]
    params = {"textDocument": {"uri": editor.uri}}
    data = editor.ask("textDocument/semanticTokens/full", params)["data"]
    found, line, column = {}, 0, 0
    for index in range(0, len(data), 5):
        by, right, length, kind, _ = data[index : index + 5]
        line, column = line + by, right if by else column + right
        found[editor.text.splitlines()[line][column : column + length]] = legend[kind]
    kinds = {
        "Convolution": "class",
        "inception": "function",
        "pool_n": "parameter",
        "MAX": "enumMember",
        "@test": "decorator",
    }
    assert {name: found[name] for name in kinds} == kinds
    assert (
        found["inception_3a"] == "variable" and found["kernel_size" if "kernel_size" in found else "pad"] == "property"
    )


# Other files


def test_positions_count_utf_16(running: Any, tmp_path: pathlib.Path) -> None:
    text = "net n {\n  data: Input([1, 3])\n  data -> `😀é`: ReLU(nagative_slope=1)\n}\n"
    (found,) = running.open(tmp_path / "wide.snet", text)
    assert running.shown(found["range"]) == "nagative_slope"


def test_imported_blocks(running: Any, tmp_path: pathlib.Path) -> None:
    (tmp_path / "parts.snet").write_text("block x -> twice(n) {\n  x -> a: InnerProduct(n)\n}\n")
    text = 'import "parts.snet" as parts\nnet n {\n  data: Input([1, 3])\n  data -> y: parts.twice(4)\n}\n'
    assert running.open(tmp_path / "main.snet", text) == []
    assert labels(running.ask("textDocument/completion", running.at("twice(4)", 0))) == ["twice"]
    (found,) = running.ask("textDocument/definition", running.at("y: parts", 3))[:1]
    assert running.shown(found["range"]) == "parts"


def test_prototxt(running: Any, tmp_path: pathlib.Path) -> None:
    compile_text(GOOGLENET.read_text()).save(tmp_path, "google")
    path = tmp_path / "google.prototxt"
    assert running.open(path) == []

    def hover(place: str, shift: int = 1) -> str:
        return str(running.ask("textDocument/hover", running.at(place, shift))["contents"]["value"])

    assert "zeros around the bottom" in hover("pad: 3")
    assert "by position: num_output" in hover('"Convolution"')
    assert "32×64×112×112" in hover('bottom: "conv1/7x7_s2"', 10)
    assert "default `MAX`" in hover("MAX")
    found = running.replace("kernel_size: 7", "kernel_sise: 7")
    assert ("S104", "kernel_sise") in [(one["code"], running.shown(one["range"])) for one in found]
    found = running.replace("num_output: 64", "num_output: sixty")[0]
    assert (found["code"], running.shown(found["range"])) == ("S105", "sixty")


def test_without_pygls_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['pygls'] = None; from sparknet_dsl.lsp.__main__ import main; main([])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: sparknet-lsp needs pygls: pip install 'sparknet-dsl[lsp]'\n"
