"""Finds what repeats in a row of items and makes blocks of it, where that makes the text shorter."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from . import schema
from .parse import KEYWORDS
from .print_items import _IDENTIFIER, Hole, Item, Quoted, Text, Value, write_name, write_stage, write_value
from .values import FUNCTIONS

MAX_WINDOW = 64  # items in a block
MAX_PARAMETERS = 10
WORTH = 120  # characters that a block must save
FORKS = 2.0  # how much more a block with branches counts
_WINDOWS = 60_000  # how many places times lengths are looked at; bounds the time for nets of thousands of layers
_SHORT = {"num_output": "n", "kernel_size": "k"}
_RESERVED = {*KEYWORDS, *FUNCTIONS, *schema.FILLER_POSITIONAL, "self", "none", "inf", "nan", "_"}


@dataclass
class Block:
    """A block's definition; a parameter's default is None where it has none."""

    name: str
    inputs: list[str]
    parameters: list[tuple[str, Value | None]]
    body: list[Item]

    def head(self) -> str:
        """`block x -> unit(n, stride=1)`."""
        shown = [name if value is None else f"{name}={write_value(value)}" for name, value in self.parameters]
        return f"block {', '.join(map(_plain_name, self.inputs))} -> {self.name}({', '.join(shown)})"


def _plain_name(name: str) -> str:
    return write_name((name,))


def find_blocks(items: Sequence[Item]) -> tuple[list[Block], list[Item]]:
    """The blocks, each above those that use it, and the items with the uses in place of what they stand for."""
    row = list(items)
    blocks: list[Block] = []
    while True:
        best = _best(row, {block.name for block in blocks})
        if best is None:
            return blocks, row
        blocks.append(best.block)
        row = best.apply(row)


@dataclass
class _Found:
    """A repetition: where its windows begin, how long they are, and the uses that take their place."""

    block: Block
    starts: list[int]
    length: int
    uses: list[Item]
    renamed: list[dict[Text, Text]]  # for each use: results that from there on have another name
    saved: int
    forks: bool  # what goes in is read more than once: a unit with branches, such as people make blocks of

    @property
    def rank(self) -> float:
        """What is best taken first."""
        return self.saved * (FORKS if self.forks else 1)

    def apply(self, row: list[Item]) -> list[Item]:
        result: list[Item] = []
        names: dict[Text, Text] = {}
        at = 0
        for start, use, renamed in zip(self.starts, self.uses, self.renamed, strict=True):
            result += [_rename(item, names) for item in row[at:start]]
            result.append(_rename(use, names))
            names.update(renamed)
            at = start + self.length
        return result + [_rename(item, names) for item in row[at:]]


def _rename(item: Item, names: dict[Text, Text]) -> Item:
    if not any(name in names for name in item.inputs):
        return item
    return dataclasses.replace(item, inputs=[names.get(name, name) for name in item.inputs])


def _best(row: list[Item], taken: set[str]) -> _Found | None:
    kinds: dict[Hashable, int] = {}
    signs = [kinds.setdefault(_sign(item), len(kinds)) for item in row]
    costs = [len(write_stage(item)) + 6 for item in row]
    groups: list[tuple[int, int, list[int]]] = []
    for length, windows in _windows(row).items():
        places: dict[tuple[int, ...], list[int]] = {}
        for start in windows:
            places.setdefault(tuple(signs[start : start + length]), []).append(start)
        for starts in places.values():
            if len(starts) > 1:
                bound = sum(sum(costs[start : start + length]) for start in _apart(starts, length)[1:])
                if bound > WORTH:
                    groups.append((bound, length, starts))
    groups.sort(key=lambda group: (-group[0], group[1]))
    found: _Found | None = None
    for bound, length, starts in groups:
        if found is not None and bound * FORKS <= found.rank:
            break
        for windows in _partitions(row, starts, length):
            made = _make(row, windows, length, costs, taken)
            if made is not None and made.saved > WORTH and (found is None or made.rank > found.rank):
                found = made
    return found


def _windows(row: list[Item]) -> dict[int, list[int]]:
    """Where a block could stand, by its length: one value goes in (sources aside), its last value alone is used after.

    Other windows would make blocks too, though none that a person would write.
    """
    made_at: dict[Text, int] = {}
    reads: list[list[int]] = []  # for each item where its inputs were made, sources left out
    last_use = list(range(len(row)))
    for index, item in enumerate(row):
        origins = [made_at.get(name, -1) for name in item.inputs]
        for origin in origins:
            if origin >= 0:
                last_use[origin] = index
        reads.append([origin for origin in origins if origin < 0 or row[origin].inputs])
        made_at.update({name: index for name in item.results if name})
    longest = min(len(row) // 2, MAX_WINDOW, max(2, _WINDOWS // max(1, len(row))))
    result: dict[int, list[int]] = {}
    for start in range(len(row)):
        outside: set[int] = set()
        used_until = 0
        for length in range(1, min(longest, len(row) - start) + 1):
            end = start + length
            used_until = max(used_until, last_use[end - 2]) if length > 1 else 0
            outside.update(origin for origin in reads[end - 1] if origin < start)
            if len(outside) > 1:
                break
            if length > 1 and used_until < end and row[start].inputs:
                result.setdefault(length, []).append(start)
    return dict(sorted(result.items()))


def _sign(item: Item) -> Hashable:
    """What two items must have in common to be one item of a block."""
    names = tuple(name for name, _ in item.args)
    return item.callee, names, item.bang, item.phases, len(item.labels), len(item.inputs), len(item.results)


def _apart(starts: Sequence[int], length: int) -> list[int]:
    """Those windows that do not overlap, from the left."""
    result: list[int] = []
    for start in starts:
        if not result or start >= result[-1] + length:
            result.append(start)
    return result


def _partitions(row: list[Item], starts: Sequence[int], length: int) -> list[list[int]]:
    """Windows that are wired alike and named alike."""
    parts: dict[Hashable, list[int]] = {}
    for start in starts:
        window = row[start : start + length]
        prefix = _prefix(window)
        if prefix is not None:
            names: Hashable = tuple(_tail(label, prefix) for item in window for label in item.labels)
        else:
            names = tuple(
                re.sub(r"(?:\d+[a-z]?(?![a-z]))+", "#", _string(label)) for item in window for label in item.labels
            )
        parts.setdefault((prefix is not None, names, _wiring(window)), []).append(start)
    return [apart for part in parts.values() if len(apart := _apart(part, length)) > 1]


def _string(text: Text) -> str:
    return "".join(part if isinstance(part, str) else part.name for part in text)


def _prefix(window: Sequence[Item]) -> str | None:
    """The name that a labelled use would have: what stands before the `/` in every label of the window."""
    labels = [_string(label) for item in window for label in item.labels]
    if not labels or any(item.block is not None and not item.labels for item in window) or len(window[-1].results) != 1:
        return None
    prefix = min((label for label in labels), key=len)
    candidates = [prefix] if any(label != prefix for label in labels) else []
    candidates.append(prefix.rpartition("/")[0])
    while candidates[-1].rpartition("/")[0]:
        candidates.append(candidates[-1].rpartition("/")[0])
    for candidate in candidates:
        if candidate and all(label == candidate or label.startswith(candidate + "/") for label in labels):
            return candidate
    return None


def _tail(label: Text, prefix: str) -> str:
    return _string(label)[len(prefix) + 1 :]


def _wiring(window: Sequence[Item]) -> Hashable:
    """Where each input comes from: from which result in the window, or which value from outside."""
    made: dict[Text, Hashable] = {}
    outside: dict[Text, int] = {}
    result: list[Hashable] = []
    for index, item in enumerate(window):
        result += [
            made[name] if name in made else ("in", outside.setdefault(name, len(outside))) for name in item.inputs
        ]
        made.update({name: (index, position) for position, name in enumerate(item.results) if name})
    return tuple(result)


# One block


@dataclass
class _Unified:
    """What differs between the windows becomes parameters, each the vector of its values."""

    crowded: frozenset[str] = frozenset()  # fields with several parameters: all of them say which layer's
    bases: list[str] = field(default_factory=list)
    vectors: dict[tuple[str, ...], str] = field(default_factory=dict)  # written values: the parameter's expression
    strings: dict[tuple[str, ...], str] = field(default_factory=dict)  # of pieces of names: the parameter
    parameters: dict[str, list[Value]] = field(default_factory=dict)

    def text(self, texts: Sequence[str]) -> Text | None:
        """Names that differ in a piece, as one with holes."""
        if len(set(texts)) == 1:
            return (texts[0],)
        for pieces in sorted(self.strings, key=lambda pieces: -min(map(len, pieces))):
            cut = self._cut(texts, pieces)
            if cut is not None:
                return _holed(cut, self.strings[pieces])
        pieces = _difference(texts)
        if not all(pieces):
            return None
        name = self.fresh(next((name for name in "uvw" if name not in self.parameters), "s"))
        self.strings[pieces] = name
        whole = all(re.fullmatch(r"0|[1-9]\d{0,8}", piece) for piece in pieces)
        self.parameters[name] = [piece if whole else Quoted((piece,)) for piece in pieces]
        cut = self._cut(texts, pieces)
        return None if cut is None else _holed(cut, name)

    @staticmethod
    def _cut(texts: Sequence[str], pieces: tuple[str, ...]) -> list[str] | None:
        for most in (1, -1):
            cuts = {tuple(text.split(piece, most)) for text, piece in zip(texts, pieces, strict=True)}
            if len(cuts) == 1 and len(cut := list(cuts.pop())) > 1:
                return cut
        return None

    def value(self, values: Sequence[Value], name: str, hint: str) -> Value | None:
        """Arguments that differ, as a parameter, or as a string with holes."""
        if all(value == values[0] for value in values):
            return values[0]
        if all(isinstance(value, Quoted) for value in values):
            text = self.text([_string(value.text) for value in values if isinstance(value, Quoted)])
            return None if text is None else self._checked(text)
        vector = tuple(write_value(value) for value in values)
        if vector in self.vectors:
            return self.vectors[vector]
        multiple = self._multiple(vector)
        if multiple is not None:
            return multiple
        base = _SHORT.get(name, name)
        self.bases.append(base)
        parameter = self.fresh(f"{base}_{hint}" if base in self.crowded and hint else base)
        self.vectors[vector] = parameter
        self.parameters[parameter] = list(values)
        return parameter

    def _checked(self, text: Text) -> Quoted | None:
        numbers = {name for name, values in self.parameters.items() if not isinstance(values[0], Quoted)}
        wrapped = [
            Hole(f"str({part.name})") if isinstance(part, Hole) and part.name in numbers else part for part in text
        ]
        return Quoted(tuple(part for part in wrapped if part != ""))

    def _multiple(self, vector: tuple[str, ...]) -> str | None:
        """`4 * n`, where that holds often enough to be no accident."""
        if len(vector) < 3 or len(set(vector)) < 2 or not all(value.isdecimal() for value in vector):
            return None
        numbers = [int(value) for value in vector]
        for known, parameter in self.vectors.items():
            if not all(value.isdecimal() and int(value) for value in known) or not parameter.isidentifier():
                continue
            factors = {divmod(number, int(value)) for number, value in zip(numbers, known, strict=True)}
            if len(factors) == 1 and (factor := factors.pop())[1] == 0 and 1 < factor[0] <= 8:
                return f"{factor[0]} * {parameter}"
            parts = {divmod(int(value), number) for number, value in zip(numbers, known, strict=True) if number}
            if len(parts) == 1 and (part := parts.pop())[1] == 0 and 1 < part[0] <= 8:
                return f"{parameter} // {part[0]}"
        return None

    def fresh(self, base: str) -> str:
        """A name that no parameter has."""
        names = itertools.chain([base], (f"{base}{number}" for number in itertools.count(2)))
        return next(name for name in names if name not in self.parameters and name not in _RESERVED)


def _holed(parts: Sequence[str], name: str) -> Text:
    """The parts with a hole between each two."""
    result: list[str | Hole] = [parts[0]]
    for part in parts[1:]:
        result += [Hole(name), part]
    return tuple(part for part in result if part != "")


def _difference(texts: Sequence[str]) -> tuple[str, ...]:
    """The piece in which names differ, taken to the borders of numbers and words: 2a and 2b in res2a_x and res2b_x."""
    first = min(texts, key=len)
    start = 0
    while start < len(first) and len({text[start] for text in texts}) == 1:
        start += 1
    end = 0
    while end < len(first) - start and len({text[len(text) - 1 - end] for text in texts}) == 1:
        end += 1
    while start and texts[0][start - 1].isdigit():
        start -= 1
    after = [text[len(text) - end :] for text in texts]
    while end and after[0][:1].isalnum():
        end -= 1
        after = [text[1:] for text in after]
    return tuple(text[start : len(text) - end] for text in texts)


def _make(row: list[Item], starts: list[int], length: int, costs: Sequence[int], taken: set[str]) -> _Found | None:
    windows = [row[start : start + length] for start in starts]
    prefixes = [_prefix(window) for window in windows]
    known = [prefix for prefix in prefixes if prefix is not None]
    labelled = len(known) == len(windows) and len(set(known)) == len(known)
    if labelled and not _labels_are_free(row, windows, known):
        return None
    inputs = _inputs(windows)
    unified, body = _unify(windows, known if labelled else None, inputs, frozenset())
    crowded = frozenset(base for base in unified.bases if unified.bases.count(base) > 1)
    if crowded and body is not None:
        unified, body = _unify(windows, known if labelled else None, inputs, crowded)
    names = [name for name in unified.strings.values() if name != "self"]
    if body is None or len(unified.parameters) > MAX_PARAMETERS or len(names) > (1 if labelled else 2):
        return None
    order = _ordered(unified.parameters, set(names))
    block = Block("", list(inputs), order, body)
    block.name = _block_name(known if labelled else [_ending(window) for window in windows], windows, taken)
    uses, renamed = [], []
    for index, window in enumerate(windows):
        args: list[tuple[str | None, Value]] = [(None, unified.parameters[name][index]) for name, _ in order]
        results = window[-1].results
        labels: list[Text] = []
        moved: dict[Text, Text] = {}
        if labelled:
            labels = [(known[index],)]
            moved = {results[0]: labels[0]}
            results = labels
        outside = [names[index] for names in inputs.values()]
        uses.append(
            Item(block.name, labels, outside, args, results, block=block, positional=tuple(n for n, _ in order))
        )
        renamed.append(moved)
    spent = sum(len(write_stage(use)) + 6 for use in uses) + len(block.head()) + 8
    spent += sum(len(write_stage(item)) + 6 for item in body) + 10 * len(order)
    spent += 15 * len(uses) * max(0, len(names) - 1)  # two pieces of names are hard to read
    saved = sum(sum(costs[start : start + length]) for start in starts) - spent
    entered = body[0].inputs[0]
    forks = sum(entered in item.inputs for item in body) > 1
    return _Found(block, starts, length, uses, renamed, saved, forks)


def _unify(
    windows: list[list[Item]], prefixes: list[str] | None, inputs: dict[str, list[Text]], crowded: frozenset[str]
) -> tuple[_Unified, list[Item] | None]:
    unified = _Unified(crowded)
    if prefixes is not None:
        unified.strings[tuple(prefixes)] = "self"
    return unified, _body(windows, unified, prefixes, inputs)


def _labels_are_free(row: list[Item], windows: list[list[Item]], prefixes: list[str]) -> bool:
    """Whether each use's name can mean its result from then on: nothing else has the name."""
    for window, prefix in zip(windows, prefixes, strict=True):
        own: Text = (prefix,)
        inside = {id(item) for item in window}
        if window[-1].results != [own] and any(own in item.inputs for item in row if id(item) not in inside):
            return False
        if any(own in item.labels or own in item.results for item in row if id(item) not in inside):
            return False
        if any(own in item.labels and item is not window[-1] for item in window) and own in window[-1].results:
            return False
    return True


