"""The formatter: one layout, the same meaning, every comment kept."""

import itertools
import pathlib
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparknet_dsl import cli_compile, compile_file
from sparknet_dsl.errors import ModelError
from sparknet_dsl.format import WIDTH, format_text

ROOT = pathlib.Path(__file__).parents[2]
PROGRAMS = sorted([*ROOT.glob("models/*.snet"), *ROOT.glob("tests/language/programs/*.snet")])
TOKENS = re.compile(r'#[^\n]*|"(?:\\.|[^"\\\n])*"|`[^`\n]+`|->|\w+|\S')


def meaning(text: str) -> list[str]:
    """The tokens, comments among them, but for the commas before closing brackets."""
    tokens = [token.rstrip() for token in TOKENS.findall(text)]
    code = [token for token in tokens if not token.startswith("#")]
    comments = [token for token in tokens if token.startswith("#")]
    following = [*code[1:], ""]
    return [a for a, b in zip(code, following, strict=True) if a != "," or b not in (")", "]", "}")] + comments


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_programs_are_fixed_points_once_formatted(path: pathlib.Path) -> None:
    text = path.read_text(encoding="utf-8")
    once = format_text(text)
    assert meaning(once) == meaning(text)
    assert format_text(once) == once
    assert all(len(line) <= WIDTH or line.startswith("#") for line in once.splitlines())


@pytest.mark.parametrize("name", ["lenet", "googlenet", "resnet50"])
def test_formatted_programs_compile_to_the_same(name: str, tmp_path: pathlib.Path) -> None:
    path = ROOT / "tests" / "language" / "programs" / f"{name}.snet"
    copy = tmp_path / f"{name}.snet"
    copy.write_text(format_text(path.read_text(encoding="utf-8")), encoding="utf-8")
    assert compile_file(copy, keep_data_layers=True).net == compile_file(path, keep_data_layers=True).net


def test_the_layout() -> None:
    text = """
# A net.
option   batch=64 # of training
let wide = 2*batch

block  x,y->join( kind , k = 3 ){x,y->`{kind}_sum`:Eltwise->relu:ReLU !}
net N{
  # its data


  data,label:RDDData([[batch,1,8,8],[batch]],scale=1/16)@train   # fed
  data,label:RDDData([[100,1,8,8],[100]])  @test # fed too
  data -> conv1: Convolution ( 32, 3, pad = 5 // 2 - -1 )->relu1:ReLU! is [_,32,8,8]->
     pool1:Pooling(MAX,2,2)->ip:InnerProduct(10)
  conv1 -> for a,b in [[1,2],[3,4]] {
  `c{a}`:Convolution(b,1)
  # in between
  -> `r{a}` : ReLU
  } -> if batch>1 and not (batch==2) {a:ReLU} else {b:ReLU} as end

  drop `a b`
}
solver(
base_lr=0.1,lr_policy="fixed", # the rate
max_iter=1)
"""
    wanted = """\
# A net.
option batch = 64  # of training
let wide = 2 * batch

block x, y -> join(kind, k=3) {
  x, y -> `{kind}_sum`: Eltwise -> relu: ReLU!
}
net N {
  # its data

  data, label: RDDData([[batch, 1, 8, 8], [batch]], scale=1/16) @train  # fed
  data, label: RDDData([[100, 1, 8, 8], [100]]) @test                   # fed too
  data -> conv1: Convolution(32, 3, pad=5//2 - -1) -> relu1: ReLU! is [_, 32, 8, 8]
       -> pool1: Pooling(MAX, 2, 2) -> ip: InnerProduct(10)
  conv1 -> for a, b in [[1, 2], [3, 4]] {
             `c{a}`: Convolution(b, 1)
             # in between
             -> `r{a}`: ReLU
           }
        -> if batch > 1 and not (batch == 2) { a: ReLU } else { b: ReLU } as end

  drop `a b`
}
solver (
  base_lr=0.1, lr_policy="fixed",  # the rate
  max_iter=1,
)
"""
    assert format_text(wanted) == wanted
    got = format_text(text)
    # Two breaks are the author's to choose.
    got = got.replace("} -> if", "}\n        -> if").replace("{`c{a}`", "{\n             `c{a}`")
    assert format_text(got).splitlines() == wanted.splitlines()


