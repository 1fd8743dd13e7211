"""The generated pages of docs/ but for reference.md: commands, diagnostics, grammar."""

import configparser
import importlib
import inspect
import pathlib
import re
import textwrap
from collections.abc import Iterator

import click

from sparknet_dsl.explain import CATALOGUE

ROOT = pathlib.Path(__file__).resolve().parent.parent
CASES = ROOT / "tests" / "language" / "cases"
EXAMPLES = "<!-- not run: files that a reader has -->"
WRITTEN = "Written by `python tools/make_reference.py`"


def commands() -> str:
    """Every command with its arguments and options, as its `--help` has them."""
    lines = ["# Commands", "", f"{WRITTEN} from what their `--help` shows.", ""]
    for name, command in entry_points():
        lines += _command(name, command, 2)
    return "\n".join(lines).rstrip() + "\n"


def entry_points() -> Iterator[tuple[str, click.Command]]:
    """The commands that setup.cfg installs; those without options (sparknet-lsp) are told of elsewhere."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for line in setup["options.entry_points"]["console_scripts"].split("\n"):
        name, _, place = line.partition(" = ")
        module, _, attribute = place.partition(":")
        found = getattr(importlib.import_module(module), attribute) if place else None
        if isinstance(found, click.Command):
            yield name, found


def _command(name: str, command: click.Command, level: int) -> Iterator[str]:
    context = click.Context(command, info_name=name, **command.context_settings)
    usage = " ".join(command.collect_usage_pieces(context))
    yield from ("#" * level + f" {name}", "", "```text", f"{name} {usage}", "```", "")
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield from _paragraph(paragraph)
    records = [option.get_help_record(context) for option in command.get_params(context)]
    table = [
        record for record in records if record and record[1] and not record[0].startswith(("-h, --help", "--version"))
    ]
    if table:
        yield from ("| option | |", "|---|---|")
        yield from (f"| `{_cell(option)}` | {_cell(meaning)} |" for option, meaning in table)
        yield ""
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            yield from _command(f"{name} {each}", found, level + 1)


def _paragraph(text: str) -> Iterator[str]:
    """A paragraph of a command's help; those that click leaves as they are are headings with examples, or tables."""
    if not text.startswith("\b\n"):
        yield from (text, "")
        return
    text = text.removeprefix("\b\n")
    parts = re.findall(r"^(\S.*)\n((?:  sparknet-.*\n)+)", text + "\n", re.MULTILINE)
    if not parts:
        yield from ("```text", textwrap.dedent(text), "```", "")
    for heading, examples in parts:
        yield from (heading, "", EXAMPLES, "```bash", inspect.cleandoc(examples), "```", "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def diagnostics() -> str:
    """Every code with its explanation and the shortest message of the test cases that has it."""
    shown: dict[str, str] = {}
    for path in sorted(CASES.glob("*.expected")):
        for message in path.read_text(encoding="utf-8").split("\n\n"):
            found = re.search(r"^\w+\[(S\d{3})\]", message, re.MULTILINE)
            if found and len(message) < len(shown.get(found[1], message + " ")):
                shown[found[1]] = message.strip("\n")
    lines = [
        "# Diagnostics",
        "",
        f"{WRITTEN} from the catalogue that `sparknet-compile --explain CODE` shows, and from test cases.",
        "What they look like, in JSON and in Python too, is told in [the language](language.md#messages).",
        "",
    ]
    for code, meaning in CATALOGUE.items():
        lines += [f"## {code}", "", meaning, "", "```text", shown[code], "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def grammar() -> str:
    """The grammar, as lark reads it."""
    text = (ROOT / "grammar" / "snet.lark").read_text(encoding="utf-8").rstrip()
    lines = [
        "# Grammar of `.snet`",
        "",
        f"{WRITTEN}: the file that the parser reads. What the rules mean is told in [the language](language.md).",
        "",
        "```text",
        text,
        "```",
    ]
    return "\n".join(lines) + "\n"
