"""What the pages show works: commands run, programs run, models compile, in a folder that has what they name.

Outputs are compared: a block of `text` right behind commands shows lines of what they say, "…" standing for anything.
Where one of those begins with `error`, the last command fails.
"""

import functools
import itertools
import os
import pathlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from typing import Any

import click
import numpy as np
import pytest
import workplace
from click.testing import CliRunner
from documents import PAGES, ROOT, Block, blocks, text_of
from pyspark.sql import SparkSession
from source_files import coded, noise

from sparknet_dsl import compile_file, compile_text, library, load
from sparknet_dsl.errors import ModelError
from sparknet_dsl.runtime import session as sessions
from sparknet_dsl.runtime.spark import Cluster

SHELL = {"|", ">", "&&", ";", "<"}


@functools.cache
def commands() -> dict[str, click.Command]:
    """The project's commands, by name."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from reference_pages import entry_points
    finally:
        sys.path.pop(0)
    return dict(entry_points())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("place")
    workplace.make(folder / "work", folder / "models")
    workplace.write_weights(folder / "work", folder / "models")
    return folder


@pytest.fixture
def work(
    place: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> pathlib.Path:
    """A copy of that folder, in which the test is; the library's models are small, too."""
    folder = tmp_path / "work"
    shutil.copytree(place / "work", folder, symlinks=True, copy_function=link)
    if request.node.callspec.params["page"] != "docs/tutorial.md":  # which tells what comes out
        monkeypatch.setattr(library, "FOLDER", place / "models")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    return folder


def link(source: str, target: str) -> None:
    """Data as a link, what a page may write to as a copy."""
    if source.endswith((".bin", ".mdb", "-ubyte", ".jpg", ".tar")):
        pathlib.Path(target).hardlink_to(source)
    else:
        shutil.copy(source, target)


@pytest.fixture
def one_spark(spark: Cluster, work: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SparkSession]:
    """All that starts a Spark of its own joins this one, which looks for files where the test is."""

    def joined(master: str, workers: int, context: Any = None, *others: Any) -> Cluster:
        return Cluster(master, workers, spark.context, *others)

    monkeypatch.setattr(sessions, "Cluster", joined)
    session = SparkSession(spark.context)
    java = spark.context._jvm.org.apache.hadoop.fs
    files = java.FileSystem.get(spark.context._jsc.hadoopConfiguration())
    before = files.getWorkingDirectory()
    files.setWorkingDirectory(java.Path(str(work)))
    session.conf.set("spark.sql.shuffle.partitions", "2")
    yield session
    files.setWorkingDirectory(before)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash", "python")])
def test_the_page_does_what_it_shows(page: str, work: pathlib.Path, one_spark: SparkSession) -> None:
    names = given(one_spark) if blocks(page, "python") else {}
    shown = blocks(page)
    for block, after in zip(shown, [*shown[1:], None], strict=True):
        said = after if after is not None and follows(block, after) else None
        if block.name is not None:
            write(work / block.name, block)
        elif block.language == "bash":
            run_all(block, said)
        elif block.language == "python" and block.why_not() is None:
            # On its lines of the page, so that a failure says where.
            exec(compile("\n" * block.line + block.text, str(ROOT / page), "exec"), names)


