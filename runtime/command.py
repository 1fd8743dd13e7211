"""What the commands share: compiling the model, telling what happens, errors as one message and a status."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import cast

from .. import Model, caffe_ext, compile_file, terminal
from ..diagnostics import Diagnostic, render_diagnostics
from ..errors import DataError, LayerError, ModelError, SparkNetError, UsageError
from ..proto import caffe_pb2
from .data import Column, Phase, Source, open_source, parse_uri
from .events import Emit, JsonLines
from .feeds import UNREADABLE, columns_of, naming_option
from .report import Report

INTERRUPTED = 130


def command(body: Callable[[Report], None], show: Emit, json: str | None) -> int:
    """Runs `body`, whose events go to `show` and, a line each, to the file `json`; gives the exit status."""

    def reported() -> None:
        with contextlib.ExitStack() as stack:
            sinks: list[Emit] = [show]
            if json is not None:
                sinks.append(stack.enter_context(JsonLines(json)))
            body(stack.enter_context(Report(sinks)))

    return guarded(reported)


def guarded(body: Callable[[], None]) -> int:
    """Runs `body` and gives the exit status: 0 done, 130 interrupted, otherwise what errors.py says.

    An error becomes one message on standard error.
    """
    try:
        body()
    except SparkNetError as error:
        diagnostics = error.diagnostics if isinstance(error, ModelError) else ()
        if diagnostics:
            print(_rendered(diagnostics), file=sys.stderr)
        else:
            terminal.complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def check_counts(**given: int | None) -> None:
    """Raises UsageError for an option that is given and below 1."""
    for name, number in given.items():
        if number is not None and number < 1:
            raise UsageError(f"--{name.replace('_', '-')} {number}: a whole number from 1 up is wanted")


@contextlib.contextmanager
def reading_itself(options: str) -> Iterator[None]:
    """In this block a net's own data layers read files; where they cannot, the error names the `options` for others."""
    try:
        yield
    except LayerError as error:
        known = caffe_ext.layer_types().get(error.type)
        if error.kind != "data" or known is None or not known.source:
            raise
        raise DataError(f"{error}; or name other data: {options}") from error


def compile_model(
    path: str,
    defines: Mapping[str, str],
    train: str | Source | None,
    test: str | Source | None,
    *,
    keep_data_layers: bool = False,
) -> Model:
    """The model in the file `path`; its data layers take their shapes from the sources named.

    Prints warnings to standard error. Raises ModelError, DataError.
    """
    shapes: dict[str, list[tuple[int, ...]] | dict[str, tuple[int, ...]]] = {}
    phases: dict[str, str | Source | None] = {"TRAIN": train, "TEST": test}
    for phase, name in phases.items():
        if name is not None:
            columns = {column.name: _row(column) for column in open_source(name, cast(Phase, phase)).columns}
            uri = parse_uri(name)
            asked = [column for column in (uri.columns if uri else ()) if column in columns]
            shapes[phase] = [columns[column] for column in asked] if asked else columns

    def rows_of(phase: str, uri: str, tops: Sequence[str]) -> Sequence[tuple[int, ...]]:
        parsed = parse_uri(uri)
        if parsed is None or parsed.scheme in ("", UNREADABLE):
            return ()
        try:
            with naming_option(cast(Phase, phase)):
                source = open_source(uri, cast(Phase, phase), os.path.dirname(path))  # noqa: PTH120
        except DataError:
            # Where one is named on the command line, the other phase may do without.
            if any(phases.values()):
                return ()
            raise
        return [_row(column) for column in columns_of(uri, source, [uri], tops)]

    model = compile_file(
        path, defines=defines, data_shapes=shapes or None, rows_of=rows_of, keep_data_layers=keep_data_layers
    )
    if model.diagnostics and not terminal.quiet():
        print(_rendered(model.diagnostics), file=sys.stderr)
    return model


def _row(column: Column) -> tuple[int, ...]:
    """The shape of a row that a net takes which states none."""
    return column.first or column.shape


def solver_of(model: Model) -> caffe_pb2.SolverParameter:
    """The model's solver; raises ModelError where it has none."""
    if model.solver is None:
        raise ModelError(f"{model.path} has no solver: write a `solver (...)` beside the net, or run the solver's file")
    return model.solver


def _rendered(diagnostics: Iterable[Diagnostic]) -> str:
    return render_diagnostics(diagnostics, color=terminal.colours(sys.stderr))
