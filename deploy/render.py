"""Fills the templates for clusters: standalone, Docker, Kubernetes, YARN on EMR and Dataproc, EC2.

Usage: python deploy/render.py [SETTINGS.toml] -o DIR [--only TARGET]

SETTINGS.toml overrides what settings.toml beside this file says. Targets are the folders in templates/, all by default.
"""

import argparse
import difflib
import json
import pathlib
import re
import shlex
import sys
import tomllib
from collections.abc import Sequence
from typing import Any

import jinja2

HERE = pathlib.Path(__file__).resolve().parent
TEMPLATES = HERE / "templates"
TARGETS = sorted(path.name for path in TEMPLATES.iterdir())
Settings = dict[str, dict[str, Any]]
# What goes into files where nothing could be quoted.
FORMS = {
    ("package", "environment"): (r"(/[\w.+-]+)+", "an absolute path of plain characters"),
    ("job", "name"): (r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?", "small letters, digits and hyphens"),
    ("executor", "java"): (r"\d+[mg]", "a number of m or g"),
    ("executor", "python"): (r"\d+[mg]", "a number of m or g"),
    ("docker", "image"): (r"[\w./:@-]+", "an image's name"),
    ("docker", "spark"): (r"4\.[\w.]+", "a version of Spark 4"),
    ("docker", "python"): (r"3\.\d+", "a version of Python 3"),
}


class SettingsError(Exception):
    """A settings file has what there is not, or what is of another kind."""


def settings(path: pathlib.Path | None) -> Settings:
    """The settings in `path` over the defaults. Raises SettingsError."""
    found: Settings = tomllib.loads((HERE / "settings.toml").read_text())
    if path is None:
        return found
    try:
        given = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    for table, values in given.items():
        if table not in found or not isinstance(values, dict):
            raise SettingsError(f"{path}: there is no table [{table}]{_near(table, found)}")
        for name, value in values.items():
            if name not in found[table]:
                raise SettingsError(f"{path}: [{table}] has no {name}{_near(name, found[table])}")
            default = found[table][name]
            if type(value) is not type(default) or (isinstance(value, list) and not _strings(value)):
                raise SettingsError(f"{path}: [{table}] {name} = {value!r}: something like {default!r} is wanted")
            form, wanted = FORMS.get((table, name), (".*", ""))
            if isinstance(value, str) and not re.fullmatch(form, value):
                raise SettingsError(f"{path}: [{table}] {name} = {value!r}: {wanted} is wanted")
            found[table][name] = value
    return found


def render(values: Settings, out: pathlib.Path, targets: Sequence[str] = TARGETS) -> list[pathlib.Path]:
    """Writes each target's files to a folder of its name in `out`; the files."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"sh": shlex.quote, "json": json.dumps, "hcl": lambda value: _terraform(json.dumps(value))}
    environment.filters["terraform"] = _terraform
    written = []
    for target in targets:
        for template in sorted((TEMPLATES / target).iterdir()):
            path = out / target / template.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(environment.get_template(f"{target}/{template.name}").render(values))
            if path.suffix == ".sh":
                path.chmod(0o755)
            written.append(path)
    return written


def _terraform(text: str) -> str:
    """A text of Terraform's, in which ${ and %{ begin an expression."""
    return text.replace("${", "$${").replace("%{", "%%{")


def _strings(values: Sequence[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _near(name: str, names: Any) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f": did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"


def main() -> int:
    """The command line; the exit status is 2 where it or the settings are wrong."""
    parser = argparse.ArgumentParser(description="Fills the templates for clusters.")
    parser.add_argument("settings", nargs="?", type=pathlib.Path, metavar="SETTINGS.toml")
    parser.add_argument("-o", "--out", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--only", action="append", choices=TARGETS, help="render this target; repeatable")
    options = parser.parse_args()
    try:
        written = render(settings(options.settings), options.out, options.only or TARGETS)
    except (SettingsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in written:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
