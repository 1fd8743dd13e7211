"""The models that ship with the package: what they are, and how a bare name finds one."""

import os
import pathlib
import re
from dataclasses import dataclass

from .files import is_file

FOLDER = pathlib.Path(__file__).parent / "models"
_COUNTS = re.compile(r"^# Parameters: ([\d,]+)\. Multiply-adds per \w+: ([\d,]+)\.$", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """A model of the library, as the comment at its head describes it.

    `parameters` are those that are learned, `multiply_adds` those of one image (row, character) forward, both of the
    deploy variant where the model has one.
    """

    name: str
    what: str
    parameters: int
    multiply_adds: int


def entries() -> list[Entry]:
    """Every model of the library, by name; reads the comments only, compiles nothing."""
    return [_entry(path) for path in sorted(FOLDER.glob("*.snet"))]


def _entry(path: pathlib.Path) -> Entry:
    text = path.read_text(encoding="utf-8")
    counts = _COUNTS.search(text)
    parameters, work = (int(number.replace(",", "")) for number in counts.groups()) if counts else (0, 0)
    return Entry(path.stem, text.partition("\n")[0].removeprefix("# "), parameters, work)


def names() -> list[str]:
    """The names of the library's models, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.snet"))


def is_bare(path: str | os.PathLike[str]) -> bool:
    """Whether this can only be a model's name: no folder, no ending, and no file of that name is there."""
    file = pathlib.Path(path)
    return bool(file.name) and str(file) == file.name and not file.suffix and not is_file(file)


def locate(path: str | os.PathLike[str]) -> pathlib.Path:
    """The file that is meant: the path itself, or the library's model of that name where no such file exists."""
    file = pathlib.Path(path)
    if is_bare(path) and file.name in names():
        return FOLDER / f"{file.name}.snet"
    return file
