"""What `sparknet-data` does: fetches, converts, splits, shows and checks data sets.

Everything is read by the sources of `runtime/data`, so whatever trains can be converted; `writers` has
a writer for each format.
"""
