"""`sparknet-run`: arguments only. What commands need is imported when they run, so that `--help` is quick."""

import sys
from typing import TYPE_CHECKING, Any

import click

from .cli_common import (
    CONTEXT,
    FILE,
    MASTER,
    MODEL,
    SOURCE,
    Command,
    bad_records_option,
    define_option,
    memory_option,
    precision_option,
    report_options,
    speech_options,
    tracker_options,
    where_to_report,
)

if TYPE_CHECKING:
    from .caffe_ext import Memory, Precision


def _upper(*names: str) -> click.Choice[str]:
    return click.Choice(names, case_sensitive=False)


@click.command(cls=Command, context_settings=CONTEXT)
@click.argument("model", type=MODEL, required=False)
@click.option("--workers", type=click.INT, help="Workers, each with one part of the data.  [default: the model's]")
@click.option("--master", metavar="URL", type=MASTER, help="Spark's master.  [default: local[WORKERS]]")
@click.option("--train", metavar="SRC", type=SOURCE, help="Training data, such as mnist:DIR; overrides the model's.")
@click.option("--test", metavar="SRC", type=SOURCE, help="Test data; overrides the model's.")
@click.option(
    "--tau",
    metavar="TAU",
    help="Iterations of each worker between two averages: a number, a schedule (50,1000:100: from iteration 1000 on "
    "100), or auto, which keeps averaging below --averaging-share of the time.  [default: the model's]",
)
@click.option("--averaging-share", type=click.FLOAT, help="What --tau auto keeps to.  [default: the model's, else 0.1]")
@click.option("--weighting", type=_upper("EQUAL", "ROWS"), help="What a worker counts in a mean.")
@click.option("--momentum", type=_upper("AVERAGE", "LOCAL", "RESET"), help="The solvers' momentum at an average.")
@click.option("--outer-rate", type=click.FLOAT, help="Learning rate of an outer optimiser on the averaged change.")
@click.option("--outer-momentum", type=click.FLOAT, help="Its momentum.")
@click.option("--outer-nesterov/--no-outer-nesterov", default=None, help="Whether that is Nesterov's.")
@click.option(
    "--moving-rate", type=click.FLOAT, help="Elastic averaging: how far the centre goes to the mean (0 to 1)."
)
@click.option(
    "--exchange",
    type=click.Choice(["float32", "bf16", "int8"]),
    help="In what weights travel from the workers.  [default for all of these: the model's]",
)
@click.option("--rounds", type=click.INT, help="Rounds to run.  [default: the model's, else max_iter / tau]")
@click.option("--seed", type=click.INT, help="Seed of everything random.  [default: the model's, else drawn and shown]")
@click.option(
    "--snapshot-dir",
    metavar="DIR|URL",
    type=FILE,
    help="Where snapshots go, also hdfs://... or s3a://...; the solver's snapshot_prefix names them.  "
    "[default: snapshots]",
)
@click.option("--weights", metavar="FILE", type=FILE, help="Start from the weights in a .caffemodel.")
@click.option("--resume", is_flag=True, help="Go on from the newest snapshot.")
@precision_option
@memory_option
@click.option(
    "--conf",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of Spark's own, such as spark.executor.memory=4g; repeatable.",
)
@click.option(
    "--ship-env",
    metavar="FILE",
    type=FILE,
    help="Send executors that have nothing installed this environment (venv-pack -o FILE, conda-pack -o FILE).",
)
@click.option(
    "--pin/--no-pin",
    default=True,
    help="Whether workers that share this machine keep to cores of their own.  [default: --pin]",
)
@bad_records_option
@click.option(
    "--average",
    type=click.Choice(["spark", "ring", "auto"]),
    help="How weights get from worker to worker: through Spark alone, over connections of their own, or whichever a "
    "probe finds the faster.  [default: the model's, else auto]",
)
@click.option(
    "--late",
    type=click.Choice(["again", "drop"]),
    help="What becomes of a worker that is later than the model's deadline: its part is done again, or (through Spark) "
    "it is left out of the round.  [default: the model's, else again]",
)
@click.option(
    "--overlap-tests/--no-overlap-tests",
    default=None,
    help="Whether tests run while the next rounds train, where slots are to spare.  [default: the model's, else no]",
)
@define_option
@click.option(
    "--json", metavar="FILE", type=FILE, help="Write one event per line (start, round, test, snapshot, end) to FILE."
)
@tracker_options
@report_options
@click.option(
    "--plan",
    is_flag=True,
    help="Train nothing: measure a few iterations and averages, and show what other numbers of workers and tau would "
    "bring.",
)
@click.option(
    "--doctor",
    is_flag=True,
    help="Train nothing: check Java, versions, slots, memory, disk and one layer, here and on every executor.",
)
@speech_options
def run_command(
    model: str | None,
    workers: int | None,
    master: str | None,
    train: str | None,
    test: str | None,
    tau: str | None,
    averaging_share: float | None,
    rounds: int | None,
    seed: int | None,
    snapshot_dir: str | None,
    weights: str | None,
    resume: bool,
    precision: "Precision",
    memory: "Memory",
    conf: tuple[str, ...],
    ship_env: str | None,
    pin: bool,
    average: str | None,
    late: str | None,
    overlap_tests: bool | None,
    bad_records: Any,
    defines: dict[str, str],
    json: str | None,
    tensorboard: str | None,
    mlflow: str | None,
    mlflow_experiment: str | None,
    report: str | None,
    no_report: bool,
    ui: str | None,
    doctor: bool,
    plan: bool,
    **averaging: Any,
) -> None:
    """Train MODEL on Spark: every worker runs TAU steps on its part of the data, the weights are averaged, again.

    MODEL is a .snet file with a net and a solver, a model of the library (lenet; sparknet-compile --list shows them),
    or a solver of Caffe's (.prototxt), whose data layers tell where the data are. --train and --test name others:
    mnist:DIR, cifar10:DIR, lmdb:DIR, hdf5:FILE, images:DIR, imagenet:DIR, ... (docs/data.md).

    \b
    Examples:
      sparknet-run digits.snet
      sparknet-run lenet.snet --workers 4 --train mnist:data/mnist --test mnist:data/mnist
      sparknet-run lenet_solver.prototxt --train mnist:data/mnist --test mnist:data/mnist --tau 20
      sparknet-run lenet --train mnist:data/mnist --workers 8 --master spark://host:7077 --plan
      sparknet-run --doctor --master spark://host:7077 --workers 8

    Exit status: 0 done, 1 the model or the data is wrong, 2 the command line is wrong, 3 the cluster failed,
    130 interrupted.
    """
    if doctor:
        from .runtime.doctor import main as look

        sys.exit(look(master, 2 if workers is None else workers, json, conf, ship_env))
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'.")
    try:
        from .runtime.app import main

        status = main(
            model,
            workers=workers,
            master=master,
            train=train,
            test=test,
            tau=tau,
            averaging_share=averaging_share,
            averaging={name: value for name, value in averaging.items() if value is not None},
            rounds=rounds,
            seed=seed,
            snapshot_dir=snapshot_dir,
            weights=weights,
            resume=resume,
            precision=precision,
            memory=memory,
            conf=conf,
            ship_env=ship_env,
            pin=pin,
            average=average,
            late=late,
            overlap_tests=overlap_tests,
            bad_records=bad_records,
            defines=defines,
            json=json,
            tensorboard=tensorboard,
            mlflow=mlflow,
            mlflow_experiment=mlflow_experiment,
            report=where_to_report(report, no_report),
            ui=ui,
            plan=plan,
        )
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
