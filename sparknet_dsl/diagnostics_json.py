"""Diagnostics as one JSON document, for editors: `sparknet-compile --format json`.

    {"version": 1,
     "diagnostics": [
       {"code": "S104", "severity": "error", "message": "...", "file": "lenet.snet", "span": SPAN, "label": "...",
        "labels": [{"span": SPAN, "text": "..."}], "notes": ["..."], "help": "...",
        "fix": {"title": "...", "edits": [{"span": SPAN, "replacement": "..."}]}}],
     "written": ["lenet.prototxt"]}

A SPAN is {"file": "...", "start": {"line": 3, "column": 34, "offset": 91}, "end": {...}}: lines and columns count
characters from 1, offsets from 0, ends are not included. `code`, `file`, `span`, `help` and `fix` may be null.
"""

import json
from collections.abc import Iterable
from typing import Any

from .diagnostics import Diagnostic, Fix, Span

VERSION = 1


def to_json(diagnostics: Iterable[Diagnostic], written: Iterable[str] = (), failure: str | None = None) -> str:
    """The document. `failure` is an error about no place in a text: an unreadable file, a full disk."""
    found = [_diagnostic(diagnostic) for diagnostic in diagnostics]
    if failure is not None:
        found.append({**_diagnostic(Diagnostic("", "error", failure)), "code": None})
    return json.dumps({"version": VERSION, "diagnostics": found, "written": list(written)}, ensure_ascii=False)


def _diagnostic(diagnostic: Diagnostic) -> dict[str, Any]:
    span = diagnostic.span
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity,
        "message": diagnostic.message,
        "file": span.file if span else None,
        "span": _span(span) if span else None,
        "label": diagnostic.label,
        "labels": [{"span": _span(label.span), "text": label.text} for label in diagnostic.secondary],
        "notes": list(diagnostic.notes),
        "help": diagnostic.help,
        "fix": _fix(diagnostic.fix) if diagnostic.fix else None,
    }


def _span(span: Span) -> dict[str, Any]:
    return {
        "file": span.file,
        "start": {"line": span.line, "column": span.col, "offset": span.start},
        "end": {"line": span.end_line, "column": span.end_col, "offset": span.end},
    }


def _fix(fix: Fix) -> dict[str, Any]:
    return {"title": str(fix), "edits": [{"span": _span(fix.span), "replacement": fix.replacement}]}
