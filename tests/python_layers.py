"""Layers written in Python, as users of pycaffe write them, for the nets of the tests."""

from typing import Any, ClassVar

import numpy as np

from sparknet_dsl import caffe_ext as caffe

NO_LAYER = 7


class EuclideanLoss(caffe.Layer):
    """The layer that Caffe's own examples write in Python: half the squared distance over the batch."""

    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise ValueError("needs two bottoms")

    def reshape(self, bottom, top):
        self.diff = np.zeros_like(bottom[0].data)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.diff[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.diff**2) / bottom[0].num / 2.0

    def backward(self, top, propagate_down, bottom):
        for i, sign in enumerate([1, -1]):
            if propagate_down[i]:
                bottom[i].diff[...] = sign * self.diff / bottom[i].num


class Gain(caffe.Layer):
    """y = x * gain, the gain being a parameter for each channel that starts as `param_str` says."""

    def setup(self, bottom, top):
        self.blobs.add_blob(bottom[0].channels)
        self.blobs[0].data[...] = float(self.param_str)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        self.kept = bottom[0].data.copy()  # the top may be the bottom
        top[0].data[...] = self.kept * self.blobs[0].data[:, None, None]

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * self.kept).sum((0, 2, 3))
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff * self.blobs[0].data[:, None, None]


class Hook(caffe.Layer):
    """Copies its bottom; what `actions` holds for a verb is done in it."""

    actions: ClassVar[dict[str, Any]] = {}

    def act(self, verb, *args):
        if verb in self.actions:
            self.actions[verb](self, *args)

    def setup(self, bottom, top):
        self.act("setup", bottom, top)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
        self.act("reshape", bottom, top)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data
        self.act("forward", bottom, top)

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = top[0].diff
        self.act("backward", bottom, top)
