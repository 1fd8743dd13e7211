"""What is measured once a run is over, to be looked at: layer times, first filters, and where a classifier errs.

All of it takes some seconds at most: of large test sets the first rows are taken, of slow nets small batches.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ... import caffe_ext
from ...caffe_ext.images import decode
from ...errors import ModelError, SparkNetError
from .. import deploy, timing
from ..data import BadRecords, Column, Columns, DataFrame
from ..events import End
from ..feeds import Fed
from ..inference import BATCH, Deployed, Predictor
from ..plan import phase_net
from ..prepare.reading import RGB
from ..scores import Confusion, best
from .folder import Subject
from .pictures import filters, is_image, thumbnail
from .record import EventDict

# Seconds that timing the layers, and predicting, may take; rows that are predicted, and mistakes that are kept.
TIME_SECONDS, SCORE_SECONDS, SCORE_ROWS, MISTAKES = 2.0, 6.0, 10_000, 24
PASSES = 3
# Classes of a matrix that can be looked at; of more, and of fewer, these many pairs that are mistaken most often.
MATRIX, PAIRS = 60, 20
Numbers = npt.NDArray[Any]


def gather(subject: Subject, end: End, events: Sequence[EventDict]) -> dict[str, Any]:
    """What can be found: `times`, `filters`, `scores`, each missing where it makes no sense.

    A part that fails is missing, too, and why is in `problems`.
    """
    weights = next((path for file in end.files[::-1] if (path := pathlib.Path(file)).suffix == ".caffemodel"), None)
    found: dict[str, Any] = {"problems": []}
    parts: dict[str, Callable[[], dict[str, Any] | None]] = {"times": lambda: _times(subject, events)}
    if weights is not None and weights.is_file():
        parts["filters"] = lambda: _filters(subject, weights)
        parts["scores"] = lambda: _scores(subject, weights)
    for name, part in parts.items():
        try:
            if (result := part()) is not None:
                found[name] = result
        except Exception as error:  # the run is over and well: that it cannot be looked at does not make it fail
            found["problems"].append(f"{name}: {error if isinstance(error, SparkNetError) else repr(error)}")
    return found


def _times(subject: Subject, events: Sequence[EventDict]) -> dict[str, Any] | None:
    """Milliseconds of each layer in a step, of a batch that is small enough for a few passes to take little time."""
    net = phase_net(subject.model.net, subject.solver, "TRAIN")
    if any(caffe_ext.layer_types()[layer.type].source and layer.type != "Input" for layer in net.layer):
        return None
    batch = next((event["batch"] for event in events if event["event"] == "start"), 1) // max(
        1, subject.solver.iter_size
    )
    pace = _pace(events)
    most = int(batch * TIME_SECONDS / (pace * (PASSES + timing.WARM_UP))) if pace else batch
    timing.set_batch(net, max(1, min(batch, most)))
    done = timing.measure(net, "TRAIN", PASSES, precision=subject.precision)
    layers = [
        {name: getattr(layer, name) for name in ("name", "type", "forward_ms", "backward_ms", "within")}
        for layer in done.layers
    ]
    return {"batch": done.batch, "threads": done.threads, "passes": done.iterations, "layers": layers}


def _pace(events: Sequence[EventDict]) -> float | None:
    """Seconds of a step, as the last event tells."""
    told = [event for event in events if event["event"] in ("round", "iteration") and event["rows"]]
    batch = next((event["batch"] for event in events if event["event"] == "start"), 0)
    if not told or not batch or not told[-1]["seconds"]:
        return None
    share = max(1, len(told[-1].get("each", ())))
    return float(told[-1]["seconds"] * batch * share / told[-1]["rows"])


def _filters(subject: Subject, weights: pathlib.Path) -> dict[str, Any] | None:
    """The filters of the first layer that has any and reads images as they are, or an inner product's as images."""
    net = deploy.deploy_net(subject.model)
    inputs = deploy.inputs(net)
    layer = next((each for each in net.layer if each.type in ("Convolution", "InnerProduct")), None)
    if layer is None or not layer.bottom or layer.bottom[0] not in inputs:
        return None
    blobs = caffe_ext.read_weights(weights).get(layer.name)
    if not blobs:
        return None
    values, shape = blobs[0], inputs[layer.bottom[0]]
    if layer.type == "InnerProduct":
        if not is_image(shape) or values.ndim != 2 or values.shape[1] != np.prod(shape):
            return None
        values = values.reshape(-1, *shape)
    if values.ndim != 4 or min(values.shape[2:]) < 2:
        return None
    images = filters(values, _rgb(subject.test))
    count = len(values) * (1 if values.shape[1] == 3 else values.shape[1])
    return {"layer": layer.name, "shape": list(values.shape), "count": count, "images": images}


