"""WindowData: windows of images, warped to one size; Caffe's input for R-CNN (Girshick et al., CVPR 2014)."""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from ..proto import caffe_pb2
from ._native import Transformer
from .images import Pixels, planar, read_image, resize
from .mean import read_mean
from .sources import lines_of
from .streams import Batch, derive

_COLORS = 3
# Of any number in a window file.
_MOST = 2.0**31


class Window(NamedTuple):
    """A window of an image: its class, and its corners, in pixels, both inside."""

    image: str
    label: int
    x1: int
    y1: int
    x2: int
    y2: int


class Patch(NamedTuple):
    """What a window gives: `pixels` (channels × height × width), to be put at (top, left) of the square crop."""

    pixels: Pixels
    top: int
    left: int


def read_windows(fields: caffe_pb2.WindowDataParameter) -> tuple[list[Window], list[Window]]:
    """Background and foreground windows of the window file that `fields` names.

    A window is foreground where its overlap with an object is at least `fg_threshold`, background, with label 0, where
    it is below `bg_threshold`, and else left out. Raises DataError where the file is not as it should be.
    """
    words = _Words(fields.source)
    background: list[Window] = []
    foreground: list[Window] = []
    while words.more():
        words.expect("#")
        words.number("the image's index")
        image = fields.root_folder + words.text("the image's path")
        for what in ("channels", "height", "width"):
            words.number(f"the image's {what}")
        for _ in range(int(words.number("the number of windows"))):
            label, overlap = int(words.number("a class")), words.number("an overlap")
            corners = [int(words.number("a corner")) for _ in range(4)]
            window = Window(image, label, *corners)
            if overlap >= fields.fg_threshold:
                if label < 1:
                    raise words.error(f"a foreground window of {image} has class {label}; 0 is the background")
                foreground.append(window)
            elif overlap < fields.bg_threshold:
                background.append(window._replace(label=0))
    return background, foreground


def window_batches(
    fields: caffe_pb2.WindowDataParameter, transform: caffe_pb2.TransformationParameter, phase: int, seed: int
) -> Iterator[Batch]:
    """Batches of windows chosen at random: `fg_fraction` of them foreground, after the background.

    Raises DataError at once where the window file cannot be used, later where an image cannot.
    """
    if fields.crop_mode not in ("warp", "square"):
        raise DataError(f'crop_mode is "warp" or "square", not "{fields.crop_mode}"')
    if 2 * fields.context_pad >= transform.crop_size:
        raise DataError(
            f"context_pad {fields.context_pad} on both sides leaves nothing of crop_size {transform.crop_size}"
        )
    windows = read_windows(fields)
    # In single precision, as in Caffe: of ten 0.7 are seven.
    foreground = int(np.float32(fields.batch_size) * np.float32(fields.fg_fraction))
    if not 0 <= foreground <= fields.batch_size:
        raise DataError(f"fg_fraction must lie between 0 and 1; it is {fields.fg_fraction:g}")
    counts = (fields.batch_size - foreground, foreground)
    for kind, found, count in zip(("background", "foreground"), windows, counts, strict=True):
        if count and not found:
            raise DataError(
                f"{fields.source} has no {kind} windows, and a batch needs {count}: change fg_threshold, bg_threshold "
                "or fg_fraction"
            )
    return _batches(fields, windows, counts, transform.mirror, _Canvas(transform, phase), seed)


def _batches(
    fields: caffe_pb2.WindowDataParameter,
    windows: tuple[list[Window], list[Window]],
    counts: tuple[int, int],
    mirror: bool,
    canvas: "_Canvas",
    seed: int,
) -> Iterator[Batch]:
    cache: dict[str, Pixels] = {}
    size = fields.batch_size
    for number in itertools.count():
        draw = np.random.default_rng(derive(seed, number))
        data = np.empty((size, _COLORS, canvas.size, canvas.size), np.float32)
        labels = np.empty(size, np.float32)
        for i in range(size):
            kind = windows[int(i >= counts[0])]
            window = kind[draw.integers(len(kind))]
            mirrored = mirror and bool(draw.integers(2))
            image = cache.get(window.image)
            if image is None:
                image = read_image(window.image)
                if fields.cache_images:
                    cache[window.image] = image
            patch = cut(image, window, canvas.size, fields.context_pad, fields.crop_mode == "square", mirrored)
            canvas.draw(patch, data[i : i + 1])
            labels[i] = window.label
        yield [data, labels]


