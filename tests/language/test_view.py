"""The page that shows a model, looked at in a real browser where there is one."""

import json
import pathlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import chromium
import pytest
from click.testing import CliRunner

from sparknet_dsl import compile_file, compile_text
from sparknet_dsl.cli_compile import compile_command
from sparknet_dsl.table import totals
from sparknet_dsl.view import page
from sparknet_dsl.view.describe import describe

CAFFES = """
name: "mini"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }
layer { name: "in/1x1" type: "Convolution" bottom: "data" top: "in/1x1"
        convolution_param { num_output: 4 kernel_size: 1 } }
layer { name: "in/relu" type: "ReLU" bottom: "in/1x1" top: "in/1x1" }
layer { name: "in/pool" type: "Pooling" bottom: "data" top: "in/pool" pooling_param { kernel_size: 3 pad: 1 } }
layer { name: "in/out" type: "Concat" bottom: "in/1x1" bottom: "in/pool" top: "in/out" }
layer { name: "last" type: "Pooling" bottom: "in/out" top: "last" pooling_param { pool: AVE global_pooling: true } }
"""


def phase(model: str, name: str = "TRAIN") -> dict[str, Any]:
    (found,) = [each for each in describe(compile_file(model))["phases"] if each["phase"] == name]
    return found


def test_numbers_are_those_of_the_table() -> None:
    model = compile_file("googlenet")
    shown = phase("googlenet")
    assert (shown["parameters"], shown["work"]) == totals(model)
    parts = [part for node in shown["nodes"] for part in node["parts"]]
    assert sum(part["work"] for part in parts) == shown["work"]
    (conv,) = [part for part in parts if part["name"] == "conv1/7x7_s2"]
    assert (conv["what"], conv["shapes"]) == ("7×7 / 2, 64", ["32×64×112×112"])
    assert conv["memory"] == 4 * (32 * 64 * 112 * 112 + 64 * 3 * 7 * 7 + 64)
    assert conv["work"] == 32 * 64 * 112 * 112 * 3 * 7 * 7


def test_edges_go_from_writer_to_reader_through_what_works_in_place() -> None:
    shown = phase("googlenet")
    names = [node["parts"][0]["name"] for node in shown["nodes"]]
    edges = {(names[edge["from"]], names[edge["to"]]): edge["shape"] for edge in shown["edges"]}
    assert edges["inception_3a/3x3_reduce", "inception_3a/3x3"] == "32×96×28×28"
    assert {of for of, to in edges if to == "inception_3a/output"} == {
        *("inception_3a/1x1", "inception_3a/3x3", "inception_3a/5x5", "inception_3a/pool_proj"),
    }
    # An edge for each label would go through the whole picture: its readers name it instead.
    (loss,) = [node for node in shown["nodes"] if node["parts"][0]["name"] == "loss3/loss3"]
    assert loss["tags"] == ["label"]


def test_blocks_are_those_of_the_language_or_of_the_names(tmp_path: pathlib.Path) -> None:
    assert [group["label"] for group in phase("googlenet")["groups"]][:3] == [
        "inception_3a",
        "inception_3b",
        "inception_4a",
    ]
    # Uses without a name are called after their last layer; one layer alone, and those in place on it, is no block.
    groups = phase("resnet50")["groups"]
    assert [group["label"] for group in groups][:3] == ["res2a", "res2b", "res2c"]
    assert {group["block"] for group in groups} == {"bottleneck"}
    net = tmp_path / "net.prototxt"
    net.write_text(CAFFES)
    (shown,) = describe(compile_file(net))["phases"][:1]
    assert [(group["label"], group["parent"]) for group in shown["groups"]] == [("in", -1)]
    assert [node["group"] for node in shown["nodes"]] == [-1, 0, 0, 0, -1]
    assert shown["nodes"][4]["parts"][0]["what"] == "AVE, global"


