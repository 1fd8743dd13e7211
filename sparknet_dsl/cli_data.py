"""`sparknet-data`: arguments only, as in cli.py."""

import re
import sys
from collections.abc import Callable
from typing import Any

import click

from .cli_common import (
    CONTEXT,
    FILE,
    MASTER,
    SOURCE,
    Completed,
    Group,
    bad_records_option,
    speech_options,
    version_option,
)


def _size(context: click.Context, parameter: click.Parameter, given: str | None) -> tuple[int, int] | None:
    """--resize 256 or --resize 240x320 (height first), as two numbers."""
    if given is None:
        return None
    match = re.fullmatch(r"(\d+)(?:[xX×](\d+))?", given)
    size = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if min(size) < 1:
        raise click.BadParameter(f"{given!r} is neither of the form 256 nor HEIGHTxWIDTH")
    return size


DESTINATION = Completed("dst", "destinations")


def _upper(context: click.Context, parameter: click.Parameter, given: str) -> str:
    return given.upper()


phase_option = click.option(
    "--phase",
    type=click.Choice(["train", "test"], case_sensitive=False),
    default="train",
    show_default=True,
    callback=_upper,
    help="Which rows of sources that have both: mnist:, cifar10:, cifar100:, digits:.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
force_option = click.option("--force", is_flag=True, help="Replace what is there already.")
seed_option = click.option("--seed", type=click.INT, default=0, show_default=True, help="Seed of the order.")


def _image_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--encode",
            "encoding",
            type=click.Choice(["raw", "png", "jpg"]),
            help="How images are stored.  [default: as they come, or as DST needs them]",
        ),
        click.option("--gray", is_flag=True, help="Images of one channel."),
        click.option(
            "--resize",
            "size",
            metavar="N|HxW",
            callback=_size,
            help="Resize images to exactly that, as convert_imageset does: 256, or 240x320 (height first).",
        ),
    ):
        command = option(command)
    return command


def _files_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--per-file",
        type=click.IntRange(min=1),
        help="Rows in each file, of formats that have several.  [default: as many as make about 128 MB]",
    )(command)


@click.group(cls=Group, context_settings=CONTEXT)
@version_option
def data_command() -> None:
    """Fetch, convert, split, look at and check data sets.

    \b
    From images to a database of Caffe's, and its mean image:
      sparknet-data convert images:photos lmdb:photos_lmdb --resize 256 --shuffle
      sparknet-data mean lmdb:photos_lmdb -o photos_mean.binaryproto
    From a database to Spark:
      sparknet-data convert lmdb:photos_lmdb parquet:photos
    What is in there, and is it sound?
      sparknet-data show lmdb:photos_lmdb -o sheet.png
      sparknet-data verify lmdb:photos_lmdb

    Exit status: 0 done, 1 the data is wrong, cannot be read or written, 2 the command line is wrong, 3 the cluster
    failed, 130 interrupted.
    """


def _run(body: Callable[[], None]) -> None:
    from .runtime.command import guarded

    sys.exit(guarded(body))


def _run_long(body: Callable[[], None]) -> None:
    """Runs what the same command goes on with after an interruption, and says so then."""

    def told() -> None:
        try:
            body()
        except KeyboardInterrupt:
            click.echo("stopping; the same command goes on from here", err=True)
            raise

    _run(told)


@data_command.command("get")
@click.argument("name", metavar="NAME", type=Completed("name", "data_sets"))
@click.argument("folder", metavar="[DIR]", required=False, type=FILE)
@click.option("--url", help="Fetch from this folder (http://...) instead, a mirror of your own, say.")
@speech_options
def get_command(name: str, folder: str | None, url: str | None) -> None:
    """Fetch a data set into DIR (data/NAME) and check it by the checksums published with it.

    NAME is mnist, fashion-mnist, kmnist, cifar10, cifar100, or imagenet, whose page gives its files only to those who
    sign in. What is there already and right stays; a download that was broken off goes on. Where there is no
    network, it says which files to put where, and checks them on the next call.

    \b
    Examples:
      sparknet-data get mnist
      sparknet-data get cifar10 /data/cifar10 && sparknet-run cifar10_quick --train cifar10:/data/cifar10

    Exit status: 0 all there, 1 it cannot be fetched or is not what was published, 2 the command line is wrong.
    """

    def body() -> None:
        from .runtime.prepare.get import get

        click.echo(f"{name} is there: {get(name, folder, url)}")

    _run_long(body)