def cut(image: Pixels, window: Window, size: int, context: int, square: bool, mirrored: bool) -> Patch:
    """The window of `image` (3 × height × width) warped to a square of `size` pixels.

    With `context` or `square` the window is first enlarged about its centre: to a square, and so that the warped one
    has `context` pixels around it. What then lies outside the image is no part of the patch. Raises DataError where
    nothing is left of the window.
    """
    x1, y1, x2, y2 = window[2:]
    if context == 0 and not square:
        _check_inside(image, (x1, y1, x2, y2), window)
        return Patch(_warp(image, (x1, y1, x2, y2), size, size, mirrored), 0, 0)
    scale = np.float32(size) / np.float32(size - 2 * context)
    half_width, half_height = np.float32((x2 - x1 + 1) / 2), np.float32((y2 - y1 + 1) / 2)
    center_x, center_y = np.float32(x1) + half_width, np.float32(y1) + half_height
    if square:
        half_width = half_height = max(half_width, half_height)
    x1, x2 = _round(center_x - half_width * scale), _round(center_x + half_width * scale)
    y1, y2 = _round(center_y - half_height * scale), _round(center_y + half_height * scale)
    outside = (max(0, -x1), max(0, -y1), max(0, x2 - image.shape[2] + 1), max(0, y2 - image.shape[1] + 1))
    scale_x, scale_y = np.float32(size) / np.float32(x2 - x1 + 1), np.float32(size) / np.float32(y2 - y1 + 1)
    inside = (x1 + outside[0], y1 + outside[1], x2 - outside[2], y2 - outside[3])
    _check_inside(image, inside, window)
    width = _round(np.float32(inside[2] - inside[0] + 1) * scale_x)
    height = _round(np.float32(inside[3] - inside[1] + 1) * scale_y)
    left = _round(np.float32(outside[2 if mirrored else 0]) * scale_x)
    top = _round(np.float32(outside[1]) * scale_y)
    # Rounding may have made too much of it.
    width, height = max(1, min(width, size - left)), max(1, min(height, size - top))
    return Patch(_warp(image, inside, height, width, mirrored), min(top, size - 1), min(left, size - 1))


def _check_inside(image: Pixels, corners: tuple[int, int, int, int], window: Window) -> None:
    x1, y1, x2, y2 = corners
    _, height, width = image.shape
    if not (0 <= x1 <= x2 < width and 0 <= y1 <= y2 < height):
        raise DataError(
            f"window {', '.join(map(str, window[2:]))} of {window.image} lies outside the image, which is "
            f"{height} × {width}"
        )


def _warp(image: Pixels, corners: tuple[int, int, int, int], height: int, width: int, mirrored: bool) -> Pixels:
    x1, y1, x2, y2 = corners
    part = image[:, y1 : y2 + 1, x1 : x2 + 1].transpose(1, 2, 0)
    warped = planar(resize(np.ascontiguousarray(part), height, width))
    return warped[:, :, ::-1] if mirrored else warped


def _round(value: np.float32) -> int:
    """Halves away from zero, as C's round."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))


class _Canvas:
    """Subtracts the mean and scales; around the patch the result is 0, as in Caffe."""

    def __init__(self, transform: caffe_pb2.TransformationParameter, phase: int) -> None:
        self.size = int(transform.crop_size)
        plain = caffe_pb2.TransformationParameter(scale=transform.scale, mean_value=transform.mean_value)
        mean = None
        if transform.HasField("mean_file"):
            plain.mean_file = transform.mean_file
            mean = read_mean(transform.mean_file)
            start = (mean.shape[2] - self.size) // 2
            mean = mean[:, start : start + self.size, start : start + self.size]
            if start < 0 or mean.shape != (_COLORS, self.size, self.size):
                raise DataError(f"{transform.mean_file} is smaller than {self.size} × {self.size} (crop_size)")
        self._transformer = Transformer(plain, phase, mean)
        self._transformer.output_shape((_COLORS, self.size, self.size))
        values = np.array(transform.mean_value or [0], np.float32)[:, None, None]
        self._empty = np.broadcast_to(values if mean is None else mean, (_COLORS, self.size, self.size))

    def draw(self, patch: Patch, out: Pixels) -> None:
        whole = self._empty.copy()
        _, height, width = patch.pixels.shape
        whole[:, patch.top : patch.top + height, patch.left : patch.left + width] = patch.pixels
        self._transformer(whole[None], out, 0)


class _Words:
    """The words of a window file, which are all that counts of its layout."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._words = [(word, line) for line in lines_of(path) for word in line.split()]
        self._next = 0

    def more(self) -> bool:
        return self._next < len(self._words)

    def text(self, what: str) -> str:
        if not self.more():
            raise DataError(f"{self._path} ends where {what} should stand")
        self._next += 1
        return self._words[self._next - 1][0]

    def number(self, what: str) -> float:
        word = self.text(what)
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not abs(value) < _MOST:
            raise self.error(f"`{word[:50]}` stands where {what} should")
        return value

    def expect(self, word: str) -> None:
        if self.text(f"`{word}`") != word:
            raise self.error(f"`{word}` and an index begin each image")

    def error(self, reason: str) -> DataError:
        return DataError(f"{self._path}: {reason}; in the line `{self._words[self._next - 1][1][:100]}`")
