"""For the engine's tests: numbers and threads that do not depend on the tests before."""

from collections.abc import Iterator

import one_layer
import pytest

from sparknet_dsl import caffe_ext

_FIRST = one_layer.RNG.bit_generator.state


@pytest.fixture(autouse=True)
def own_numbers() -> None:
    """Each test draws the numbers that it would draw alone."""
    one_layer.RNG.bit_generator.state = _FIRST


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For passes over a few numbers: threads would only wait for each other on a busy machine."""
    before = caffe_ext.num_threads()
    caffe_ext.set_num_threads(1)
    yield
    caffe_ext.set_num_threads(before)
