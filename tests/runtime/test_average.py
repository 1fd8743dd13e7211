"""The mean of the workers' arrays."""

import numpy as np
import pytest

from sparknet_dsl.runtime.average import mean


def arrays(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.standard_normal((4, 5), np.float32) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_plain_mean(count):
    given = arrays(count)
    before = [array.copy() for array in given]
    result = mean(given)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np.mean(np.float64(given), axis=0), rtol=1e-6, atol=1e-7)
    for array, copy in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_the_mean_of_one_or_of_equal_arrays_is_that_array():
    (array,) = arrays(1)
    np.testing.assert_array_equal(mean([array]), array)
    np.testing.assert_array_equal(mean([array, array]), array)


def test_the_weighted_mean():
    given = arrays(3)
    expected = np.average(np.float64(given), axis=0, weights=[1, 2, 5])
    np.testing.assert_allclose(mean(given, [1, 2, 5]), expected, rtol=1e-6)
    np.testing.assert_allclose(mean(given, [2, 2, 2]), mean(given), rtol=1e-6)
