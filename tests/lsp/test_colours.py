"""Colours: the TextMate grammar, the Pygments lexer and Vim's syntax know the language that the grammar describes."""

import configparser
import importlib
import json
import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from pygments.token import Comment, Error, Keyword, Name, Token

from sparknet_dsl.parse import KEYWORDS
from sparknet_dsl.values import FUNCTIONS

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = sorted((ROOT / "models").glob("*.snet"))
VSCODE = ROOT / "editors" / "vscode"
GRAMMAR = VSCODE / "syntaxes" / "snet.tmLanguage.json"


def lexer() -> Any:
    """What the entry point names."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    module, _, name = setup["options.entry_points"]["pygments.lexers"].strip().removeprefix("snet = ").partition(":")
    return getattr(importlib.import_module(module), name)()


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_pygments_knows_every_character_of_the_models(path: pathlib.Path) -> None:
    text = path.read_text()
    found = list(lexer().get_tokens(text))
    assert [value for kind, value in found if kind in Error] == []
    assert "".join(value for _, value in found) == text


def test_pygments_kinds() -> None:
    found = list(lexer().get_tokens("net n {  # x\n  data -> `a b`: Convolution(20, pad=1)! @test is [_, 2]\n}\n"))
    kinds = {value: kind for kind, value in found}
    assert kinds["net"] in Keyword and kinds["is"] in Keyword and kinds["# x"] in Comment
    assert kinds["Convolution"] is Name.Class and kinds["pad"] is Name.Attribute and kinds["test"] is Name.Decorator
    assert kinds["`a b`"] in Name.Variable and kinds["20"] in Token.Literal.Number
    words = {value: kind for word in KEYWORDS for kind, value in lexer().get_tokens(word)}
    assert all(words[word] not in Name for word in KEYWORDS)


# TextMate


def patterns(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, list):
        for item in part:
            yield from patterns(item)
    elif isinstance(part, dict):
        if "match" in part or "begin" in part:
            yield part
        for item in part.values():
            yield from patterns(item)


def test_textmate_patterns_compile_and_know_all_keywords() -> None:
    found = list(patterns(json.loads(GRAMMAR.read_text())))
    for pattern in found:
        for key in ("match", "begin", "end"):
            re.compile(pattern.get(key, ""))
    keywords = [one["match"] for one in found if one.get("name", "").startswith(("keyword.", "constant.language"))]
    for word in KEYWORDS:
        assert any(re.fullmatch(pattern, word) for pattern in keywords), word
    functions = next(one["match"] for one in found if one.get("name") == "support.function.snet")
    assert all(re.match(functions, f"{name}(") for name in FUNCTIONS)


SCRIPT = """
const fs = require("fs"), path = require("path"), oniguruma = require("vscode-oniguruma");
const { Registry, parseRawGrammar, INITIAL } = require("vscode-textmate");
(async () => {
  await oniguruma.loadWASM(fs.readFileSync(require.resolve("vscode-oniguruma/release/onig.wasm")).buffer);
  const onigLib = {
    createOnigScanner: (patterns) => new oniguruma.OnigScanner(patterns),
    createOnigString: (string) => new oniguruma.OnigString(string),
  };
  const [grammarFile, text] = process.argv.slice(1);
  const loadGrammar = async () => parseRawGrammar(fs.readFileSync(grammarFile, "utf8"), grammarFile);
  const grammar = await new Registry({ onigLib: Promise.resolve(onigLib), loadGrammar }).loadGrammar("source.snet");
  let stack = INITIAL;
  const found = [];
  for (const line of fs.readFileSync(text, "utf8").split("\\n")) {
    const result = grammar.tokenizeLine(line, stack);
    stack = result.ruleStack;
    for (const t of result.tokens) found.push([line.slice(t.startIndex, t.endIndex), t.scopes[t.scopes.length - 1]]);
  }
  console.log(JSON.stringify({ found, depth: stack.depth }));
})();
"""


@pytest.mark.skipif(
    shutil.which("node") is None or not (VSCODE / "node_modules" / "vscode-textmate").is_dir(),
    reason="needs node, and `npm install` in editors/vscode",
)
def test_textmate_in_the_engine_of_vs_code() -> None:
    model = ROOT / "models" / "googlenet.snet"
    done = subprocess.run(
        ["node", "-e", SCRIPT, "--", str(GRAMMAR), str(model)],
        cwd=VSCODE,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["depth"] == 1  # nothing is left open
    found = {(text.strip(), scope) for text, scope in result["found"] if text.strip()}
    assert {
        ("net", "keyword.declaration.snet"),
        ("block", "keyword.declaration.snet"),
        ("Convolution", "entity.name.type.snet"),
        ("inception", "entity.name.type.snet"),
        ("pad", "variable.other.property.snet"),
        ("MAX", "constant.other.enum.snet"),
        ("@test", "storage.modifier.phase.snet"),
        ("->", "keyword.operator.arrow.snet"),
        ("!", "keyword.operator.in-place.snet"),
        ("0.2", "constant.numeric.snet"),
        ("conv1/7x7_s2", "entity.name.label.quoted.snet"),
    } <= found


# Vim and the manifest


def test_vim_knows_all_keywords() -> None:
    syntax = (ROOT / "editors" / "vim" / "syntax" / "snet.vim").read_text()
    words = {word for line in re.findall(r"syntax keyword \w+ (.*)", syntax) for word in line.split()}
    assert words == KEYWORDS
    functions = re.search(r"snetFunction /\\<\\%\((.*)\\\)", syntax)
    assert functions is not None and set(functions[1].split(r"\|")) == set(FUNCTIONS)


def test_the_extension_names_files_that_are_there() -> None:
    manifest = json.loads((VSCODE / "package.json").read_text())
    contributed = manifest["contributes"]
    named = [manifest["main"], contributed["grammars"][0]["path"], contributed["languages"][0]["configuration"]]
    for name in named:
        assert (VSCODE / name).is_file(), name
    configuration = json.loads((VSCODE / "language-configuration.json").read_text())
    assert configuration["comments"] == {"lineComment": "#"}
