"""The rules that keep the project in shape: imports, names, generated files, style, versions."""

import ast
import importlib.metadata
import pathlib
import re
import subprocess
import sys

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from shared import shared

from sparknet_dsl.proto import caffe_pb2

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = {
    "sparknet_dsl": ROOT / "sparknet_dsl",
    "sparknet_dsl.grammar": ROOT / "grammar",
    "sparknet_dsl.models": ROOT / "models",
    "sparknet_dsl.caffe_ext": ROOT / "caffe_ext",
    "sparknet_dsl.runtime": ROOT / "runtime",
    "sparknet_dsl.ml": ROOT / "ml",
}
CPP = ["--dry-run", "--Werror", *map(str, [*ROOT.glob("caffe_ext/**/*.cpp"), *ROOT.glob("caffe_ext/**/*.h")])]
# What a module may import stands below it.
LEVELS = ["leaf", "proto", "engine", "language", "runtime", "ml", "cli"]
LEAVES = {"sparknet_dsl.errors", "sparknet_dsl.files", "sparknet_dsl.grammar", "sparknet_dsl.models"}


def modules() -> dict[str, pathlib.Path]:
    """Every module of the project by its installed name."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            # sparknet_dsl/runtime and its like are links for type checkers.
            if package == "sparknet_dsl" and (ROOT / path.relative_to(folder).parts[0]).is_dir():
                continue
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *[part for part in parts if part != "__init__"]])] = path
    return found


def level(module: str) -> str:
    if module in LEAVES:
        return "leaf"
    for prefix, name in [
        ("sparknet_dsl.proto", "proto"),
        ("sparknet_dsl.caffe_ext", "engine"),
        ("sparknet_dsl.runtime", "runtime"),
        ("sparknet_dsl.ml", "ml"),
        ("sparknet_dsl.cli", "cli"),
        ("sparknet_dsl.cli_data", "cli"),
        ("sparknet_dsl.cli_local", "cli"),
        ("sparknet_dsl.cli_report", "cli"),
    ]:
        if module == prefix or module.startswith(prefix + "."):
            return name
    return "language"


def imports(module: str, path: pathlib.Path) -> set[str]:
    """The modules that `path` imports anywhere, lazily or not, relative ones resolved; type-only ones left out."""
    known = modules()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text())
    type_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in type_only:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                found.add(submodule if submodule in known else base)
    return found


@pytest.mark.parametrize("module", modules())
def test_imports_point_one_way(module: str) -> None:
    path = modules()[module]
    for imported in imports(module, path):
        if imported.partition(".")[0] != "sparknet_dsl" or imported == "sparknet_dsl":
            continue
        assert LEVELS.index(level(imported)) <= LEVELS.index(level(module)), f"{module} imports {imported}"
        if level(module) == "language" and level(imported) == "engine":
            assert module in ("sparknet_dsl.check", "sparknet_dsl.schema"), f"{module} imports {imported}"


def test_two_modules_and_spark_ml_know_pyspark() -> None:
    users = [
        name for name, path in modules().items() if any(i.partition(".")[0] == "pyspark" for i in imports(name, path))
    ]
    assert [name for name in users if level(name) != "ml"] == [
        "sparknet_dsl.runtime.launch",
        "sparknet_dsl.runtime.spark",
    ]


def test_no_ctypes() -> None:
    for path in [*modules().values(), *ROOT.glob("caffe_ext/*.pyx"), *ROOT.glob("caffe_ext/*.pxd"), ROOT / "setup.py"]:
        assert not re.search(r"^\s*(import|from|cimport)\s+ctypes\b", path.read_text(), re.MULTILINE), path


def test_nothing_else_lands_in_site_packages() -> None:
    names = set()
    for file in importlib.metadata.files("sparknet-dsl") or []:
        first = file.parts[0]
        # Console scripts stand outside; an editable install has its own hook.
        if first != ".." and not first.startswith("__editable__"):
            names.add(first)
    extra = {name for name in names if not re.fullmatch(r"sparknet_dsl(-[\w.]+\.dist-info)?|__pycache__", name)}
    assert names and not extra


@pytest.mark.parametrize("folder", ["grammar", "models", "caffe_ext", "runtime", "ml"])
def test_folders_are_not_packages_of_their_own(folder: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"sparknet_dsl.{folder}" in done.stderr.splitlines()[-1]


def test_generated_messages_are_current(tmp_path: pathlib.Path) -> None:
    subprocess.run([sys.executable, ROOT / "tools" / "make_protos.py", tmp_path], check=True)
    for made in sorted(tmp_path.iterdir()):
        assert made.read_text() == (ROOT / "sparknet_dsl" / "proto" / made.name).read_text(), (
            f"{made.name} is stale: run python tools/make_protos.py"
        )


def test_messages_are_caffes() -> None:
    """Every message, enum, field number, type, label and default of the reference list, exactly; every other field of
    Caffe's messages is in the range that caffe.proto sets aside for what the forks have.
    """
    want = blocks(shared("reference/caffe_fields.txt").read_text().splitlines())
    have = blocks(describe_file())
    for head, lines in want.items():
        missing = [line for line in lines if line not in have.get(head, [])]
        assert not missing, f"{head} lacks {missing}"
        for line in have[head]:
            number = line.split()[0]
            assert line in lines or number == "enum" or 100000 <= int(number) < 200000, f"{head}: {line}"


def blocks(lines: list[str]) -> dict[str, list[str]]:
    """The indented lines under each other line."""
    found: dict[str, list[str]] = {}
    head = ""
    for line in lines:
        if line.startswith(" "):
            found[head].append(line.rstrip())
        elif line.strip():
            head = line.rstrip()
            found[head] = []
    return found


def describe_file() -> list[str]:
    lines = [enum_line("caffe.", enum) for enum in caffe_pb2.DESCRIPTOR.enum_types_by_name.values()]
    described = [describe(message) for message in caffe_pb2.DESCRIPTOR.message_types_by_name.values()]
    return [*lines, *[line for block in described for line in block]]


def enum_line(prefix: str, enum: EnumDescriptor) -> str:
    return f"enum {prefix}{enum.name}: " + ", ".join(f"{value.name}={value.number}" for value in enum.values)


def describe(message: Descriptor) -> list[str]:
    lines = [f"message {message.full_name}"]
    lines += ["  " + enum_line("", enum) for enum in message.enum_types]
    for field in message.fields:
        label = "repeated" if field.is_repeated else "required" if field.is_required else "optional"
        kind = TYPES[field.type]
        if field.message_type is not None:
            kind = field.message_type.full_name
        elif field.enum_type is not None:
            kind = f"enum {field.enum_type.full_name}"
        line = f"  {field.number}\t{field.name}\t{label} {kind}"
        if field.is_repeated and field.GetOptions().packed:
            line += " packed"
        if field.has_default_value:
            default = field.default_value
            if field.enum_type is not None:
                default = field.enum_type.values_by_number[default].name
                line += f" default={default}"
            else:
                line += f" default={default!r}"
        lines.append(line)
    return lines


TYPES = {
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_ENUM: "enum",
    FieldDescriptor.TYPE_MESSAGE: "message",
}


def test_readme_has_the_commands_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    for marker in ("<!-- main command -->", "<!-- test command -->"):
        assert re.search(re.escape(marker) + r"\n```\w*\n.+?\n```", readme, re.DOTALL), marker


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], ["clang-format", *CPP]],
    ids=["ruff-check", "ruff-format", "mypy", "clang-format"],
)
def test_source_is_clean(command: list[str]) -> None:
    done = subprocess.run(
        [str(pathlib.Path(sys.executable).parent / command[0]), *command[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
