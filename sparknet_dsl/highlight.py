"""The language for Pygments, which rich brings: colours in documentation, registered as the lexer `snet`."""

from typing import ClassVar

from pygments.lexer import RegexLexer, bygroups, words
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String, Text

from .values import FUNCTIONS


class SnetLexer(RegexLexer):  # type: ignore[misc] # Pygments has no types
    """Tokens of a `.snet` text; the grammar is grammar/snet.lark."""

    name = "SparkNet"
    aliases: ClassVar[list[str]] = ["snet", "sparknet"]
    filenames: ClassVar[list[str]] = ["*.snet"]
    mimetypes: ClassVar[list[str]] = ["text/x-snet"]
    url = ""
    version_added = ""

    tokens: ClassVar = {
        "root": [
            (r"[ \t\r\n]+", Text),
            (r"#[^\n]*", Comment.Single),
            (r'"(?:\\.|[^"\\\n])*"', String.Double),
            (r"`[^`\n]+`", Name.Variable),
            (r"[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+|[0-9]+\.[0-9]*|\.[0-9]+([eE][-+]?[0-9]+)?", Number.Float),
            (r"[0-9]+", Number.Integer),
            (r"(@)([A-Za-z_]\w*)", bygroups(Operator, Name.Decorator)),
            (r"([A-Za-z_]\w*)(\s*)(=)(?!=)", bygroups(Name.Attribute, Text, Operator)),
            (
                words(
                    ("import", "option", "let", "default", "block", "net", "solver", "spark", "from", "as"),
                    suffix=r"\b",
                ),
                Keyword.Declaration,
            ),
            (words(("replace", "drop", "set", "for", "in", "if", "else", "is"), suffix=r"\b"), Keyword),
            (words(("and", "or", "not"), suffix=r"\b"), Operator.Word),
            (words(("true", "false"), suffix=r"\b"), Keyword.Constant),
            (words(tuple(FUNCTIONS), suffix=r"\b(?=\s*\()"), Name.Builtin),
            (r"[A-Z]\w*(?=\s*[(!])|(?<=: )[A-Z]\w*", Name.Class),
            (r"[A-Za-z_]\w*", Name),
            (r"->|//|==|!=|<=|>=|[-+*/%<>=!]", Operator),
            (r"[.,:()\[\]{}]", Punctuation),
        ]
    }
