"""The model library: .snet files that ship with the package."""

if __name__ == "models":
    raise ImportError("this folder is the package sparknet_dsl.models: import it by that name")
