"""Settings: the command line over the model's over the defaults, and every value that makes no sense."""

import pytest

from sparknet_dsl.errors import ClusterError, ModelError, SparkNetError, UsageError
from sparknet_dsl.proto import caffe_pb2, sparknet_pb2
from sparknet_dsl.runtime.averaging import Averaging
from sparknet_dsl.runtime.config import RunConfig, slots
from sparknet_dsl.runtime.cores import cores

SOLVER = caffe_pb2.SolverParameter(max_iter=1001)


def test_defaults():
    config = RunConfig.resolve(None, SOLVER)
    assert (config.workers, str(config.tau), config.rounds, config.max_iter) == (2, "50", None, 1001)
    assert config.averaging == Averaging() and config.averaging_share is None
    assert (config.master, config.averaging.momentum, config.test_every, config.snapshot_every) == (
        "local[2,4]",
        "AVERAGE",
        5,
        0,
    )
    assert str(config.snapshot_dir) == "snapshots"
    assert 0 <= config.seed < 2**31


def test_the_command_line_wins_over_the_model_and_the_model_over_the_defaults():
    spark = sparknet_pb2.SparkParameter(
        tau=10, workers=3, rounds=7, seed=4, momentum="LOCAL", test_every=2, snapshot_every=1
    )
    config = RunConfig.resolve(spark, SOLVER)
    assert (config.workers, str(config.tau), config.rounds, config.seed) == (3, "10", 7, 4)
    assert (config.averaging.momentum, config.test_every, config.snapshot_every) == ("LOCAL", 2, 1)
    assert config.max_iter is None  # rounds that were asked for are run whole
    config = RunConfig.resolve(spark, SOLVER, workers=1, tau=20, rounds=2, seed=9, snapshot_dir="/s", train="digits:")
    assert (config.workers, str(config.tau), config.rounds, config.seed, config.train) == (1, "20", 2, 9, "digits:")
    assert str(config.snapshot_dir) == "/s"


def test_the_rule_of_averaging():
    spark = sparknet_pb2.SparkParameter(
        weighting="ROWS", momentum="RESET", outer_rate=0.7, outer_momentum=0.9, outer_nesterov=False, exchange="BF16"
    )
    config = RunConfig.resolve(spark, SOLVER)
    assert config.averaging == Averaging("ROWS", "RESET", 0.7, 0.9, False, 0.0, "bf16")
    given = {"weighting": "EQUAL", "outer_rate": 1.0, "exchange": "int8"}
    config = RunConfig.resolve(spark, SOLVER, averaging=given)
    assert config.averaging == Averaging("EQUAL", "RESET", 1.0, 0.9, False, 0.0, "int8")
    elastic = sparknet_pb2.SparkParameter(moving_rate=0.9)
    assert RunConfig.resolve(elastic, SOLVER).averaging == Averaging(moving_rate=0.9)


def test_tau_as_a_schedule_or_chosen():
    config = RunConfig.resolve(sparknet_pb2.SparkParameter(tau_schedule="10,500:20"), SOLVER)
    assert (str(config.tau), config.averaging_share) == ("10,500:20", None)
    config = RunConfig.resolve(sparknet_pb2.SparkParameter(tau=20), SOLVER, tau="auto", averaging_share=0.05)
    assert (str(config.tau), config.averaging_share) == ("50", 0.05)
    config = RunConfig.resolve(sparknet_pb2.SparkParameter(tau_schedule="auto"), SOLVER)
    assert config.averaging_share == 0.1
    cosine = caffe_pb2.SolverParameter(max_iter=100, lr_policy="cosine")
    config = RunConfig.resolve(None, cosine, tau="auto", rounds=50)
    assert (config.rounds, config.max_iter) == (50, 100)  # however long the rounds become, the rate's end is theirs


def test_sparks_own_settings(tmp_path):
    archive = tmp_path / "e.tar.gz"
    archive.touch()
    given = ["spark.executor.memory=4g", "spark.x=a=b"]
    config = RunConfig.resolve(None, SOLVER, conf=given, ship_env=str(archive), master="spark://h:1")
    assert config.conf == {
        "spark.executor.memory": "4g",
        "spark.x": "a=b",
        "spark.archives": f"{archive}#environment",
    }
    assert RunConfig.resolve(None, SOLVER, conf={"spark.x": "1"}).conf == {"spark.x": "1"}


def test_snapshots_go_to_a_folder_or_a_url():
    assert RunConfig.resolve(None, SOLVER, snapshot_dir="here").snapshot_url is None
    assert RunConfig.resolve(None, SOLVER, snapshot_dir="hdfs://host/x").snapshot_url == "hdfs://host/x"


def test_workers_are_pinned_unless_that_is_refused():
    assert RunConfig.resolve(None, SOLVER).pin
    assert not RunConfig.resolve(None, SOLVER, pin=False).pin


