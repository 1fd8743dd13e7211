"""What a file defines and nothing reads: a slip more often than not.

Names are looked up lexically, and what follows cannot change what stands above: so one walk from the end of the file to
its beginning knows, at each definition, what is still read below it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from . import ast
from .diagnostics import Diagnostics, Span


def warn_unused(tree: ast.File, diagnostics: Diagnostics) -> None:
    """Warns of blocks, `let`, `option`, `default` and imports that change nothing."""
    _Walk(diagnostics).body(tree.items, set())


@dataclasses.dataclass
class _Walk:
    diagnostics: Diagnostics

    def body(self, statements: Iterable[ast.Item | ast.Statement], read: set[str]) -> None:
        """Walks the statements of a brace, or of a file, from the last to the first.

        `read` holds what is read below: a value's name as it is, a block's or a type's as `name()`, an import's as
        `name.`. What the statements read is added to it.
        """
        for statement in reversed(list(statements)):
            if isinstance(statement, ast.Let | ast.Option):
                kind = "let" if isinstance(statement, ast.Let) else "option"
                if self._wanted(statement.name in read, f"`{kind} {statement.name}`", statement.name_span):
                    read.discard(statement.name)
                    read |= _reads(statement.value)
            elif isinstance(statement, ast.Default):
                names = [name for name, _ in statement.types]
                span = statement.types[0][1].to(statement.types[-1][1])
                if self._wanted(
                    any(f"{name}()" in read for name in names),
                    "this `default`",
                    span,
                    f"no {' or '.join(names)} follows",
                ):
                    read |= _reads(statement.args)
            elif isinstance(statement, ast.Import):
                self._wanted(f"{statement.name}." in read, f"`import … as {statement.name}`", statement.name_span)
            elif isinstance(statement, ast.Block):
                if self._wanted(f"{statement.name}()" in read, f"block `{statement.name}`", statement.name_span):
                    inner: set[str] = set()
                    self.body(statement.body, inner)
                    read |= inner - {parameter.name for parameter in statement.parameters}
                    read |= _reads(statement.parameters)
            elif isinstance(statement, ast.Net | ast.Replace):
                inner = set()
                self.body(statement.body, inner)
                read |= inner
                read |= _reads(statement.args if isinstance(statement, ast.Net) else statement.names)
            else:
                read |= _reads(statement)

    def _wanted(self, wanted: bool, what: str, span: Span, label: str = "") -> bool:
        if not wanted:
            self.diagnostics.warn("S210", f"{what} is never used", span, label)
        return wanted


def _reads(*parts: object) -> set[str]:
    """What parts of the tree read, definitions inside them left out."""
    found: set[str] = set()
    waiting = list(parts)
    while waiting:  # no recursion: a chain of `else` nests deeply
        node = waiting.pop()
        if isinstance(node, tuple):
            waiting.extend(node)
        elif isinstance(node, ast.Variable):
            found.add(node.name)
        elif isinstance(node, ast.For):
            found |= _reads(node.body) - set(node.names)
            waiting.append(node.values)
        elif isinstance(node, ast.Shapes):
            found.update(dim for shape in node.shapes for dim in shape if isinstance(dim, str))
        elif isinstance(node, ast.Node):
            if isinstance(node, ast.Call):
                found.add(f"{node.callee}()" if node.module is None else f"{node.module}.")
            waiting.extend(getattr(node, name) for name in type(node).__slots__)
    return found
