"""Writes docs/reference.md from the engine's registry and the messages.

Usage: python tools/make_reference.py     (whenever a layer type or a field changes; a test asks for it)
"""

import pathlib

from sparknet_dsl import reference

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "reference.md"

if __name__ == "__main__":
    PAGE.write_text(reference.markdown(), encoding="utf-8")