class Scripts(HTMLParser):
    """The scripts of a page, and the addresses in it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.addresses: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self._inside = tag == "script"
        if self._inside:
            self.found.append("")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.found[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = False


def test_names_cannot_leave_their_place_in_the_page() -> None:
    evil = "</script><script>alert(1)</script><!--&amp;"
    model = compile_text(f"net N {{ data: Input([1, 3]) -> `{evil}`: ReLU }}")
    model.name = evil
    parsed = Scripts()
    parsed.feed(page(model))
    data, code = parsed.found
    assert json.loads(data)["name"] == evil
    assert json.loads(data)["phases"][0]["nodes"][1]["parts"][0]["name"] == evil
    assert "alert" not in code
    assert parsed.addresses == ["data:,"]


def test_the_command_writes_it(tmp_path: pathlib.Path) -> None:
    ran = CliRunner().invoke(compile_command, ["lenet", "--emit", "html", "-o", f"{tmp_path}/"])
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert "<title>LeNet</title>" in (tmp_path / "lenet.html").read_text()


# ---- in a browser ----

needs_chromium = pytest.mark.skipif(chromium.CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.page(tmp_path_factory.mktemp("profile")) as made:
        yield made


def shown(browser: chromium.Page, model: str, folder: pathlib.Path) -> pathlib.Path:
    path = folder / f"{model}.html"
    path.write_text(page(compile_file(model)), encoding="utf-8")
    browser.errors.clear()
    browser.fetched.clear()
    browser.size(1400, 1000)
    browser.open(path)
    return path


def boxes(browser: chromium.Page) -> dict[str, list[float]]:
    """Left, top, right and bottom of every box on the screen, by its title and its id."""
    found = browser.run(
        """[...document.querySelectorAll("#scene .box")].map((box) => {
             const at = box.querySelector(".face, .unfolded").getBoundingClientRect();
             return [box.querySelector("text").textContent + box.dataset.id, at.left, at.top, at.right, at.bottom];
           })"""
    )
    return {name: place for name, *place in found}


def click(browser: chromium.Page, selector: str) -> None:
    browser.run(
        f"document.querySelector({json.dumps(selector)}).dispatchEvent(new MouseEvent('click', {{bubbles: true}}))"
    )


def assert_apart(places: dict[str, list[float]]) -> None:
    """No two boxes overlap, unless one lies within the other."""
    all_places = sorted(places.values())
    for i, (left, top, right, bottom) in enumerate(all_places):
        for other in all_places[i + 1 :]:
            if other[0] >= right or other[1] >= bottom or other[3] <= top:
                continue
            within = other[0] >= left and other[1] >= top and other[2] <= right and other[3] <= bottom
            around = other[0] <= left and other[1] <= top and other[2] >= right and other[3] >= bottom
            assert within or around, f"{(left, top, right, bottom)} and {other} overlap"


@needs_chromium
@pytest.mark.parametrize("model", ["googlenet", "resnet50"])
def test_blocks_fold_and_unfold(model: str, browser: chromium.Page, tmp_path: pathlib.Path) -> None:
    path = shown(browser, model, tmp_path)
    folded = boxes(browser)
    assert_apart(folded)
    browser.picture(tmp_path / "folded.png")
    browser.press("u")
    unfolded = boxes(browser)
    assert_apart(unfolded)
    data = phase(model)
    assert len(unfolded) == len(data["nodes"]) + len(data["groups"])
    assert len(folded) == sum(node["group"] < 0 for node in data["nodes"]) + sum(
        g["parent"] < 0 for g in data["groups"]
    )
    browser.press("0")
    browser.picture(tmp_path / "unfolded.png")
    assert (tmp_path / "folded.png").read_bytes() != (tmp_path / "unfolded.png").read_bytes()
    # Every edge of the net ends with an arrow, whatever is folded; nothing was fetched but the page.
    assert browser.run("document.querySelectorAll('.edge[marker-end]').length") >= len(data["edges"])
    browser.press("f")
    assert boxes(browser).keys() == folded.keys()
    assert browser.errors == []
    assert browser.fetched == [path.as_uri()]


@needs_chromium
def test_goes_by_keys_alone(browser: chromium.Page, tmp_path: pathlib.Path) -> None:
    shown(browser, "googlenet", tmp_path)
    details = "document.getElementById('details').innerText"
    browser.press("ArrowDown")
    assert browser.run("document.activeElement.dataset.id") == "n0"
    browser.press("ArrowDown")
    said = browser.run(details)
    assert "conv1/7x7_s2" in said and "9,472" in said and "32×64×112×112" in said and "num_output: 64" in said
    # The search finds what is folded away, and unfolds it.
    browser.press("/")
    for key in "5A/5X5_r":
        browser.press(key)
    assert browser.run("document.querySelectorAll('.found').length") == 1
    browser.press("Enter")
    assert "inception_5a/5x5_reduce" in browser.run(details)
    assert browser.run("document.querySelectorAll('[aria-expanded=true]').length") == 1
    browser.press("Escape")
    click(browser, "[data-id=g0] text")
    browser.press("Enter")
    assert browser.run("document.querySelectorAll('[aria-expanded=true]').length") == 1
    browser.press("t")
    heading = "[...document.querySelectorAll('#table th button')].at(-2)"
    assert browser.run(f"{heading}.innerText") == "parameters"
    browser.run(f"{heading}.click()")
    assert browser.run("document.querySelector('#table tbody td').innerText") == "loss1/fc"
    browser.press("Escape")
    assert browser.run("document.getElementById('table').hidden")
    assert browser.errors == []


@needs_chromium
def test_zooms_and_pans(browser: chromium.Page, tmp_path: pathlib.Path) -> None:
    shown(browser, "lenet", tmp_path)
    before = boxes(browser)["Inputn0"]
    browser.mouse("mouseWheel", before[0], before[1], deltaX=0, deltaY=-200)
    zoomed = boxes(browser)["Inputn0"]
    assert zoomed[2] - zoomed[0] > 1.2 * (before[2] - before[0])
    # What is under the mouse stays there.
    assert zoomed[:2] == pytest.approx(before[:2], abs=2)
    browser.mouse("mousePressed", 100, 500, button="left", clickCount=1)
    browser.mouse("mouseMoved", 160, 530, button="left")
    browser.mouse("mouseReleased", 160, 530, button="left", clickCount=1)
    moved = boxes(browser)["Inputn0"]
    assert [moved[0] - zoomed[0], moved[1] - zoomed[1]] == pytest.approx([60, 30], abs=2)


@needs_chromium
def test_light_and_dark_narrow_and_in_a_notebook(browser: chromium.Page, tmp_path: pathlib.Path) -> None:
    path = shown(browser, "lenet", tmp_path)
    back = "getComputedStyle(document.body).backgroundColor"
    light = browser.run(back)
    browser.size(380, 700, dark=True)
    dark = browser.run(back)
    assert light != dark
    assert browser.run("document.documentElement.scrollWidth") <= 380
    click(browser, "#theme")
    assert browser.run(back) == light
    path.write_text(f"<p>before</p>{compile_file('lenet')._repr_html_()}")
    browser.open(path)
    browser.picture(tmp_path / "frame.png")
    # The frame's scripts cannot reach the notebook, nor the notebook's styles the frame.
    frame = "document.querySelector('iframe')"
    assert browser.run(f"{frame}.contentDocument === null")
    assert browser.run(f"{frame}.getBoundingClientRect().height") > 300
    assert re.search(r'sandbox="allow-scripts"', path.read_text())
    assert browser.errors == []
