"""The Markdown pages: their blocks, headings and links. tests/README.md tells how blocks are marked."""

import pathlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for place in (
        "README.md",
        "docs/*.md",
        "examples/**/*.md",
        "tests/README.md",
        "deploy/**/*.md",
        "notebooks/**/*.md",
    )
    for path in ROOT.glob(place)
)
_BLOCK = re.compile(r"^((?:<!--.*-->\n)*)```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
_MARK = re.compile(r"<!-- not run(?:, (.+?))?: (.+) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, and for which of its lines (by a word in them; "" for all) why it is not run."""

    page: str
    line: int
    language: str
    text: str
    not_run: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str | None:
        """The file that the block is, where its first line says so: `# file: NAME`."""
        found = re.match(r"# file: (\S+)\n", self.text)
        return found[1] if found else None

    def commands(self) -> list[str]:
        """The commands of a shell block, lines that go on joined, without comments."""
        joined = self.text.replace("\\\n", " ").splitlines()
        return [line for line in joined if shlex.split(line, comments=True)]

    def why_not(self, command: str = "") -> str | None:
        """Why this is not run; None: it is."""
        return next((reason for word, reason in self.not_run if word in command), None)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[Block]:
    """The blocks of a page, all of them or those in these languages."""
    text = text_of(page)
    found = [
        Block(page, text[: match.start(2)].count("\n") + 1, match[2], match[3], tuple(_MARK.findall(match[1])))
        for match in _BLOCK.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


def prose(page: str) -> str:
    """A page without its blocks and without code within lines."""
    return re.sub(r"`[^`\n]*`", "`", _BLOCK.sub("", text_of(page)))


def anchors(page: str) -> set[str]:
    """What `page#...` may name: its headings, as Markdown's readers make anchors of them."""
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: str) -> Iterator[str]:
    """Where the page's links and pictures lead."""
    yield from re.findall(r"\]\(([^)\s]+)\)", prose(page))
    yield from re.findall(r"(?<![\w(])https?://[^\s)>]+", prose(page))
