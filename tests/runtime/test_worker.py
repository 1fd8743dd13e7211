"""A partition's round and test, without Spark: what it computes, and that it depends on nothing else."""

import shutil

import numpy as np
import pytest
from small_nets import DROPOUT, job_solver, small_job, small_net, small_rows, small_shard, small_solver

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import DivergedError, LayerError
from sparknet_dsl.runtime import worker
from sparknet_dsl.runtime.average import mean
from sparknet_dsl.runtime.batches import batch_rows
from sparknet_dsl.runtime.shards import Shard
from sparknet_dsl.runtime.worker import train_round

EXACT_SGD = {"momentum": 0.9, "weight_decay": 0.004, "lr_policy": "inv", "gamma": 0.01, "power": 0.75}


@pytest.fixture(autouse=True)
def fresh_engine():
    """Nothing of the test before, which was another run; and one thread: equal bits take equal numbers of threads."""
    worker._engines.forget()
    caffe_ext.set_num_threads(1)


def first_weights(job):
    return job_solver(job).net.flat_data.copy()


def plain_solver_weights(job, rows, iterations, batch, partition=0):
    """What the engine's solver learns by itself from the same batches."""
    solver = job_solver(job)
    passes = max(1, solver.param.iter_size)
    indices = []

    def feed(number):
        chosen = batch_rows(job.seed, partition, len(rows["label"]), number * batch, batch)
        indices.append(chosen)
        solver.net.blobs["data"].data[...] = rows["image"][chosen].astype(np.float32) * np.float32(0.01)
        solver.net.blobs["label"].data[...] = rows["label"][chosen]

    losses = solver.step(iterations, feed)
    assert len(indices) == iterations * passes
    return solver.net.flat_data.copy(), solver.flat_history.copy(), losses


@pytest.mark.parametrize("iter_size", [1, 2])
def test_one_worker_equals_the_plain_solver(tmp_path, iter_size):
    job = small_job(small_net(), small_solver(**EXACT_SGD, iter_size=iter_size))
    expected, expected_history, expected_losses = plain_solver_weights(job, small_rows(50), 12, 8)
    shard = small_shard(tmp_path)
    weights, history, losses = first_weights(job), None, []
    for round in range(4):
        done = train_round(shard, 0, job, weights, history, round, round * 3, 3)
        weights, history = mean([done.weights]), mean([done.history])
        losses += done.losses
        assert done.rows == 3 * iter_size * 8
    np.testing.assert_array_equal(weights, expected)
    np.testing.assert_array_equal(history, expected_history)
    assert losses == expected_losses


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_workers_that_average_each_step_equal_one_solver_with_a_larger_batch(tmp_path, workers, momentum):
    """With tau 1, plain SGD (or averaged momentum: linear, too) and equal partitions, K workers are a K-fold batch."""
    batch, rounds = 8, 10
    solver = small_solver(momentum=momentum, weight_decay=0.004)
    job = small_job(small_net(batch), solver)
    shards = [small_shard(tmp_path, 24 * workers, partition, workers) for partition in range(workers)]
    weights = start = first_weights(job)
    history = None
    for round in range(rounds):
        done = [train_round(shards[p], p, job, weights, history, round, round, 1) for p in range(workers)]
        weights = mean([result.weights for result in done])
        history = mean([result.history for result in done])

    one = job_solver(small_job(small_net(batch * workers), solver, run="one"))
    one.net.flat_data[:] = start

    def feed(number):
        images, labels = [], []
        for partition, shard in enumerate(shards):
            chosen = batch_rows(job.seed, partition, shard.rows, number * batch, batch)
            images.append(shard.columns["image"][chosen])
            labels.append(shard.columns["label"][chosen])
        one.net.blobs["data"].data[...] = np.concatenate(images) * np.float32(0.01)
        one.net.blobs["label"].data[...] = np.concatenate(labels)

    one.step(rounds, feed)
    assert np.abs(weights - start).max() > 0.01
    np.testing.assert_allclose(weights, one.net.flat_data, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not caffe_ext.isa().startswith("avx512"), reason="bf16 takes a CPU with AVX-512")