def given(session: SparkSession) -> dict[str, Any]:
    """What programs of the pages have from elsewhere."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (20, 784)).astype(float).tolist()
    rows = [(image, place % 10) for place, image in enumerate(images)]
    frame = session.createDataFrame(rows, ["image", "label"])
    flat = frame.withColumnRenamed("image", "features")
    answers = frame.selectExpr("image pixels", "if(label < 5, 'no', 'yes') label")
    pictures = [(coded(image, ".jpg"), place % 2) for place, image in enumerate(noise(6, (3, 256, 256)))]
    return {
        "__name__": "page",
        "spark": session,
        "df": flat,
        "test_df": flat,
        "train": frame,
        "test": frame,
        "answers": answers,
        "photos": session.createDataFrame(pictures, "image binary, label int"),
    }


def follows(block: Block, after: Block) -> bool:
    """Whether `after` is the output of `block`: text, with nothing between them."""
    between = text_of(block.page).splitlines()[block.line + block.text.count("\n") + 1 : after.line - 1]
    return after.language == "text" and not any(line.strip() for line in between)


def write(path: pathlib.Path, block: Block) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, encoding="utf-8")


def run_all(block: Block, said: Block | None) -> None:
    """Runs the commands of a block; those that are marked not to be run are looked at."""
    output, status = "", 0
    for command in block.commands():
        if block.why_not(command) is not None:
            check_options(command)
            continue
        assert status == 0, f"{block}: {output}"
        status, said_now = run(command)
        output += said_now
    fails = said is not None and re.search(r"^error", said.text, re.MULTILINE) is not None
    assert (status != 0) == fails, f"{block}: status {status}: {output}"
    if said is not None:
        for line in filter(str.strip, said.text.splitlines()):
            wanted = re.escape(line.rstrip()).replace("…", ".*")
            assert re.search(f"^{wanted} *$", output, re.MULTILINE), f"{said}: {line!r} is not in\n{output}"


def run(command: str) -> tuple[int, str]:
    """The exit status and what was said."""
    words = shlex.split(command, comments=True)
    if words[0] in commands() and not SHELL & set(words):
        done = CliRunner().invoke(commands()[words[0]], words[1:], prog_name=words[0])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.output
    if words[0] == "python" and words[1].endswith(".py") and not SHELL & set(words):
        return run_script(words[1:]), ""
    # As in an environment that is active.
    found = {**os.environ, "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", command], env=found, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def run_script(words: list[str]) -> int:
    """A script in this process, whose Spark it joins."""
    before = sys.argv, sys.path[:], set(sys.modules)
    sys.argv, sys.path[:0] = words, [str(pathlib.Path(words[0]).parent.resolve())]
    try:
        runpy.run_path(words[0], run_name="__main__")
    finally:
        sys.argv, sys.path[:] = before[:2]
        for name in set(sys.modules) - before[2]:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(pathlib.Path.cwd())):
                del sys.modules[name]
    return 0


def check_options(command: str) -> None:
    """What is not run has options that there are, and names files of the project that there are."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    for _, group in itertools.groupby(lexer, lambda word: set(word) <= set("|&;<>")):
        words = list(group)
        words = words[next((place for place, word in enumerate(words) if "=" not in word), 0) :]
        for word in words:
            if re.match(r"(examples|bench|tools|tests|models)/[\w/.]+$", word):
                assert (ROOT / word).exists(), word
        name = pathlib.Path(words[0]).name if words else ""
        if name in commands():
            check_words(name, commands()[name], words[1:])


def check_words(name: str, command: click.Command, words: list[str]) -> None:
    try:
        context = command.make_context(name, list(words))
    except click.exceptions.Exit:  # --version and its like
        return
    if isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, f"{name} {words[0]}"
        check_words(f"{name} {words[0]}", found, words[1:])


def models() -> Iterator[Block]:
    for page in PAGES:
        yield from (block for block in blocks(page, "snet", "prototxt", "snet error") if block.why_not() is None)


@pytest.mark.parametrize("page", sorted({block.page for block in models()}))
def test_the_models_of_the_page_compile(page: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = [block for block in models() if block.page == page]
    for block in own:
        if block.name is not None:
            write(tmp_path / block.name, block)
    for block in own:
        if block.language == "snet error":
            with pytest.raises(ModelError):
                compile_text(block.text)
        elif block.name is None and block.language == "snet":
            compile_text(block.text)
        elif block.language == "prototxt":
            load_text(block.text, tmp_path)
        elif block.name is not None and re.search(r"^net ", block.text, re.MULTILINE):
            compile_file(block.name)


def load_text(text: str, folder: pathlib.Path) -> None:
    (folder / "shown.prototxt").write_text(text, encoding="utf-8")
    load(folder / "shown.prototxt")
