"""What a shell may complete, and the command that tells the shells so; loaded when one asks.

The functions that give words take the context of the command line so far and the beginning of the word.
"""

import importlib.metadata
import os
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from .cli_common import COMPLETE, CONTEXT, Command, speech_options

if TYPE_CHECKING:
    Item = CompletionItem[str]
else:
    Item = CompletionItem  # which click before 8.5 has without a type in brackets
# What a word may end with that goes on.
OPEN = "/:=,"

# Bash takes a word apart at colons and equals signs (COMP_WORDBREAKS): `mnist:da` is three of its words. The line is
# looked at as it is, and of what completes the word, what stands before the last such sign is left out.
BASH = """\
_sparknet_complete() {
    local line="${COMP_LINE:0:COMP_POINT}" value cut breaks=${COMP_WORDBREAKS//[^:=]/}
    local word="${line##*[[:space:]]}"
    [[ $word == -*=* ]] && word="${word#*=}"
    cut="${word%%"${word##*[$breaks]}"}"
    [[ -z $breaks ]] && cut=
    COMPREPLY=()
    while IFS= read -r value; do
        [[ -z $value ]] && continue
        [[ $value == *[/:=,] ]] && compopt -o nospace 2>/dev/null
        value="${value#"$cut"}"
        [[ $value == *[[:space:]]* ]] && printf -v value %%q "$value"
        COMPREPLY+=("$value")
    done < <(COMP_WORDS="$line" %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F _sparknet_complete %(commands)s
"""

# compadd shows a word beside what it means, and puts no space behind one that goes on.
ZSH = """\
_sparknet_complete() {
    local value shown
    local -a whole open whole_shown open_shown
    while IFS=$'\\t' read -r value shown; do
        [[ -z $value ]] && continue
        if [[ $value == *[/:=,] ]]; then
            open+=("$value"); open_shown+=("$value${shown:+  -- $shown}")
        else
            whole+=("$value"); whole_shown+=("$value${shown:+  -- $shown}")
        fi
    done < <(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) %(complete_var)s=zsh_complete ${words[1]} 2>/dev/null)
    (( $#whole )) && compadd -U -V whole -l -d whole_shown -a whole
    (( $#open )) && compadd -U -V open -l -S '' -d open_shown -a open
    return 0
}
compdef _sparknet_complete %(commands)s
"""

FISH = """\
function _sparknet_complete
    set -l words (commandline -opc)
    set -lx COMP_WORDS "$words"
    set -lx COMP_CWORD (commandline -ct)
    set -lx %(complete_var)s fish_complete
    $words[1] 2>/dev/null | string match --regex '.+'
end
for each in %(commands)s
    complete --no-files --command $each --arguments '(_sparknet_complete)'
end
"""


class _Bash(BashComplete):
    source_template = BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, and its beginning; COMP_WORDS is the line up to the cursor."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        begun = words.pop() if words and not line[-1:].isspace() else ""
        return words, begun

    def format_completion(self, item: Item) -> str:
        """A line for the shell."""
        return item.value


class _Zsh(ZshComplete):
    source_template = ZSH

    def format_completion(self, item: Item) -> str:
        """A line for the shell."""
        return f"{item.value}\t{item.help or ''}"


class _Fish(ShellComplete):
    name = "fish"
    source_template = FISH

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, which is COMP_CWORD."""
        words = split_arg_string(os.environ["COMP_WORDS"])
        return words[1:], os.environ["COMP_CWORD"]

    def format_completion(self, item: Item) -> str:
        """A line for the shell."""
        return f"{item.value}\t{item.help}" if item.help else item.value


for _shell in (_Bash, _Zsh, _Fish):
    add_completion_class(_shell)


def models(context: click.Context, begun: str) -> Iterator[Item]:
    """The library's models, and files that hold one."""
    from . import library

    if "/" not in begun:
        yield from (Item(each.name, help=each.what) for each in library.entries() if each.name.startswith(begun))
    yield from _paths(begun, (".snet", ".prototxt", ".pbtxt", ".binaryproto"))


def sources(context: click.Context, begun: str) -> Iterator[Item]:
    """Data sources: their schemes, and behind one paths."""
    from .runtime.data import SOURCES

    yield from _schemes(begun, SOURCES)


def destinations(context: click.Context, begun: str) -> Iterator[Item]:
    """What `sparknet-data convert` writes."""
    from .runtime.prepare.writers import WRITERS

    yield from _schemes(begun, WRITERS)