def test_the_jobs_precision_is_that_of_training_and_tests(tmp_path):
    net, shard = small_net(), small_shard(tmp_path)
    found = {}
    for precision in ("float32", "bf16"):
        job = small_job(net, small_solver(), run=f"precision {precision}", precision=precision)
        plain = job_solver(job).net
        trained = worker.train_round(shard, 0, job, plain.flat_data.copy(), None, 0, 0, 3)
        params = {layer: [blob.data for blob in blobs] for layer, blobs in plain.params.items()}
        found[precision] = trained.losses, worker.test(shard, 0, job, params).metrics["loss"]
    (losses, loss), (losses_bf16, loss_bf16) = found.values()
    assert losses != losses_bf16 and losses == pytest.approx(losses_bf16, rel=0.05)
    assert loss != loss_bf16 and loss == pytest.approx(loss_bf16, rel=0.05)


@pytest.mark.parametrize("more", ["", "random_rotation { degrees: 20 } cutout { size: 2 } mixup { alpha: 1 }"])
def test_a_round_is_a_function_of_its_arguments(tmp_path, more):
    net = small_net(transform=f"scale: 0.01 mirror: true crop_size: 5 {more}", size=5, extra=DROPOUT)
    job = small_job(net, small_solver(momentum=0.9))
    shard = small_shard(tmp_path)
    weights = first_weights(job)
    one = train_round(shard, 1, job, weights, None, 2, 6, 3)
    train_round(shard, 0, job, one.weights, one.history, 3, 9, 3)
    again = train_round(shard, 1, job, weights, None, 2, 6, 3)
    worker._engines.forget()  # as in another process
    afresh = train_round(shard, 1, job, weights, None, 2, 6, 3)
    for other in (again, afresh):
        np.testing.assert_array_equal(one.weights, other.weights)
        np.testing.assert_array_equal(one.history, other.history)
        assert one.losses == other.losses
    # The next round takes what was made ahead of it, or makes it.
    ahead = train_round(shard, 1, job, one.weights, one.history, 3, 9, 3)
    worker._engines.forget()
    np.testing.assert_array_equal(ahead.weights, train_round(shard, 1, job, one.weights, one.history, 3, 9, 3).weights)
    elsewhere = train_round(shard, 2, job, weights, None, 2, 6, 3)
    assert not np.array_equal(one.weights, elsewhere.weights)


@pytest.mark.parametrize("policy", [{"lr_policy": "multistep", "gamma": 0.1, "stepvalue": [2, 4, 4]}])
def test_a_later_round_has_the_rate_of_its_iterations(tmp_path, policy):
    job = small_job(small_net(), small_solver(**policy, momentum=0.9))
    expected, _, _ = plain_solver_weights(job, small_rows(50), 8, 8)
    shard = small_shard(tmp_path)
    weights, history = first_weights(job), None
    for round in range(4):
        worker._engines.forget()
        done = train_round(shard, 0, job, weights, history, round, round * 2, 2)
        weights, history = done.weights, done.history
    np.testing.assert_array_equal(weights, expected)


@pytest.mark.parametrize("rows", [3, 7, 50])
def test_a_test_counts_every_row_once(tmp_path, rows):
    job = small_job(small_net(), small_solver())
    shard = small_shard(tmp_path, rows)
    solver = job_solver(job)
    params = {layer: [blob.data.copy() for blob in blobs] for layer, blobs in solver.net.params.items()}
    done = worker.test(shard, 0, job, params)

    net = caffe_ext.Net(small_net(), caffe_ext.TEST)
    for layer, blobs in net.params.items():
        for blob, values in zip(blobs, params[layer], strict=True):
            blob.data[...] = values
    for name, shape in (("data", (rows, 2, 6, 6)), ("label", (rows,))):
        net.blobs[name].reshape(*shape)
    net.reshape()
    whole = small_rows(rows)
    expected = net.forward(data=whole["image"] * np.float32(0.01), label=whole["label"].astype(np.float32))
    assert done.rows == rows
    assert done.metrics.keys() == {"accuracy", "loss"}
    for name, value in done.metrics.items():
        assert value == pytest.approx(float(expected[name]), rel=1e-5)
    assert worker.test(shard, 0, job, params) == done