def test_late_workers_and_tests_that_overlap():
    config = RunConfig.resolve(None, SOLVER)
    assert (config.late, config.overlap_tests, config.master) == ("AGAIN", False, "local[2,4]")
    spark = sparknet_pb2.SparkParameter(late="DROP", overlap_tests=True)
    config = RunConfig.resolve(spark, SOLVER)
    assert (config.late, config.overlap_tests, config.master) == ("DROP", True, "local[4,4]")
    config = RunConfig.resolve(spark, SOLVER, late="again", overlap_tests=False, average="ring")
    assert (config.late, config.overlap_tests, config.average) == ("AGAIN", False, "RING")


def test_the_solvers_seed_is_taken_where_nothing_else_is_said():
    assert RunConfig.resolve(None, caffe_pb2.SolverParameter(max_iter=1, random_seed=17)).seed == 17


@pytest.mark.parametrize(
    ("spark", "solver", "given", "error", "message"),
    [
        ({}, {}, {"workers": 0}, UsageError, "--workers 0"),
        ({}, {}, {"tau": -1}, UsageError, "tau -1: a whole number from 1 up"),
        ({}, {}, {"tau": "50,10"}, UsageError, "tau '50,10': a number, a schedule such as 50,1000:100, or auto"),
        ({}, {}, {"tau": "50", "averaging_share": 0.1}, UsageError, "what --tau auto keeps to, but tau is 50"),
        ({}, {}, {"tau": "auto", "averaging_share": 1.0}, UsageError, "averaging_share 1.0: a share"),
        ({}, {}, {"averaging": {"outer_momentum": 1.0}}, UsageError, "outer_momentum 1.0"),
        ({"outer_rate": -1}, {}, {}, ModelError, r"spark \(...\): outer_rate -1.0: a number above 0"),
        ({"tau_schedule": "5,x"}, {}, {}, ModelError, r"spark \(...\): tau '5,x'"),
        ({"tau_schedule": "auto", "averaging_share": 0}, {}, {}, ModelError, r"spark \(...\): averaging_share 0"),
        ({}, {}, {"rounds": 0}, UsageError, "--rounds 0"),
        ({}, {}, {"seed": -2}, UsageError, "--seed -2"),
        ({}, {}, {"weights": "x", "resume": True}, UsageError, "give one of them"),
        (
            {},
            {},
            {"average": "ring", "late": "drop"},
            UsageError,
            "not from a ring: say --average spark, or --late again",
        ),
        ({"late": "DROP", "average": "RING"}, {}, {}, ModelError, "not from a ring"),
        ({}, {}, {"conf": ["spark.executor.memory"]}, UsageError, "a setting of Spark's is wanted"),
        ({}, {}, {"conf": ["executor.memory=4g"]}, UsageError, "a setting of Spark's is wanted"),
        ({}, {}, {"conf": ["spark.master=x"]}, UsageError, "say --master URL"),
        ({}, {}, {"ship_env": "e.tar.gz"}, UsageError, "workers on this machine use the environment"),
        ({}, {}, {"ship_env": "nosuch.tar.gz", "master": "spark://h:1"}, UsageError, "no such file; `venv-pack"),
        ({"tau": 0}, {}, {}, ModelError, r"spark \(...\): tau 0"),
        ({"workers": -1}, {}, {}, ModelError, r"spark \(workers=-1\)"),
        ({"test_every": -1}, {}, {}, ModelError, r"spark \(test_every=-1\)"),
        ({"seed": -1}, {}, {}, ModelError, r"spark \(seed=-1\)"),
        ({}, {"max_iter": 0}, {}, ModelError, "no max_iter: give it one, or say --rounds N"),
        ({}, {"lr_policy": "poly"}, {"rounds": 21}, UsageError, "run past max_iter"),
        ({}, {}, {"master": "local[2]", "workers": 3}, ClusterError, r"local\[2\] has 2: say --workers 2"),
        ({}, {}, {"master": "local-cluster[2,1,512]", "workers": 3}, ClusterError, "has 2"),
    ],
)
def test_values_that_make_no_sense(spark, solver, given, error, message):
    with pytest.raises(error, match=message) as caught:
        RunConfig.resolve(
            sparknet_pb2.SparkParameter(**spark), caffe_pb2.SolverParameter(**{"max_iter": 1001, **solver}), **given
        )
    assert isinstance(caught.value, SparkNetError)
    assert caught.value.exit_code == {UsageError: 2, ModelError: 1, ClusterError: 3}[error]


@pytest.mark.parametrize(
    ("master", "expected"),
    [
        ("local", 1),
        ("local[3]", 3),
        ("local[3,4]", 3),
        ("local[*]", cores()),
        ("local-cluster[2,3,1024]", 6),
        ("spark://host:7077", None),
        ("yarn", None),
    ],
)
def test_slots(master, expected):
    assert slots(master) == expected


def test_local_masters_try_a_lost_task_again():
    assert RunConfig.resolve(None, SOLVER, master="local[5]").master == "local[5,4]"
    assert RunConfig.resolve(None, SOLVER, master="local[5,1]").master == "local[5,1]"
    assert RunConfig.resolve(None, SOLVER, master="local", workers=1).master == "local[1,4]"
