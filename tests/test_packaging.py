"""What is released: versions that agree, release notes from fragments, what an installed package imports."""

import configparser
import importlib.metadata
import json
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.version import Version

import sparknet_dsl

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
KINDS = [kind["directory"] for kind in PYPROJECT["tool"]["towncrier"]["type"]]
FRAGMENTS = sorted(path for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md")


def test_version_is_that_of_the_changelog() -> None:
    """The newest release's, or, where changes wait for the next one, a later one."""
    version = Version(sparknet_dsl.__version__)
    released = re.findall(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    newest = max(map(Version, released), default=Version("0"))
    assert version > newest if FRAGMENTS else version == newest
    assert importlib.metadata.version("sparknet-dsl") == sparknet_dsl.__version__
    extension = json.loads((ROOT / "editors" / "vscode" / "package.json").read_text())
    assert extension["version"] == sparknet_dsl.__version__


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.name)
def test_fragments_are_of_a_known_kind(path: pathlib.Path) -> None:
    assert re.fullmatch(rf"\+[\w.-]+\.({'|'.join(KINDS)})\.md", path.name), f"+NAME.KIND.md; kinds are {KINDS}"
    text = path.read_text()
    assert text.strip() and not text.startswith(("#", "-", " ")), "a sentence is wanted, without heading or bullet"


def test_the_kinds_are_told() -> None:
    assert re.findall(r"`(\w+)`", (ROOT / "changelog.d" / "README.md").read_text()) == KINDS


def test_towncrier_makes_the_release_notes_of_the_fragments() -> None:
    pytest.importorskip("towncrier")
    done = subprocess.run(
        [sys.executable, "-m", "towncrier", "build", "--draft"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"## {sparknet_dsl.__version__}\n" in done.stdout
    for path in FRAGMENTS:
        assert path.read_text().splitlines()[0] in done.stdout


def test_build_requirements_agree() -> None:
    """The oneDNN that the engine is built with is the one that it runs with, and the one that goes into wheels."""
    places = [ROOT / "pyproject.toml", ROOT / "setup.cfg"]
    pinned = re.findall(r"onednn-(?:devel-)?cpu-gomp==([\d.]+\d)", "".join(path.read_text() for path in places))
    assert len(pinned) == 3 and len(set(pinned)) == 1


def test_the_package_and_the_version_import_nothing_that_is_installed_beside_it() -> None:
    code = (
        "import sys\nimport sparknet_dsl\n"
        "print(sorted(name for name in ('click', 'google', 'lark', 'numpy', 'rich') if name in sys.modules))\n"
        "from sparknet_dsl.cli_compile import compile_command\n"
        "try:\n    compile_command(['--version'], 'sparknet-compile')\n"
        "except SystemExit as left:\n    assert not left.code\n"
        "print(sorted(name for name in ('lark', 'numpy', 'pyspark', 'sparknet_dsl.compile') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", f"sparknet-compile {sparknet_dsl.__version__}", "[]"]


def test_the_conda_recipe_has_our_version_and_what_setup_cfg_requires() -> None:
    """As far as that can be seen without conda: what its template gives, read as YAML."""
    jinja2, yaml = pytest.importorskip("jinja2"), pytest.importorskip("yaml")

    def load_file_regex(*, load_file: str, regex_pattern: str, from_recipe_dir: bool) -> re.Match[str] | None:
        assert from_recipe_dir
        return re.search(regex_pattern, (ROOT / "recipe" / load_file).read_text())

    def named(language: str) -> str:
        return f"{language}_compiler"

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    given = {"load_file_regex": load_file_regex, "compiler": named, "stdlib": named, "PYTHON": "python", "PREFIX": "/"}
    recipe = yaml.safe_load(environment.from_string((ROOT / "recipe" / "meta.yaml").read_text()).render(given))
    assert recipe["package"] == {"name": "sparknet-dsl", "version": sparknet_dsl.__version__}
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = [line for line in config["options"]["install_requires"].splitlines() if line and "onednn" not in line]
    conda = {"lmdb": "python-lmdb", "opencv-python-headless": "py-opencv"}
    parts = [re.split(r"(?=[<>])", requirement, maxsplit=1) for requirement in wanted]
    ours = [f"{conda.get(name, name)} {version}" for name, version in parts]
    more = [requirement for requirement in recipe["requirements"]["run"] if requirement not in ours]
    assert set(ours) <= set(recipe["requirements"]["run"])
    assert more == ["onednn-cpu-omp 3.*", "openjdk >=17", "python"]