@data_command.command("convert")
@click.argument("source", metavar="SRC", type=SOURCE)
@click.argument("to", metavar="DST", type=DESTINATION)
@_image_options
@_files_option
@click.option("--shuffle", is_flag=True, help="Write the rows in a random order, which follows from --seed.")
@seed_option
@phase_option
@bad_records_option
@force_option
@speech_options
def convert_command(source: str, to: str, per_file: int | None, **options: Any) -> None:
    """Write the rows of SRC in another format.

    SRC is any source of sparknet-run's --train. DST is one of these:

    \b
      lmdb:DIR, leveldb:DIR   as Caffe's convert_imageset writes them (mnist: and cifar10: as convert_mnist_data and
                              convert_cifar_data do): the same keys, the same Datum
      images:DIR              a folder for each label, and list.txt (`path label`)
      imagenet:DIR            tars of images, and train.txt (`file label`)
      hdf5:DIR|FILE.h5        a dataset for each column, and list.txt
      webdataset:DIR|FILE.tar files of one name make a row
      parquet:DIR|FILE.parquet, tfrecord:DIR|FILE.tfrecord, csv:DIR|FILE.csv, libsvm:DIR|FILE.svm

    Images that are encoded (JPEG, PNG) stay as they are unless DST holds numbers only (hdf5:, csv:, libsvm:), or
    --resize, --gray or --encode ask for something else. DST takes its place when it is whole; what is there already is
    left alone without --force. Interrupted, the same command goes on where it was, except with one file.

    \b
    Examples:
      sparknet-data convert mnist:data/mnist lmdb:mnist_train_lmdb
      sparknet-data convert mnist:data/mnist lmdb:mnist_test_lmdb --phase test
      sparknet-data convert images:photos lmdb:photos_lmdb --resize 256 --encode jpg --shuffle --seed 7
      sparknet-data convert lmdb:photos_lmdb parquet:photos
      sparknet-data convert 'parquet:sales?columns=features,label' libsvm:sales.svm

    Exit status: 0 done, 1 SRC cannot be read or DST not written, 2 the command line is wrong, 130 interrupted.
    """

    def body() -> None:
        from .runtime.prepare.convert import Options, convert

        written, data = convert(source, to, Options(per_file=per_file or 0, **options))
        click.echo(f"{written}{data.skipped()}")

    _run_long(body)


@data_command.command("split")
@click.argument("source", metavar="SRC", type=SOURCE)
@click.argument("to", metavar="DST", type=DESTINATION)
@click.option("--into", "parts", required=True, metavar="NAME=SHARE,...", help="The parts: train=0.9,test=0.1.")
@click.option("--by-class", is_flag=True, help="Split each class by itself, so that all parts have its share.")
@_image_options
@_files_option
@seed_option
@phase_option
@bad_records_option
@force_option
@speech_options
def split_command(source: str, to: str, parts: str, by_class: bool, per_file: int | None, **options: Any) -> None:
    """Split the rows of SRC at random into several data sets.

    {} in DST stands for the name of each part. Rows keep their order. Which part a row goes to follows from --seed and
    the number of rows.

    \b
    Examples:
      sparknet-data split images:photos 'lmdb:photos_{}_lmdb' --into train=0.9,test=0.1 --by-class
      sparknet-data split csv:sales.csv 'csv:sales_{}.csv' --into train=0.8,val=0.1,test=0.1 --seed 7

    Exit status: as of convert.
    """

    def body() -> None:
        from .runtime.prepare.convert import Options, shares_of, split

        all_written, data = split(source, to, shares_of(parts), by_class, Options(per_file=per_file or 0, **options))
        click.echo("\n".join(map(str, all_written)) + data.skipped())

    _run_long(body)


@data_command.command("mean")
@click.argument("source", metavar="SRC", type=SOURCE)
@click.option("-o", "--output", metavar="FILE", type=FILE, help="Write the mean image there, as a .binaryproto.")
@click.option("--resize", "size", metavar="N|HxW", callback=_size, help="Of images resized to that.")
@click.option("--gray", is_flag=True, help="Of images made grey.")
@click.option("--workers", type=click.IntRange(min=1), help="On Spark, with that many workers.  [default: here]")
@click.option("--master", metavar="URL", type=MASTER, help="Spark's master.  [default: local[WORKERS]]")
@phase_option
@bad_records_option
@json_option
@speech_options
def mean_command(source: str, output: str | None, as_json: bool, **options: Any) -> None:
    """The mean image of SRC, as Caffe's compute_image_mean computes it, and the mean of each channel.

    FILE is what transform_param { mean_file: "FILE" } reads; the means of the channels are what mean_value takes.
    Images are to be of one size; --resize makes them so. Sums are exact: the numbers of threads or workers make no
    difference.

    \b
    Examples:
      sparknet-data mean lmdb:photos_lmdb -o photos_mean.binaryproto
      sparknet-data mean imagenet:/data/imagenet --resize 256 -o imagenet_mean.binaryproto --workers 8
      sparknet-data mean cifar10:data/cifar10 --json | jq .mean_value

    Exit status: 0 done, 1 SRC cannot be read or FILE not written, 2 the command line is wrong, 3 the cluster failed.
    """

    def body() -> None:
        from .runtime.prepare.mean import main

        main(source, output, as_json, **options)

    _run(body)


