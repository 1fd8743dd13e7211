"""Batches: every row once an epoch, and the same batch wherever it is drawn."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sparknet_dsl.runtime.batches import batch_rows, derive, epoch_order


@given(rows=st.integers(1, 50), batch=st.integers(1, 70), seed=st.integers(0, 2**63 - 1))
def test_no_row_is_dropped_or_seen_twice_in_an_epoch(rows, batch, seed):
    batches = -(-3 * rows // batch)
    drawn = np.concatenate([batch_rows(seed, 0, rows, i * batch, batch) for i in range(batches)])
    for epoch in range(3):
        assert sorted(drawn[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


@given(rows=st.integers(1, 50), start=st.integers(0, 1000), first=st.integers(1, 60), second=st.integers(1, 60))
def test_a_batch_depends_on_its_position_alone(rows, start, first, second):
    whole = batch_rows(5, 1, rows, start, first + second)
    parts = batch_rows(5, 1, rows, start, first), batch_rows(5, 1, rows, start + first, second)
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_epochs_partitions_and_seeds_shuffle_differently():
    orders = [epoch_order(*key, 100) for key in [(1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0)]]
    assert len({order.tobytes() for order in orders}) == 4


def test_derived_seeds():
    seeds = [derive(1, 2), derive(2, 1), derive(1, 2, 0), derive(0), derive(2**63 - 1, 7)]
    assert len(set(seeds)) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive(1, 2) == derive(1, 2)
