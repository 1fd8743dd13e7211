"""What a run tells of a net's parameters, against NumPy in double precision."""

import math

import numpy as np
import pytest
from small_nets import small_net

from sparknet_dsl import caffe_ext
from sparknet_dsl.runtime import layer_stats


@pytest.mark.parametrize("piece", [1 << 20, 7])
def test_figures_are_numpys(monkeypatch, piece):
    monkeypatch.setattr(layer_stats, "PIECE", piece)
    values = np.random.default_rng(0).normal(0.5, 2, (5, 40)).astype(np.float32)
    found = layer_stats.spread(values)
    exact = values.astype(np.float64)
    counts, edges = np.histogram(exact, 32)
    assert (found.mean, found.std) == (pytest.approx(exact.mean()), pytest.approx(exact.std()))
    assert (found.min, found.max) == (exact.min(), exact.max())
    assert found.counts == tuple(counts)
    assert found.edges == pytest.approx(edges, rel=1e-6)


def test_numbers_that_are_not_finite_are_left_out_of_the_histogram():
    found = layer_stats.spread(np.array([1, 2, np.nan, np.inf, -np.inf], np.float32))
    assert math.isnan(found.mean) and math.isnan(found.std)
    assert (found.min, found.max, sum(found.counts)) == (1, 2, 2)


@pytest.mark.parametrize(
    "values", [[], [np.nan], [3.0, 3.0], [-3.4e38, 3.4e38], [0.0, 1e-45], [1e30], [-3e38, -3e38], [1, 1 + 2**-23]]
)
def test_every_array_has_bins(values):
    values = np.array(values, np.float32)
    found = layer_stats.spread(values)
    assert sum(found.counts) == np.isfinite(values).sum()
    assert len(found.counts) == 32 and len(found.edges) == 33
    assert list(found.edges) == sorted(set(found.edges))


def test_every_parameter_of_a_net_is_told_of():
    net = caffe_ext.Net(small_net(), caffe_ext.TRAIN, seed=3)
    net.params["ip"][1].data[...] = 0.25
    net.flat_diff[:] = 2
    plain, known = layer_stats.layer_stats(net), layer_stats.layer_stats(net, gradients=True)
    assert [(one.layer, one.param) for one in plain] == [("conv", 0), ("conv", 1), ("ip", 0), ("ip", 1)]
    assert [one.shape for one in plain] == [(3, 2, 3, 3), (3,), (4, 48), (4,)]
    assert all(one.gradient is None for one in plain)
    assert (plain[3].mean, plain[3].std) == (0.25, 0)
    assert all(one.gradient.mean == 2 and one.gradient.std == 0 for one in known)
