"""Contact sheets: some rows' images side by side, as a PNG or in the terminal."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.style import Style
from rich.text import Text

from ...caffe_ext.images import decode, resize
from ...errors import DataError
from ...files import write_atomic
from ..data import Column, Columns
from .reading import Input
from .writer import image_of, label_of, rows_of

# height × width × (blue, green, red)
Picture = npt.NDArray[np.uint8]
CAPTION = 14  # pixels of height


class Sample:
    """Some rows of a data set, each as likely as any other, whatever their number: `count` of them.

    Which ones follows from how many rows there are.
    """

    def __init__(self, data: Input, count: int) -> None:
        self._image: Column | None = image_of(data.columns)
        if self._image is not None and not _is_picture(self._image):
            self._image = None
        self._label = label_of(data.columns)
        self._rgb = data.rgb
        self._count = count
        self._seen = 0
        self._random = np.random.default_rng(0)
        self._kept: list[tuple[int | None, Any]] = []

    def add(self, rows: Columns) -> None:
        """Looks at a chunk."""
        if self._image is None:
            return
        for row in range(rows_of(rows)):
            # Algorithm R (Vitter 1985).
            place = self._seen if self._seen < self._count else int(self._random.integers(self._seen + 1))
            self._seen += 1
            if place >= self._count:
                continue
            value = rows[self._image.name][row]
            kept = (
                None if self._label is None else int(rows[self._label.name][row]),
                value if self._image.encoded else value.copy(),
            )
            if place == len(self._kept):
                self._kept.append(kept)
            else:
                self._kept[place] = kept

    def tiles(self) -> list[tuple[str, Picture]]:
        """Captions and pictures, by label; none where the rows are no images."""
        rows = sorted(self._kept, key=lambda kept: -1 if kept[0] is None else kept[0])
        raw = [value for _, value in rows if isinstance(value, np.ndarray)]
        low, high = (min(v.min() for v in raw), max(v.max() for v in raw)) if raw else (0, 255)
        if raw and raw[0].dtype == np.uint8 and high > 31:
            low, high = 0, 255
        pictures = []
        for label, value in rows:
            caption = "" if label is None else str(label)
            if isinstance(value, np.ndarray):
                pixels = (value.astype(np.float32) - low) * (255 / max(float(high - low), 1e-12))
                pictures.append((caption, _picture(pixels.clip(0, 255).astype(np.uint8), self._rgb)))
            else:
                try:
                    pictures.append((caption, _picture(decode(value), False)))
                except DataError:
                    continue
        return pictures


def _is_picture(column: Column) -> bool:
    return column.encoded or (len(column.shape) == 3 and column.shape[0] in (1, 3, 4))


def _picture(pixels: npt.NDArray[np.uint8], rgb: bool) -> Picture:
    """An image, channels × height × width, as a picture."""
    planes = pixels[[0, 0, 0]] if len(pixels) == 1 else pixels[2::-1] if rgb else pixels[:3]
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def _fitted(picture: Picture, side: int) -> Picture:
    """A picture in the middle of a black square of `side`; small ones are made larger, their pixels kept square."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale >= 2:
        picture = np.repeat(np.repeat(picture, int(scale), axis=0), int(scale), axis=1)
    else:
        picture = resize(picture, max(1, round(height * scale)), max(1, round(width * scale)))
    result = np.zeros((side, side, 3), np.uint8)
    top, left = (side - picture.shape[0]) // 2, (side - picture.shape[1]) // 2
    result[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return result


def write_sheet(path: str, tiles: Sequence[tuple[str, Picture]], side: int = 96, across: int = 8) -> None:
    """Writes a contact sheet as a PNG, labels below the pictures; raises OutputError."""
    import cv2

    down = -(-len(tiles) // across)
    sheet = np.full((down * (side + CAPTION + 4) + 4, min(across, len(tiles)) * (side + 4) + 4, 3), 32, np.uint8)
    for index, (caption, picture) in enumerate(tiles):
        top, left = index // across * (side + CAPTION + 4) + 4, index % across * (side + 4) + 4
        sheet[top : top + side, left : left + side] = _fitted(picture, side)
        place = (left + 2, top + side + CAPTION - 3)
        cv2.putText(sheet, caption, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (224, 224, 224), 1, cv2.LINE_AA)
    write_atomic(pathlib.Path(path), cv2.imencode(".png", sheet)[1].tobytes())


def print_sheet(console: Console, tiles: Sequence[tuple[str, Picture]], side: int = 16, down: int = 3) -> None:
    """Shows pictures in a terminal that has colours: two pixels, one above the other, in each character."""
    across = max(1, console.width // (side + 1))
    tiles = tiles[: across * down]
    for start in range(0, len(tiles), across):
        line = tiles[start : start + across]
        pictures = [_fitted(picture, side)[:, :, ::-1] for _, picture in line]
        for y in range(0, side, 2):
            text = Text()
            for picture in pictures:
                for upper, lower in zip(picture[y].tolist(), picture[y + 1].tolist(), strict=True):
                    text.append("▀", Style(color=_color(upper), bgcolor=_color(lower)))
                text.append(" ")
            console.print(text, no_wrap=True, soft_wrap=True)
        console.print(Text(" ".join(caption.ljust(side)[:side] for caption, _ in line)), soft_wrap=True)


def _color(rgb: Sequence[int]) -> str:
    return f"rgb({rgb[0]},{rgb[1]},{rgb[2]})"
