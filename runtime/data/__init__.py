"""Data sources: where rows come from, each named by a URI.

A new kind of source is a module here with a class that has what `base.Source` lists, and a line in `SOURCES`.
"""

import difflib
import re

from ...errors import DataError
from .base import Column, Columns, Phase, Source, SourceURI
from .cifar10 import Cifar10
from .digits import Digits
from .mnist import Mnist

__all__ = ["SOURCES", "Column", "Columns", "Phase", "Source", "SourceURI", "open_source", "parse_uri"]

SOURCES: dict[str, type[Source]] = {
    "cifar10": Cifar10,
    "digits": Digits,
    "mnist": Mnist,
}
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)
_QUERY = "?columns="


def parse_uri(text: str) -> SourceURI | None:
    """Reads `scheme:path?columns=a,b`; None where `text` has no scheme: a plain path, such as a Caffe database.

    `?columns=a,b` alone has an empty scheme: columns for a source that is named elsewhere (`--train`).
    """
    place, found, names = text.partition(_QUERY)
    columns = tuple(name.strip() for name in names.split(",")) if found else ()
    if not place and found:
        return SourceURI("", "", columns)
    match = _URI.fullmatch(place)
    return SourceURI(match[1].lower(), match[2], columns) if match else None


def open_source(text: str, phase: Phase) -> Source:
    """The source that the URI `text` names, looked at closely enough to know its rows and columns.

    Raises DataError: no such scheme, a missing folder or file, a file of the wrong size.
    """
    uri = parse_uri(text)
    if uri is None or not uri.scheme:
        known = ", ".join(f"{name}:" for name in SOURCES)
        raise DataError(f"`{text}` names no data source: write scheme:place, where the scheme is one of {known}")
    if uri.scheme not in SOURCES:
        close = difflib.get_close_matches(uri.scheme, SOURCES, n=1, cutoff=0.5)
        help = f"did you mean `{close[0]}:{uri.path}`?" if close else "known are " + ", ".join(SOURCES)
        raise DataError(f"there is no data source `{uri.scheme}:` (in `{text}`): {help}")
    return SOURCES[uri.scheme](uri.path, phase)