@data_command.command("shards")
@click.argument("source", metavar="DIR", type=FILE)
@click.argument("to", metavar="OUT", type=FILE)
@click.option("--per-tar", type=click.IntRange(min=1), default=1000, show_default=True, help="Images in each tar.")
@click.option(
    "--resize",
    "size",
    metavar="N|HxW",
    callback=_size,
    help="Resize images to exactly that, and encode them anew.  [default: files as they are]",
)
@click.option("--order", type=click.Choice(["shuffled", "sorted"]), default="shuffled", show_default=True)
@seed_option
@click.option("--phase", type=click.Choice(["train", "test"]), default="train", help="Tars are train.* or val.*.")
@bad_records_option
@force_option
@speech_options
def shards_command(source: str, to: str, **options: Any) -> None:
    """Pack images, in a folder for each class, into tars as SparkNet reads ImageNet from.

    DIR is such a folder, or a list of lines `path label`. In OUT there are train.00000.tar and so on, train.txt, which
    has a line `file label` for each image, and classes.txt, with the folder of each label. They are read
    as imagenet:OUT, from object stores, too.

    \b
    Examples:
      sparknet-data shards ILSVRC2012/train /data/imagenet
      sparknet-data shards ILSVRC2012/val /data/imagenet_val --phase test --order sorted
      sparknet-data shards photos /data/photos --per-tar 500 --resize 256

    Exit status: as of convert.
    """

    def body() -> None:
        from .runtime.prepare.shards import shards

        click.echo(shards(source, to, **options))

    _run_long(body)


@data_command.command("show")
@click.argument("source", metavar="SRC", type=SOURCE)
@click.option("-o", "--output", "sheet", metavar="FILE", type=FILE, help="Write a contact sheet there, a PNG.")
@click.option("--count", type=click.IntRange(min=1), default=64, show_default=True, help="Images in it.")
@phase_option
@bad_records_option
@json_option
@speech_options
def show_command(source: str, sheet: str | None, count: int, phase: Any, bad_records: Any, as_json: bool) -> None:
    """Show what there is in SRC: rows, classes, shapes, ranges of values, and some of the images.

    Everything is read. In a terminal with colours, images are shown there, too.

    \b
    Examples:
      sparknet-data show mnist:data/mnist -o sheet.png
      sparknet-data show lmdb:photos_lmdb --json | jq .classes

    Exit status: 0 done, 1 SRC cannot be read, 2 the command line is wrong.
    """

    def body() -> None:
        from .runtime.prepare.reading import open_input
        from .runtime.prepare.show import show

        show(open_input(source, phase, bad_records), sheet, count, as_json)

    _run(body)


@data_command.command("verify")
@click.argument("source", metavar="SRC", type=SOURCE)
@click.option("--classes", type=click.IntRange(min=1), help="Labels have to be below that.")
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice(["records", "labels", "gaps", "values", "sizes", "duplicates"]),
    help="Tell of what this check finds, but let it be; repeatable.",
)
@phase_option
@json_option
@speech_options
def verify_command(source: str, classes: int | None, allow: tuple[str, ...], phase: Any, as_json: bool) -> None:
    """Check SRC: every record is read and decoded.

    \b
    What is looked at:
      records     records that cannot be read or decoded
      labels      labels that are negative, or not below --classes
      gaps        classes without rows: labels are to go from 0 to the largest, or to --classes
      values      NaN and infinite numbers
      sizes       images of several sizes, which only raw images have to avoid
      duplicates  rows with the content of an earlier one, whatever their label

    \b
    Examples:
      sparknet-data verify lmdb:photos_lmdb --classes 10
      sparknet-data verify imagenet:/data/imagenet --allow sizes --allow duplicates --json

    Exit status: 0 nothing was found but what is allowed, 1 something was, or SRC cannot be read at all, 2 the command
    line is wrong.
    """
    good = True

    def body() -> None:
        nonlocal good
        from .runtime.prepare.verify import main

        good = main(source, classes, allow, phase, as_json)

    from .runtime.command import guarded

    sys.exit(guarded(body) or (0 if good else 1))
