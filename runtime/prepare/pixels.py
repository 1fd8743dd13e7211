"""What becomes of images on their way: decoded, grey, resized, encoded, as Caffe's convert_imageset does it."""

import dataclasses
from typing import Any, Literal

import numpy as np

from ...caffe_ext.images import Pixels, decode, planar, resize
from ...errors import DataError
from ..data import Column, Columns
from ..data.base import ENCODED
from ..data.encoded import in_threads
from .reading import names_in
from .writer import ending

Encoding = Literal["raw", "png", "jpg"]


@dataclasses.dataclass(frozen=True)
class Pixelwork:
    """What is asked for.

    size      height and width that images are resized to; None: as they are
    gray      one channel
    encoding  how they are stored; None: as they come
    rgb       images that are not encoded have the planes R, G, B
    """

    size: tuple[int, int] | None = None
    gray: bool = False
    encoding: Encoding | None = None
    rgb: bool = False

    @property
    def changes(self) -> bool:
        """Whether anything is asked for."""
        return self.size is not None or self.gray or self.encoding is not None

    def on(self, column: Column, first: Any) -> "Work | None":
        """What is to be done to the images of `column`, `first` being one of them; None: nothing. Raises DataError."""
        encoding: Encoding | None = self.encoding
        if column.encoded:
            if self.size is None and not self.gray and encoding is None:
                return None
            # JPEG stays JPEG; all others become PNG, which keeps every pixel.
            encoding = encoding or ("jpg" if ending(first) == "jpg" else "png")
        else:
            if column.dtype != "uint8" or len(column.shape) != 3 or column.shape[0] not in (1, 3, 4):
                shape = "×".join(map(str, column.shape)) or "one number"
                raise DataError(
                    f"column `{column.name}` holds {column.dtype} of {shape}; only images of 8 bits, of 1, 3 or 4 "
                    "channels, can be resized, made grey or encoded"
                )
            encoding = encoding or "raw"
            size = self.size or column.shape[1:]
            gray = self.gray and column.shape[0] != 1
            if encoding == "raw" and size == column.shape[1:] and not gray:
                return None
        return Work(self, column, encoding, first)


class Work:
    """Done to each image; `column` is what comes out."""

    def __init__(self, asked: Pixelwork, column: Column, encoding: Encoding, first: Any) -> None:
        self._asked = asked
        self._encoded = column.encoded
        self._name = column.name
        self._encoding = encoding
        # As convert_imageset, which stores a file as it is where it has the wanted encoding.
        self._kept = asked.size is None and not asked.gray
        self._color = False if asked.gray or column.shape[0] == 1 else True if column.shape[0] == 3 else None
        shape = self._pixels(first).shape
        if encoding == "raw":
            self.column = Column(column.name, "uint8", shape)
        else:
            self.column = Column(column.name, ENCODED, (shape[0], 0, 0), shape)

    def __call__(self, rows: Columns, first: int) -> Columns:
        """The chunk `rows`, which begins with row `first`, with its images worked on; raises DataError."""
        names = names_in(rows)

        def work(row: int) -> Any:
            try:
                return self._done(rows[self._name][row])
            except DataError as error:
                who = f"row {first + row}" if names is None else f"{names[row].decode(errors='backslashreplace')}"
                raise DataError(f"{who}: {error}") from error

        done = [value for _, value in in_threads(work, range(len(rows[self._name])))]
        if self.column.encoded:
            values: Any = np.empty(len(done), object)
            values[:] = done
        else:
            values = np.stack(done)
        return {**rows, self._name: values}

    def _done(self, value: Any) -> Any:
        if self._encoded and self._kept and ending(value) == self._encoding:
            return value
        pixels = self._pixels(value)
        if self._encoding != "raw":
            return _encoded(pixels, self._encoding, swap=self._asked.rgb and not self._encoded)
        if pixels.shape != self.column.shape:
            found, wanted = ("×".join(map(str, shape)) for shape in (pixels.shape, self.column.shape))
            raise DataError(f"its image is {found}, the first one {wanted}; --resize gives all one size")
        return pixels

    def _pixels(self, value: Any) -> Pixels:
        asked = self._asked
        pixels: Pixels = decode(value, self._color) if self._encoded else value
        if not self._encoded and asked.gray and pixels.shape[0] >= 3:
            pixels = _gray(pixels[2::-1] if asked.rgb else pixels[:3])
        if asked.size and pixels.shape[1:] != asked.size:
            pixels = planar(resize(np.ascontiguousarray(pixels.transpose(1, 2, 0)), *asked.size))
        return pixels


def _encoded(pixels: Pixels, encoding: Encoding, *, swap: bool) -> bytes:
    import cv2

    if swap and pixels.shape[0] >= 3:
        pixels = pixels[[2, 1, 0, *range(3, pixels.shape[0])]]
    if encoding == "jpg" and pixels.shape[0] == 4:
        pixels = pixels[:3]
    done, content = cv2.imencode(f".{encoding}", np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if not done:
        raise DataError(f"an image of {'×'.join(map(str, pixels.shape))} cannot be encoded as {encoding}")
    return bytes(content.tobytes())


def _gray(pixels: Pixels) -> Pixels:
    import cv2

    return planar(cv2.cvtColor(np.ascontiguousarray(pixels.transpose(1, 2, 0)), cv2.COLOR_BGR2GRAY))
