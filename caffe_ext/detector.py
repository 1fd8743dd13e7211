"""Windows of images to classes: R-CNN's detection (Girshick et al., CVPR 2014)."""

import importlib
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..errors import EngineError
from . import io
from .batching import forward_all
from .classifier import transformer_of
from .io import AnyArray
from .net import TEST, Net
from .weights import Array

# Top, left, bottom, right.
Window = Sequence[float]


class Detector(Net):
    """A net with one input that classifies windows of images.

    `context_pad` says how many pixels of the net's input show what is around the window; where that lies outside the
    image, the mean is seen. Other settings as Classifier's.
    """

    def __init__(
        self,
        model_file: str | os.PathLike[str],
        pretrained_file: str | os.PathLike[str] | None,
        mean: AnyArray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = transformer_of(self, mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def configure_crop(self, context_pad: int | None) -> None:
        """Sets how many pixels of the net's input are for what is around a window."""
        name = self.inputs[0]
        channels, height, width = self.blobs[name].shape[1:]
        if context_pad and (2 * context_pad >= min(height, width) or height != width):
            raise EngineError(f"context_pad {context_pad} does not fit a square input; this one is {height} × {width}")
        self.context_pad = context_pad or 0
        self.crop_dims = (height, width, channels)
        # What becomes 0 in the net.
        blank = np.zeros((channels, height, width), np.float32)
        self.crop_mean = self.transformer.deprocess(name, blank).reshape(self.crop_dims)

    def crop(self, im: AnyArray, window: Window) -> Array:
        """The window (top, left, bottom, right) of an image; with `context_pad` and its context, in the net's size."""
        top, left, bottom, right = (float(edge) for edge in window)
        if not self.context_pad:
            return np.asarray(im[int(top) : int(bottom), int(left) : int(right)], np.float32)
        size = self.crop_dims[0]
        grow = size / (size - 2 * self.context_pad)
        half_height, half_width = (bottom - top + 1) / 2, (right - left + 1) / 2
        center = np.array([top + half_height, left + half_width] * 2)
        box = np.round(center + grow * np.array([-half_height, -half_width, half_height, half_width])).astype(int)
        # Where the part that lies inside the image goes.
        inside = np.clip(box, 0, [*im.shape[:2], *im.shape[:2]])
        scale = size / np.array([box[2] - box[0] + 1, box[3] - box[1] + 1])
        place = np.round((inside[:2] - box[:2]) * scale).astype(int)
        extent = np.round((inside[2:] - inside[:2] + 1) * scale).astype(int)
        extent = np.clip(extent, 0, size - place)
        crop = self.crop_mean.copy()
        part = im[inside[0] : inside[2], inside[1] : inside[3]]
        if part.size and extent.min() > 0:
            resized = io.resize_image(part, extent)
            crop[place[0] : place[0] + extent[0], place[1] : place[1] + extent[1]] = resized
        return crop

    def detect_windows(
        self, images_windows: Iterable[tuple[str | os.PathLike[str], Sequence[Window]]]
    ) -> list[dict[str, Any]]:
        """Classifies windows of image files, given as (file name, windows).

        Gives for each window a dictionary of `window`, `prediction` (the net's first output) and `filename`. Raises
        DataError for files that are no images, EngineError for windows that hold no pixel.
        """
        name = self.inputs[0]
        found: list[dict[str, Any]] = []
        rows: list[Array] = []
        for filename, windows in images_windows:
            image = io.load_image(filename)
            for window in windows:
                crop = self.crop(image, window)
                if crop.size == 0:
                    raise EngineError(f"{filename}: window {tuple(window)} holds no pixel of the image {image.shape}")
                rows.append(self.transformer.preprocess(name, crop))
                found.append({"window": window, "filename": filename})
        if not rows:
            return []
        predictions = forward_all(self, None, {name: np.array(rows)})[self.outputs[0]]
        return [{**each, "prediction": row} for each, row in zip(found, predictions, strict=True)]

    def detect_selective_search(self, image_fnames: Sequence[str | os.PathLike[str]]) -> list[dict[str, Any]]:
        """`detect_windows` on the windows that selective search proposes, a MATLAB program with a Python module.

        Raises EngineError where the module `selective_search_ijcv_with_python` is not installed.
        """
        try:
            search = importlib.import_module("selective_search_ijcv_with_python")
        except ImportError as error:
            raise EngineError(
                "selective search is a program of its own: put its module selective_search_ijcv_with_python on "
                "PYTHONPATH, or propose windows otherwise and call detect_windows"
            ) from error
        windows = search.get_windows([str(pathlib.Path(name).resolve()) for name in image_fnames])
        return self.detect_windows(zip(image_fnames, windows, strict=True))
