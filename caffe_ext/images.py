"""Images as Caffe reads them: decoded and resized by OpenCV, planar, in BGR order."""

import os
import pathlib
from typing import Any

import numpy as np

from ..errors import DataError

Pixels = np.ndarray[tuple[int, ...], np.dtype[Any]]


def decode(content: bytes | memoryview, color: bool | None = True) -> Pixels:
    """The image of a JPEG, PNG or other file, channels × height × width, uint8.

    `color`: three channels (True), one (False) or as many as the file has (None). One channel of a colour JPEG is its
    luminance, as stored. Raises DataError when `content` cannot be decoded.
    """
    return planar(_decode(content, color))


def read_image(path: str | os.PathLike[str], *, color: bool = True, height: int = 0, width: int = 0) -> Pixels:
    """The image in the file `path`, channels × height × width, uint8; resized where `height` and `width` are not 0.

    Raises DataError, naming the file, when it cannot be read or decoded.
    """
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the image {path}: {error.strerror or error}") from error
    try:
        image = _decode(content, color)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return planar(resize(image, height, width) if height and width else image)


def resize(image: Pixels, height: int, width: int) -> Pixels:
    """`image` (height × width, or height × width × channels, uint8) at another size, by bilinear interpolation."""
    import cv2

    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def planar(image: Pixels) -> Pixels:
    """The channels × height × width of an image that OpenCV has as height × width (× channels)."""
    return image[None] if image.ndim == 2 else np.ascontiguousarray(image.transpose(2, 0, 1))


def _decode(content: bytes | memoryview, color: bool | None) -> Pixels:
    import cv2

    flags = {True: cv2.IMREAD_COLOR, False: cv2.IMREAD_GRAYSCALE, None: cv2.IMREAD_UNCHANGED}[color]
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    except cv2.error as error:
        raise DataError(f"the image cannot be decoded: {error.err}") from error
    if image is None:
        raise DataError("the image cannot be decoded: it is damaged, or no image")
    if image.dtype != np.uint8:
        raise DataError(f"the image has {8 * image.itemsize} bits a channel; 8 are needed")
    return image
