"""A text after a change: the tree is that of the whole text parsed anew."""

import dataclasses
import pathlib
import random
from typing import Any

import pytest

from sparknet_dsl import ast
from sparknet_dsl.compile import analyse
from sparknet_dsl.diagnostics import Diagnostics, Source, Span
from sparknet_dsl.parse import parse
from sparknet_dsl.reparse import reparse

MODELS = sorted((pathlib.Path(__file__).resolve().parents[2] / "models").glob("*.snet"))
TYPED = ["", "x", " ", "\n", "(", ")", "{", "}", "#", '"', "->", " -> y: ReLU", "\n  data -> z: ReLU\n", ",", " data, "]
TYPED += ["`", ":", "1", "let x = 2\n", "\n  data\n"]


def plain(part: Any) -> Any:
    """A tree as tuples, with the offsets of its spans."""
    if isinstance(part, Span):
        return part.start, part.end
    if isinstance(part, tuple):
        return tuple(map(plain, part))
    if isinstance(part, ast.Node):
        return (type(part).__name__, *(plain(getattr(part, field.name)) for field in dataclasses.fields(part)))
    return part


def said(diagnostics: Diagnostics) -> list[Any]:
    return [(one.code, one.message, one.span and plain(one.span)) for one in diagnostics.found]


@pytest.mark.parametrize("seed", range(3))
def test_random_changes(seed: int) -> None:
    rng = random.Random(seed)
    alone = 0
    for path in rng.sample(MODELS, 4):
        before: ast.File | None = None
        for _ in range(15):
            if before is None or rng.random() < 0.1:
                text = path.read_text()
                before = parse(Source("x", text), Diagnostics())
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(TYPED) + text[at + rng.choice([0, 0, 0, 1, 3, 20]) :]
            source, whole, part = Source("x", text), Diagnostics(), Diagnostics()
            tree = parse(source, whole)
            changed = reparse(before, source, part)
            if changed is not None:
                alone += 1
                assert plain(changed) == plain(tree)
                assert said(part) == said(whole)
                assert changed.broken == tree.broken
            before = changed or tree
    assert alone > 15


def test_most_statements_keep_their_nodes() -> None:
    path = next(path for path in MODELS if path.stem == "resnet18")
    text = path.read_text()
    first = analyse(text, path)
    changed = analyse(text.replace("max_iter=", "max_iter=1"), path, first)
    assert first.tree is not None and changed.tree is not None
    kept = {id(item) for item in first.tree.items} & {id(item) for item in changed.tree.items}
    assert len(kept) >= len(first.tree.items) - 3


@pytest.mark.parametrize("begun", ["`conv", "  `conv", "`conv: ReLU", "conv1,", "conv1, `lab`,"])
def test_a_statement_begun_spoils_none_before_it(begun: str) -> None:
    source = Source("x", f"net n {{\n  data: Input([1, 3])\n  data -> a: ReLU\n{begun}\n}}\n")
    diagnostics = Diagnostics()
    (net,) = parse(source, diagnostics).items
    assert isinstance(net, ast.Net) and len(net.body) == 2
    assert diagnostics.has_errors
