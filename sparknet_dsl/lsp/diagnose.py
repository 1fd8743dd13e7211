"""Diagnostics and their quick fixes, in the protocol's terms."""

from __future__ import annotations

from lsprotocol import types

from ..diagnostics import Diagnostic, Fix
from .document import Document

_SEVERITIES = {"error": types.DiagnosticSeverity.Error, "warning": types.DiagnosticSeverity.Warning}


def diagnostics(document: Document, uri: str) -> list[types.Diagnostic]:
    """All that was found; what lies in an imported file stands at the top, with its place in words."""
    return [_diagnostic(document, uri, found) for found in document.analysis.diagnostics]


def _diagnostic(document: Document, uri: str, found: Diagnostic) -> types.Diagnostic:
    said = [found.message, *([found.label] if found.label else []), *found.notes]
    said += [f"help: {found.help}"] if found.help else []
    where = document.range(0, 0)
    if found.span is not None and document.holds(found.span):
        where = document.range_of(found.span)
    elif found.span is not None:
        said.insert(0, f"{found.span.file}:{found.span.line}:{found.span.col}")
    related = [
        types.DiagnosticRelatedInformation(types.Location(uri, document.range_of(label.span)), label.text)
        for label in found.secondary
        if document.holds(label.span)
    ]
    unused = [types.DiagnosticTag.Unnecessary] if found.code == "S210" else None
    return types.Diagnostic(
        where,
        "\n".join(said),
        severity=_SEVERITIES[found.severity],
        code=found.code,
        source="sparknet",
        related_information=related or None,
        tags=unused,
    )


def quick_fixes(document: Document, uri: str, where: types.Range) -> list[types.CodeAction]:
    """The fixes of what was found in a range."""
    first, last = document.offset(where.start), document.offset(where.end)
    actions = []
    for found in document.analysis.diagnostics:
        fix, span = found.fix, found.span
        if fix is None or span is None or not (document.holds(span) and document.holds(fix.span)):
            continue
        if span.start <= last and first <= span.end:
            edit = types.WorkspaceEdit({uri: [_edit(document, fix)]})
            actions.append(
                types.CodeAction(
                    _title(fix),
                    types.CodeActionKind.QuickFix,
                    [_diagnostic(document, uri, found)],
                    is_preferred=True,
                    edit=edit,
                )
            )
    return actions


def _edit(document: Document, fix: Fix) -> types.TextEdit:
    return types.TextEdit(document.range_of(fix.span), fix.replacement)


def _title(fix: Fix) -> str:
    if not fix.span.text:
        return f"Insert `{fix.replacement.strip()}`"
    return f"Change to `{fix.replacement}`" if fix.replacement else f"Remove `{fix.span.text}`"
