"""The command `sparknet-lsp`: serves one editor over standard input and output."""

import gc
import sys

import click

from .. import __version__


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sparknet-lsp")
@click.option("--stdio", is_flag=True, help="What it does anyway; editors say so.")
def main(stdio: bool) -> None:
    """Speak the Language Server Protocol on standard input and output; editors start it (docs/editors.md)."""
    try:
        import pygls  # noqa: F401
    except ModuleNotFoundError:
        print("error: sparknet-lsp needs pygls: pip install 'sparknet-dsl[lsp]'", file=sys.stderr)
        sys.exit(2)
    from .server import server

    gc.freeze()  # what is loaded stays: looking through it again and again would delay answers
    gc.set_threshold(50_000)
    server.start_io()


if __name__ == "__main__":
    main()
