"""The commands: arguments only. What they need is imported when they run, so that `--help` is quick."""

import sys
from typing import TYPE_CHECKING, Any

import click

from .report_options import report_options, where_to_report

if TYPE_CHECKING:
    from .caffe_ext import Memory, Precision
    from .compile import Model

VERSION = {"package_name": "sparknet-dsl", "message": "%(prog)s %(version)s"}
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def _defines(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """-D name=value, as a dictionary."""
    result: dict[str, str] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"{item!r} is not of the form name=value")
        result[name] = value
    return result


define_option = click.option(
    "-D",
    "defines",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_defines,
    help="Give the model's `option NAME` a value; repeatable.",
)

precision_option = click.option(
    "--precision",
    type=click.Choice(["float32", "bf16"]),
    default="float32",
    show_default=True,
    help="What convolutions and large inner products multiply in; weights, sums and all other layers stay float32. "
    "bf16 is faster on CPUs with AMX, slower on others, and refused on those without AVX-512.",
)

memory_option = click.option(
    "--memory",
    type=click.Choice(["reuse", "lean"]),
    default="reuse",
    show_default=True,
    help="lean keeps few of the values between layers and computes the others again in the backward pass: less memory, "
    "up to a third more time, the same results to the bit.",
)

bad_records_option = click.option(
    "--bad-records",
    type=click.Choice(["skip", "fail"]),
    default="fail",
    show_default=True,
    help="What becomes of records that cannot be read (a JPEG that is cut short): skip leaves them out, and tells how "
    "many there were and which the first ten; fail ends at the first.",
)


def tracker_options(command: Any) -> Any:
    """The options of the commands that train: where else a run's numbers go."""
    for option in (
        click.option(
            "--mlflow-experiment", metavar="NAME", help="The experiment that the run belongs to.  [default: sparknet]"
        ),
        click.option("--mlflow", metavar="URI", help="Keep parameters, metrics and files on an MLflow server."),
        click.option("--tensorboard", metavar="DIR", help="Write TensorBoard's event files to DIR."),
    ):
        command = option(command)
    return command


def _explain(context: click.Context, parameter: click.Parameter, code: str | None) -> None:
    if code is None or context.resilient_parsing:
        return
    from .explain import explain

    text = explain(code)
    if text is None:
        raise click.BadParameter(f"no diagnostic has the code {code}")
    click.echo(text)
    context.exit(0)


def _doc(context: click.Context, parameter: click.Parameter, name: str | None) -> None:
    if name is None or context.resilient_parsing:
        return
    from .diagnostics import closest, did_you_mean
    from .reference import print_doc
    from .schema import layer_types

    if name not in layer_types():
        near = did_you_mean(closest(name, layer_types()))
        raise click.BadParameter(f"the engine has no layer type {name}. {near}".rstrip())
    print_doc(name)
    context.exit(0)


def _list(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if not asked or context.resilient_parsing:
        return
    from .library import entries
    from .table import print_library

    print_library(entries())
    context.exit(0)


@click.command(context_settings=CONTEXT)
@click.argument("model", type=click.Path())
@click.option(
    "-o",
    "--output",
    "output",
    metavar="PATH",
    help="The folder to write into, made if it is not there; with --emit the file, or a folder for it.  [default: "
    "the working directory; with --emit standard output]",
)
@click.option(
    "--emit",
    type=click.Choice(("prototxt", "binary", "json", "snet", "dot", "mermaid", "summary")),
    help="Give this one output instead of the files and the table: the net for Caffe, the model as JSON or as a .snet "
    "file (Caffe's data layers kept), the graph, or the table.",
)
@define_option
@click.option(
    "--keep-data-layers",
    is_flag=True,
    help="Keep Caffe's data layers (Data, ImageData, ...) instead of replacing them by Input layers that Spark feeds.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    help="How errors and warnings are shown: json is one document on standard output, for editors.  [default: text]",
)
@click.option(
    "--explain",
    metavar="CODE",
    is_eager=True,
    expose_value=False,
    callback=_explain,
    help="Explain a diagnostic, S104 for example, and leave.",
)
@click.option(
    "--doc",
    metavar="TYPE",
    is_eager=True,
    expose_value=False,
    callback=_doc,
    help="Describe a layer type, Convolution for example: fields, defaults, an example; and leave.",
)
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list,
    help="Show the models of the library, and leave.",
)
@click.version_option(**VERSION)
def compile_command(
    model: str, output: str | None, emit: str | None, defines: dict[str, str], keep_data_layers: bool, form: str
) -> None:
    """Compile MODEL to Caffe's text format and show its layers.

    MODEL is a .snet file, a model of the library (googlenet; --list shows them), or a net or solver of Caffe's
    (.prototxt or binary). Into DIR go MODEL.prototxt and, where
    the model has them, MODEL_solver.prototxt, MODEL_deploy.prototxt and MODEL_spark.prototxt (the averaging loop).

    \b
    Examples:
      sparknet-compile lenet.snet
      sparknet-compile lenet.snet -o build -D batch=32
      sparknet-compile lenet_train_test.prototxt -o build
      sparknet-compile googlenet -o build
      sparknet-compile train_val.prototxt --emit snet -o googlenet.snet
      sparknet-compile googlenet --emit dot | dot -Tsvg > googlenet.svg

    Exit status: 0 done, 1 the model is wrong or a file cannot be written, 2 the command line is wrong.
    """
    if form == "json":
        if emit is not None:
            raise click.UsageError("--format json and --emit both write to standard output: choose one")
        sys.exit(_compile_json(model, output or ".", defines, keep_data_layers))
    sys.exit(_compile(model, output, emit, defines, keep_data_layers))


