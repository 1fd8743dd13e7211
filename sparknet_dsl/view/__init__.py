"""A model to look at: one page with its graph and its layers, which fetches nothing."""

from .page import frame, page

__all__ = ["frame", "page"]
