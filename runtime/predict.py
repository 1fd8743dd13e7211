"""`sparknet-predict`: what a trained net says of the rows of a source, written to a file, shown, or scored."""

import dataclasses
import json as json_format
import pathlib
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table as Shown

from .. import Model, caffe_ext, terminal
from ..errors import DataError, ModelError, SparkNetError, UsageError
from ..files import write_atomic
from ..proto import caffe_pb2
from . import deploy, outputs
from .command import check_counts, compile_model
from .config import check_slots, spark_conf
from .cores import cores
from .data import BadPolicy, BadRecords, Columns, Phase, Source, open_source, parse_uri
from .feeds import data_layers, feed_net
from .inference import BATCH, Deployed, Predictor
from .outputs import Table
from .plan import phase_net
from .progress import progress
from .scores import Confusion, best, picture

NARROW = 80  # columns of a terminal below which only the likeliest class is shown
SHOWN = 10  # rows of the table, and numbers of a blob in it
CLASSES_SHOWN = 50
LABELS = {"bigint": np.int64, "double": np.float64}  # Spark's types
ROWS = 512  # that a thread takes at a time, or a batch, if that is more


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be computed: plain values, which travel to Spark's workers.

    columns   the source's column for each input
    label     its column of labels, None: there is none; label_type: bigint or double
    blobs     given as they are
    scores    the blobs of a classifier, None: no predictions are given
    top       so many classes of each row
    names     of the classes, () for none
    """

    deployed: Deployed
    columns: Mapping[str, str]
    label: str | None
    label_type: str
    blobs: tuple[str, ...]
    scores: deploy.Scores | None
    top: int
    names: tuple[str, ...]
    batch: int
    precision: caffe_ext.Precision

    @property
    def wanted(self) -> list[str]:
        """All blobs that are computed."""
        return list(dict.fromkeys([*self.blobs, *([self.scores.probability] if self.scores else [])]))

    def predictor(self, threads: int) -> Predictor:
        """What computes them."""
        return Predictor(self.deployed, self.wanted, self.batch, threads, self.precision)

    def table(self, predictor: Predictor, chunk: Columns) -> Table:
        """What is told of the rows of `chunk`."""
        rows = len(next(iter(chunk.values())))
        arrays = predictor({top: chunk[column] for top, column in self.columns.items()}, rows)
        table: dict[str, npt.NDArray[Any]] = {}
        if self.label is not None:
            table["label"] = chunk[self.label].reshape(rows, -1)[:, 0].astype(LABELS[self.label_type])
        if self.scores is not None:
            probabilities = arrays[self.scores.probability].reshape(rows, -1)
            order = best(probabilities, self.top)
            table["prediction"] = order[:, 0]
            if self.names:
                table["class"] = np.array(self.names, object)[order[:, 0]]
            table["probability"] = np.take_along_axis(probabilities, order[:, :1], axis=1)[:, 0]
            table["top"] = order
            table["top_probability"] = np.take_along_axis(probabilities, order, axis=1)
        table |= {blob: arrays[blob] for blob in self.blobs}
        return table

    @property
    def schema(self) -> str:
        """The columns of `table`, as Spark has them."""
        columns = {} if self.label is None else {"label": self.label_type}
        if self.scores is not None:
            columns["prediction"] = "bigint"
            columns |= {"class": "string"} if self.names else {}
            columns |= {"probability": "float", "top": "array<bigint>", "top_probability": "array<float>"}
        columns |= dict.fromkeys(self.blobs, "array<float>")
        return ", ".join(f"`{name}` {kind}" for name, kind in columns.items())


def main(
    model: str,
    weights: str,
    source: str,
    *,
    blobs: Sequence[str] = (),
    out: str | None = None,
    workers: int | None = None,
    master: str | None = None,
    top: int = 5,
    labels: str | None = None,
    evaluate: bool = False,
    confusion: str | None = None,
    json: str | None = None,
    batch: int = BATCH,
    threads: int | None = None,
    precision: caffe_ext.Precision = "float32",
    bad_records: BadPolicy = "fail",
    conf: Sequence[str] = (),
    ship_env: str | None = None,
    defines: Mapping[str, str] = {},
) -> None:
    """Computes and tells; see the command's help.

    Raises UsageError, ModelError, DataError, OutputError, ClusterError, and what the engine raises.
    """
    check_counts(workers=workers, top=top, batch=batch, threads=threads)
    if master is None and (conf or ship_env):
        raise UsageError("--conf and --ship-env are Spark's: name a --master")
    if confusion is not None and not evaluate:
        raise UsageError("--confusion draws what --eval counts: give both")
    where = outputs.parse(out) if out is not None else None
    job, opened = _job(model, weights, source, blobs, top, labels, evaluate, batch, precision, defines)
    console = terminal.console()
    told = _Told(job, evaluate)
    bad = BadRecords(bad_records)
    began = time.perf_counter()
    with ExitStack() as stack:
        # On Spark the workers write Parquet, all at the same time.
        writes = where is not None and (master is None or where.kind != "parquet")
        write = stack.enter_context(outputs.writing(where)) if where is not None and writes else None
        bar = stack.enter_context(progress(f"predicting {source}"))
        if master is not None:
            tables = stack.enter_context(
                _on_spark(job, opened, master, workers or 2, spark_conf(conf, ship_env, master), bad, where)
            )
        else:
            tables = _computed(job, opened, workers or 1, threads, bad)
        for table in tables:
            told.add(table)
            if write is not None:
                write(table)
            bar.advance(len(next(iter(table.values()))))
        if not told.rows:
            raise DataError(f"{source} has no rows")
    seconds = time.perf_counter() - began
    summary: dict[str, Any] = {"rows": told.rows, "seconds": seconds, "skipped": bad.count}
    if told.confusion is not None:
        summary |= told.confusion.summary()
        for entry, name in zip(summary["classes"], job.names, strict=False):
            entry["name"] = name
        path = pathlib.Path(confusion or "confusion.png")
        write_atomic(path, picture(told.confusion.matrix, list(job.names) or None))
        summary["picture"] = str(path)
    if json is not None:
        write_atomic(json, json_format.dumps(summary, indent=2) + "\n")
    if out is None and not evaluate:
        console.print(told.shown(console.width))
    if told.confusion is not None:
        _show_scores(console, summary)
    for each in bad.first:
        console.print(f"skipped {each.key}: {each.reason}", markup=False, soft_wrap=True)
    told_of = f"{told.rows:,} rows in {seconds:.1f} s, {told.rows / seconds:,.0f} a second"
    if bad.count:
        told_of += f"; {bad.count:,} records could not be read and were skipped"
    console.print(told_of + (f"; written to {where.place}" if where is not None else ""), markup=False, soft_wrap=True)


def _job(
    path: str,
    weights: str,
    uri: str,
    blobs: Sequence[str],
    top: int,
    labels: str | None,
    evaluate: bool,
    batch: int,
    precision: caffe_ext.Precision,
    defines: Mapping[str, str],
) -> tuple[Job, Source]:
    """What is to be computed, looked at as far as that goes without the rows, and where they come from."""
    model = compile_model(path, defines, None, uri)
    net = deploy.deploy_net(model)
    file = pathlib.Path(weights)
    deployed = Deployed.of(net, [file], (pathlib.Path(), pathlib.Path(path).parent, file.parent))
    classifies = any(layer.type == "Softmax" for layer in net.layer)
    scores = deploy.scores(net) if evaluate or (classifies and not blobs) else None
    if scores is None and not blobs:
        blobs = deploy.outputs(net)
    names = _names(labels, scores) if labels is not None else ()
    wanted = [*blobs, *([scores.probability] if scores else [])]
    deployed.check(wanted, batch)
    source, columns, label = _columns(model, deploy.pruned(net, wanted), uri)
    if evaluate and label is None:
        known = ", ".join(column.name for column in source.columns)
        raise DataError(f"--eval compares with a column `label`; {uri} has the columns {known}")
    count = min(top, scores.classes) if scores else 1
    whole = all(column.dtype[:3] in ("int", "uin") for column in source.columns if column.name == label)
    kind = "bigint" if whole else "double"
    return Job(deployed, columns, label, kind, tuple(blobs), scores, count, names, batch, precision), source


def _columns(model: Model, net: caffe_pb2.NetParameter, uri: str) -> tuple[Source, dict[str, str], str | None]:
    """The source, its column for each input of `net`, and that of the labels, found as a test finds them."""
    phase: Phase = "TEST" if "TEST" in model.reports else "TRAIN"
    whole = phase_net(model.net, model.solver or caffe_pb2.SolverParameter(), phase)
    tops = [top for layer in data_layers(whole, phase) for top in layer.top]
    known = [column.name for column in open_source(uri, "TEST").columns]
    parsed = parse_uri(uri)
    named = parsed.columns if parsed else ()
    own = list(deploy.inputs(net))
    # Rows without labels have a column less than the net that is tested.
    tested = set(own) <= set(tops) and len(named or known) >= len(tops)
    fed = feed_net(whole if tested else net, "TEST", uri)
    if fed is None:
        raise ModelError(f"{model.name} has no data layer: nothing can be predicted from {uri}")
    columns = {feed.top: feed.column for feed in fed.feeds}
    label = columns.get(deploy.label_top(whole) or "") if tested else "label" if "label" in known else None
    return fed.source, {top: columns[top] for top in own}, label


def _names(file: str, scores: deploy.Scores | None) -> tuple[str, ...]:
    """The classes' names, a line each; ImageNet's `n01440764 tench` lose their number. Raises UsageError, DataError."""
    if scores is None:
        raise UsageError("--labels names classes, and none are predicted here")
    try:
        lines = pathlib.Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--labels {file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(lines) != scores.classes:
        raise DataError(f"--labels {file} has {len(lines)} lines, for {scores.classes} classes")
    return tuple(re.sub(r"^n\d{8} ", "", line.strip()) for line in lines)


def _computed(job: Job, source: Source, workers: int, threads: int | None, bad: BadRecords) -> Iterator[Table]:
    """What is told of all rows, in the source's order, computed by `workers` threads with a net each."""
    own = threading.local()
    each = max(1, (threads or cores()) // workers)
    step = job.batch * max(1, ROWS // job.batch)

    def compute(chunk: Columns) -> Table:
        if not hasattr(own, "predictor"):
            own.predictor = job.predictor(each)
        return job.table(own.predictor, chunk)

    with ThreadPoolExecutor(workers, "predict") as pool:
        waiting: deque[Future[Table]] = deque()
        try:
            for chunk in regrouped(source.read(0, 1, bad), step):
                waiting.append(pool.submit(compute, chunk))
                # One ahead of the threads: reading and computing go on side by side.
                while len(waiting) > workers + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def _on_spark(
    job: Job,
    source: Source,
    master: str,
    workers: int,
    conf: Mapping[str, str],
    bad: BadRecords,
    out: outputs.Out | None,
) -> Iterator[Iterator[Table]]:
    """As `_computed`, by tasks of Spark, one for each part of the rows; they write Parquet themselves."""
    from .spark import Cluster

    policy = bad.policy
    with Cluster(check_slots(master, workers), workers, None, conf) as cluster, ExitStack() as stack:
        sent, threads = cluster.broadcast(stack, job), cluster.threads

        def part(partition: int) -> Iterator[bytes | BadRecords | SparkNetError]:
            found = BadRecords(policy)
            try:
                mine: Job = sent.value
                predictor = mine.predictor(threads)
                for chunk in regrouped(source.read(partition, workers, found), mine.batch):
                    yield outputs.stream(mine.table(predictor, chunk))
                yield found
            except SparkNetError as error:
                yield error

        def tables(given: Iterator[bytes | BadRecords]) -> Iterator[Table]:
            for each in given:
                if isinstance(each, BadRecords):
                    bad.count += each.count
                    bad.first += each.first[: BadRecords.KEPT - len(bad.first)]
                else:
                    yield outputs.table_of(each)

        parquet = out.place if out is not None and out.kind == "parquet" else None
        yield tables(stack.enter_context(cluster.streams(part, parquet, job.schema)))


def regrouped(chunks: Iterable[Columns], rows: int) -> Iterator[Columns]:
    """The rows of `chunks` in chunks of `rows`, the last one of what is left."""
    kept: list[Columns] = []
    count = 0
    for chunk in chunks:
        kept.append(chunk)
        count += len(next(iter(chunk.values())))
        if count >= rows:
            whole = {name: np.concatenate([each[name] for each in kept]) for name in chunk}
            for start in range(0, count - rows + 1, rows):
                yield {name: values[start : start + rows] for name, values in whole.items()}
            left = count % rows
            kept = [{name: values[count - left :] for name, values in whole.items()}] if left else []
            count = left
    if count:
        yield {name: np.concatenate([each[name] for each in kept]) for name in kept[0]}


class _Told:
    """What is kept of the rows to be shown at the end."""

    def __init__(self, job: Job, evaluate: bool) -> None:
        self.rows = 0
        self._first: list[list[str]] = []
        self._columns: list[str] = []
        self._label = job.label
        assert not evaluate or job.scores is not None
        self.confusion = Confusion.of(job.scores.classes, job.top) if evaluate and job.scores else None

    def add(self, table: Table) -> None:
        """Takes note of rows; raises DataError for labels that are no classes."""
        if self.confusion is not None:
            labels = table["label"]
            classes = len(self.confusion.matrix)
            wrong = np.flatnonzero((labels < 0) | (labels >= classes) | (labels != np.floor(labels)))
            if len(wrong):
                raise DataError(
                    f"row {self.rows + wrong[0]} has the label {labels[wrong[0]]}, and the net tells {classes} "
                    f"classes, 0 to {classes - 1}"
                )
            self.confusion.add(labels, table["top"])
        left = SHOWN - len(self._first)
        if left:
            shown: dict[str, Sequence[str]] = {}
            for name, values in table.items():
                if name == "probability":
                    shown[name] = [f"{value:.2%}" for value in values[:left]]
                elif name == "top":
                    shares = table["top_probability"]
                    pairs = [zip(values[i, 1:], shares[i, 1:], strict=True) for i in range(min(left, len(values)))]
                    if values.shape[1] > 1:
                        shown["next"] = ["  ".join(f"{each} {share:.2%}" for each, share in pair) for pair in pairs]
                elif name != "top_probability":
                    shown[name] = [_cell(value) for value in values[:left]]
            self._columns = list(shown)
            self._first += map(list, zip(*shown.values(), strict=True))
        self.rows += len(next(iter(table.values())))

    def shown(self, width: int) -> Shown:
        """The first rows as a table, for a terminal `width` columns wide."""
        table = Shown(title=f"the first {len(self._first)} of {self.rows:,} rows", title_justify="left")
        for column in ("row", *self._columns):
            table.add_column(column, justify="right")
        for index, row in enumerate(self._first):
            table.add_row(str(index), *row)
        if width < NARROW and "next" in self._columns:
            table.columns = [column for column in table.columns if column.header != "next"]
        return table


def _cell(value: Any) -> str:
    if isinstance(value, np.ndarray):
        flat = value.ravel()
        return " ".join(f"{each:.4g}" for each in flat[:SHOWN]) + (f" … ({flat.size})" if flat.size > SHOWN else "")
    return f"{value:.4g}" if isinstance(value, np.floating) else str(value)


def _show_scores(console: Console, summary: Mapping[str, Any]) -> None:
    top = next(name for name in summary if name.startswith("top"))
    console.print(f"accuracy {summary['accuracy']:.4f}, {top.replace('top', 'top-')} {summary[top]:.4f}")
    table = Shown(title="classes", title_justify="left")
    for column in ("class", "precision", "recall", "support"):
        table.add_column(column, justify="left" if column == "class" else "right")
    classes = summary["classes"]
    for entry in classes[:CLASSES_SHOWN]:
        shares = ("—" if entry[key] is None else f"{entry[key]:.4f}" for key in ("precision", "recall"))
        table.add_row(" ".join([str(entry["class"]), entry.get("name", "")]).strip(), *shares, f"{entry['support']:,}")
    console.print(table)
    if len(classes) > CLASSES_SHOWN:
        console.print(f"({len(classes) - CLASSES_SHOWN} more classes: --json FILE has them)")
    console.print(f"confusion matrix: {summary['picture']}", markup=False, soft_wrap=True)