def _compile(model: str, output: str | None, emit: str | None, defines: dict[str, str], keep_data_layers: bool) -> int:
    from .errors import ModelError, SparkNetError

    try:
        import pathlib

        from .compile import compile_file, load
        from .diagnostics import render_diagnostics
        from .emit import write_model
        from .table import print_table

        if emit == "snet":
            compiled = load(model, defines=defines)
        else:
            compiled = compile_file(model, defines=defines, keep_data_layers=keep_data_layers)
        if compiled.diagnostics:
            click.echo(render_diagnostics(compiled.diagnostics, color=_color()), err=True)
        if emit is not None:
            _emit(compiled, emit, output, pathlib.Path(model).stem)
            return 0
        written = write_model(compiled, output or ".", pathlib.Path(model).stem)
        print_table(compiled)
        click.echo("wrote " + ", ".join(str(path) for path in written))
    except ModelError as error:
        if error.diagnostics:
            click.echo(render_diagnostics(error.diagnostics, color=_color()), err=True)
        else:
            click.echo(f"error: {error}", err=True)
        return error.exit_code
    except SparkNetError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `sparknet-compile ... | head`: the files are written, the reader has seen enough
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _emit(compiled: "Model", kind: str, output: str | None, stem: str) -> None:
    from .outputs import render, write

    content = render(compiled, kind)
    if kind == "snet" and compiled.deploy is not None:
        click.echo("note: the deploy variant is not part of the text; --emit json has it", err=True)
    if output is not None:
        click.echo(f"wrote {write(compiled, kind, content, output, stem)}", err=True)
        return
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _compile_json(model: str, folder: str, defines: dict[str, str], keep_data_layers: bool) -> int:
    import pathlib

    from .compile import compile_file
    from .diagnostics_json import to_json
    from .emit import write_model
    from .errors import ModelError, SparkNetError

    try:
        compiled = compile_file(model, defines=defines, keep_data_layers=keep_data_layers)
        written = write_model(compiled, folder, pathlib.Path(model).stem)
        click.echo(to_json(compiled.diagnostics, map(str, written)))
    except ModelError as error:
        click.echo(to_json(error.diagnostics, failure=None if error.diagnostics else str(error)))
        return error.exit_code
    except SparkNetError as error:
        click.echo(to_json((), failure=str(error)))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


@click.command(context_settings=CONTEXT)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--check", is_flag=True, help="Write nothing; name the files that would change.")
@click.option("--diff", is_flag=True, help="Write nothing; show what would change.")
@click.version_option(**VERSION)
def format_command(paths: tuple[str, ...], check: bool, diff: bool) -> None:
    """Lay out .snet files in the one style: there is nothing to choose.

    PATH is a file, a folder (every .snet file below it) or - (standard input to standard output). Comments stay, and
    line breaks where a line may break; what a file means never changes. A file is written whole or not at all.

    \b
    Examples:
      sparknet-fmt lenet.snet
      sparknet-fmt --check models

    Exit status: 0 done, 1 a file has wrong syntax, cannot be read or written, or would change (--check, --diff),
    2 the command line is wrong.
    """
    from .errors import SparkNetError
    from .format import format_files

    try:
        sys.exit(format_files(paths, check=check, diff=diff))
    except SparkNetError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def _color() -> bool:
    import os

    return sys.stderr.isatty() and "NO_COLOR" not in os.environ


def _upper(*names: str) -> click.Choice[str]:
    return click.Choice(names, case_sensitive=False)


@click.command(context_settings=CONTEXT)
@click.argument("model", type=click.Path(), required=False)
@click.option("--workers", type=click.INT, help="Workers, each with one part of the data.  [default: the model's]")
@click.option("--master", metavar="URL", help="Spark's master.  [default: local[WORKERS]]")
@click.option("--train", metavar="SRC", help="Training data, such as mnist:DIR; overrides the model's.")
@click.option("--test", metavar="SRC", help="Test data; overrides the model's.")
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
    help="Where snapshots go, also hdfs://... or s3a://...; the solver's snapshot_prefix names them.  "
    "[default: snapshots]",
)
@click.option("--weights", metavar="FILE", help="Start from the weights in a .caffemodel.")
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
@click.option("--json", metavar="FILE", help="Write one event per line (start, round, test, snapshot, end) to FILE.")
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
@click.version_option(**VERSION)
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