def _inputs(windows: list[list[Item]]) -> dict[str, list[Text]]:
    """What comes from outside, by the block's name for it: for each window the value's name there."""
    orders = []
    for window in windows:
        made: set[Text] = set()
        order: list[Text] = []
        for item in window:
            order += [name for name in item.inputs if name not in made and name not in order]
            made.update(item.results)
        orders.append(order)
    inner = {_string(label) for window in windows for item in window for label in item.labels}
    inner |= {name.rpartition("/")[2] for name in inner}
    result: dict[str, list[Text]] = {}
    free = iter(name for name in ["x", "y", "z", *(f"x{number}" for number in range(4, 1000))] if name not in inner)
    for names in zip(*orders, strict=True):
        same = _string(names[0])
        constant = len(set(names)) == 1 and _IDENTIFIER.match(same) and same not in _RESERVED and same not in inner
        result[same if constant and len(orders[0]) > 1 and same not in result else next(free)] = list(names)
    return result


def _body(
    windows: list[list[Item]], unified: _Unified, prefixes: list[str] | None, inputs: dict[str, list[Text]]
) -> list[Item] | None:
    body: list[Item] = []
    known: dict[Text, Text] = {names[0]: (name,) for name, names in inputs.items()}  # names in the first window

    def name_of(names: Sequence[Text]) -> Text | None:
        texts = [_string(name) for name in names]
        if prefixes is None:
            return unified.text(texts)
        tails = [_tail(name, prefix) for name, prefix in zip(names, prefixes, strict=True)]
        if not tails[0]:
            return (Hole("self"),)
        return unified.text(tails)

    for position in range(len(windows[0])):
        same = [window[position] for window in windows]
        first = same[0]
        labels = [name_of([item.labels[index] for item in same]) for index in range(len(first.labels))]
        if any(label is None for label in labels):
            return None
        written = [label for label in labels if label is not None]
        hint = (
            re.sub(r"\W+", "_", "".join(part for part in written[0] if isinstance(part, str))).strip("_")
            if written
            else ""
        )
        args: list[tuple[str | None, Value]] = []
        for index, (name, _) in enumerate(first.args):
            value = unified.value([item.args[index][1] for item in same], first.named(index), hint[:20])
            if value is None:
                return None
            args.append((name, value))
        arrived = [known[name] for name in first.inputs]
        results: list[Text] = []
        for index, result in enumerate(first.results):
            if not result:
                results.append(())
                continue
            inner = written[index] if index < len(written) else name_of([item.results[index] for item in same])
            if inner is None:
                return None
            known[result] = inner
            results.append(inner)
        body.append(dataclasses.replace(first, labels=written, args=args, inputs=arrived, results=results))
    return body


