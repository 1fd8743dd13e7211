"""The parser's tables: built from grammar/snet.lark once, then kept in the user's cache folder."""

import hashlib
import json
import os
import pathlib
import sys
from typing import Any

import lark
from lark.grammar import Rule
from lark.lexer import TerminalDef

from .errors import OutputError
from .files import write_atomic

GRAMMAR = pathlib.Path(__file__).parent / "grammar" / "snet.lark"
_OPTIONS: dict[str, Any] = {
    "parser": "lalr",
    "start": ["start", "expr"],
    "propagate_positions": True,
    "maybe_placeholders": True,
}


def build(*, strict: bool = False) -> lark.Lark:
    """The parser, from the grammar itself. `strict` refuses conflicts; it needs the package interegular."""
    return lark.Lark(_grammar_text(), strict=strict, **_OPTIONS)


def load() -> lark.Lark:
    """The parser, from the cache where that is possible.

    A cache that is missing, unreadable or damaged costs the tenth of a second that building takes, no more.
    """
    path = cache_path()
    try:
        cached = json.loads(path.read_bytes())
        return _restore(cached)
    except Exception:  # whatever a damaged file may lead to, building the tables is the answer
        parser = build()
    data, memo = parser.memo_serialize([TerminalDef, Rule])
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"data": data, "memo": memo}, separators=(",", ":")))
    except (OutputError, OSError, TypeError):
        pass  # a read-only home is no reason to fail
    return parser


def cache_path() -> pathlib.Path:
    """Where the tables are kept: the name changes with the grammar, with lark and with Python."""
    versions = f"{lark.__version__} {sys.version_info[:2]} {_OPTIONS}"
    key = hashlib.sha256(f"{versions}\n{_grammar_text()}".encode()).hexdigest()[:24]
    folder = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(os.path.expanduser(folder)) / "sparknet" / f"snet-{key}.json"  # noqa: PTH111 - never raises


def _grammar_text() -> str:
    return GRAMMAR.read_text(encoding="utf-8")


def _restore(cached: dict[str, Any]) -> lark.Lark:
    """A parser from its JSON, in which the numbers that lark uses as keys have become strings.

    JSON and not lark's own pickle: reading a pickle that someone else wrote runs their code.
    """
    data, memo = cached["data"], cached["memo"]
    table = data["parser"]["parser"]
    table["tokens"] = {int(key): token for key, token in table["tokens"].items()}
    table["states"] = {
        int(state): {int(token): action for token, action in actions.items()}
        for state, actions in table["states"].items()
    }
    parser = lark.Lark.__new__(lark.Lark)
    memo = {int(key): value for key, value in memo.items()}
    return parser._load({"data": data, "memo": memo})
