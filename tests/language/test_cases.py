"""What is said about each mistake: cases/NAME.snet compiles to the text in cases/NAME.expected.

Lines `# -D name=value` at the beginning are the options that it is compiled with.

SPARKNET_UPDATE_EXPECTED=1 writes the expected texts anew; look at the difference before committing it.
"""

import os
import pathlib
import re

import pytest

from sparknet_dsl import compile_file
from sparknet_dsl.diagnostics import render_diagnostics
from sparknet_dsl.errors import ModelError
from sparknet_dsl.explain import CATALOGUE, explain

CASES = pathlib.Path(__file__).parent / "cases"
NAMES = sorted(path.stem for path in CASES.glob("*.snet"))


def said(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(CASES)
    defines = dict(re.findall(r"^# -D (\w+)=(.*)$", pathlib.Path(f"{name}.snet").read_text("utf-8"), re.MULTILINE))
    try:
        text = render_diagnostics(compile_file(f"{name}.snet", defines=defines).diagnostics)
    except ModelError as error:
        text = str(error)
        assert render_diagnostics(error.diagnostics) == text
    return text + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    got = said(name, monkeypatch)
    expected = CASES / f"{name}.expected"
    if os.environ.get("SPARKNET_UPDATE_EXPECTED"):
        expected.write_text(got, encoding="utf-8")
    assert got == expected.read_text(encoding="utf-8")


def test_every_code_is_explained_and_every_explanation_used() -> None:
    package = pathlib.Path(render_diagnostics.__code__.co_filename).parent
    source = "\n".join(path.read_text(encoding="utf-8") for path in package.glob("*.py") if path.name != "explain.py")
    used = set(re.findall(r'"(S\d{3})"', source))
    assert used == set(CATALOGUE)
    assert explain("s104") == explain("S104")
    assert explain("S999") is None


def test_every_code_has_a_case() -> None:
    shown = set(re.findall(r"\[(S\d{3})\]", "".join(path.read_text("utf-8") for path in CASES.glob("*.expected"))))
    assert shown == set(CATALOGUE)


def test_spans_and_fixes_are_data() -> None:
    with pytest.raises(ModelError) as caught:
        compile_file(CASES / "01_field_typo.snet")
    (found,) = caught.value.diagnostics
    span = found.span
    assert (found.code, found.severity) == ("S104", "error")
    assert (span.line, span.col, span.end_line, span.end_col) == (3, 34, 3, 45)
    assert span.file.endswith("01_field_typo.snet")
    assert span.text == "kernal_size"
    assert (found.fix.span, found.fix.replacement) == (span, "kernel_size")


def test_fixes_fix() -> None:
    text = (CASES / "01_field_typo.snet").read_text(encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        compile_file(CASES / "01_field_typo.snet")
    fix = caught.value.diagnostics[0].fix
    fixed = text[: fix.span.start] + fix.replacement + text[fix.span.end :]
    from sparknet_dsl import compile_text

    assert compile_text(fixed).net.layer[1].convolution_param.kernel_size == [5]


def test_color_changes_nothing_but_color(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError) as caught:
        compile_file(CASES / "14_label_twice.snet")
    colored = render_diagnostics(caught.value.diagnostics, color=True)
    assert "\x1b[1;31m" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == render_diagnostics(caught.value.diagnostics)
