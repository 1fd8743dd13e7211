"""Images as Caffe reads them: decoded and resized by OpenCV, planar, in BGR order."""

import os
import pathlib
import re
import struct
import zlib
from typing import Any

import numpy as np

from ..errors import DataError

Pixels = np.ndarray[tuple[int, ...], np.dtype[Any]]

_PNG = b"\x89PNG\r\n\x1a\n"
# Where entropy-coded data end: a marker that is none of the restarts, nor a byte of data.
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")


def decode(content: bytes | memoryview, color: bool | None = True, size: tuple[int, int] | None = None) -> Pixels:
    """The image of a JPEG, PNG or other file, channels × height × width, uint8.

    `color`: three channels (True), one (False) or as many as the file has (None). One channel of a colour JPEG is its
    luminance, as stored. `size`: resized to that height and width. Raises DataError when `content` cannot be decoded.
    """
    image = _decode(content, color)
    return planar(resize(image, *size) if size else image)


def check_whole(content: bytes) -> None:
    """Raises DataError for a JPEG or PNG that is cut short; some versions of OpenCV decode what is there."""
    if content.startswith(b"\xff\xd8"):
        _check_jpeg(content)
    elif content.startswith(_PNG):
        _check_png(content)


def read_image(path: str | os.PathLike[str], *, color: bool = True, height: int = 0, width: int = 0) -> Pixels:
    """The image in the file `path`, channels × height × width, uint8; resized where `height` and `width` are not 0.

    Raises DataError, naming the file, when it cannot be read or decoded.
    """
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the image {path}: {error.strerror or error}") from error
    try:
        return decode(content, color, (height, width) if height and width else None)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def resize(image: Pixels, height: int, width: int) -> Pixels:
    """`image` (height × width, or height × width × channels, uint8) at another size, by bilinear interpolation."""
    import cv2

    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def planar(image: Pixels) -> Pixels:
    """The channels × height × width of an image that OpenCV has as height × width (× channels): a view."""
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def in_planes(image: Pixels) -> Pixels:
    """A copy of the channels × height × width of `planar`, channel after channel in memory."""
    import cv2

    planes = np.empty(image.shape, np.uint8)
    cv2.split(image.transpose(1, 2, 0), list(planes))
    return planes


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


def _check_jpeg(content: bytes) -> None:
    if content.endswith(b"\xff\xd9"):
        return
    # Some have other bytes behind the end.
    at = 0
    while found := _MARKER.search(content, at):
        marker, at = content[found.end() - 1], found.end()
        if marker == 0xD9:
            return
        # Only these two have no length; the data of a scan, which follow its header, have none either.
        if marker not in (0x01, 0xD8):
            at += int.from_bytes(content[at : at + 2], "big")
    raise DataError(f"the JPEG is cut short: its {len(content):,} bytes have no end of image")


def _check_png(content: bytes) -> None:
    at = len(_PNG)
    while at + 12 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        end = at + 8 + size
        if end + 4 > len(content):
            break
        if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            raise DataError(f"the PNG is damaged: the checksum of its chunk {kind.decode('latin-1')} is wrong")
        if kind == b"IEND":
            return
        at = end + 4
    raise DataError(f"the PNG is cut short: its {len(content):,} bytes have no end of image")