def outs(context: click.Context, begun: str) -> Iterator[Item]:
    """What `sparknet-predict --out` writes."""
    from .runtime.outputs import KINDS

    yield from _schemes(begun, dict.fromkeys(KINDS))


def files(context: click.Context, begun: str) -> Iterator[Item]:
    """Paths, behind a comma another one."""
    before, comma, last = begun.rpartition(",")
    return (Item(before + comma + item.value) for item in _paths(last))


def masters(context: click.Context, begun: str) -> Iterator[Item]:
    """What Spark calls a master."""
    known = {
        "local[2]": "this machine",
        "local-cluster[2,1,2048]": "executors as processes of their own on this machine: cores, MB",
        "spark://": "Spark's own cluster",
        "yarn": "as HADOOP_CONF_DIR says",
        "k8s://https://": "Kubernetes",
    }
    return (Item(name, help=what) for name, what in known.items() if name.startswith(begun))


def codes(context: click.Context, begun: str) -> Iterator[Item]:
    """Codes of diagnostics."""
    from .explain import CATALOGUE

    return (Item(code, help=_first(text)) for code, text in CATALOGUE.items() if code.startswith(begun.upper()))


def types(context: click.Context, begun: str) -> Iterator[Item]:
    """Layer types."""
    from .schema import layer_types

    return (Item(name) for name in sorted(layer_types()) if name.lower().startswith(begun.lower()))


def data_sets(context: click.Context, begun: str) -> Iterator[Item]:
    """What `sparknet-data get` knows."""
    from .runtime.prepare.published import DATA_SETS

    return (Item(name) for name in DATA_SETS if name.startswith(begun))


def options_of(context: click.Context, begun: str) -> Iterator[Item]:
    """For -D: the options of the model that the line names, with their values."""
    from . import library

    # A line that ends with -D is not parsed to its end: the model is among what is left then.
    model = context.params.get("model") or next(iter(context.args), "")
    try:
        text = library.locate(model).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    for name, value in re.findall(r"^\s*option\s+(\w+)\s*=\s*(\S+)", text, re.MULTILINE):
        if name.startswith(begun):
            yield Item(f"{name}=", help=f"it is {value}")


def _schemes(begun: str, known: dict[str, Any]) -> Iterator[Item]:
    scheme, colon, place = begun.partition(":")
    if not colon:
        for name, kind in known.items():
            if name.startswith(begun):
                yield Item(f"{name}:", help=_first(kind.__doc__ or "") if kind is not None else None)
    elif scheme in known:
        yield from (Item(f"{scheme}:{item.value}") for item in _paths(place))


def _paths(begun: str, endings: tuple[str, ...] = ()) -> Iterable[Item]:
    """Folders, and files with one of `endings`, or any; hidden ones where their dot is there."""
    folder, slash, name = begun.rpartition("/")
    try:
        found = sorted(pathlib.Path(f"{folder}{slash}" or ".").expanduser().iterdir())
    except (OSError, RuntimeError):
        return
    for path in found:
        if not path.name.startswith(name) or (path.name.startswith(".") and not name):
            continue
        if path.is_dir():
            yield Item(f"{folder}{slash}{path.name}/")
        elif not endings or path.suffix in endings:
            yield Item(f"{folder}{slash}{path.name}")


def _first(text: str) -> str:
    """The first sentence, without its dot, on one line."""
    return re.split(r"[.:;]\s", " ".join(text.split()) + " ", maxsplit=1)[0]


@click.command(cls=Command, context_settings=CONTEXT)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@speech_options
def completion_command(shell: str) -> None:
    """Print what makes SHELL complete the words of all sparknet commands: options, models, sources, files.

    \b
    Examples:
      echo 'eval "$(sparknet-completion bash)"' >> ~/.bashrc
      echo 'eval "$(sparknet-completion zsh)"' >> ~/.zshrc                  (below compinit)
      echo 'sparknet-completion fish | source' >> ~/.config/fish/config.fish

    Exit status: 0 done, 2 the command line is wrong.
    """
    scripts = importlib.metadata.distribution("sparknet-dsl").entry_points.select(group="console_scripts")
    kind = get_completion_class(shell)
    assert kind is not None
    names = {"complete_var": COMPLETE, "commands": " ".join(sorted(script.name for script in scripts))}
    click.echo(kind.source_template % names, nl=False)
