"""Arrays as pictures for a page: PNGs in data URLs, of images of the data and of a layer's filters."""

import base64
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[Any]
# Of an image of the data, in pixels; larger ones are scaled down.
LARGEST = 160
FILTERS = 96


def png(pixels: Image) -> str:
    """An image (height × width, or height × width × 3 in BGR; uint8) as a data URL."""
    import cv2

    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", pixels)[1].tobytes()).decode()


def thumbnail(image: Image, rgb: bool = False) -> str:
    """A row of the data, channels × height × width: bytes in colour as they are, others from least to greatest."""
    import cv2

    pixels = image.transpose(1, 2, 0)
    if pixels.dtype != np.uint8 or pixels.shape[2] == 1:
        pixels = stretched(pixels)
    pixels = pixels[..., ::-1] if rgb else pixels
    longest = max(pixels.shape[:2])
    if longest > LARGEST:
        height, width = (max(1, round(side * LARGEST / longest)) for side in pixels.shape[:2])
        pixels = cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=cv2.INTER_AREA)
    return png(np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], -1).squeeze()))


def filters(weights: Image, rgb: bool = False) -> list[str]:
    """A picture for each filter of (filters, channels, height, width): in colour with three channels, else one each."""
    if weights.shape[1] != 3:
        weights = weights.reshape(-1, 1, *weights.shape[2:])
    return [thumbnail(each.astype(np.float32), rgb) for each in weights[:FILTERS]]


def stretched(values: Image) -> Image:
    """Numbers as uint8, the least 0 and the greatest 255; those that are not finite are 0."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if high <= low:
        return np.full(values.shape, 128, np.uint8)
    scaled = (np.clip(np.nan_to_num(values.astype(np.float64), nan=low), low, high) - low) / (high - low)
    return (scaled * 255).round().astype(np.uint8)


def is_image(shape: Iterable[int]) -> bool:
    """Whether a row of that shape can be looked at: one channel or three, two axes longer than one."""
    sizes = tuple(shape)
    return len(sizes) == 3 and sizes[0] in (1, 3) and min(sizes[1:]) > 1
