"""Passes over more rows than a net's batch holds."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EngineError
from .weights import Array

if TYPE_CHECKING:
    from .net import Net


def batches(net: "Net", arrays: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of `arrays`, by blob, in batches of the net's size; zeros fill up the last one.

    Raises EngineError where the arrays have no rows, or not equally many.
    """
    size = next(iter(net.blobs.values())).shape[0]
    rows = count_rows(arrays)
    for begin in range(0, rows, size):
        batch = {}
        for name, values in arrays.items():
            part = np.asarray(values[begin : begin + size], np.float32)
            padding = np.zeros((size - len(part), *part.shape[1:]), np.float32)
            batch[name] = np.concatenate([part, padding])
        yield batch


def count_rows(arrays: Mapping[str, Any]) -> int:
    """How many rows all `arrays` have; EngineError where they have none, or differ."""
    counts = {name: len(values) for name, values in arrays.items()}
    if not counts or len(set(counts.values())) != 1 or 0 in counts.values():
        given = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise EngineError(f"arrays with equally many rows are needed, at least one; {given or 'there are none'}")
    return next(iter(counts.values()))


def forward_all(net: "Net", blobs: Sequence[str] | None, inputs: Mapping[str, Any]) -> dict[str, Array]:
    """The outputs of `net`, and those that `blobs` names, for all rows of `inputs`.

    Runs the net batch by batch; the last one is filled up with zeros, whose results are dropped. An output that does
    not have a row for each of the batch (a loss, say) is given once for each batch.
    """
    results = _Results(net)
    for batch in batches(net, inputs):
        results.add(net.forward(blobs, **batch))
    return results.arrays(count_rows(inputs))


def forward_backward_all(
    net: "Net", blobs: Sequence[str] | None, diffs: Sequence[str] | None, arrays: Mapping[str, Any]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """As `forward_all`, with a backward pass after each batch, and the gradients of the inputs and of `diffs`.

    `arrays` has inputs, and gradients of outputs.
    """
    wrong = set(arrays) - {*net.inputs, *net.outputs}
    if wrong:
        raise EngineError(f"`{min(wrong)}` is neither an input nor an output of the net")
    inputs = {name: values for name, values in arrays.items() if name in net.inputs}
    gradients = {name: values for name, values in arrays.items() if name not in net.inputs}
    rows = count_rows(arrays)
    results, result_diffs = _Results(net), _Results(net)
    none: dict[str, Any] = {}
    forward_batches = batches(net, inputs) if inputs else []
    backward_batches = batches(net, gradients) if gradients else []
    for forward_batch, backward_batch in zip_longest(forward_batches, backward_batches, fillvalue=none):
        results.add(net.forward(blobs, **forward_batch))
        result_diffs.add(net.backward(diffs, **backward_batch))
    return results.arrays(rows), result_diffs.arrays(rows)


class _Results:
    """What several batches gave, by blob."""

    def __init__(self, net: "Net") -> None:
        self._size = next(iter(net.blobs.values())).shape[0]
        self._parts: dict[str, list[Array]] = {}

    def add(self, batch: Mapping[str, Array]) -> None:
        for name, values in batch.items():
            self._parts.setdefault(name, []).append(values.copy())

    def arrays(self, rows: int) -> dict[str, Array]:
        """All in one, cut to `rows` where there is one for each row."""
        joined = {}
        for name, parts in self._parts.items():
            per_row = all(part.shape[:1] == (self._size,) for part in parts)
            joined[name] = np.concatenate(parts)[:rows] if per_row else np.stack(parts)
        return joined
