"""Data sources: where rows come from, each named by a URI."""
