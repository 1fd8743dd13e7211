"""Concat and Slice without copies: in a batch of 1 their small blobs are pieces of the large one, and nobody notices.

The reference is the same net at a batch of 2, both rows alike: there the pieces are no pieces, and all is copied.
"""

from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from sparknet_dsl import caffe_ext
from sparknet_dsl.caffe_ext import _native
from sparknet_dsl.proto import caffe_pb2


def conv(name: str, bottom: str, channels: int, kernel: int) -> str:
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" convolution_param {{'
        f" num_output: {channels} kernel_size: {kernel} pad: {kernel // 2} "
        'weight_filler { type: "msra" } bias_filler { type: "gaussian" } } } '
    )


def relu(blob: str, slope: float = 0.0) -> str:
    return (
        f'layer {{ name: "{blob}_relu" type: "ReLU" bottom: "{blob}" top: "{blob}" '
        f"relu_param {{ negative_slope: {slope} }} }} "
    )


def concat(name: str, *bottoms: str) -> str:
    return f'layer {{ name: "{name}" type: "Concat" top: "{name}" ' + " ".join(f'bottom: "{b}"' for b in bottoms) + "} "


# A module of GoogLeNet's kind whose joined blob is changed in place and read twice.
MODULE = (
    conv("a", "x", 32, 1)
    + relu("a")
    + conv("b", "x", 16, 3)
    + relu("b")
    + conv("c", "x", 48, 1)
    + concat("y", "a", "b", "c")
    + relu("y", 0.1)
    + conv("z", "y", 16, 1)
    + conv("u", "y", 16, 1)
)
# DenseNet's: the joined blob of one layer is a piece of the next one's.
DENSE = (
    conv("a", "x", 32, 1)
    + conv("b", "a", 16, 3)
    + concat("ab", "a", "b")
    + conv("c", "ab", 16, 3)
    + relu("c")
    + concat("abc", "ab", "c")
    + conv("d", "abc", 16, 1)
    + concat("abcd", "abc", "d")
    + conv("z", "abcd", 16, 1)
)
# Channels that fill no blocks, and a blob that is there twice.
ODD = conv("a", "x", 5, 1) + conv("b", "x", 16, 1) + concat("y", "a", "b", "a") + conv("z", "y", 3, 1)
SLICED = (
    conv("a", "x", 32, 1)
    + 'layer { name: "cut" type: "Slice" bottom: "a" top: "p" top: "q" top: "r" slice_param { slice_point: 16 '
    "slice_point: 20 } }" + relu("p") + conv("s", "q", 8, 1) + concat("y", "p", "s", "r") + conv("z", "y", 4, 3)
)
NETS = {"module": MODULE, "dense": DENSE, "odd": ODD, "sliced": SLICED}
LOSS = (
    'layer { type: "Reduction" name: "sum" bottom: "z" top: "sum" loss_weight: 1 reduction_param { operation: SUMSQ } }'
)


def message(name: str, batch: int, extra: str = "") -> caffe_pb2.NetParameter:
    net = caffe_pb2.NetParameter(force_backward=True)
    net.layer.add(name="x", type="Input", top=["x"]).input_param.shape.add(dim=(batch, 16, 6, 6))
    text_format.Merge(NETS[name] + extra, net)
    return net


class Twins:
    """The net at a batch of 1 and at one of 2, under the same hands."""

    def __init__(self, name: str, memory: str = "all", extra: str = "") -> None:
        self.nets = [caffe_ext.Net(message(name, n, extra), caffe_ext.TRAIN, seed=1, memory=memory) for n in (1, 2)]
        self.views: list[Any] = []

    def fill(self, blob: str, seed: int) -> None:
        one = self.nets[0].blobs[blob]
        values = np.random.default_rng(seed).standard_normal(one.data.shape[1:], dtype=np.float32)
        for net in self.nets:
            net.blobs[blob].data[...] = values

    def same(self, kind: str) -> None:
        for name, blob in self.nets[0].blobs.items():
            twin = getattr(self.nets[1].blobs[name], kind)
            np.testing.assert_allclose(getattr(blob, kind)[0], twin[0], rtol=1e-4, atol=1e-4, err_msg=f"{kind} {name}")

    def backward(self, seed: int) -> None:
        for net in self.nets:
            for end in net.outputs:
                rng = np.random.default_rng(seed)
                net.blobs[end].diff[...] = rng.standard_normal(net.blobs[end].diff.shape[1:], dtype=np.float32)
            net.backward()


@pytest.mark.parametrize("name", NETS)
def test_passes_like_those_with_copies(name: str) -> None:
    twins = Twins(name)
    for seed in range(3):
        twins.fill("x", seed)
        for net in twins.nets:
            net.forward()
        twins.backward(seed)
        twins.same("data")
        twins.same("diff")


ACTS = st.sampled_from(["forward", "part", "backward", "fill", "look", "hold", "let go"])


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(NETS)), acts=st.lists(st.tuples(ACTS, st.integers(0, 50)), max_size=12))
def test_nobody_notices(name: str, acts: list[tuple[str, int]]) -> None:
    """Whatever users do between passes: write into any blob, hold on to views of its memory, run a part of the net."""
    twins = Twins(name)
    blobs, layers = list(twins.nets[0].blobs), list(twins.nets[0].layer_names)
    twins.fill("x", 0)
    for net in twins.nets:
        net.forward()
    for act, number in acts:
        blob = blobs[number % len(blobs)]
        if act == "fill":
            twins.fill(blob, number)
        elif act == "look":
            twins.nets[0].blobs[blob].data.sum()
        elif act == "hold":
            twins.views.append(twins.nets[0].blobs[blob].data)
        elif act == "let go":
            twins.views.clear()
        elif act == "backward":
            twins.backward(number)
        else:
            start = 0 if act == "forward" else number % len(layers)
            for net in twins.nets:
                net.forward(start=layers[start] if start else None)
    twins.same("data")


@pytest.mark.parametrize("memory", ["reuse", "lean"])
@pytest.mark.parametrize("name", NETS)
def test_memory_that_is_used_again(name: str, memory: str) -> None:
    twins = Twins(name, memory, LOSS)
    for seed in range(3):
        twins.fill("x", seed)
        one, two = (float(net.forward()["sum"]) for net in twins.nets)
        # Two rows alike have twice the loss and the gradient of one.
        assert 2 * one == pytest.approx(two, rel=1e-4)
        for net in twins.nets:
            net.backward()
        for layer, params in twins.nets[0].params.items():
            for mine, other in zip(params, twins.nets[1].params[layer], strict=True):
                np.testing.assert_allclose(2 * mine.diff, other.diff, rtol=1e-3, atol=1e-3 * np.abs(other.diff).max())
        for net in twins.nets:
            net.clear_param_diffs()


def used_by_passes(batch: int) -> int:
    """Floats that two forward passes through DENSE leave allocated."""
    net = caffe_ext.Net(message("dense", batch), caffe_ext.TEST, seed=1)
    before = _native.memory_used()
    for _ in range(2):
        net.forward()
    return (_native.memory_used() - before) // 4


def test_nothing_is_copied() -> None:
    """At a batch of 1 the joined channels have no memory beside that of their pieces, themselves pieces of the last."""
    row = used_by_passes(3) - used_by_passes(2)
    with_copies = used_by_passes(2) - row
    joined = (32 + 16) + (48 + 16) + (64 + 16)
    assert with_copies - used_by_passes(1) == joined * 6 * 6