def _rgb(fed: Fed | None) -> bool:
    """Whether colours are red, green, blue, where Caffe has blue, green, red."""
    return fed is not None and fed.uri.partition(":")[0] in RGB


@dataclasses.dataclass
class _Mistake:
    """A row whose class is not the predicted one."""

    row: int
    true: int
    predicted: int
    share: float  # of the true class
    predicted_share: float
    image: Numbers | bytes | None


def _scores(subject: Subject, weights: pathlib.Path) -> dict[str, Any] | None:
    """Confusion matrix and worst mistakes of a classifier, over the first rows of its test set."""
    fed = subject.test
    net = deploy.deploy_net(subject.model)
    label = deploy.label_top(phase_net(subject.model.net, subject.solver, "TEST"))
    columns = {feed.top: feed.column for feed in fed.feeds} if fed else {}
    if fed is None or label not in columns or isinstance(fed.source, DataFrame) or deploy.inputs(net).keys() - columns:
        return None
    try:
        scores = deploy.scores(net)
    except ModelError:
        return None  # no classifier
    inputs = {top: columns[top] for top in deploy.inputs(net)}
    deployed = Deployed.of(net, [weights], subject.folders)
    deployed.check([scores.probability], BATCH)
    predictor = Predictor(deployed, [scores.probability], BATCH, None, subject.precision)
    shown = _shown(fed, inputs)
    confusion, worst, rows = Confusion.of(scores.classes, 5), list[_Mistake](), 0
    began = time.perf_counter()
    for chunk in fed.source.read(0, 1, BadRecords(subject.bad_records)):
        for at in range(0, len(chunk[columns[label]]), 8 * BATCH):
            some = {name: values[at : at + 8 * BATCH] for name, values in chunk.items()}
            labels = some[columns[label]].reshape(-1).astype(np.int64)
            if ((labels < 0) | (labels >= scores.classes)).any():
                return None  # labels that mean something else
            found = predictor({top: some[column] for top, column in inputs.items()}, len(labels))
            probabilities = found[scores.probability].reshape(len(labels), -1)
            order = best(probabilities, confusion.top)
            confusion.add(labels, order)
            worst = _worst([*worst, *_mistakes(labels, order[:, 0], probabilities, rows, some, shown)])
            rows += len(labels)
            if rows >= SCORE_ROWS or time.perf_counter() - began > SCORE_SECONDS:
                return _told(subject, confusion, worst)
    return _told(subject, confusion, worst) if rows else None


def _mistakes(
    labels: Numbers, predicted: Numbers, probabilities: Numbers, first: int, some: Columns, shown: Column | None
) -> list[_Mistake]:
    wrong = np.flatnonzero(labels != predicted)
    share = probabilities[wrong, labels[wrong]]
    return [
        _Mistake(
            row=first + int(row),
            true=int(labels[row]),
            predicted=int(predicted[row]),
            share=float(probabilities[row, labels[row]]),
            predicted_share=float(probabilities[row, predicted[row]]),
            image=None if shown is None else some[shown.name][row],
        )
        for row in wrong[np.argsort(share, kind="stable")][:MISTAKES]
    ]


def _worst(mistakes: list[_Mistake]) -> list[_Mistake]:
    return sorted(mistakes, key=lambda mistake: (mistake.share, mistake.row))[:MISTAKES]


def _shown(fed: Fed, inputs: dict[str, str]) -> Column | None:
    """The column of a net's input that can be looked at."""
    known = {column.name: column for column in fed.source.columns}
    images = [known[name] for name in inputs.values() if known[name].encoded or is_image(known[name].shape)]
    return images[0] if images else None


def _told(subject: Subject, confusion: Confusion, worst: list[_Mistake]) -> dict[str, Any]:
    rgb = _rgb(subject.test)
    mistakes = []
    for mistake in worst:
        image = decode(mistake.image) if isinstance(mistake.image, bytes) else mistake.image
        told = {field: getattr(mistake, field) for field in ("row", "true", "predicted", "share", "predicted_share")}
        mistakes.append({**told, "image": None if image is None else thumbnail(image, rgb)})
    summary = confusion.summary()
    return {
        "rows": confusion.rows,
        "accuracy": confusion.accuracy,
        "classes": summary["classes"],
        "confusion": summary["confusion"] if len(confusion.matrix) <= MATRIX else None,
        "pairs": _pairs(confusion.matrix),
        "mistakes": mistakes,
    }


def _pairs(matrix: Numbers) -> list[dict[str, int]]:
    """The pairs of classes that are taken for one another most often."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    places = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [{"true": int(i), "predicted": int(j), "rows": int(wrong[i, j])} for i, j in places if wrong[i, j]]
