"""`sparknet-data verify`: whether every record is whole, labels are in range, and no row is there twice."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data import BadRecords, Columns, Phase
from ..progress import progress
from .reading import Input, names_in, open_input
from .summary import Summary
from .writer import rows_of

LISTED = 10
# What is looked at: the name, as --allow takes it, and what it means.
CHECKS = {
    "records": "records that cannot be read or decoded",
    "labels": "labels that are negative, or not below --classes",
    "gaps": "classes without rows, below the largest label or --classes",
    "values": "NaN or infinite values",
    "sizes": "images of several sizes",
    "duplicates": "rows with the content of an earlier one",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check found: how often, a sentence, the first cases, and whether it was allowed."""

    check: str
    count: int
    text: str
    first: list[str]
    allowed: bool


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What verify found in a data set of `rows` rows that could be read."""

    source: str
    rows: int
    findings: list[Finding]

    @property
    def good(self) -> bool:
        """Whether nothing was found but what was allowed."""
        return all(finding.allowed for finding in self.findings)

    def json(self) -> dict[str, Any]:
        """As `--json` shows it."""
        return {"good": self.good, **dataclasses.asdict(self)}

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.rows:,} rows, {'nothing wrong' if self.good else 'not as it should be'}"]
        for finding in self.findings:
            allowed = f" (allowed: {finding.check})" if finding.allowed else f" [{finding.check}]"
            lines.append(f"{finding.text}{allowed}")
            lines += [f"  {each}" for each in finding.first]
            if finding.first and finding.count > len(finding.first):
                lines.append(f"  and {finding.count - len(finding.first):,} more")
        return "\n".join(lines)


def verify(data: Input, classes: int | None, allow: Collection[str]) -> Verdict:
    """Reads everything and checks it; `data` is to skip bad records. Memory grows by 24 bytes a row.

    allow: checks whose findings do not count. Raises DataError for what is no single record's fault, and no rows.
    """
    summary = Summary(data.columns)
    digests: list[npt.NDArray[np.uint64]] = []
    labels: list[npt.NDArray[np.int64]] = []
    first: dict[str, list[str]] = {"labels": [], "values": []}
    label = summary.label
    with progress(f"reading {data.text}") as bar:
        for rows in data.chunks():
            start = summary.rows
            summary.add(rows)
            digests.append(_digests(rows, [c.name for c in data.columns if c != label]))
            if label is not None:
                labels.append(rows[label.name].astype(np.int64))
                for row in np.flatnonzero(_off(labels[-1], classes))[:LISTED]:
                    first["labels"].append(f"{_name(rows, row, start)}: label {labels[-1][row]}")
            for row, name in _not_finite(rows, data):
                first["values"].append(f"{_name(rows, row, start)}: column `{name}`")
            first = {check: found[:LISTED] for check, found in first.items()}
            bar.advance(rows_of(rows))
    bad = data.bad
    found = [
        ("records", bad.count, "records cannot be read", [f"{each.key}: {each.reason}" for each in bad.first]),
        (
            "labels",
            sum(n for x, n in summary.labels.items() if _off(x, classes)),
            "labels out of range",
            first["labels"],
        ),
        ("values", sum(r.wrong for r in summary.ranges.values()), "values are NaN or infinite", first["values"]),
        _gaps(summary, classes),
        _sizes(summary),
        _duplicates(data, np.concatenate(digests), np.concatenate(labels) if labels else None),
    ]
    findings = [
        Finding(check, count, f"{count:,} {text}", first, check in allow)
        for check, count, text, first in found
        if count
    ]
    return Verdict(data.text, summary.rows, findings)


Found = tuple[str, int, str, list[str]]


def _off(labels: Any, classes: int | None) -> Any:
    """Whether a label is none of the classes."""
    return (labels < 0) | (labels >= (np.inf if classes is None else classes))


def _gaps(summary: Summary, classes: int | None) -> Found:
    count = classes if classes is not None else max(summary.labels, default=-1) + 1
    # Of a column of other numbers, that is no class, gaps mean nothing, and could be billions.
    present = sorted(label for label in summary.labels if 0 <= label < count)
    gaps = [(low + 1, high - 1) for low, high in itertools.pairwise([-1, *present, count]) if high - low > 1]
    first = [f"{low}" if low == high else f"{low} to {high}" for low, high in gaps[:LISTED]]
    return "gaps", count - len(present), f"of {count:,} classes have no rows: {', '.join(first)}", []


def _sizes(summary: Summary) -> Found:
    sizes = [f"{'×'.join(map(str, shape))}: {rows:,}" for shape, rows in summary.sizes.most_common(LISTED)]
    return "sizes", len(sizes) if len(summary.sizes) > 1 else 0, "image sizes", sizes


def _duplicates(data: Input, digests: npt.NDArray[np.uint64], labels: npt.NDArray[np.int64] | None) -> Found:
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: of equal rows the first one comes first
    ordered = digests[order]
    same = np.flatnonzero((ordered[1:] == ordered[:-1]).all(axis=1)) + 1
    begins = np.ones(len(order), bool)
    begins[same] = False
    original = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
    pairs = sorted(zip(order[same].tolist(), original[same].tolist(), strict=True))
    other = 0 if labels is None else sum(labels[row] != labels[first] for row, first in pairs)
    names = _names(data, {row for pair in pairs[:LISTED] for row in pair})
    listed = [f"{names[row]} is {names[first]} again{_labels(labels, row, first)}" for row, first in pairs[:LISTED]]
    text = f"rows have the content of an earlier one, {other:,} of them with another label"
    return "duplicates", len(pairs), text, listed


def _labels(labels: npt.NDArray[np.int64] | None, row: int, first: int) -> str:
    if labels is None or labels[row] == labels[first]:
        return ""
    return f", with label {labels[row]} in place of {labels[first]}"


def _digests(rows: Columns, columns: Sequence[str]) -> npt.NDArray[np.uint64]:
    """128 bits for each row, equal for equal content."""
    result = np.empty((rows_of(rows), 2), np.uint64)
    for row in range(len(result)):
        digest = hashlib.blake2b(digest_size=16)
        for column in columns:
            value = rows[column][row]
            digest.update(value if isinstance(value, bytes) else np.ascontiguousarray(value).tobytes())
        result[row] = np.frombuffer(digest.digest(), np.uint64)
    return result


def _not_finite(rows: Columns, data: Input) -> Iterator[tuple[int, str]]:
    for column in data.columns:
        values = rows[column.name]
        if not column.encoded and np.issubdtype(values.dtype, np.floating):
            off = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
            yield from ((int(row), column.name) for row in np.flatnonzero(off)[:LISTED])


def _name(rows: Columns, row: int, start: int) -> str:
    """What a row is called: its number, and its record's name where there is one."""
    names = names_in(rows)
    number = f"row {start + row}"
    return number if names is None else f"{number} ({names[row].decode(errors='backslashreplace')})"


def _names(data: Input, wanted: set[int]) -> dict[int, str]:
    """The names of rows, which are read again for it."""
    result: dict[int, str] = {}
    if not wanted:
        return result
    start = 0
    for rows in data.source.read(0, 1, BadRecords("skip")):
        stop = start + rows_of(rows)
        result |= {row: _name(rows, row - start, start) for row in wanted if start <= row < stop}
        if len(result) == len(wanted):
            break
        start = stop
    return result


def main(source: str, classes: int | None, allow: Collection[str], phase: Phase, as_json: bool) -> bool:
    """Prints what `verify` finds in `source`; gives whether it is good."""
    found = verify(open_input(source, phase, "skip"), classes, allow)
    if as_json:
        print(json.dumps(found.json(), indent=2))
    else:
        print(found)
    return found.good
