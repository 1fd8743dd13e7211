"""`sparknet-compile` and `sparknet-fmt`: arguments only, as in cli.py."""

import sys
from typing import TYPE_CHECKING

import click

from . import terminal
from .cli_common import CONTEXT, FILE, MODEL, Command, Completed, define_option, speech_options

if TYPE_CHECKING:
    from .compile import Model


def _explain(context: click.Context, parameter: click.Parameter, code: str | None) -> None:
    if code is None or context.resilient_parsing:
        return
    from .explain import explain

    text = explain(code)
    if text is None:
        raise click.BadParameter(f"no diagnostic has the code {code}")
    click.echo(text)
    context.exit(0)


def _doc(context: click.Context, parameter: click.Parameter, name: str | None) -> None:
    if name is None or context.resilient_parsing:
        return
    from .diagnostics import closest, did_you_mean
    from .reference import print_doc
    from .schema import layer_types

    if name not in layer_types():
        near = did_you_mean(closest(name, layer_types()))
        raise click.BadParameter(f"the engine has no layer type {name}. {near}".rstrip())
    print_doc(name)
    context.exit(0)


@click.command(cls=Command, context_settings=CONTEXT)
@click.argument("model", type=MODEL, required=False)
@click.option(
    "-o",
    "--output",
    "output",
    metavar="PATH",
    type=FILE,
    help="The folder to write into, made if it is not there; with --emit the file, or a folder for it.  [default: "
    "the working directory; with --emit standard output]",
)
@click.option(
    "--emit",
    type=click.Choice(("prototxt", "binary", "json", "snet", "html", "dot", "mermaid", "summary")),
    help="Give this one output instead of the files and the table: the net for Caffe, the model as JSON or as a .snet "
    "file (Caffe's data layers kept), the graph as a page or for Graphviz or Mermaid, or the table.",
)
@define_option
@click.option(
    "--keep-data-layers",
    is_flag=True,
    help="Keep Caffe's data layers (Data, ImageData, ...) instead of replacing them by Input layers that Spark feeds.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    help="How errors and warnings are shown: json is one document on standard output, for editors.  [default: text]",
)
@click.option(
    "--explain",
    metavar="CODE",
    type=Completed("code", "codes"),
    is_eager=True,
    expose_value=False,
    callback=_explain,
    help="Explain a diagnostic, S104 for example, and leave.",
)
@click.option(
    "--doc",
    metavar="TYPE",
    type=Completed("type", "types"),
    is_eager=True,
    expose_value=False,
    callback=_doc,
    help="Describe a layer type, Convolution for example: fields, defaults, an example; and leave.",
)
@click.option("--json", is_flag=True, help="The same as --format json; with --list, the models as JSON.")
@click.option("--list", "listed", is_flag=True, help="Show the models of the library, and leave.")
@speech_options
def compile_command(
    model: str | None,
    output: str | None,
    emit: str | None,
    defines: dict[str, str],
    keep_data_layers: bool,
    form: str,
    json: bool,
    listed: bool,
) -> None:
    """Compile MODEL to Caffe's text format and show its layers.

    MODEL is a .snet file, a model of the library (googlenet; --list shows them), or a net or solver of Caffe's
    (.prototxt or binary). Into DIR go MODEL.prototxt and, where
    the model has them, MODEL_solver.prototxt, MODEL_deploy.prototxt and MODEL_spark.prototxt (the averaging loop).

    \b
    Examples:
      sparknet-compile lenet.snet
      sparknet-compile lenet.snet -o build -D batch=32
      sparknet-compile lenet_train_test.prototxt -o build
      sparknet-compile googlenet -o build
      sparknet-compile train_val.prototxt --emit snet -o googlenet.snet
      sparknet-compile googlenet --emit html -o googlenet.html         # a page to look at
      sparknet-compile googlenet --emit dot | dot -Tsvg > googlenet.svg
      sparknet-compile --list

    Exit status: 0 done, 1 the model is wrong or a file cannot be written, 2 the command line is wrong.
    """
    as_json = json or form == "json"
    if listed:
        from .library import entries
        from .table import library_json, print_library

        click.echo(library_json(entries())) if as_json else print_library(entries())
        return
    if model is None:
        raise click.MissingParameter(param_hint="'MODEL'", param_type="argument")
    if as_json:
        if emit is not None:
            raise click.UsageError("--format json and --emit both write to standard output: choose one")
        sys.exit(_compile_json(model, output or ".", defines, keep_data_layers))
    sys.exit(_compile(model, output, emit, defines, keep_data_layers))


