"""`sparknet-data convert` and `split`: a data set in another format, or in several parts."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import DataError, UsageError
from ..data import BadPolicy, Columns, Phase
from ..progress import progress
from .pixels import Encoding, Pixelwork
from .reading import Input, open_input
from .sink import Sink, Written, sink
from .writer import Layout, label_of, rows_of

# Which of Caffe's tools a set's database equals.
TOOLS = {
    "mnist": "convert_mnist_data",
    "cifar10": "convert_cifar_data",
    "cifar100": "convert_cifar_data",
    "lmdb": "copy",
    "leveldb": "copy",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What `convert` and `split` are asked for.

    size        height and width that images are resized to
    gray        images of one channel
    encoding    how images are stored
    per_file    rows in each file of formats with several; 0: as many as make 128 MB
    shuffle     whether rows come in another order, which follows from `seed`
    """

    phase: Phase = "TRAIN"
    size: tuple[int, int] | None = None
    gray: bool = False
    encoding: Encoding | None = None
    shuffle: bool = False
    seed: int = 0
    per_file: int = 0
    force: bool = False
    bad_records: BadPolicy = "fail"

    def settings(self, source: str) -> dict[str, Any]:
        """What decides the rows that are written, as `destination.writing` wants it."""
        return {"source": source, **dataclasses.asdict(self), "force": None}


def convert(source: str, to: str, options: Options) -> tuple[Written, Input]:
    """Writes the rows of `source` to `to`; gives what was written, and the input with what was skipped.

    Raises DataError, UsageError, OutputError.
    """
    data = opened(source, options)
    with sink_for(to, data, options) as target:
        with progress(f"writing {to}") as bar:
            for rows in rows_in_order(data, target, options):
                target.take(rows)
                bar.advance(rows_of(rows))
        return target.finish(), data


def split(
    source: str, to: str, parts: Sequence[tuple[str, float]], by_class: bool, options: Options
) -> tuple[list[Written], Input]:
    """Writes the rows of `source` in parts: `parts` are names, which replace {} in `to`, and shares of the rows.

    Which rows go where follows from the options' seed; with `by_class`, each class is split by itself. Rows are read
    twice. Raises DataError, UsageError, OutputError.
    """
    if "{}" not in to:
        raise UsageError(f"`{to}`: write {{}} where the name of a part goes, {to}_{{}} for example")
    data = opened(source, options)
    with contextlib.ExitStack() as stack:
        targets = [
            stack.enter_context(sink_for(to.replace("{}", name), data, options, part=(index, list(parts), by_class)))
            for index, (name, _) in enumerate(parts)
        ]
        classes = _classes(opened(source, options), by_class)
        chosen = assigned(classes, [share for _, share in parts], options.seed)
        for index, (name, _) in enumerate(parts):
            if not (chosen == index).any():
                raise DataError(f"{source} has {len(classes):,} rows, too few for a part `{name}`")
        bar = stack.enter_context(progress(f"writing {to}", len(classes)))
        first = 0
        for rows in rows_in_order(data, targets[0], options):
            count = rows_of(rows)
            mine = chosen[first : first + count]
            for index, target in enumerate(targets):
                places = np.flatnonzero(mine == index)
                if len(places):
                    target.take({name: values[places] for name, values in rows.items()})
            first += count
            bar.advance(count)
        return [target.finish() for target in targets], data


def assigned(classes: npt.NDArray[np.int64], shares: Sequence[float], seed: int) -> npt.NDArray[np.int8]:
    """The part that each row goes to, drawn so that parts have their shares of each class, to a row."""
    random = np.random.default_rng(seed)
    result = np.empty(len(classes), np.int8)
    bounds = np.cumsum([0, *shares])
    for each in np.unique(classes):
        rows = random.permutation(np.flatnonzero(classes == each))
        cuts = np.rint(bounds * len(rows)).astype(int)
        for index, (start, stop) in enumerate(itertools.pairwise(cuts)):
            result[rows[start:stop]] = index
    return result


def shares_of(text: str) -> list[tuple[str, float]]:
    """Reads `train=0.9,test=0.1`; raises UsageError."""
    parts: list[tuple[str, float]] = []
    for each in text.split(","):
        name, _, share = each.strip().partition("=")
        try:
            parts.append((name, float(share)))
        except ValueError:
            raise UsageError(f"--into {text}: write name=share, train=0.9,test=0.1 for example") from None
        if not name or "/" in name or not 0 < parts[-1][1] < 1:
            raise UsageError(f"--into {text}: `{each}` is no name and a share between 0 and 1")
    if len({name for name, _ in parts}) < len(parts) or len(parts) < 2:
        raise UsageError(f"--into {text}: two parts at least are wanted, each with a name of its own")
    if abs(sum(share for _, share in parts) - 1) > 1e-6:
        raise UsageError(f"--into {text}: the shares add up to {sum(share for _, share in parts):g}, not to 1")
    return parts


def opened(source: str, options: Options) -> Input:
    """Opens `source` as `options` say. Raises DataError."""
    shuffle = options.seed if options.shuffle else None
    return open_input(source, options.phase, options.bad_records, options.size, options.gray, shuffle)


def sink_for(to: str, data: Input, options: Options, **part: Any) -> contextlib.AbstractContextManager[Sink]:
    """As `sink.sink`; `part` says which part of the rows it is."""
    work = Pixelwork(options.size, options.gray, options.encoding, data.rgb)
    tool: Any = TOOLS.get(data.uri.scheme, "convert_imageset")
    if tool == "copy" and options.shuffle:
        tool = "renumber"
    layout = Layout(per_file=options.per_file, caffe=tool, phase="val" if options.phase == "TEST" else "train")
    return sink(to, data, work, layout, {**options.settings(data.text), **part}, force=options.force)


def rows_in_order(data: Input, target: Sink, options: Options) -> Iterator[Columns]:
    """All rows, in the order that `options` ask for."""
    if options.shuffle and "shuffle" not in data.source.OPTIONS:
        return data.shuffled(options.seed, target.scratch)
    return data.chunks()


def _classes(data: Input, by_class: bool) -> npt.NDArray[np.int64]:
    """A class for each row: its label, or 0."""
    label = label_of(data.columns)
    if by_class and label is None:
        raise DataError(f"{data.text} has no column of labels to split by")
    found = []
    with progress(f"counting {data.text}") as bar:
        for rows in data.chunks():
            count = rows_of(rows)
            found.append(rows[label.name].astype(np.int64) if by_class and label else np.zeros(count, np.int64))
            bar.advance(count)
    return np.concatenate(found)
