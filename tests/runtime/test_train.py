"""The whole loop on a real Spark with the real engine: averages, snapshots, resuming, means, divergence, memory."""

import dataclasses
import gc
import hashlib
import json
import os
import pathlib
import resource
import sys
import tracemalloc

import numpy as np
import pytest
import small_nets
from pyspark import cloudpickle
from small_nets import SmallSource, small_net, small_rows, small_solver

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import DataError, DivergedError, WeightsError
from sparknet_dsl.proto import caffe_pb2
from sparknet_dsl.runtime import feeds, train, worker
from sparknet_dsl.runtime.average import mean
from sparknet_dsl.runtime.averaging import Averaging
from sparknet_dsl.runtime.batches import batch_rows
from sparknet_dsl.runtime.checkpoint import State
from sparknet_dsl.runtime.config import RunConfig
from sparknet_dsl.runtime.cores import cores
from sparknet_dsl.runtime.events import Layers, Round, Snapshot, Start, Test
from sparknet_dsl.runtime.events import Tau as TauChosen
from sparknet_dsl.runtime.in_turn import InTurn
from sparknet_dsl.runtime.layer_stats import layer_stats
from sparknet_dsl.runtime.plan import Plan, plain_solver
from sparknet_dsl.runtime.rule import Rule
from sparknet_dsl.runtime.spark import Cluster
from sparknet_dsl.runtime.tau import AutoTau, Tau
from sparknet_dsl.runtime.train import Result

# Workers do not have these files.
cloudpickle.register_pickle_by_value(small_nets)
cloudpickle.register_pickle_by_value(sys.modules[__name__])

CONFIG = RunConfig(
    workers=2,
    master="",
    tau=Tau.parse("3"),
    rounds=4,
    max_iter=None,
    test_every=2,
    snapshot_every=0,
    averaging=Averaging(),
    seed=11,
    snapshot_dir=pathlib.Path("unset"),
    average="SPARK",
)


RULES = [
    Averaging("ROWS", "LOCAL"),
    Averaging(outer_rate=0.7, outer_momentum=0.9),
    Averaging(momentum="LOCAL", moving_rate=0.9),
    Averaging(exchange="int8"),
]
AUTO_MEASURE = AutoTau.measure


@pytest.fixture(autouse=True)
def one_thread():
    """Equal bits take equal numbers of threads."""
    caffe_ext.set_num_threads(1)


@pytest.fixture
def config(tmp_path):
    (tmp_path / "snapshots").mkdir()
    return dataclasses.replace(CONFIG, snapshot_dir=tmp_path / "snapshots")


def plan(net=None, solver=None, rows=90, **changes) -> Plan:
    net = net or small_net()
    solver = solver or small_solver(momentum=0.9, lr_policy="step", gamma=0.5, stepsize=4, snapshot_prefix="x/small")
    fed = {}
    for phase, count, seed in (("TRAIN", rows, 0), ("TEST", 41, 1)):
        (layer,) = feeds.data_layers(net, phase)
        transform = layer.transform_param
        image = feeds.Feed("data", "image", transform.SerializeToString(), transform.mean_file)
        fed[phase] = feeds.Fed(f"made up {phase}", SmallSource(count, seed), (image, feeds.Feed("label", "label")))
    return Plan("Small", pathlib.Path(), net, solver, fed["TRAIN"], fed["TEST"], **changes)


def run(spark, what: Plan, config: RunConfig) -> tuple[Result, list]:
    events: list = []
    return train.run(what, config, events.append, spark.context), events


def learned(result: Result) -> dict[str, list[np.ndarray]]:
    return caffe_ext.read_weights(result.files[0])