def test_lists_that_are_too_long_are_filled() -> None:
    numbers = ", ".join(str(number) for number in range(1000, 1040))
    got = format_text(f"net N {{ data: Input([{numbers}]) }}")
    assert max(map(len, got.splitlines())) <= WIDTH
    assert got.splitlines()[2].index("1") == got.splitlines()[1].index("1")
    assert format_text(got) == got


def test_wrong_syntax_is_refused() -> None:
    with pytest.raises(ModelError, match="S001"):
        format_text("net N { data -> }")


# Random programs

NAMES = st.sampled_from(["x", "conv1", "`res{n}_{u}`", "`a b`", "data", "a_rather_long_name_of_some_layer"])
SPACES = st.sampled_from(["", " ", "  ", "\n", "\n\n\n", "\t", " # why\n", "\n# own\n", "\n\n  # x y  \n  "])


def joined(separator: str, parts: st.SearchStrategy[list[str]]) -> st.SearchStrategy[str]:
    return parts.map(lambda items: f" {separator} ".join(items))


EXPRESSIONS = st.recursive(
    st.sampled_from(["1", "0.5", "MAX", '"a # string"', "n", "true", "1e-3", "xavier", '"a,]"']),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "<", "==", "and", "or"]), inner).map(
            lambda t: f"( {t[0]} {t[1]} {t[2]} )"
        ),
        st.tuples(inner, inner, inner).map(lambda t: f"( {t[0]} if {t[1]} else {t[2]} )"),
        inner.map(lambda e: f"- {e}"),
        inner.map(lambda e: f"not {e}").map(lambda e: f"( {e} )"),
        joined(",", st.lists(inner, max_size=5)).map(lambda e: f"[ {e} ]"),
        joined(",", st.lists(inner, min_size=1, max_size=5)).map(lambda e: f"[ {e} , ]"),
        joined(",", st.lists(inner.map(lambda e: f"f = {e}"), max_size=3)).map(lambda e: f"{{ {e} }}"),
        joined(",", st.lists(inner, max_size=3)).map(lambda e: f"gaussian ( {e} )"),
    ),
    max_leaves=12,
)
ARGS = joined(",", st.lists(st.one_of(EXPRESSIONS, EXPRESSIONS.map(lambda e: f"kw = {e}")), max_size=6)).map(
    lambda e: f"( {e} )"
)
CALLS = st.tuples(
    st.sampled_from(["Convolution", "ReLU", "parts . twice"]),
    st.one_of(st.just(""), ARGS),
    st.sampled_from(["", "!", "@ train", "! @ test @ deploy", "is [ _ , 3 ] , [ 4 , n ]", "@ train is [ ]"]),
).map(" ".join)
LABELS = joined(",", st.lists(NAMES, min_size=1, max_size=3))
STAGES = st.recursive(
    st.one_of(CALLS, st.tuples(LABELS, CALLS).map(" : ".join)),
    lambda inner: st.one_of(
        st.tuples(
            st.sampled_from(["u", "u , v"]), EXPRESSIONS, joined("->", st.lists(inner, min_size=1, max_size=3))
        ).map(lambda t: f"for {t[0]} in {t[1]} {{ {t[2]} }}"),
        st.tuples(EXPRESSIONS, inner, inner).map(lambda t: f"if {t[0]} {{ {t[1]} }} else {{ {t[2]} }}"),
        st.tuples(EXPRESSIONS, inner).map(lambda t: f"if {t[0]} {{ {t[1]} }}"),
    ),
    max_leaves=5,
)
FLOWS = st.tuples(
    st.one_of(LABELS, st.tuples(LABELS, CALLS).map(" : ".join)),
    joined("->", st.lists(STAGES, min_size=1, max_size=5)),
    st.sampled_from(["", "as out", "as a , b"]),
).map(lambda t: f"{t[0]} -> {t[1]} {t[2]}")
PLAIN = st.one_of(
    FLOWS,
    FLOWS,
    LABELS,
    EXPRESSIONS.map(lambda e: f"let a = {e}"),
    ARGS.map(lambda e: f"default ReLU , LRN {e}"),
)
STATEMENTS = st.one_of(
    PLAIN,
    LABELS.map(lambda names: f"drop {names}"),
    st.tuples(LABELS, ARGS).map(lambda t: f"set {t[0]} {t[1]}"),
    st.tuples(LABELS, st.lists(PLAIN, max_size=2)).map(lambda t: f"replace {t[0]} {{ {' '.join(t[1])} }}"),
)
BODIES = st.lists(STATEMENTS, max_size=4).map(lambda statements: f"{{ {' '.join(statements)} }}")
ITEMS = st.one_of(
    BODIES.map(lambda body: f"net N {body}"),
    st.tuples(ARGS, BODIES).map(lambda t: f'net "N n" {t[0]} from "f" {t[1]}'),
    st.tuples(LABELS, BODIES).map(lambda t: f"block {t[0]} -> f ( k , w = 3 , ) {t[1]}"),
    ARGS.map(lambda args: f'solver from "s" {args}'),
    ARGS.map(lambda args: f"spark {args}"),
    EXPRESSIONS.map(lambda e: f"option o = {e}"),
    st.just('import "f.snet" as f'),
)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A program of any construct with white space and comments between any two tokens."""
    program = " ".join(draw(st.lists(ITEMS, min_size=1, max_size=3)))
    tokens = re.findall(r'"[^"]*"|`[^`]+`|\S+', program)
    out = []
    for before, token in itertools.pairwise(["", *tokens]):
        space = draw(SPACES) if draw(st.integers(0, 3)) == 0 else " "
        out += [space or (" " if before else ""), token]
    return "".join(out)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(texts())
def test_formatting_keeps_the_meaning_and_settles_at_once(text: str) -> None:
    once = format_text(text)
    assert meaning(once) == meaning(text)
    assert format_text(once) == once
    assert all(line == line.rstrip() for line in once.splitlines())


# The command


def run(*args: object, text: str | None = None) -> Result:
    return CliRunner().invoke(cli_compile.format_command, [str(arg) for arg in args], input=text)


def test_the_command(tmp_path: pathlib.Path) -> None:
    ugly, fine = tmp_path / "deep" / "ugly.snet", tmp_path / "fine.snet"
    ugly.parent.mkdir()
    ugly.write_bytes(b"spark(tau=1)  # \xc3\xa9\r\n")
    fine.write_text("spark (tau=1)\n", encoding="utf-8")
    (tmp_path / "other.txt").write_text("spark(tau=1)", encoding="utf-8")

    result = run("--check", tmp_path)
    assert (result.exit_code, result.stdout) == (1, f"would format {ugly}\n")
    result = run("--diff", tmp_path)
    assert result.exit_code == 1
    assert "-spark(tau=1)  # é\n+spark (tau=1)  # é\n" in result.stdout
    assert ugly.read_bytes().endswith(b"\r\n")

    result = run(tmp_path)
    assert (result.exit_code, result.stderr) == (0, "1 file formatted, 1 as they should be\n")
    assert ugly.read_text(encoding="utf-8") == "spark (tau=1)  # é\n"
    assert run("--check", tmp_path).exit_code == 0
    assert (tmp_path / "other.txt").read_text(encoding="utf-8") == "spark(tau=1)"


def test_standard_input() -> None:
    result = run("-", text="spark(tau=1)")
    assert (result.exit_code, result.stdout) == (0, "spark (tau=1)\n")
    result = run("--check", "-", text="spark(tau=1)")
    assert (result.exit_code, result.stdout) == (1, "would format <stdin>\n")


def test_what_goes_wrong(tmp_path: pathlib.Path) -> None:
    bad, binary, good = tmp_path / "bad.snet", tmp_path / "binary.snet", tmp_path / "good.snet"
    bad.write_text("net N {", encoding="utf-8")
    binary.write_bytes(b"\xff\xfe\0")
    good.write_text("spark(tau=1)", encoding="utf-8")
    result = run(bad, binary, good)
    assert result.exit_code == 1
    assert "error[S001]" in result.stderr and "no text in UTF-8" in result.stderr
    assert bad.read_text(encoding="utf-8") == "net N {"
    assert good.read_text(encoding="utf-8") == "spark (tau=1)\n"
    result = run(tmp_path / "missing.snet")
    assert (result.exit_code, result.stderr) == (2, f"error: {tmp_path / 'missing.snet'} is not there\n")
    assert run().exit_code == 2


def test_the_installed_command() -> None:
    command = pathlib.Path(sys.executable).parent / "sparknet-fmt"
    if not command.exists():
        pytest.skip("the project was installed before it had this command")
    done = subprocess.run([command, "-"], input="spark(tau=1)", capture_output=True, text=True, check=True)
    assert done.stdout == "spark (tau=1)\n"
