"""`sparknet-report`: arguments only, as in cli.py."""

import sys

import click

from .cli_common import CONTEXT, Command, speech_options


@click.command(cls=Command, context_settings=CONTEXT)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path())
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Where the page goes.  [default: report.html in RUN; of several runs comparison.html]",
)
@click.option("--open", "show", is_flag=True, help="Open it in a browser.")
@click.option("--json", is_flag=True, help="Print the runs' figures and the settings that differ, and write nothing.")
@speech_options
def report_command(runs: tuple[str, ...], output: str | None, show: bool, json: bool) -> None:
    """Show what RUN was like; several runs side by side.

    RUN is the folder that sparknet-run or sparknet-train left (runs/MODEL-DATE-TIME), also of a run that goes on or
    was killed, or a file of events (--json FILE). The page is one file, which needs no network.

    \b
    Examples:
      sparknet-report runs/lenet-20260101-120000 --open
      sparknet-report runs/lenet-* -o lenets.html
      sparknet-report runs/a runs/b --json | jq '.differ'

    Exit status: 0 done, 1 a run cannot be read or the page cannot be written, 2 the command line is wrong.
    """
    from .runtime.command import guarded
    from .runtime.reports.command import main

    sys.exit(guarded(lambda: main(runs, output=output, show=show, json=json)))