def _ending(window: list[Item]) -> str:
    """The last label of a window."""
    return next((_string(item.labels[0]) for item in reversed(window) if item.labels), "")


def _ordered(parameters: dict[str, list[Value]], names: set[str]) -> list[tuple[str, Value | None]]:
    """Pieces of names first, then what always differs, then what has a usual value."""
    plain: list[tuple[str, Value | None]] = []
    usual: list[tuple[str, Value | None]] = []
    for name, values in parameters.items():
        value, count = Counter(values).most_common(1)[0]
        if name not in names and count * 3 >= len(values) * 2 and len(values) > 2:
            usual.append((name, value))
        else:
            plain.append((name, None))
    return sorted(plain, key=lambda one: one[0] not in names) + usual


def _block_name(labels: Sequence[str], windows: list[list[Item]], taken: set[str]) -> str:
    """What the labels have in common, else what the block is made of."""
    stem = ""
    if labels and all(labels):
        start = 0
        shortest = min(labels, key=len)
        while start < len(shortest) and len({label[start] for label in labels}) == 1:
            start += 1
        word = re.match(r"[A-Za-z_]+", shortest[:start])
        stem = word[0].strip("_") if word else ""
    stem = stem or "_".join(dict.fromkeys(item.callee.lower() for item in windows[0][:2]))
    bad = taken | _RESERVED | set(schema.layer_types()) | {schema.ANY_TYPE}
    choices = itertools.chain([stem, f"{stem}_unit"], (f"{stem}_unit{number}" for number in itertools.count(2)))
    return next(name for name in choices if name not in bad)
