"""The command `sparknet-lsp`: serves one editor over standard input and output."""

import gc
import sys

import click

from .. import terminal
from ..cli_common import CONTEXT, Command, version_option


@click.command(cls=Command, context_settings=CONTEXT)
@version_option
@click.option("--stdio", is_flag=True, help="What it does anyway; editors say so.")
def main(stdio: bool) -> None:
    """Speak the Language Server Protocol on standard input and output; editors start it (docs/editors.md).

    \b
    Examples:
      sparknet-lsp            # what an editor is told to run
      vim.lsp.start({name = "snet", cmd = {"sparknet-lsp"}})          (in Neovim's init.lua)

    Exit status: 0 done, 2 pygls is missing, or the command line is wrong.
    """
    try:
        import pygls  # noqa: F401
    except ModuleNotFoundError:
        terminal.complain("sparknet-lsp needs pygls: pip install 'sparknet-dsl[lsp]'")
        sys.exit(2)
    from .server import server

    gc.freeze()  # what is loaded stays: looking through it again and again would delay answers
    gc.set_threshold(50_000)
    server.start_io()


if __name__ == "__main__":
    main()
