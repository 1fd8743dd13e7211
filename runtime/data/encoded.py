"""Images as bytes on their way into rows: whole or not, and decoded and resized where the URI says so."""

import collections
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar, NamedTuple

from ... import caffe_ext
from ...caffe_ext.images import Pixels, check_whole, decode, in_planes
from ...errors import DataError
from .base import ENCODED, BadRecords, Column, Columns, SourceURI, gathered


class Record(NamedTuple):
    """An image: the key that names it in messages, its bytes, and other values.

    In place of the bytes, what reads them (in any thread), or why there are none.
    """

    key: str
    content: bytes | Callable[[], bytes] | DataError
    values: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class Images:
    """How a source gives its images.

    size   (height, width) that they are resized to, as Caffe's convert_imageset does; None: kept as they are
    color  three channels (True), one (False), or as many as each image has (None)
    """

    OPTIONS: ClassVar[dict[str, str]] = {
        "resize": "N or HxW: images are decoded when they are read and resized to exactly that; without it they are "
        "kept as bytes, and decoded batch by batch",
        "gray": "true: images of one channel",
    }

    size: tuple[int, int] | None
    color: bool | None

    @classmethod
    def of(cls, uri: SourceURI, color: bool | None = True) -> "Images":
        """What the options of `uri` say; `color` unless they ask for grey images. Raises DataError."""
        given = uri.options.get("resize")
        try:
            size = size_of(given) if given else None
        except DataError as error:
            raise DataError(f"{uri}: {error}") from None
        return cls(size, False if uri.flag("gray") else color)

    def column(self, name: str, first: bytes | None) -> Column:
        """The column that they make; `first` is the first image's bytes, where the source has looked."""
        channels = {True: 3, False: 1, None: 0}[self.color]
        shape: tuple[int, ...] = ()
        if first is not None and (self.size is None or self.color is None):
            # One that is damaged is told of when the rows are read.
            try:
                shape = self.pixels(first).shape
            except DataError:
                shape = ()
        if self.size is None:
            return Column(name, ENCODED, (channels, 0, 0), shape)
        return Column(name, "uint8", shape or (channels or 3, *self.size))

    def pixels(self, content: bytes) -> Pixels:
        """The image of `content`, channels × height × width; raises DataError where it is not whole."""
        check_whole(content)
        return decode(content, self.color, self.size)

    def chunks(self, records: Iterable[Record], columns: Sequence[Column], bad: BadRecords) -> Iterator[Columns]:
        """The records in chunks of `columns`, the first of which is the image; those that are not whole go to `bad`.

        They are read and decoded in as many threads as the engine has, a few ahead.
        """
        import cv2

        # What is wrong is told once, by `bad`, not by OpenCV for each image.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        yield from gathered(self._rows(records, columns[0], bad), columns)

    def _rows(self, records: Iterable[Record], column: Column, bad: BadRecords) -> Iterator[tuple[Any, ...]]:
        def look(record: Record) -> "bytes | Pixels | DataError":
            content = record.content
            if isinstance(content, DataError):
                return content
            try:
                content = content if isinstance(content, bytes) else content()
                pixels = self.pixels(content)
            except DataError as error:
                return error
            if column.encoded:
                return content
            if pixels.shape != column.shape:
                return DataError(f"it has {pixels.shape[0]} channels, and the first image {column.shape[0]}")
            return in_planes(pixels)

        for record, found in in_threads(look, records):
            if isinstance(found, DataError):
                bad.add(record.key, str(found))
            else:
                yield (found, *record.values)


def in_threads(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Each item with what `work` makes of it, in order, a few of them at a time in threads of their own."""
    threads = caffe_ext.num_threads()
    # Enough for the threads while a chunk is written.
    ahead = 16 * threads
    pool = ThreadPoolExecutor(threads, "decode")
    waiting: collections.deque[tuple[Any, Future[Any]]] = collections.deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        # Without waiting, since this may run in a finalizer.
        pool.shutdown(wait=False, cancel_futures=True)


def size_of(resize: str) -> tuple[int, int]:
    """The height and width that `resize`, N or HxW, asks for; raises DataError."""
    match = re.fullmatch(r"(\d+)(?:[xX×](\d+))?", resize)
    size = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if min(size) < 1:
        raise DataError(f"resize={resize}: write resize=256, or resize=HEIGHTxWIDTH")
    return size
