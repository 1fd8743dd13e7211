"""`sparknet-data`: arguments only, as in cli.py."""

import re
import sys
from collections.abc import Callable
from typing import Any

import click

from .cli import CONTEXT, VERSION

SOURCES = """SRC and DST are written scheme:path, as for sparknet-run --train. ?columns=image,label behind a source chooses
    and orders its columns; a source's other options, too, stand there (docs/data.md)."""


def _size(context: click.Context, parameter: click.Parameter, given: str | None) -> tuple[int, int] | None:
    """--resize 256 or --resize 240x320 (height first), as two numbers."""
    if given is None:
        return None
    match = re.fullmatch(r"(\d+)(?:[xX×](\d+))?", given)
    size = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if min(size) < 1:
        raise click.BadParameter(f"{given!r} is neither of the form 256 nor HEIGHTxWIDTH")
    return size


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
bad_option = click.option(
    "--bad-records",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="What becomes of records that cannot be read: skip counts them, and tells of the first ten.",
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


@click.group(context_settings=CONTEXT)
@click.version_option(**VERSION)
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


@data_command.command("get")
@click.argument("name", metavar="NAME")
@click.argument("folder", metavar="[DIR]", required=False)
@click.option("--url", help="Fetch from this folder (http://...) instead, a mirror of your own, say.")
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

    _run(body)


@data_command.command("convert")
@click.argument("source", metavar="SRC")
@click.argument("to", metavar="DST")
@_image_options
@_files_option
@click.option("--shuffle", is_flag=True, help="Write the rows in a random order, which follows from --seed.")
@seed_option
@phase_option
@bad_option
@force_option
def convert_command(source: str, to: str, per_file: int | None, **options: Any) -> None:
    """Write the rows of SRC in another format.

    SRC is any source of sparknet-run's --train. DST is one of these:

    \b
      lmdb:DIR, leveldb:DIR   as Caffe's convert_imageset writes them (mnist: and cifar10: as convert_mnist_data and
                              convert_cifar_data do): the same keys, the same Datum
      images:DIR              a folder for each label, and list.txt (`path label`)
      hdf5:DIR|FILE.h5        a dataset for each column, and list.txt
      parquet:DIR|FILE.parquet, csv:DIR|FILE.csv, libsvm:DIR|FILE.svm, tfrecord:DIR|FILE.tfrecord
      webdataset:DIR|FILE.tar samples of files of one name
      imagenet:DIR            tars of images, and labels.txt

    Images that are encoded (JPEG, PNG) stay as they are unless DST holds numbers only (hdf5:, csv:, libsvm:), or
    --resize, --gray or --encode ask for something else. DST takes its place when it is whole; what is there already is
    left alone without --force. Interrupted, the same command goes on where it was, except with one file.

    \b
    Examples:
      sparknet-data convert mnist:data/mnist lmdb:mnist_train_lmdb
      sparknet-data convert mnist:data/mnist lmdb:mnist_test_lmdb --phase test
      sparknet-data convert images:photos lmdb:photos_lmdb --resize 256 --encode jpg --shuffle --seed 7
      sparknet-data convert lmdb:photos_lmdb parquet:hdfs_upload
      sparknet-data convert 'parquet:sales?columns=features,label' libsvm:sales.svm

    Exit status: 0 done, 1 SRC cannot be read or DST not written, 2 the command line is wrong, 130 interrupted.
    """

    def body() -> None:
        from .runtime.prepare.convert import Options, convert

        written, data = convert(source, to, Options(per_file=per_file or 0, **options))
        click.echo(f"{written}{data.skipped()}")

    _run(body)


@data_command.command("split")
@click.argument("source", metavar="SRC")
@click.argument("to", metavar="DST")
@click.option("--into", "parts", required=True, metavar="NAME=SHARE,...", help="The parts: train=0.9,test=0.1.")
@click.option("--by-class", is_flag=True, help="Split each class by itself, so that all parts have its share.")
@_image_options
@_files_option
@seed_option
@phase_option
@bad_option
@force_option
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

        all_written, data = split(
            source, to, shares_of(parts), by_class, Options(per_file=per_file or 0, **options)
        )
        click.echo("\n".join(map(str, all_written)) + data.skipped())

    _run(body)
