"""Writes the generated pages of docs/: layer types, commands, diagnostics, grammar.

Usage: python tools/make_reference.py [FOLDER]     (whenever one of these changes; a test asks for it)
"""

import pathlib
import sys

import reference_pages

from sparknet_dsl import reference

PAGES = {
    "reference.md": reference.markdown,
    "commands.md": reference_pages.commands,
    "diagnostics.md": reference_pages.diagnostics,
    "grammar.md": reference_pages.grammar,
}

if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent / "docs"
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")