def assert_same(one: Result, other: Result) -> None:
    first, second = learned(one), learned(other)
    assert first.keys() == second.keys()
    for layer in first:
        for a, b in zip(first[layer], second[layer], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("momentum", ["AVERAGE", "LOCAL", "RESET"])
def test_the_loop_on_spark_equals_the_loop_by_hand(spark, config, tmp_path, momentum):
    what = plan()
    result, events = run(spark, what, dataclasses.replace(config, averaging=Averaging(momentum=momentum)))
    job = small_nets.small_job(what.net, plain_solver(what.solver), seed=config.seed)
    shards = [small_nets.small_shard(tmp_path, 90, p, 2) for p in range(2)]
    weights = small_nets.job_solver(job).net.flat_data.copy()
    histories = [None, None]
    losses = []
    for round in range(4):
        done = [worker.train_round(shards[p], p, job, weights, histories[p], round, round * 3, 3) for p in range(2)]
        weights = mean([each.weights for each in done])
        own = [each.history for each in done]
        histories = {"AVERAGE": [mean(own)] * 2, "LOCAL": own, "RESET": [None, None]}[momentum]
        losses.append(np.mean([each.losses for each in done]))
    solver = small_nets.job_solver(job)
    solver.net.copy_from(result.files[0])
    np.testing.assert_array_equal(solver.net.flat_data, weights)

    assert isinstance(events[0], Start)
    rounds = [event for event in events if isinstance(event, Round)]
    assert [event.iteration for event in rounds] == [3, 6, 9, 12]
    assert [event.loss for event in rounds] == pytest.approx(losses)
    assert [event.rate for event in rounds] == pytest.approx([0.1, 0.05, 0.025, 0.025])
    assert all(event.rows == 2 * 3 * 8 and 0 <= event.averaging <= 1 for event in rounds)
    assert [event.round for event in events if isinstance(event, Test)] == [2, 4]
    assert [event.round for event in events if isinstance(event, Snapshot)] == [4]
    assert all([each.rows for each in event.each] == [24, 24] for event in rounds)
    assert all(0 < each.seconds <= event.seconds for event in rounds for each in event.each)
    told = [event for event in events if isinstance(event, Layers)]
    assert [(event.round, event.iteration) for event in told] == [(2, 6), (4, 12)]
    assert told[-1].layers == layer_stats(solver.net)


def test_one_worker_equals_the_plain_solver(spark, config):
    what = plan()
    result, _ = run(spark, what, dataclasses.replace(config, workers=1))
    caffe_ext.set_num_threads(cores())
    job = small_nets.small_job(what.net, plain_solver(what.solver), seed=config.seed)
    solver, rows = small_nets.job_solver(job), small_rows(90)

    def feed(number):
        chosen = batch_rows(config.seed, 0, 90, number * 8, 8)
        solver.net.blobs["data"].data[...] = rows["image"][chosen] * np.float32(0.01)
        solver.net.blobs["label"].data[...] = rows["label"][chosen]

    solver.step(12, feed)
    for layer, blobs in learned(result).items():
        for got, blob in zip(blobs, solver.net.params[layer], strict=True):
            np.testing.assert_array_equal(got, blob.data)


@pytest.mark.parametrize(("pin", "neighbours"), [(True, 2), (False, 1)])
def test_workers_of_one_machine_are_neighbours(spark, config, monkeypatch, pin, neighbours):
    jobs = []

    each = Cluster.each

    def stop(cluster, rows, function, *rest, **told):
        if function is not worker.prepare:
            return each(cluster, rows, function, *rest, **told)
        jobs.append(rest[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(Cluster, "each", stop)
    with pytest.raises(KeyboardInterrupt):
        run(spark, plan(), dataclasses.replace(config, pin=pin))
    assert [(job.neighbours, job.threads) for job in jobs] == [(neighbours, max(1, cores() // 2))]


def test_a_test_is_exact_over_all_workers(spark, config):
    what = plan()
    result, events = run(spark, what, dataclasses.replace(config, workers=3))
    net = caffe_ext.Net(what.net, caffe_ext.TEST, weights=result.files[0])
    net.blobs["data"].reshape(41, 2, 6, 6)
    net.blobs["label"].reshape(41)
    net.reshape()
    whole = small_rows(41, 1)
    expected = net.forward(data=whole["image"] * np.float32(0.01), label=whole["label"].astype(np.float32))
    assert result.metrics == {name: pytest.approx(float(value), rel=1e-5) for name, value in expected.items()}
    tests = [event for event in events if isinstance(event, Test)]
    assert [event.rows for event in tests] == [41, 41]
    assert tests[-1].metrics == result.metrics


@pytest.mark.parametrize("average", ["SPARK", "RING"])
def test_tests_overlap_with_training_and_are_the_same(spark, config, average):
    config = dataclasses.replace(config, average=average, test_every=1)
    one, before = run(spark, plan(), config)
    other, after = run(spark, plan(), dataclasses.replace(config, overlap_tests=True))
    assert_same(one, other)

    def told(events):
        return [(type(event), event.round) for event in events if isinstance(event, Round | Test)]

    assert told(before) == [(kind, round) for round in (1, 2, 3, 4) for kind in (Round, Test)]
    rounds = [(Round, 1), (Round, 2), (Test, 1), (Round, 3), (Test, 2), (Round, 4), (Test, 3), (Test, 4)]
    assert told(after) == rounds
    metrics = [[event.metrics for event in events if isinstance(event, Test)] for events in (before, after)]
    assert metrics[0] == metrics[1]


def test_tests_do_not_overlap_without_slots_to_spare(spark, config):
    _, events = run(spark, plan(), dataclasses.replace(config, workers=3, overlap_tests=True))
    assert [event.round for event in events if isinstance(event, Round | Test)] == [1, 2, 2, 3, 4, 4]
    assert "tests do not overlap with training: that takes 6 slots, but local[4,4] has 4" in events[0].notes


def test_an_error_in_training_ends_the_test_beside_it(spark, config):
    solver = small_solver(momentum=0.9, base_lr=1e20, snapshot_prefix="x/small")
    config = dataclasses.replace(config, test_every=1, overlap_tests=True)
    with pytest.raises(DivergedError):
        run(spark, plan(solver=solver), config)


class Last:
    """Keeps the last state of a leg."""

    def trained(self, done, seconds):
        pass

    def reached(self, state):
        self.state = state


@pytest.mark.parametrize("averaging", RULES)
def test_the_loop_on_spark_equals_the_loop_in_one_process(spark, config, tmp_path, averaging):
    """With partitions of 31 and 30 rows, and a schedule of tau."""
    what = plan(rows=61)
    tau = Tau.parse("3,6:2")
    result, events = run(spark, what, dataclasses.replace(config, averaging=averaging, tau=tau))
    job = small_nets.small_job(
        what.net, plain_solver(what.solver), seed=config.seed, send_history=averaging.momentum != "RESET"
    )
    shards = [small_nets.small_shard(tmp_path, 61, p, 2) for p in range(2)]
    solver, last = small_nets.job_solver(job), Last()
    rule = Rule(job, averaging, 2, 61, solver.flat_history.size)
    InTurn(shards, rule).leg(State(0, 0, {"weights": solver.net.flat_data.copy()}), [3, 3, 2, 2], last)
    solver.net.copy_from(result.files[0])
    np.testing.assert_array_equal(solver.net.flat_data, last.state.weights)
    rounds = [event for event in events if isinstance(event, Round)]
    assert [(event.tau, event.iteration) for event in rounds] == [(3, 3), (3, 6), (2, 8), (2, 10)]
    assert events[0].tau == "3,6:2" and events[0].rule == dataclasses.asdict(averaging)


@pytest.mark.parametrize("averaging", [*map(Averaging, ["EQUAL"] * 3, ["AVERAGE", "LOCAL", "RESET"]), *RULES])
def test_a_resumed_run_ends_where_the_whole_one_does(spark, config, tmp_path, averaging):
    config = dataclasses.replace(config, averaging=averaging, snapshot_dir=tmp_path / "whole")
    halves = dataclasses.replace(config, snapshot_dir=tmp_path / "halves")
    config.snapshot_dir.mkdir()
    halves.snapshot_dir.mkdir()
    whole, _ = run(spark, plan(), config)
    run(spark, plan(), dataclasses.replace(halves, rounds=2))
    resumed, events = run(spark, plan(), dataclasses.replace(halves, resume=True, seed=99))
    assert (events[0].round, events[0].iteration, events[0].seed) == (2, 6, config.seed)
    assert "goes on from" in events[0].notes[0]
    assert [event.round for event in events if isinstance(event, Round)] == [3, 4]
    assert_same(whole, resumed)
    first, second = (caffe_ext.read_state(result.files[1]) for result in (whole, resumed))
    assert first.iter == second.iter == 12
    for a, b in zip(first.history, second.history, strict=True):
        np.testing.assert_array_equal(a, b)
    assert whole.metrics == resumed.metrics


def test_resuming_under_another_rule_or_with_other_workers(spark, config):
    """What the snapshot lacks begins anew: from the centre, the mean history, zeros."""
    elastic = dataclasses.replace(config, averaging=Averaging(momentum="LOCAL", moving_rate=0.9))
    run(spark, plan(), elastic)
    for change in (
        {"workers": 3},
        {"averaging": Averaging(exchange="int8")},
        {"averaging": Averaging(outer_momentum=0.9)},
        {"averaging": Averaging(momentum="RESET")},
    ):
        _, events = run(spark, plan(), dataclasses.replace(elastic, resume=True, rounds=99, max_iter=15, **change))
        assert (events[0].round, events[0].iteration) == (4, 12)
        for file in config.snapshot_dir.glob("small_iter_15*"):
            file.unlink()


def test_resuming_from_arrays_of_another_net(spark, config):
    elastic = dataclasses.replace(config, averaging=Averaging(moving_rate=0.9))
    result, _ = run(spark, plan(), elastic)
    (file,) = (path for path in result.files if path.name.endswith(".averaging.npz"))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with file.open("wb") as out:
        np.savez(out, **{"0.weights": np.zeros(3, np.float32)})
    with pytest.raises(DataError, match=r"small_iter_12\.averaging\.npz is damaged"):
        run(spark, plan(), dataclasses.replace(elastic, resume=True, rounds=5))
    about = result.files[-1]
    about.write_text(about.read_text().replace(digest, hashlib.sha256(file.read_bytes()).hexdigest()))
    with pytest.raises(WeightsError, match=r"holds a 0\.weights of 3 numbers, but this solver has one of"):
        run(spark, plan(), dataclasses.replace(elastic, resume=True, rounds=5))


def test_tau_chosen_by_the_time_that_averaging_takes(spark, config, monkeypatch):
    """Rounds whose average takes as long as 30 iterations: at a tenth of the time tau goes to 270, by 4 at most."""
    monkeypatch.setattr(AutoTau, "measure", lambda self, steps, *_: timed(self, steps, steps * 1.0, 30.0, False))
    timed = AUTO_MEASURE
    auto = dataclasses.replace(
        config, tau=Tau.parse("50"), averaging_share=0.1, max_iter=1000, rounds=None, test_every=0
    )
    result, events = run(spark, plan(), auto)
    assert result.iteration == 1000 and events[0].tau == "auto"
    rounds = [event for event in events if isinstance(event, Round)]
    assert [event.tau for event in rounds] == [50] * 4 + [200] * 4
    (chosen,) = (event for event in events if isinstance(event, TauChosen))
    assert (chosen.round, chosen.iteration, chosen.tau, chosen.schedule) == (4, 200, 200, "50,200:200")
    assert [event.rounds for event in rounds] == [20] * 4 + [8] * 4
    # The record goes into the snapshot, resumed runs go on from it, and as a schedule it repeats the run.
    assert json.loads(result.files[-1].read_text())["tau"] == "50,200:200"
    fixed = dataclasses.replace(auto, tau=Tau.parse("50,200:200"), averaging_share=None, max_iter=1000)
    again, _ = run(spark, plan(), fixed)
    assert_same(result, again)
    _, events = run(spark, plan(), dataclasses.replace(auto, resume=True, max_iter=1400))
    assert [event.tau for event in events if isinstance(event, Round)] == [200, 200]


def damage(path):
    """Changes a byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "small_iter_9.solverstate").unlink(), "small_iter_9.solverstate cannot be read"),
        (lambda folder: damage(folder / "small_iter_9.caffemodel"), "small_iter_9.caffemodel is damaged"),
        (lambda folder: (folder / "small_iter_9.json").write_text("{"), "small_iter_9.json is no snapshot"),
        (lambda folder: (folder / "small_iter_9.json").write_text("[]"), "small_iter_9.json is no snapshot"),
    ],
)
def test_resuming_takes_the_newest_whole_snapshot(spark, config, harm, message):
    run(spark, plan(), dataclasses.replace(config, rounds=3, snapshot_every=1))
    settings = [json.loads(path.read_text()) for path in sorted(config.snapshot_dir.glob("*.json"))]
    assert [found["round"] for found in settings] == [1, 2, 3]
    harm(config.snapshot_dir)
    result, events = run(spark, plan(), dataclasses.replace(config, resume=True))
    assert events[0].round == 2
    assert message in " ".join(events[0].notes) and "the snapshot before it is taken" in " ".join(events[0].notes)
    whole, _ = run(spark, plan(), config)
    assert result.metrics == whole.metrics


def test_snapshots_on_a_hadoop_filesystem(spark, config, tmp_path):
    there = tmp_path / "there"
    far = dataclasses.replace(config, snapshot_url=there.as_uri())
    half, _ = run(spark, plan(), dataclasses.replace(far, rounds=2))
    assert half.files == tuple(f"{there.as_uri()}/small_iter_6.{end}" for end in ("caffemodel", "solverstate", "json"))
    damaged, _ = run(spark, plan(), dataclasses.replace(far, rounds=3, resume=True))
    assert damaged.round == 3
    for file in there.glob("*small_iter_9.caffemodel*"):  # and Hadoop's own checksum
        file.unlink()
    resumed, events = run(spark, plan(), dataclasses.replace(far, resume=True))
    assert events[0].round == 2 and "small_iter_9.caffemodel: java.io.FileNotFoundException" in " ".join(
        events[0].notes
    )
    whole, _ = run(spark, plan(), config)
    for layer, blobs in learned(whole).items():
        for want, got in zip(blobs, caffe_ext.read_weights(there / "small_iter_12.caffemodel")[layer], strict=True):
            np.testing.assert_array_equal(got, want)
    assert resumed.metrics == whole.metrics
    assert not list(config.snapshot_dir.glob("*iter_9*"))


def test_resuming_a_finished_run_only_tests(spark, config):
    run(spark, plan(), config)
    result, events = run(spark, plan(), dataclasses.replace(config, resume=True))
    assert [type(event) for event in events] == [Start, Layers, Test]
    assert (result.round, result.iteration) == (4, 12)


def test_nothing_to_resume(spark, config):
    with pytest.raises(DataError, match=r"there is no snapshot of small in .* to resume from"):
        run(spark, plan(), dataclasses.replace(config, resume=True))


def test_resuming_from_a_damaged_snapshot(spark, config):
    (config.snapshot_dir / "small_iter_3.json").write_text("{")
    with pytest.raises(DataError, match=r"no snapshot of small in .* is whole: .*small_iter_3\.json is no snapshot"):
        run(spark, plan(), dataclasses.replace(config, resume=True))


def test_max_iter_ends_the_last_round(spark, config):
    result, events = run(spark, plan(), dataclasses.replace(config, rounds=2, max_iter=5))
    assert (result.round, result.iteration) == (2, 5)
    assert [event.iteration for event in events if isinstance(event, Round)] == [3, 5]


def test_training_goes_on_from_weights_by_name(spark, config, tmp_path):
    first, _ = run(spark, plan(), config)
    again = dataclasses.replace(config, weights=first.files[0], rounds=1, snapshot_dir=tmp_path)
    still = small_solver(base_lr=0.0, snapshot_prefix="still")
    second, events = run(spark, plan(solver=still), again)
    assert_same(first, second)  # with rate 0 nothing is learnt: what was loaded comes out
    assert any("weights of conv, ip" in note for note in events[0].notes)
    net = caffe_ext.Net(small_net(), caffe_ext.TEST, weights=first.files[0])
    for layer, blobs in learned(first).items():
        for blob, values in zip(net.params[layer], blobs, strict=True):
            np.testing.assert_array_equal(blob.data, values)


def test_weights_that_fit_nothing(spark, config, tmp_path):
    other = caffe_pb2.NetParameter(name="other")
    layer = other.layer.add(name="elsewhere", type="InnerProduct")
    layer.blobs.add(data=[1.0]).shape.dim.append(1)
    path = tmp_path / "other.caffemodel"
    path.write_bytes(other.SerializeToString())
    with pytest.raises(WeightsError, match="has weights for the layers elsewhere, none of which is in Small"):
        run(spark, plan(), dataclasses.replace(config, weights=path))
    with pytest.raises(WeightsError, match=r"cannot read the weights file .*none"):
        run(spark, plan(), dataclasses.replace(config, weights=tmp_path / "none"))


def test_a_mean_that_does_not_exist_is_computed(spark, config, tmp_path):
    net = small_net(transform='scale: 0.01 mean_file: "examples/small/mean.binaryproto"')
    computed, events = run(spark, plan(net), config)
    expected = small_rows(90)["image"].astype(np.float64).mean(axis=0).astype(np.float32)
    kept = config.snapshot_dir / "mean.binaryproto"
    np.testing.assert_array_equal(caffe_ext.read_mean(kept).reshape(expected.shape), expected)
    assert any("was computed from the 90 training rows" in note for note in events[0].notes)

    there = small_net(transform=f'scale: 0.01 mean_file: "{kept}"')
    given, events = run(spark, plan(there), dataclasses.replace(config, snapshot_dir=tmp_path))
    assert_same(computed, given)
    assert computed.metrics == given.metrics
    assert not any("computed" in note for note in events[0].notes)
    without, _ = run(spark, plan(), dataclasses.replace(config, snapshot_dir=tmp_path))
    assert without.metrics != given.metrics


def test_divergence_keeps_the_last_good_weights(spark, config, tmp_path):
    solver = small_solver(lr_policy="step", gamma=1e38, stepsize=6, snapshot_prefix="small")
    events: list = []
    with pytest.raises(DivergedError, match=r"in round 3, worker [12], iteration [789]; lower base_lr"):
        train.run(plan(solver=solver), config, events.append, spark.context)
    assert isinstance(events[-1], Snapshot)
    assert events[-1].round == 2
    good, _ = run(spark, plan(solver=solver), dataclasses.replace(config, rounds=2, snapshot_dir=tmp_path))
    assert_same(good, Result(2, 6, {}, tuple(map(pathlib.Path, events[-1].files))))


@pytest.mark.parametrize("average", ["SPARK", "RING"])
def test_the_memory_of_200_rounds_is_flat(spark, config, average):
    """Each round sends and brings back 2 × 0.8 MB a worker; nothing of it may stay in any process or on disk."""
    extra = """layer { name: "wide" type: "InnerProduct" bottom: "conv" top: "wide"
        inner_product_param { num_output: 2000 weight_filler { type: "xavier" } } }
        layer { name: "narrow" type: "InnerProduct" bottom: "wide" top: "narrow"
        inner_product_param { num_output: 1 } } layer { name: "end" type: "Silence" bottom: "narrow" }"""
    what = plan(small_net(batch=2, extra=extra))
    sizes: list[dict[str, int]] = []
    # What other tests have left there.
    broadcasts = set(pathlib.Path(spark.context._temp_dir).iterdir())
    with Cluster("", 2, spark.context) as cluster:

        def watch(event):
            # Not a round: with ring, Spark runs the leg's job then, and nothing else.
            if isinstance(event, Test):
                gc.collect()
                # Of the driver what Python and numpy hold: after a thousand tests its heap grows in steps of its own.
                sizes.append({"driver": tracemalloc.get_traced_memory()[0], **workers()})
                assert set(pathlib.Path(spark.context._temp_dir).iterdir()) <= broadcasts

        def workers():
            rows = cluster.rows("train", what.train.source)
            return {"worker": max(cluster.each(rows, worker_size))}

        many = dataclasses.replace(config, tau=Tau.parse("1"), rounds=200, test_every=10, average=average)
        tracemalloc.start()
        try:
            train.run(what, many, watch, spark.context)
        finally:
            tracemalloc.stop()
    # What a round needs for a while comes and goes; what stayed of even one array a round would be 110 MB at the end.
    for process in sizes[0]:
        early = max(size[process] for size in sizes[2:6])
        late = min(size[process] for size in sizes[-4:])
        assert late - early < 20_000_000, [size[process] // 1_000_000 for size in sizes]


def worker_size(shard, partition) -> int:
    return resident(os.getpid())


def resident(pid: int) -> int:
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()
