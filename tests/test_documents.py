"""The pages: every block is tested or marked, every link leads somewhere, what is generated is current.

What the blocks do is tested in runtime/test_documents.py.
"""

import importlib
import pathlib
import re
import shlex
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
from documents import PAGES, ROOT, Block, anchors, blocks, links, text_of

# What is run or compiled; what is compared with what is said or stands in a file; what others' programs read.
TESTED = {"bash", "python", "snet", "snet error", "prototxt", "text", "cpp"}
OTHERS = {"lua", "vim", "elisp", "toml"}
# How many commands and programs are not run, by page: a new one is to be seen here. Generated pages are left out.
NOT_RUN = {
    "README.md": 7,
    "docs/architecture.md": 4,
    "docs/masters.md": 6,
    "docs/clusters.md": 1,
    "docs/cpp-layers.md": 3,
    "docs/editors.md": 2,
    "docs/keras.md": 1,
    "docs/python-layers.md": 1,
    "docs/releasing.md": 2,
    "docs/report.md": 1,
    "docs/running.md": 2,
    "docs/sparknet-data.md": 1,
    "docs/trackers.md": 5,
    "docs/tutorial.md": 1,
    "examples/README.md": 6,
    "tests/README.md": 5,
}
SITE = importlib.util.find_spec("mkdocs") is not None


def all_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks(page)]


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert {block.language for block in all_blocks()} <= TESTED | OTHERS
    for page in PAGES:
        # A fence that `blocks` does not see, indented say, would not be tested.
        assert text_of(page).count("```") == 2 * len(blocks(page)), page


def test_what_is_not_run_is_known_and_says_why() -> None:
    found: dict[str, int] = {}
    for block in all_blocks():
        for word, reason in block.not_run:
            assert len(reason.split()) > 2, f"{block}: {reason}"
            assert word in block.text, f"{block} has no {word}"
        if block.page != "docs/commands.md":
            parts = block.commands() if block.language == "bash" else [block.text]
            found[block.page] = found.get(block.page, 0) + sum(block.why_not(part) is not None for part in parts)
    assert {page: count for page, count in found.items() if count} == NOT_RUN


def test_code_of_the_engine_is_the_engines() -> None:
    sources = [path.read_text(encoding="utf-8") for path in ROOT.glob("caffe_ext/**/*.cpp")]
    for block in all_blocks():
        assert block.language != "cpp" or any(block.text in source for source in sources), str(block)
    row = re.search(r"`(Row\(.+\),)`", text_of("docs/cpp-layers.md"))
    assert row is not None and row[1] in text_of("tests/engine/test_gradients.py")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in links(page):
        place = urlsplit(link)
        if place.scheme:
            assert place.scheme in ("http", "https") and "." in place.netloc, link
            continue
        target = (ROOT / page).parent / place.path if place.path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if place.fragment:
            assert place.fragment in anchors(target.resolve().relative_to(ROOT).as_posix()), f"{page}: {link}"


def test_no_page_is_out_of_reach() -> None:
    """Each page of docs/ is in the site's table of contents."""
    listed = re.findall(r"^ +- .*: ([\w-]+\.md)$", text_of("mkdocs.yml"), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_generated_pages_are_current(tmp_path: pathlib.Path) -> None:
    subprocess.run([sys.executable, ROOT / "tools" / "make_reference.py", tmp_path], check=True)
    for made in sorted(tmp_path.iterdir()):
        assert made.read_text() == text_of(f"docs/{made.name}"), "run python tools/make_reference.py"


@pytest.mark.parametrize(
    "package", ["sparknet_dsl", "sparknet_dsl.runtime", "sparknet_dsl.ml", "sparknet_dsl.caffe_ext"]
)
def test_python_names_are_on_their_page(package: str) -> None:
    """Whatever a package offers is on docs/api.md, or on the page of pycaffe's names."""
    page = text_of("docs/api.md")
    told = {name.rpartition(".")[2] for name in re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE)}
    told |= set(re.findall(r"\b\w+\b", text_of("docs/caffe.md") + page.partition("## Smaller names")[2]))
    assert set(importlib.import_module(package).__all__) <= told


@pytest.mark.skipif(not SITE, reason="needs mkdocs-material and mkdocstrings: pip install '.[docs]'")
def test_the_site_is_built_and_asks_no_network(tmp_path: pathlib.Path) -> None:
    command = f"-m mkdocs build --strict --quiet --site-dir {shlex.quote(str(tmp_path))}"
    done = subprocess.run(
        [sys.executable, *shlex.split(command)], cwd=ROOT, capture_output=True, text=True, env=quiet(), check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(tmp_path.rglob("index.html"))
    assert len(pages) == len(list((ROOT / "docs").glob("*.md")))
    for page in pages:
        fetched = re.findall(r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=\"?(https?:[^\s\">]+)", page.read_text())
        assert not fetched, page


def quiet() -> dict[str, str]:
    import os

    return {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
