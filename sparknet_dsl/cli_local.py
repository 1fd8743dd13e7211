"""The commands of one machine, without Spark: arguments only, as in cli.py."""

import sys
from typing import Any

import click

from .cli_common import (
    CONTEXT,
    FILE,
    MASTER,
    MODEL,
    SOURCE,
    Command,
    Completed,
    bad_records_option,
    define_option,
    memory_option,
    precision_option,
    report_options,
    speech_options,
    tracker_options,
    where_to_report,
)


def _row(context: click.Context, parameter: click.Parameter, given: str | None) -> tuple[int, ...] | None:
    """--row 3x224x224, as numbers."""
    if given is None:
        return None
    sizes = given.replace("×", "x").split("x")
    if not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise click.BadParameter(f"{given!r} is not of the form 3x224x224")
    return tuple(map(int, sizes))


@click.command(cls=Command, context_settings=CONTEXT)
@click.argument("model", type=MODEL)
@click.option("--iterations", type=click.INT, default=50, show_default=True, help="Passes to take the median of.")
@click.option(
    "--phase",
    type=click.Choice(["TRAIN", "TEST"], case_sensitive=False),
    default="TRAIN",
    show_default=True,
    help="TRAIN times forward and backward passes, TEST forward passes only.",
)
@click.option("--batch", type=click.INT, help="Rows of a batch.  [default: the model's]")
@click.option(
    "--row",
    metavar="CxHxW",
    callback=_row,
    help="The shape of a row of the data, 3x224x224 say, where the model leaves it to a database.",
)
@click.option("--threads", type=click.INT, help="Threads of the engine.  [default: all cores]")
@precision_option
@memory_option
@define_option
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="How it is shown.  [default: text]"
)
@click.option("--json", is_flag=True, help="The same as --format json.")
@speech_options
def time_command(model: str, phase: str, form: str, json: bool, **options: Any) -> None:
    """Time MODEL layer by layer, as `caffe time` does: milliseconds, GFLOP/s, bytes moved, memory layouts.

    MODEL is a .snet file, a model of the library (googlenet), or a net or solver of Caffe's. Its data layers become
    inputs with random numbers from [0, 1); as labels those count as class 0. Times are medians, after a warm-up.
    GFLOP/s counts two operations a multiply-add; MB is what must be read and written at least; the layout is that of
    the layer's tops, row-major or one of oneDNN's blocked ones (nChw16c: 16 channels side by side).

    \b
    Examples:
      sparknet-time lenet
      sparknet-time googlenet --phase TEST --batch 1 --threads 1
      sparknet-time lenet_train_test.prototxt --row 1x28x28 --iterations 200
      sparknet-time caffenet --json | jq '.layers[] | {name, forward_ms}'

    Exit status: 0 done, 1 the model is wrong, 2 the command line is wrong.
    """
    from .runtime.command import guarded
    from .runtime.timing import main

    in_phase: Any = phase.upper()
    sys.exit(guarded(lambda: main(model, phase=in_phase, form="json" if json else form, **options)))


def _files(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """--weights a,b --weights c, as one tuple."""
    return tuple(path.strip() for paths in given for path in paths.split(",") if path.strip())


@click.command(cls=Command, context_settings=CONTEXT)
@click.argument("model", type=MODEL)
@click.option(
    "--train",
    "train_source",
    metavar="SRC",
    type=SOURCE,
    help="Training data, such as mnist:DIR; replaces the model's.",
)
@click.option("--test", "test_source", metavar="SRC", type=SOURCE, help="Test data; replaces the model's.")
@click.option(
    "--weights",
    multiple=True,
    metavar="FILE[,FILE]",
    type=FILE,
    callback=_files,
    help="Start from the weights in .caffemodel files, layer by layer by name (finetuning).",
)
@click.option("--snapshot", metavar="FILE", type=FILE, help="Go on from a .solverstate: weights, history, iteration.")
@click.option("--max-iter", type=click.INT, help="The iteration to end at.  [default: the solver's]")
@click.option("--threads", type=click.INT, help="Threads of the engine.  [default: all cores]")
@precision_option
@memory_option
@bad_records_option
@click.option(
    "--seed",
    type=click.INT,
    help="Seed of everything random.  [default: that of the run gone on with, else random_seed, else drawn and shown]",
)
@click.option(
    "--snapshot-dir",
    metavar="DIR",
    type=FILE,
    help="Where snapshots go; snapshot_prefix names them.  [default: the folder in snapshot_prefix, else snapshots]",
)
@click.option(
    "--sigint-effect",
    "--sigint_effect",
    "sigint",
    type=click.Choice(["stop", "snapshot", "none"]),
    default="stop",
    show_default=True,
    help="What Ctrl-C (SIGINT) does after the iteration at hand; stop keeps a snapshot. A second one ends at once.",
)
@click.option(
    "--sighup-effect",
    "--sighup_effect",
    "sighup",
    type=click.Choice(["stop", "snapshot", "none"]),
    default="snapshot",
    show_default=True,
    help="What SIGHUP does.",
)
@define_option
@click.option(
    "--json",
    metavar="FILE",
    type=FILE,
    help="Write one event per line (start, iteration, test, snapshot, end) to FILE.",
)
@tracker_options
@report_options
@speech_options
def train_command(model: str, report: str | None, no_report: bool, **options: Any) -> None:
    """Train MODEL on this machine, without Spark, as `caffe train` does.

    MODEL is a .snet file with a net and a solver, a model of the library, or a solver of Caffe's (.prototxt). Display,
    tests and snapshots come when the solver's fields say so. The rows come from --train and --test, or from the
    sources that the model names (mnist:DIR, lmdb:DIR, ...: docs/data.md), or else from the net's own data layers.

    \b
    Examples:
      sparknet-train digits
      sparknet-train lenet --train mnist:data/mnist --test mnist:data/mnist
      sparknet-train lenet_solver.prototxt --snapshot snapshots/lenet_iter_5000.solverstate
      sparknet-train finetune_solver.prototxt --weights caffenet.caffemodel --max-iter 2000

    Exit status: 0 done, 1 the model or the data is wrong or training diverged, 2 the command line is wrong,
    130 stopped by a signal; what was learnt is then in a snapshot.
    """
    try:
        from .runtime.train_command import main

        status = main(model, report=where_to_report(report, no_report), **options)
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


@click.command(cls=Command, context_settings=CONTEXT)
@click.argument("model", type=MODEL)
@click.option(
    "--weights",
    multiple=True,
    required=True,
    metavar="FILE[,FILE]",
    type=FILE,
    callback=_files,
    help="The weights to score: .caffemodel files.",
)
@click.option(
    "--test", "source", metavar="SRC", type=SOURCE, help="Test data, such as mnist:DIR; replaces the model's."
)
@click.option("--iterations", type=click.INT, help="Batches, of a net that reads its data itself.  [default: 50]")
@click.option("--threads", type=click.INT, help="Threads of the engine.  [default: all cores]")
@precision_option
@bad_records_option
@define_option
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="How it is shown.  [default: text]"
)
@speech_options
def test_command(model: str, **options: Any) -> None:
    """Score trained weights on test data, as `caffe test` does.

    MODEL is a .snet file, a model of the library, or a net or solver of Caffe's; its net in phase TEST is run. What is
    printed are its outputs: means over all rows of the source, each once, or over batches of a net whose own data
    layers read the data.

    \b
    Examples:
      sparknet-test digits --weights snapshots/digits_iter_500.caffemodel
      sparknet-test lenet --weights lenet.caffemodel --test mnist:data/mnist --format json

    Exit status: 0 done, 1 the model, the weights or the data are wrong, 2 the command line is wrong.
    """
    from .runtime.command import guarded
    from .runtime.score import main

    sys.exit(guarded(lambda: main(model, **options)))


