"""Images to classes."""

import os
from collections.abc import Sequence

import numpy as np

from . import io
from .batching import forward_all
from .io import AnyArray
from .net import TEST, Net
from .weights import Array


class Classifier(Net):
    """A net with one input that classifies images, which `transformer` prepares.

    `image_dims` is the size to which images are brought before they are cropped to the net's input (by default that
    size itself). `mean`, `input_scale`, `raw_scale` and `channel_swap` are the settings of `io.Transformer`.
    """

    def __init__(
        self,
        model_file: str | os.PathLike[str],
        pretrained_file: str | os.PathLike[str] | None,
        image_dims: Sequence[int] | None = None,
        mean: AnyArray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = transformer_of(self, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims = self.blobs[self.inputs[0]].shape[2:]
        self.image_dims = tuple(image_dims) if image_dims else self.crop_dims

    def predict(self, inputs: Sequence[AnyArray], oversample: bool = True) -> Array:
        """The class probabilities of images (height × width × channels): images × classes.

        With `oversample` the mean over ten crops of each (`io.oversample`), else those of the centre.
        """
        images = [io.resize_image(image, self.image_dims) for image in inputs]
        height, width = self.crop_dims
        if oversample:
            crops = io.oversample(images, self.crop_dims)
        else:
            y, x = (self.image_dims[0] - height) // 2, (self.image_dims[1] - width) // 2
            crops = np.array([image[y : y + height, x : x + width] for image in images])
        name = self.inputs[0]
        rows = np.array([self.transformer.preprocess(name, crop) for crop in crops])
        predictions = forward_all(self, None, {name: rows})[self.outputs[0]]
        return predictions.reshape(len(images), 10, -1).mean(1) if oversample else predictions


def transformer_of(
    net: Net,
    mean: AnyArray | None,
    input_scale: float | None,
    raw_scale: float | None,
    channel_swap: Sequence[int] | None,
) -> io.Transformer:
    """What brings images, height × width × channels, into the form of the net's first input."""
    name = net.inputs[0]
    transformer = io.Transformer({name: net.blobs[name].shape})
    transformer.set_transpose(name, (2, 0, 1))
    if mean is not None:
        transformer.set_mean(name, mean)
    if input_scale is not None:
        transformer.set_input_scale(name, input_scale)
    if raw_scale is not None:
        transformer.set_raw_scale(name, raw_scale)
    if channel_swap is not None:
        transformer.set_channel_swap(name, channel_swap)
    return transformer