def _compile(model: str, output: str | None, emit: str | None, defines: dict[str, str], keep_data_layers: bool) -> int:
    from .errors import ModelError, SparkNetError

    try:
        import pathlib

        from .compile import compile_file, load
        from .diagnostics import render_diagnostics
        from .emit import write_model
        from .table import print_table

        if emit == "snet":
            compiled = load(model, defines=defines)
        else:
            compiled = compile_file(model, defines=defines, keep_data_layers=keep_data_layers)
        if compiled.diagnostics and not terminal.quiet():
            click.echo(render_diagnostics(compiled.diagnostics, color=terminal.colours(sys.stderr)), err=True)
        if emit is not None:
            _emit(compiled, emit, output, pathlib.Path(model).stem)
            return 0
        written = write_model(compiled, output or ".", pathlib.Path(model).stem)
        if not terminal.quiet():
            print_table(compiled)
            click.echo("wrote " + ", ".join(str(path) for path in written))
    except ModelError as error:
        if error.diagnostics:
            click.echo(render_diagnostics(error.diagnostics, color=terminal.colours(sys.stderr)), err=True)
        else:
            terminal.complain(str(error))
        return error.exit_code
    except SparkNetError as error:
        terminal.complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `sparknet-compile ... | head`: the files are written, the reader has seen enough
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _emit(compiled: "Model", kind: str, output: str | None, stem: str) -> None:
    from .outputs import render, write

    content = render(compiled, kind)
    if kind == "snet" and compiled.deploy is not None:
        click.echo("note: the deploy variant is not part of the text; --emit json has it", err=True)
    if output is not None:
        written = write(compiled, kind, content, output, stem)
        if not terminal.quiet():
            click.echo(f"wrote {written}", err=True)
        return
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _compile_json(model: str, folder: str, defines: dict[str, str], keep_data_layers: bool) -> int:
    import pathlib

    from .compile import compile_file
    from .diagnostics_json import to_json
    from .emit import write_model
    from .errors import ModelError, SparkNetError

    try:
        compiled = compile_file(model, defines=defines, keep_data_layers=keep_data_layers)
        written = write_model(compiled, folder, pathlib.Path(model).stem)
        click.echo(to_json(compiled.diagnostics, map(str, written)))
    except ModelError as error:
        click.echo(to_json(error.diagnostics, failure=None if error.diagnostics else str(error)))
        return error.exit_code
    except SparkNetError as error:
        click.echo(to_json((), failure=str(error)))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


@click.command(cls=Command, context_settings=CONTEXT)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=FILE)
@click.option("--check", is_flag=True, help="Write nothing; name the files that would change.")
@click.option("--diff", is_flag=True, help="Write nothing; show what would change.")
@speech_options
def format_command(paths: tuple[str, ...], check: bool, diff: bool) -> None:
    """Lay out .snet files in the one style: there is nothing to choose.

    PATH is a file, a folder (every .snet file below it) or - (standard input to standard output). Comments stay, and
    line breaks where a line may break; what a file means never changes. A file is written whole or not at all.

    \b
    Examples:
      sparknet-fmt lenet.snet
      sparknet-fmt --check models

    Exit status: 0 done, 1 a file has wrong syntax, cannot be read or written, or would change (--check, --diff),
    2 the command line is wrong.
    """
    from .errors import SparkNetError
    from .format import format_files

    try:
        sys.exit(format_files(paths, check=check, diff=diff))
    except SparkNetError as error:
        terminal.complain(str(error))
        sys.exit(error.exit_code)
