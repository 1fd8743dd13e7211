"""Data sources: where rows come from, each named by a URI.

A new kind of source is a module here with a class that has what `base.Source` lists, and a line in `SOURCES`.
"""

import difflib
import re
import urllib.parse

from ...errors import DataError
from .base import (
    Bad,
    BadPolicy,
    BadRecords,
    Column,
    Columns,
    Phase,
    Source,
    SourceURI,
    StagedSource,
)
from .cifar import Cifar10, Cifar100
from .datum import LevelDb, Lmdb
from .digits import Digits
from .hdf5 import Hdf5
from .imagenet import ImageNet
from .images import ImageFiles
from .mnist import Mnist

__all__ = [
    "SOURCES",
    "Bad",
    "BadPolicy",
    "BadRecords",
    "Column",
    "Columns",
    "Phase",
    "Source",
    "SourceURI",
    "StagedSource",
    "open_source",
    "parse_uri",
]

SOURCES: dict[str, type[Source]] = {
    "cifar10": Cifar10,
    "cifar100": Cifar100,
    "digits": Digits,
    "hdf5": Hdf5,
    "imagenet": ImageNet,
    "images": ImageFiles,
    "leveldb": LevelDb,
    "lmdb": Lmdb,
    "mnist": Mnist,
}
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)
_PAIR = r"[A-Za-z_]\w*=[^&]*"
# A question mark that no options follow is one of the path's: part-?.parquet.
_QUERY = re.compile(rf"(.*?)\?({_PAIR}(?:&{_PAIR})*)", re.DOTALL)


def parse_uri(text: str) -> SourceURI | None:
    """Reads `scheme:path?columns=a,b&option=value`; None where `text` has no scheme: a plain path.

    In values, %26 stands for an ampersand, and so on. Options alone have an empty scheme: columns for a source that is
    named elsewhere (`--train`). Raises DataError for an option given twice.
    """
    query = _QUERY.fullmatch(text)
    place, pairs = (query[1], query[2].split("&")) if query else (text, [])
    options: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name in options:
            raise DataError(f"{text}: the option {name} is given twice")
        options[name] = urllib.parse.unquote(value)
    columns = tuple(name.strip() for name in options.pop("columns").split(",")) if "columns" in options else ()
    if not place and query:
        return SourceURI("", "", columns, options)
    match = _URI.fullmatch(place)
    return SourceURI(match[1].lower(), match[2], columns, options) if match else None


def open_source(text: str, phase: Phase, folder: str = "") -> Source:
    """The source that the URI `text` names, looked at closely enough to know its columns.

    `folder` is that of the model that names it: relative paths are looked for there, too.

    Raises DataError: no such scheme or option, a missing folder or file, a file of the wrong size.
    """
    uri = parse_uri(text)
    if uri is None or not uri.scheme:
        known = ", ".join(f"{name}:" for name in SOURCES)
        raise DataError(f"`{text}` names no data source: write scheme:place, where the scheme is one of {known}")
    if uri.scheme not in SOURCES:
        close = difflib.get_close_matches(uri.scheme, SOURCES, n=1, cutoff=0.5)
        help = f"did you mean `{close[0]}:{uri.path}`?" if close else "known are " + ", ".join(SOURCES)
        raise DataError(f"there is no data source `{uri.scheme}:` (in `{text}`): {help}")
    source = SOURCES[uri.scheme]
    for option in uri.options:
        if option not in source.OPTIONS:
            close = difflib.get_close_matches(option, ["columns", *source.OPTIONS], n=1, cutoff=0.5)
            help = f"did you mean `{close[0]}`?" if close else "there are " + ", ".join(["columns", *source.OPTIONS])
            raise DataError(f"`{uri.scheme}:` has no option `{option}` (in `{text}`): {help}")
    return source(uri._replace(folder=folder), phase)
