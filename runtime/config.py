"""The settings of a run, all plain values: what the model's `spark (...)` says, overridden by the command line."""

import dataclasses
import pathlib
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, cast

from ..caffe_ext import Memory, Precision
from ..errors import ClusterError, ModelError, UsageError
from ..proto import caffe_pb2, sparknet_pb2
from .averaging import Averaging
from .cores import cores
from .data import BadPolicy, Source
from .tau import AUTO, FIRST, Tau

_LOCAL = re.compile(r"local(?:\[\s*(\d+|\*)\s*(?:,\s*(\d+)\s*)?\])?")
_LOCAL_CLUSTER = re.compile(r"local-cluster\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\]")
Average = Literal["AUTO", "SPARK", "RING"]
Late = Literal["AGAIN", "DROP"]
# Spark gives up on a task after as many failures; its own default for local[n] is a single one.
TASK_FAILURES = 4
# The name under which executors unpack a shipped environment.
SHIPPED_AS = "environment"


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A run's settings.

    workers        partitions of the training data, each trained by one task
    master         Spark's master URL
    tau            iterations of each worker between two averages; with averaging_share, those chosen so far
    averaging_share: the share of the time that averaging may take, None: tau is as it is, and not chosen by it
    rounds         rounds to run, those of a resumed run counted; None: as many as max_iter takes
    max_iter       the iteration at which the last round stops, even in its middle; None: rounds are run whole
    test_every     test after every so many rounds; 0: at the end only
    snapshot_every snapshot after every so many rounds; 0: at the end only
    averaging      what becomes of the workers' arrays at an average
    seed           of initial weights, shuffles, transformations and Dropout
    snapshot_dir   folder of the snapshots
    snapshot_url   folder of the snapshots on a Hadoop filesystem, in place of snapshot_dir
    train, test    URIs that replace those of the model's data layers
    weights        .caffemodel to start from, by layer name; None: the solver's `weights`, if any
    resume         go on from the newest snapshot in snapshot_dir, with the seed that it began with
    precision      in which nets multiply; snapshots are float32, so that a run may go on in the other one
    memory         what the workers' nets keep between layers (caffe_ext.Net)
    conf           settings of Spark's own
    pin            whether workers that share this machine keep to cores of their own
    average        how the weights get from worker to worker: through Spark, among them (RING), or what is faster
    deadline       seconds that a worker may be late
    late           what becomes of it then: what it did since the last state is done again, or it is left out of a round
    overlap_tests  whether a test of the weights runs while the next rounds train
    bad_records    "skip" leaves out records that cannot be read, and tells of them; "fail" ends the run at the first

    Of the solver's own settings, `display`, `test_interval`, `test_iter`, `snapshot`, `snapshot_format` and
    `snapshot_after_train` have no say here: progress is shown, tests and snapshots are made by rounds, a test takes
    the whole test set, and the last weights are always kept. The rate of an iteration is the solver's at the
    iteration round × tau + i, in every worker: an iteration counts once, however many workers take part in it.
    """

    workers: int
    master: str
    tau: Tau
    rounds: int | None
    max_iter: int | None
    test_every: int
    snapshot_every: int
    averaging: Averaging
    seed: int
    snapshot_dir: pathlib.Path
    snapshot_url: str | None = None
    averaging_share: float | None = None
    train: str | Source | None = None
    test: str | Source | None = None
    weights: pathlib.Path | None = None
    resume: bool = False
    precision: Precision = "float32"
    memory: Memory = "reuse"
    conf: Mapping[str, str] = dataclasses.field(default_factory=dict)
    pin: bool = True
    average: Average = "AUTO"
    deadline: float = 120.0
    late: Late = "AGAIN"
    overlap_tests: bool = False
    bad_records: BadPolicy = "fail"

    @classmethod
    def resolve(
        cls,
        spark: sparknet_pb2.SparkParameter | None,
        solver: caffe_pb2.SolverParameter,
        *,
        workers: int | None = None,
        master: str | None = None,
        tau: str | int | None = None,
        averaging_share: float | None = None,
        averaging: Mapping[str, Any] = {},
        rounds: int | None = None,
        seed: int | None = None,
        snapshot_dir: str | None = None,
        train: str | Source | None = None,
        test: str | Source | None = None,
        weights: str | None = None,
        resume: bool = False,
        precision: Precision = "float32",
        memory: Memory = "reuse",
        conf: Sequence[str] | Mapping[str, str] = (),
        ship_env: str | None = None,
        pin: bool = True,
        average: str | None = None,
        late: str | None = None,
        overlap_tests: bool | None = None,
        bad_records: BadPolicy = "fail",
    ) -> Self:
        """Puts the command line's settings (None: not given) over the model's, and those over the defaults.

        tau: a number, a schedule or "auto"; averaging: fields of Averaging; conf: settings of Spark's, "key=value"
        each, or a mapping; ship_env: an archive of a Python environment for the executors.

        Raises UsageError or ModelError for values that make no sense, ClusterError where `master` has too few slots.
        """
        settings = spark or sparknet_pb2.SparkParameter()
        workers = _positive("workers", workers, settings.workers)
        taus, share = _tau(tau, averaging_share, settings)
        rounds = (
            None if rounds is None and not settings.HasField("rounds") else _positive("rounds", rounds, settings.rounds)
        )
        max_iter: int | None = None
        if rounds is None:
            if solver.max_iter <= 0:
                raise ModelError("the solver has no max_iter: give it one, or say --rounds N")
            max_iter = solver.max_iter
        elif solver.lr_policy in ("poly", "cosine") and share is not None:
            # Nobody knows yet how long the rounds will be.
            max_iter = solver.max_iter
        elif solver.lr_policy in ("poly", "cosine") and taus.iterations(rounds) > solver.max_iter:
            raise UsageError(
                f"{rounds} rounds of {taus} iterations run past max_iter ({solver.max_iter}), where lr_policy "
                f'"{solver.lr_policy}" ends: fewer rounds, or a larger max_iter'
            )
        for name in ("test_every", "snapshot_every"):
            if getattr(settings, name) < 0:
                raise ModelError(f"spark ({name}={getattr(settings, name)}): a number of rounds, 0 or more, is wanted")
        if not settings.deadline > 0:
            raise ModelError(f"spark (deadline={settings.deadline:g}): a number of seconds above 0 is wanted")
        overlap = settings.overlap_tests if overlap_tests is None else overlap_tests
        strategy, when_late = _strategy(average, late, settings)
        if weights is not None and resume:
            raise UsageError("--weights starts from a file, --resume from the newest snapshot: give one of them")
        if seed is not None and not 0 <= seed < 2**63:
            raise UsageError(f"--seed {seed}: a seed is a whole number from 0 to 2^63 - 1")
        return cls(
            workers=workers,
            # A test at the same time takes as many again.
            master=check_slots(master, workers, 2 * workers if overlap else workers),
            tau=taus,
            averaging_share=share,
            rounds=rounds,
            max_iter=max_iter,
            test_every=settings.test_every,
            snapshot_every=settings.snapshot_every,
            averaging=_averaging(averaging, settings),
            seed=_seed(seed, settings, solver),
            snapshot_dir=pathlib.Path(snapshot_dir or "snapshots"),
            snapshot_url=snapshot_dir if snapshot_dir is not None and "://" in snapshot_dir else None,
            train=train,
            test=test,
            weights=None if weights is None else pathlib.Path(weights),
            resume=resume,
            precision=precision,
            memory=memory,
            conf=spark_conf(conf, ship_env, master),
            pin=pin,
            average=strategy,
            deadline=settings.deadline,
            late=when_late,
            overlap_tests=overlap,
            bad_records=bad_records,
        )


def spark_conf(given: Sequence[str] | Mapping[str, str], ship_env: str | None, master: str | None) -> dict[str, str]:
    """Spark's settings, from "key=value" each or a mapping, with the environment's archive among them.

    Raises UsageError for what is no setting, no archive, or of no use to `master`.
    """
    conf = dict(given) if isinstance(given, Mapping) else {}
    for setting in () if isinstance(given, Mapping) else given:
        key, equals, value = setting.partition("=")
        if not equals or not key.startswith("spark."):
            raise UsageError(f"--conf {setting}: a setting of Spark's is wanted, such as spark.executor.memory=4g")
        conf[key] = value
    if "spark.master" in conf:
        raise UsageError("--conf spark.master: say --master URL")
    if ship_env is not None:
        if master is None or _LOCAL.fullmatch(master):
            raise UsageError("--ship-env: workers on this machine use the environment that is here")
        if not pathlib.Path(ship_env).is_file():
            raise UsageError(f"--ship-env {ship_env}: there is no such file; `venv-pack -o {ship_env}` makes one")
        conf["spark.archives"] = f"{pathlib.Path(ship_env).absolute()}#{SHIPPED_AS}"
    return conf


def slots(master: str) -> int | None:
    """The tasks that `master` runs at a time, where the URL tells."""
    if match := _LOCAL.fullmatch(master):
        return {None: 1, "*": cores()}.get(match[1]) or int(match[1])
    if match := _LOCAL_CLUSTER.fullmatch(master):
        return int(match[1]) * int(match[2])
    return None


def check_slots(master: str | None, workers: int, wanted: int | None = None) -> str:
    """`master`, or one with `wanted` slots (a slot for each worker) when none was named.

    Raises ClusterError when it has too few for the workers.
    """
    if master is None:
        return f"local[{wanted or workers},{TASK_FAILURES}]"
    if (found := slots(master)) is not None and found < workers:
        raise ClusterError(too_few_slots(master, found, workers))
    match = _LOCAL.fullmatch(master)
    if match and not match[2]:
        return f"local[{match[1] or 1},{TASK_FAILURES}]"
    return master


def too_few_slots(master: str, slots: int, workers: int) -> str:
    """The message for more workers than tasks that can run at a time."""
    return (
        f"{workers} workers need {workers} slots at a time, but {master} has {slots}: "
        f"say --workers {slots}, or take a larger --master"
        if slots
        else f"{master} offers no slots for {workers} workers: are its executors up, and free?"
    )


def _positive(name: str, given: int | None, setting: int) -> int:
    if given is not None:
        if given < 1:
            raise UsageError(f"--{name} {given}: a whole number from 1 up is wanted")
        return given
    if setting < 1:
        raise ModelError(f"spark ({name}={setting}): a whole number from 1 up is wanted")
    return setting


def _tau(
    given: str | int | None, share: float | None, settings: sparknet_pb2.SparkParameter
) -> tuple[Tau, float | None]:
    """The schedule, and for "auto" the share that it keeps to."""
    text = str(given) if given is not None else settings.tau_schedule or str(settings.tau)
    commanded = share is not None
    try:
        if text != AUTO:
            if share is not None:
                raise UsageError(f"--averaging-share is what --tau auto keeps to, but tau is {text}")
            return Tau.parse(text), None
        if share is None:
            share = round(settings.averaging_share, 6)  # of a float32
        if not 0 < share < 1:
            raise UsageError(f"averaging_share {share}: a share of the time, between 0 and 1, is wanted")
        return Tau(((0, FIRST),)), share
    except UsageError as error:
        if given is None and not commanded:
            raise ModelError(f"spark (...): {error}") from error
        raise


def _averaging(given: Mapping[str, Any], settings: sparknet_pb2.SparkParameter) -> Averaging:
    known: dict[str, Any] = {
        "weighting": settings.Weighting.Name(settings.weighting),
        "momentum": settings.Momentum.Name(settings.momentum),
        "exchange": settings.Exchange.Name(settings.exchange).lower(),
        "outer_nesterov": settings.outer_nesterov,
    }
    # The message has float32: 0.9 is meant, not 0.8999999762.
    known |= {name: round(getattr(settings, name), 6) for name in ("outer_rate", "outer_momentum", "moving_rate")}
    try:
        return Averaging(**{**known, **given})
    except UsageError as error:
        if given:
            raise
        raise ModelError(f"spark (...): {error}") from error


def _strategy(average: str | None, late: str | None, settings: sparknet_pb2.SparkParameter) -> tuple[Average, Late]:
    found = cast(Average, average.upper() if average else settings.Strategy.Name(settings.average))
    when_late = cast(Late, late.upper() if late else settings.Late.Name(settings.late))
    if found == "RING" and when_late == "DROP":
        raise (UsageError if average or late else ModelError)(
            "late workers can be dropped where Spark averages, not from a ring: say --average spark, or --late again"
        )
    return found, when_late


def _seed(given: int | None, settings: sparknet_pb2.SparkParameter, solver: caffe_pb2.SolverParameter) -> int:
    if given is not None:
        return given
    if settings.HasField("seed"):
        if settings.seed < 0:
            raise ModelError(f"spark (seed={settings.seed}): a seed is 0 or more")
        return settings.seed
    if solver.random_seed >= 0:
        return solver.random_seed
    # Drawn once and shown, so that the run can be repeated with --seed.
    return secrets.randbelow(2**31)
