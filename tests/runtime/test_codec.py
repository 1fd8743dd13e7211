"""Messages of arrays: exact where they promise it, elsewhere within their bounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sparknet_dsl.errors import DivergedError
from sparknet_dsl.runtime.codec import BLOCK, CHUNK, CODECS, Message, opened, pack, returned

SIZES = [0, 1, 255, 256, 257, CHUNK - 1, CHUNK, CHUNK + 300]
FINITE = st.floats(-(2.0**126), 2.0**126, width=32)


def flat(elements=FINITE, most=600):
    return arrays(np.float32, st.integers(1, most), elements=elements)


def normal(size, seed=0):
    return np.random.default_rng(seed).standard_normal(size, np.float32)


def round_trip(format, values):
    return opened(Message.of(format, values))


@given(flat())
def test_bf16_rounds_to_the_nearest(values):
    """The neighbours of a value among those with 8 bits of mantissa, found by cutting off: none is nearer."""
    got = round_trip("bf16", values)
    below = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    above = ((values.view(np.uint32) & 0xFFFF0000) + 0x10000).astype(np.uint32).view(np.float32)
    exact = values.astype(np.float64)
    error = np.abs(got - exact)
    assert (error == np.minimum(np.abs(below - exact), np.abs(above - exact))).all()
    tie = np.abs(below - exact) == np.abs(above - exact)
    assert (got.view(np.uint32)[tie] & 0x10000 == 0).all()
    normal = np.abs(values) >= 2.0**-126
    assert (error[normal] <= 2.0**-8 * np.abs(exact[normal])).all()
    np.testing.assert_array_equal(np.signbit(got), np.signbit(values))


def test_ties_of_bf16_go_to_even():
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 2**-8 + 1.0000001], np.float32)
    np.testing.assert_array_equal(round_trip("bf16", values), np.float32([1, 1 + 2**-6, -1, 1 + 2**-7]))


@given(flat())
def test_int8_is_off_by_half_a_step_of_its_block_at_most(values):
    got = round_trip("int8", values)
    for start in range(0, values.size, BLOCK):
        block = values[start : start + BLOCK].astype(np.float64)
        step = max(np.abs(block).max() / 127, 2.0**-126)
        assert np.abs(got[start : start + BLOCK] - block).max() <= step / 2 * (1 + 1e-5)


def test_int8_keeps_zeros_and_the_largest():
    values = normal(3 * BLOCK)
    values[:BLOCK] = 0
    values[BLOCK + 7] = -9.5
    got = round_trip("int8", values)
    np.testing.assert_array_equal(got[:BLOCK], 0)
    assert got[BLOCK + 7] == pytest.approx(-9.5, rel=1e-6)


@pytest.mark.parametrize("format", CODECS)
@pytest.mark.parametrize("size", SIZES)
def test_sizes_and_parts(format, size):
    """A message cut where blocks meet opens in parts to the same bits."""
    values, common = normal(size), normal(size, 1)
    message = pack(format, values, common)
    assert (message.format, message.count) == (format, size)
    assert message.content.nbytes == (2 * size if format == "bf16" else size + 4 * -(-size // 256))
    whole = opened(message)
    cut = size // 2 // BLOCK * BLOCK
    parts = [opened(message.part(some)) for some in (slice(0, cut), slice(cut, size))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(Message.of(format, values - common).content, message.content)
    error = np.abs(whole - (values - common)).max(initial=0)
    assert error <= np.abs(values - common).max(initial=0) / 250
    if size > 1:
        assert error > 0
    unaligned = np.empty(message.content.size + 1, np.uint8)[1:]
    unaligned[...] = message.content
    np.testing.assert_array_equal(opened(Message(format, size, unaligned)), whole)


def test_what_is_no_message_is_as_it_was():
    values = normal(9)
    assert opened(values) is values


def test_means_come_back_in_bf16():
    np.testing.assert_array_equal(returned(normal(300)), round_trip("bf16", normal(300)))


@given(st.lists(arrays(np.float32, 300, elements=st.floats(-100, 100, width=32)), min_size=1, max_size=8))
def test_with_feedback_what_arrives_follows_what_was_sent(changes):
    """The sums differ by what the sender still holds, which is no more than half a step: no error builds up."""
    residual, zeros = np.zeros(300, np.float32), np.zeros(300, np.float32)
    sent, arrived = np.zeros(300), np.zeros(300)
    for change in changes:
        arrived += opened(pack("int8", change, zeros, residual))
        sent += change
        # What is encoded is at most the change and half a step of before: 100 (1 + 1/254 + ...).
        assert np.abs(residual).max() <= 0.5 * 100 / 126
    np.testing.assert_allclose(sent, arrived + residual, rtol=0, atol=1e-4)


def test_without_feedback_small_changes_would_be_lost():
    change, zeros, residual = np.float32([1, 0.001]), np.zeros(2, np.float32), np.zeros(2, np.float32)
    total = sum(opened(pack("int8", change, zeros, residual)).astype(np.float64) for _ in range(1000))
    np.testing.assert_allclose(total, [1000, 1], atol=0.005)
    assert opened(pack("int8", change, zeros))[1] == 0


@pytest.mark.parametrize("format", CODECS)
def test_a_change_beyond_float32(format):
    values, common = np.float32([1, 3e38]), np.float32([1, -3e38])
    with pytest.raises(DivergedError, match="a weight's change is beyond float32"):
        pack(format, values, common)
