"""The options of commands that train which say where the run's report goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def report_options(command: F) -> F:
    """Adds --report, --no-report and --ui to a command."""
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