def test_a_part_without_rows_counts_for_nothing(tmp_path):
    job = small_job(small_net(), small_solver())
    done = worker.test(small_shard(tmp_path, 2, 2, 3), 2, job, {})
    assert (done.metrics, done.rows) == ({}, 0)


def test_weights_reach_the_net_of_the_other_phase_by_name(tmp_path):
    """A layer of phase TRAIN alone does not shift the others' weights."""
    net = small_net(
        extra='layer { name: "aux" type: "InnerProduct" bottom: "conv" top: "aux" include { phase: TRAIN } '
        'inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }'
        'layer { name: "aux_loss" type: "SoftmaxWithLoss" bottom: "aux" bottom: "label" top: "aux_loss" '
        "include { phase: TRAIN } }"
    )
    plain = small_job(small_net(), small_solver(), run="plain")
    job = small_job(net, small_solver())
    params = {layer: [blob.data.copy() for blob in blobs] for layer, blobs in job_solver(job).net.params.items()}
    shard = small_shard(tmp_path)
    with_aux = worker.test(shard, 0, job, params)
    assert with_aux == worker.test(shard, 0, plain, {k: v for k, v in params.items() if k != "aux"})


@pytest.mark.parametrize("bad", ["rate", "weights"])
def test_a_loss_that_is_no_number(tmp_path, bad):
    job = small_job(small_net(), small_solver(base_lr=1e38 if bad == "rate" else 0.1))
    weights = first_weights(job)
    if bad == "weights":
        weights[:] = np.nan
    with pytest.raises(DivergedError, match=r"in round 5, worker 3, iteration 2\d; lower base_lr, or scale") as caught:
        train_round(small_shard(tmp_path), 2, job, weights, None, 4, 20, 5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("neighbours", "wanted"), [(1, []), (4, [(2, 4)] * 3)])
def test_whatever_a_worker_does_it_does_on_its_own_cores(tmp_path, monkeypatch, neighbours, wanted):
    calls = []
    monkeypatch.setattr(worker, "pin", lambda *arguments: calls.append(arguments))
    job = small_job(small_net(), small_solver(), neighbours=neighbours)
    shard = small_shard(tmp_path)
    worker.prepare(shard, 2, job)
    train_round(shard, 2, job, first_weights(job), None, 0, 0, 1)
    worker.test(shard, 2, job, {})
    assert calls == wanted


def test_the_engine_can_be_used_after_an_error(tmp_path):
    job = small_job(small_net(), small_solver())
    shard = small_shard(tmp_path)
    weights = first_weights(job)
    before = train_round(shard, 0, job, weights, None, 0, 0, 2)
    broken = Shard(shutil.copytree(shard.folder, tmp_path / "broken"))
    broken.columns["label"] = np.full(shard.rows, 99, np.uint8)
    with pytest.raises(LayerError, match="loss"):
        train_round(broken, 0, job, weights, None, 0, 0, 2)
    np.testing.assert_array_equal(train_round(shard, 0, job, weights, None, 0, 0, 2).weights, before.weights)


def test_the_sum_of_a_column(tmp_path):
    total, rows = worker.column_sum(small_shard(tmp_path), 0, "image")
    assert rows == 50
    np.testing.assert_array_equal(total, small_rows(50)["image"].sum(axis=0, dtype=np.int64))
