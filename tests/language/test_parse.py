"""The grammar, its cached tables, and recovery from syntax errors."""

import json
import pathlib
import stat

import pytest

from sparknet_dsl import ast, parse, tables
from sparknet_dsl.diagnostics import Diagnostics, Source, closest, edit_distance

TEXT = "net N { data: Input([1, 2]) -> a: ReLU }"


def parsed(text: str) -> tuple[ast.File, list[str]]:
    diagnostics = Diagnostics()
    tree = parse.parse(Source("x.snet", text), diagnostics)
    return tree, [found.code for found in diagnostics.sorted()]


def test_the_grammar_has_no_conflicts_and_no_colliding_terminals() -> None:
    tables.build(strict=True)


@pytest.fixture
def fresh_cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tables.cache_path()


def test_tables_are_cached(fresh_cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tables.load()
    assert fresh_cache.is_file()
    monkeypatch.setattr(tables, "build", lambda: pytest.fail("built again"))
    assert tables.load().parse(TEXT, start="start") == first.parse(TEXT, start="start")


@pytest.mark.parametrize("content", [b"", b"\x80\x04N.", b"{}", b'{"data": 1, "memo": 2}', b"[" * 100_000])
def test_a_damaged_cache_does_no_harm(fresh_cache: pathlib.Path, content: bytes) -> None:
    fresh_cache.parent.mkdir()
    fresh_cache.write_bytes(content)
    tables.load().parse(TEXT, start="start")
    assert "memo" in json.loads(fresh_cache.read_bytes())  # mended


def test_a_folder_that_cannot_be_written_does_no_harm(fresh_cache: pathlib.Path) -> None:
    fresh_cache.parent.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    tables.load().parse(TEXT, start="start")
    fresh_cache.parent.parent.chmod(stat.S_IRWXU)


def test_a_file_where_the_cache_folder_should_be_does_no_harm(fresh_cache: pathlib.Path) -> None:
    fresh_cache.parent.write_text("in the way")
    tables.load().parse(TEXT, start="start")


def test_spans_cover_what_they_mean() -> None:
    tree, _ = parsed('net N {\n  a, b -> `c{1 + x}`: Type(5, k="v")! @train is [_, 2]\n}')
    (net,) = tree.items
    assert isinstance(net, ast.Net)
    (flow,) = net.body
    assert isinstance(flow, ast.Flow)
    (stage,) = flow.stages
    assert isinstance(stage, ast.Labelled)
    assert flow.span.text == 'a, b -> `c{1 + x}`: Type(5, k="v")! @train is [_, 2]'
    assert [name.span.text for name in flow.inputs] == ["a", "b"]
    sum_ = stage.labels[0].parts[1]
    assert isinstance(sum_, ast.Chained)
    assert (sum_.span.text, sum_.operands[1].span.text) == ("1 + x", "x")
    assert stage.call.callee_span.text == "Type"
    assert [arg.name_span.text for arg in stage.call.args] == ["5", "k"]
    assert stage.call.bang is not None
    assert stage.call.bang.text == "!"
    assert stage.call.phases[0].span.text == "@train"
    assert stage.call.shapes is not None
    assert stage.call.shapes.span.text == "is [_, 2]"


def test_an_error_costs_one_statement() -> None:
    tree, codes = parsed("net N {\n  a -> b: X(1\n  b -> c: Y\n  c -> d: Z)\n  d -> e: W\n}\nlet y = 2\nlet z = = 3")
    assert codes == ["S001", "S001", "S001"]
    net, let = tree.items
    assert isinstance(net, ast.Net)
    assert [statement.span.text for statement in net.body] == ["b -> c: Y", "d -> e: W"]
    assert isinstance(let, ast.Let)


def test_an_error_in_a_loop_costs_the_loop() -> None:
    tree, codes = parsed("net N {\n  a -> for i in [1] {\n    x: Y(;)\n    -> z: Z\n  }\n  b -> c: D\n}")
    assert codes == ["S002"]
    (net,) = tree.items
    assert isinstance(net, ast.Net)
    assert [statement.span.text for statement in net.body] == ["b -> c: D"]


@pytest.mark.parametrize(
    "text", ["", "# a comment", "net N {}", "\ufeffnet N {}"[1:], "net N {\r\n a -> b: C\r\n}", 'net "a b" { a }']
)
def test_fine(text: str) -> None:
    assert parsed(text)[1] == []


def test_keywords_are_names_where_nothing_else_fits() -> None:
    tree, codes = parsed("solver (net=1) net N { a -> net: T(for=2) }")
    assert codes == []
    assert len(tree.items) == 2


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ("", "", 0),
        ("abc", "abc", 0),
        ("abc", "acb", 1),
        ("kernal_size", "kernel_size", 1),
        ("a", "", 1),
        ("ab", "cd", 2),
    ],
)
def test_edit_distance(one: str, other: str, distance: int) -> None:
    assert edit_distance(one, other) == edit_distance(other, one) == distance


def test_closest_prefers_the_nearest() -> None:
    assert closest("pol1", ["pool1", "pool2", "norm1"]) == ["pool1"]
    assert closest("xyz", ["pool1"]) == []
