"""SparkNet's central table: how much sooner K workers reach an accuracy than one, over K and tau.

    python bench/convergence.py                                       # the bundled digits, a few minutes
    python bench/convergence.py lenet --data mnist:DIR --target 0.98 --json lenet.json --plot lenet.svg
    python bench/convergence.py --set momentum=LOCAL --set outer_rate=0.7 --set outer_momentum=0.9

The workers are simulated, one after the other in this process: what they learn is what workers on Spark learn, to
the bit, and how long that would take is counted, not measured. As in the paper (Moritz, Nishihara, Stoica, Jordan,
"SparkNet: Training deep networks in Spark", ICLR 2016, section 3), time is in iterations of one worker: a serial run
takes N iterations to the target; K workers take M rounds of tau iterations, and each round one average, which costs
as much as S iterations. Their speed-up is N / (M (tau + S)). The naive scheme, which cuts each batch into K parts and
sends gradients in every iteration, takes N (1/K + S), a speed-up of 1 / (1/K + S) for any net.

The accuracy of the averaged weights on the whole test set is looked at about every --test-every iterations, and at ends
of rounds only; of several seeds the median counts. With --json results are kept after each run, and a command that is
given again goes on where it was. The plot is an SVG.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from line_plot import Line, Panel, svg
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import sparknet_dsl
from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import SparkNetError, UsageError
from sparknet_dsl.files import write_atomic
from sparknet_dsl.runtime import worker
from sparknet_dsl.runtime.averaging import Averaging
from sparknet_dsl.runtime.checkpoint import State
from sparknet_dsl.runtime.command import compile_model, solver_of
from sparknet_dsl.runtime.cores import cores
from sparknet_dsl.runtime.feeds import Fed, feed_net
from sparknet_dsl.runtime.in_turn import InTurn
from sparknet_dsl.runtime.means import Means
from sparknet_dsl.runtime.plan import phase_net, plain_solver
from sparknet_dsl.runtime.rule import Rule
from sparknet_dsl.runtime.shards import Shard, shard
from sparknet_dsl.runtime.worker import Figures, Job


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: `workers` with `tau`, from `seed`. One worker is the serial run, whatever tau."""

    workers: int
    tau: int
    seed: int


