"""The grammar of `.snet` files, for the parser (`snet.lark`)."""

if __name__ == "grammar":
    raise ImportError("this folder is the package sparknet_dsl.grammar: import it by that name")
