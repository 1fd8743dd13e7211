"""The page: a template, its style and its scripts, and the model as JSON, in one file."""

from __future__ import annotations

import functools
import html
import json
import pathlib
from typing import TYPE_CHECKING, Any

from .describe import describe

if TYPE_CHECKING:
    from jinja2 import Environment

    from ..compile import Model

HEIGHT = 560  # of the view in a notebook, in pixels


def page(model: Model, *, embedded: bool = False) -> str:
    """The page as HTML; `embedded`, in a frame of another page, it is content with less room.

    Nothing in it is fetched from anywhere: a policy in its head forbids it.
    """
    template = _environment().get_template("page.html.j2")
    return template.render(name=model.name, summary=model.summary(), data=_script(describe(model)), embedded=embedded)


def frame(model: Model) -> str:
    """The page in a frame of its own, for a notebook: neither's styles and scripts reach the other's."""
    content = html.escape(page(model, embedded=True), quote=True)
    return (
        f'<iframe sandbox="allow-scripts" title="{html.escape(model.name, quote=True)}" srcdoc="{content}" '
        f'style="width:100%;height:{HEIGHT}px;border:1px solid #8886;border-radius:6px"></iframe>'
    )


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = pathlib.Path(__file__).parent
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _script(value: Any) -> str:
    """JSON that may stand in a script element, whatever names the model has."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