class Simulation:
    """A model with its data, to be trained by any number of simulated workers."""

    def __init__(self, args: argparse.Namespace, folder: pathlib.Path) -> None:
        model = compile_model(args.model, {}, args.data, args.data)
        self.name = model.name
        self.solver_message = solver_of(model)
        self.averaging = averaging_of(args.set)
        self.test_every, self.most, self.target = args.test_every, args.max_iter, args.target
        self._folder = folder
        self._shards: dict[tuple[str, int], list[Shard]] = {}
        nets = {phase: phase_net(model.net, self.solver_message, phase) for phase in ("TRAIN", "TEST")}
        self._nets = nets
        self._fed: dict[str, Fed] = {}
        for phase, net in nets.items():
            fed = feed_net(net, phase, args.data)
            if fed is None:
                raise UsageError(f"{args.model} does not say what data it is trained and tested with: give --data")
            self._fed[phase] = fed

        def sums(column: str) -> list[Any]:
            return [worker.column_sum(self.shards("TRAIN", 1)[0], 0, column)]

        columns = self._fed["TRAIN"].source.columns
        self._means = Means(columns, sums, (pathlib.Path(), pathlib.Path(args.model).parent), folder)

    def shards(self, phase: str, workers: int) -> list[Shard]:
        """The parts of a phase's rows that as many workers have."""
        if (phase, workers) not in self._shards:
            source = self._fed[phase].source
            self._shards[phase, workers] = [
                shard(
                    "convergence",
                    f"{phase}-{workers}-{p}",
                    source.columns,
                    lambda bad, p=p: source.read(p, workers, bad),
                    self._folder,
                )
                for p in range(workers)
            ]
        return self._shards[phase, workers]

    def train(self, run: Run, watch: "Watch") -> None:
        """Trains until the target is reached, or for as many iterations as allowed."""
        job = Job(
            run=str(run.seed),
            train_net=self._nets["TRAIN"].SerializeToString(),
            test_net=self._nets["TEST"].SerializeToString(),
            solver=plain_solver(self.solver_message).SerializeToString(),
            train=tuple(map(self._means.fill, self._fed["TRAIN"].feeds)),
            test=tuple(map(self._means.fill, self._fed["TEST"].feeds)),
            seed=run.seed,
            threads=caffe_ext.num_threads(),
            send_history=self.averaging.momentum != "RESET",
        )
        solver = caffe_ext.Solver(plain_solver(self.solver_message), self._nets["TRAIN"], seed=run.seed)
        (test,) = self.shards("TEST", 1)
        # One worker has nobody to average with: its rule is the plain one, whatever that of the others.
        averaging = self.averaging if run.workers > 1 else Averaging()
        history = solver.flat_history.size
        rows = sum(part.rows for part in self.shards("TRAIN", run.workers))
        rule = Rule(job, averaging, run.workers, rows, history, solver.net.statistics)
        exchange = InTurn(self.shards("TRAIN", run.workers), rule)
        watch.state = State(0, 0, {"weights": solver.net.flat_data.copy()})
        tau = self.test_every if run.workers == 1 else run.tau
        between = max(1, self.test_every // tau)
        while watch.state.iteration < self.most:
            exchange.leg(watch.state, [tau] * between, watch)
            solver.net.flat_data[:] = watch.state.weights
            params = {layer: [blob.data for blob in blobs] for layer, blobs in solver.net.params.items()}
            if watch.tested(accuracy(worker.test(test, 0, job, params).metrics)) >= self.target:
                return


class Watch:
    """Follows one training: its state, and the accuracies after so many iterations."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self.state = State(0, 0, {})
        self.accuracies: list[tuple[int, float]] = []
        self._progress = progress
        self._task = progress.add_task(f"K {run.workers}  tau {run.tau}  seed {run.seed}", total=None, text="")

    def trained(self, done: Sequence[Figures], seconds: float) -> None:
        """A round is over."""

    def reached(self, state: State) -> None:
        """The state after it."""
        self.state = state
        self._progress.update(self._task, completed=state.iteration)

    def again(self, reason: str) -> None:
        """Nothing is lost in one process."""

    def tested(self, value: float) -> float:
        """Takes note of an accuracy."""
        self.accuracies.append((self.state.iteration, value))
        self._progress.update(self._task, text=f"iteration {self.state.iteration:,}  accuracy {value:.4f}")
        return value

    def end(self) -> None:
        """The training is over."""
        self._progress.remove_task(self._task)


def accuracy(metrics: dict[str, float]) -> float:
    """The net's accuracy: its output of that name, or the one whose name has it."""
    found = [name for name in metrics if "accuracy" in name.lower()]
    if not found:
        raise UsageError(f"the net has no accuracy among its outputs in TEST: {', '.join(metrics) or 'none'}")
    return metrics[found[-1]]


def averaging_of(settings: Sequence[str]) -> Averaging:
    """The rule that NAME=VALUE, ... say."""
    known = {field.name: type(field.default) for field in dataclasses.fields(Averaging)}
    values: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in known:
            raise UsageError(f"--set {setting}: the rule of averaging has {', '.join(known)}")
        values[name] = value == "true" if known[name] is bool else known[name](value)
    return Averaging(**values)


# What the runs say


def iterations(results: dict[str, Any], workers: int, tau: int) -> float | None:
    """The iterations of one worker to the target, median of the seeds; None where half of them did not get there."""
    found = [each["iterations"] for each in results["runs"] if (each["workers"], each["tau"]) == (workers, tau)]
    most = float("inf")
    value = statistics.median(most if each is None else each for each in found) if found else most
    return None if value == most else value


def speedup(results: dict[str, Any], workers: int, tau: int, cost: float) -> float | None:
    """Of `workers` with `tau` over one, where an average costs as much as `cost` iterations; None: not reached."""
    serial, parallel = iterations(results, 1, 0), iterations(results, workers, tau)
    return None if serial is None or parallel is None else serial / (parallel / tau * (tau + cost))


def naive(workers: int, cost: float) -> float:
    """The naive scheme's speed-up: batches cut into parts, gradients sent in every iteration."""
    return 1 / (1 / workers + cost)


def show(results: dict[str, Any], console: Console) -> None:
    """Prints a table for each cost of an average."""
    settings = results["settings"]
    serial = iterations(results, 1, 0)
    if serial is None:
        console.print(f"one worker does not reach {settings['target']:.4g} in {settings['max_iter']:,} iterations")
        return
    console.print(f"one worker: {serial:,.0f} iterations to an accuracy of {settings['target']:.4g}")
    for cost in settings["costs"]:
        table = Table(title=f"speed-up; an average costs {cost:g} iterations", title_justify="left")
        table.add_column("workers", justify="right")
        for tau in settings["taus"]:
            table.add_column(f"tau {tau}", justify="right")
        table.add_column("naive", justify="right")
        for workers in settings["workers"]:
            found = [speedup(results, workers, tau, cost) for tau in settings["taus"]]
            cells = ["-" if value is None else f"{value:.2f}" for value in found]
            table.add_row(str(workers), *cells, f"{naive(workers, cost):.2f}")
        console.print(table)


def plot(results: dict[str, Any]) -> str:
    """The tables as an SVG: a panel for each cost, a line for each number of workers."""
    settings = results["settings"]
    panels = []
    for cost in settings["costs"]:
        lines = []
        for workers in settings["workers"]:
            found = [(tau, speedup(results, workers, tau, cost)) for tau in settings["taus"]]
            points = [(float(tau), value) for tau, value in found if value is not None]
            lines.append(Line(f"{workers} workers", points, naive(workers, cost)))
        panels.append(Panel(f"an average costs {cost:g} iterations", "τ", "speed-up over one worker", lines))
    title = f"{settings['model']}: accuracy {settings['target']:.4g}; dashed: the naive scheme"
    return svg(title, panels)


def numbers(kind: type) -> Any:
    return lambda text: [kind(part) for part in text.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="digits", help="a .snet file, or a model of the library")
    parser.add_argument("--data", metavar="SRC", help="mnist:DIR, cifar10:DIR; default: the model's")
    parser.add_argument("--target", type=float, default=0.98, help="the accuracy to reach (0.98)")
    parser.add_argument("--workers", type=numbers(int), default=[2, 4, 8], help="2,4,8; one alone is always run")
    parser.add_argument("--taus", type=numbers(int), default=[1, 5, 20, 100, 500])
    parser.add_argument("--costs", type=numbers(float), default=[0.0, 1.0, 20.0], help="of an average, in iterations")
    parser.add_argument("--seeds", type=numbers(int), default=[1, 2, 3], help="1,2,3")
    parser.add_argument("--max-iter", type=int, default=1500, help="when to give up, in iterations of a worker")
    parser.add_argument("--test-every", type=int, default=10, help="iterations between two looks at the accuracy (10)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of the rule of averaging")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--plot", type=pathlib.Path, metavar="FILE.svg")
    parser.add_argument("--quick", action="store_true", help="2 and 4 workers, tau 1, 10 and 50, one seed: seconds")
    args = parser.parse_args()
    if args.quick:
        args.workers, args.taus, args.seeds, args.max_iter = [2, 4], [1, 10, 50], [1], 1000
    caffe_ext.set_num_threads(args.threads)
    try:
        return measure(args, Console(highlight=False))
    except SparkNetError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def measure(args: argparse.Namespace, console: Console) -> int:
    names = ("model", "data", "target", "max_iter", "test_every", "set")
    settings = {name: getattr(args, name) for name in names}
    results: dict[str, Any] = {"settings": settings, "runs": []}
    if args.json is not None and args.json.exists():
        known = json.loads(args.json.read_text())
        if any(known["settings"][name] != settings[name] for name in names):
            raise UsageError(f"{args.json} holds results of other settings: {known['settings']}; name another file")
        results["runs"] = known["runs"]
    settings |= {name: getattr(args, name) for name in ("workers", "taus", "seeds", "costs")}
    settings["version"] = sparknet_dsl.__version__
    runs = [Run(1, 0, seed) for seed in args.seeds]
    runs += [Run(k, tau, seed) for k in args.workers for tau in args.taus for seed in args.seeds]
    done = {(each["workers"], each["tau"], each["seed"]) for each in results["runs"]}
    runs = [run for run in runs if dataclasses.astuple(run) not in done]
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with tempfile.TemporaryDirectory(prefix="sparknet-") as folder, bar as progress:
        simulation = Simulation(args, pathlib.Path(folder))
        whole = progress.add_task("runs", total=len(runs), text="")
        for run in runs:
            watch = Watch(run, progress)
            started = time.perf_counter()
            simulation.train(run, watch)
            watch.end()
            reached = watch.accuracies[-1][1] >= args.target
            results["runs"].append(
                {
                    **dataclasses.asdict(run),
                    "iterations": watch.accuracies[-1][0] if reached else None,
                    "accuracies": watch.accuracies,
                    "seconds": time.perf_counter() - started,
                }
            )
            if args.json is not None:
                write_atomic(args.json, json.dumps(results, indent=1) + "\n")
            progress.advance(whole)
    show(results, console)
    if args.plot is not None:
        write_atomic(args.plot, plot(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
