"""The averaging loop on Spark, its data sources and its reports."""

if __name__ == "runtime":
    raise ImportError("this folder is the package sparknet_dsl.runtime: import it by that name")
