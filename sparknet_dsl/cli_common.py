"""What the commands share: how they fail, help, complete words, and the options that many of them take."""

import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

import click

from . import __version__, terminal

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# The variable that holds what a shell asks of a command in place of running it (cli_complete.py).
COMPLETE = "SPARKNET_COMPLETE"
SPEECH = f"{__name__}.speech"  # in a context's `meta`: the names of -q and -v, where they were given


class _Help(click.HelpFormatter):
    """Help with headings and terms that stand out where there are colours."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, click.style("Usage: ", bold=True))

    def write_heading(self, heading: str) -> None:
        super().write_heading(click.style(heading, bold=True))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        styled = [(click.style(term, fg="cyan"), text) for term, text in rows]
        super().write_dl(styled, min(col_max, self.width // 3), col_spacing)


class _Context(click.Context):
    formatter_class = _Help


class _Plain:
    """The part of a command that deals with its end: one message for what is wrong, and the exit status."""

    context_class: type[click.Context] = _Context

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """As click's, but a wrong command line is told as all errors are, and all commands complete alike."""
        if COMPLETE in os.environ:
            from . import cli_complete  # noqa: F401  (it makes the shells known)
        run: Callable[..., Any] = super().main  # type: ignore[misc]
        extra["complete_var"] = COMPLETE
        extra.setdefault("color", terminal.colours(sys.stdout))
        if not standalone_mode:
            return run(*args, standalone_mode=False, **extra)
        try:
            status = run(*args, standalone_mode=False, **extra)
        except click.ClickException as error:
            fail(error)
        except click.Abort:
            sys.exit(130)
        sys.exit(status if isinstance(status, int) else 0)


class Command(_Plain, click.Command):
    """A command of this package, which says as much as -q and -v ask for."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs it."""
        with terminal.speaking(**dict.fromkeys(ctx.meta.get(SPEECH, ()), True)):
            return super().invoke(ctx)


class Group(_Plain, click.Group):
    """A command with commands below it."""

    command_class = Command


def fail(error: click.ClickException) -> NoReturn:
    """Tells what is wrong with the command line, and leaves."""
    text = error.format_message().rstrip(".")
    if isinstance(error, click.NoSuchOption | click.NoSuchCommand):
        name = error.option_name if isinstance(error, click.NoSuchOption) else error.command_name
        near = " or ".join(error.possibilities or ())
        text = f"there is no {'option' if isinstance(error, click.NoSuchOption) else 'command'} {name}"
        text += f": did you mean {near}?" if near else ""
    terminal.complain(text[:1].lower() + text[1:])
    if isinstance(error, click.UsageError) and error.ctx is not None:
        path = error.ctx.command_path
        click.echo(f"{error.ctx.get_usage()}\n`{path} --help` tells more", err=True, color=terminal.colours(sys.stderr))
    sys.exit(error.exit_code)


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def version_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--version; click's option keeps the name of the first command that it is asked of, so each has its own."""
    return click.version_option(__version__, message="%(prog)s %(version)s")(command)


def _say(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    """Notes -q or -v."""
    if asked and parameter.name:
        said: set[str] = context.meta.setdefault(SPEECH, set())
        said.add(parameter.name)
        if len(said) > 1:
            raise click.UsageError("--quiet says less, --verbose more: give one of them", context)


def speech_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """-q/--quiet, -v/--verbose and --version, the last of all options."""
    for option in (
        version_option,
        click.option(
            *("-v", "--verbose"), is_flag=True, expose_value=False, callback=_say, help="Tell what goes on inside, too."
        ),
        click.option(
            *("-q", "--quiet"), is_flag=True, expose_value=False, callback=_say, help="Only errors and the result."
        ),
    ):
        command = option(command)
    return command


class Completed(click.ParamType[str]):
    """A text that the shell completes by the function `how` of cli_complete.py."""

    def __init__(self, name: str, how: str) -> None:
        self.name = name
        self._how = how

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem[str]]":
        """What may stand there, beginning with `incomplete`."""
        from . import cli_complete

        return list(getattr(cli_complete, self._how)(ctx, incomplete))


MODEL = Completed("model", "models")
SOURCE = Completed("src", "sources")
FILE = Completed("file", "files")
MASTER = Completed("url", "masters")


def _defines(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """-D name=value, as a dictionary."""
    result: dict[str, str] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"{item!r} is not of the form name=value")
        result[name] = value
    return result


define_option = click.option(
    "-D",
    "defines",
    multiple=True,
    metavar="NAME=VALUE",
    type=Completed("name=value", "options_of"),
    callback=_defines,
    help="Give the model's `option NAME` a value; repeatable.",
)

precision_option = click.option(
    "--precision",
    type=click.Choice(["float32", "bf16"]),
    default="float32",
    show_default=True,
    help="What convolutions and large inner products multiply in; weights, sums and all other layers stay float32. "
    "bf16 is faster on CPUs with AMX, slower on others, and refused on those without AVX-512.",
)

memory_option = click.option(
    "--memory",
    type=click.Choice(["reuse", "lean"]),
    default="reuse",
    show_default=True,
    help="lean keeps few of the values between layers and computes the others again in the backward pass: less memory, "
    "up to a third more time, the same results to the bit.",
)

bad_records_option = click.option(
    "--bad-records",
    type=click.Choice(["skip", "fail"]),
    default="fail",
    show_default=True,
    help="What becomes of records that cannot be read (a JPEG that is cut short): skip leaves them out, and tells how "
    "many there were and which the first ten; fail ends at the first.",
)


def tracker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of the commands that train: where else a run's numbers go."""
    for option in (
        click.option(
            "--mlflow-experiment", metavar="NAME", help="The experiment that the run belongs to.  [default: sparknet]"
        ),
        click.option("--mlflow", metavar="URI", help="Keep parameters, metrics and files on an MLflow server."),
        click.option("--tensorboard", metavar="DIR", type=FILE, help="Write TensorBoard's event files to DIR."),
    ):
        command = option(command)
    return command


def report_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of the commands that train: where the run's report goes; see where_to_report."""
    for option in (
        click.option("--ui", metavar="[HOST:]PORT", help="Show the report while it trains, at http://localhost:PORT."),
        click.option("--no-report", is_flag=True, help="Leave no folder, and no report."),
        click.option(
            "--report",
            metavar="DIR",
            help="The run's folder: events, model, settings, report.html.  [default: runs/MODEL-DATE-TIME]",
        ),
    ):
        command = option(command)
    return command


def where_to_report(report: str | None, no_report: bool) -> str | bool | None:
    """What Trainer's `report` is for these options."""
    if report is not None and no_report:
        raise click.UsageError("--report names a folder and --no-report wants none: give one of them")
    return False if no_report else report