@click.command(cls=Command, context_settings=CONTEXT)
@click.argument("model", type=MODEL)
@click.argument("weights", type=FILE)
@click.argument("source", metavar="SRC", type=SOURCE)
@click.option(
    "--blobs",
    multiple=True,
    metavar="NAME[,NAME]",
    callback=_files,
    help="Give these blobs as they are, in place of predictions: features.",
)
@click.option(
    "--out",
    metavar="KIND:PLACE",
    type=Completed("kind:place", "outs"),
    help="Write to parquet:DIR, csv:FILE, json:FILE (a row a line) or npz:FILE.",
)
@click.option(
    "--workers", type=click.INT, help="Threads, each with a net of its own; with --master, tasks.  [default: 1]"
)
@click.option("--master", metavar="URL", type=MASTER, help="Spark's master: compute there.  [default: without Spark]")
@click.option(
    "--top", type=click.INT, default=5, show_default=True, help="So many of the likeliest classes of each row."
)
@click.option("--labels", metavar="FILE", type=FILE, help="The classes' names, a line each.")
@click.option("--eval", "evaluate", is_flag=True, help="Compare with the labels: accuracy, classes, confusion matrix.")
@click.option(
    "--confusion", metavar="FILE.png", type=FILE, help="Where --eval draws the matrix.  [default: confusion.png]"
)
@click.option(
    "--json", metavar="FILE", type=FILE, help="Write the rows counted, and what --eval finds, as one JSON object."
)
@click.option("--batch", type=click.INT, default=64, show_default=True, help="Rows of a pass.")
@click.option("--threads", type=click.INT, help="Threads of the engine.  [default: all cores]")
@precision_option
@bad_records_option
@click.option("--conf", multiple=True, metavar="KEY=VALUE", help="A setting of Spark's own; repeatable.")
@click.option("--ship-env", metavar="FILE", type=FILE, help="Send executors this environment, as sparknet-run does.")
@define_option
@speech_options
def predict_command(model: str, weights: str, source: str, **options: Any) -> None:
    """Tell what a trained net says of the rows of SRC.

    MODEL is a .snet file, a model of the library, or a net or solver of Caffe's; what predicts is its deploy variant,
    or its net without the losses. WEIGHTS is a .caffemodel. Rows are transformed as in phase TEST. Without --out and
    --eval the first rows are shown.

    \b
    Examples:
      sparknet-predict digits snapshots/digits_iter_500.caffemodel digits:
      sparknet-predict digits snapshots/digits_iter_500.caffemodel digits: --eval --confusion digits.png
      sparknet-predict caffenet caffenet.caffemodel images:photos --labels synset_words.txt --out csv:classes.csv
      sparknet-predict caffenet caffenet.caffemodel images:photos --blobs fc7 --out parquet:features

    Exit status: 0 done, 1 the model, the weights or the data are wrong, or a file cannot be written, 2 the command
    line is wrong, 3 the cluster failed, 130 interrupted.
    """
    from .runtime.command import guarded
    from .runtime.predict import main

    sys.exit(guarded(lambda: main(model, weights, source, evaluate=options.pop("evaluate"), **options)))
