"""Columns of Arrow, as Parquet, Spark and CSV readers give them, as the arrays that feed nets.

The rules are in docs/data.md. A kind knows how a column's rows become an array; which kind a column is, its type says,
and for lists, bytes and images its first row.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ...caffe_ext.images import check_whole, decode, planar, resize
from ...errors import DataError
from .base import Column
from .encoded import Images

Array = npt.NDArray[Any]
VECTOR = {"type", "size", "indices", "values"}  # Spark ML's VectorUDT
IMAGE = {"origin", "height", "width", "nChannels", "mode", "data"}  # Spark's image schema
_SIGNS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\x00", b"MM\x00*", b"P5", b"P6")


class UnfitError(Exception):
    """A row's value is not what its column's is to be; `str()` says which and why."""


class RefusedError(Exception):
    """A column can feed no net; `str()` says why, and what to do."""


@dataclasses.dataclass(frozen=True)
class Kind(abc.ABC):
    """How the rows of the columns `names`, of a table, become those of `column`."""

    column: Column
    names: tuple[str, ...]

    @abc.abstractmethod
    def values(self, batch: Any, threads: ThreadPoolExecutor) -> Array:
        """The rows of a RecordBatch; raises UnfitError where one is not as it should be."""

    @property
    def name(self) -> str:
        """The column that it reads, the first of several."""
        return self.names[0]


def is_image(content: bytes) -> bool:
    """Whether bytes begin as those of an image file do."""
    return content.startswith(_SIGNS) or (content[:4] == b"RIFF" and content[8:12] == b"WEBP")


def typed(values: Sequence[Any], type: Any) -> Any:
    """Values as an Arrow array; those that are not of `type` are null, which makes their rows bad ones."""
    import pyarrow as pa

    def fitting(value: Any) -> Any:
        try:
            return pa.scalar(value, type).as_py()
        except errors:
            return None

    errors = (pa.ArrowException, TypeError, ValueError)
    try:
        return pa.array(values, type)
    except errors:
        return pa.array([fitting(value) for value in values], type)


def kind_of(
    name: str,
    values: Any,
    images: Callable[[bool], Images],
    shape: tuple[int, ...] | None = None,
    classes: Sequence[str] | None = None,
) -> Kind:
    """The kind of the column `name`, whose first rows are `values`, an Arrow array.

    images   how images are given, told whether the first is in colour
    shape    a row's, where the user says it; classes: the strings that stand for 0, 1, ...

    Raises RefusedError.
    """
    import pyarrow as pa

    type = values.type
    first = next((value for value in values if value.is_valid), None)
    if isinstance(type, pa.BaseExtensionType):
        shape = shape or tuple(getattr(type, "shape", ())) or None
        values, type = values.storage, type.storage_type
        first = next((value for value in values if value.is_valid), None)
    if pa.types.is_dictionary(type):
        type = type.value_type
    if classes is not None:
        if not _is_text(type) and not pa.types.is_integer(type):
            raise RefusedError(f"it holds {type}: strings, or whole numbers, have classes")
        return Classes(Column(name, "int64", ()), (name,), tuple(classes))
    if (dtype := _dtype(type)) is not None:
        return Numbers(Column(name, dtype, ()), (name,))
    if _is_text(type):
        raise RefusedError(
            f"it holds strings: say which stands for 0, 1, ... (classes={name}:cat|dog), or make numbers of it"
        )
    if first is None:
        raise RefusedError(f"it holds {type}, and its first rows are null: they would say the shape")
    if _is_list(type):
        return _lists(name, type, first.as_py(), shape)
    if pa.types.is_struct(type):
        fields = {field.name: field.type for field in type}
        value = first.as_py()
        if set(fields) == VECTOR:
            size = value["size"] if value["type"] == 0 else len(value["values"])
            return Vectors(Column(name, "float32", _shaped(name, (size,), shape)), (name,), size)
        if set(fields) == IMAGE:
            return SparkImages.of(name, value, images)
        if _is_binary(fields.get("bytes")) and value["bytes"] is not None:  # Hugging Face's images
            return _binary(name, value["bytes"], images, shape, "bytes")
    if _is_binary(type):
        return _binary(name, first.as_py(), images, shape, "")
    raise RefusedError(f"it holds {type}, of which no numbers can be made")


@dataclasses.dataclass(frozen=True)
class Numbers(Kind):
    """A number in each row."""

    def values(self, batch: Any, threads: ThreadPoolExecutor) -> Array:
        """Converts as `Kind.values` says."""
        del threads
        return _numbers(self.name, batch.column(self.name), self.column.dtype)


@dataclasses.dataclass(frozen=True)
class Features(Kind):
    """Columns of a number each, `parts`, as one vector."""

    parts: tuple[Kind, ...]

    def values(self, batch: Any, threads: ThreadPoolExecutor) -> Array:
        """Converts as `Kind.values` says."""
        result = np.empty((batch.num_rows, len(self.parts)), np.float32)
        for index, part in enumerate(self.parts):
            result[:, index] = part.values(batch, threads)
        return result.reshape(-1, *self.column.shape)


@dataclasses.dataclass(frozen=True)
class Classes(Kind):
    """A string or whole number in each row, one of `classes`; its place among them is what it stands for."""

    classes: tuple[str, ...]

    def values(self, batch: Any, threads: ThreadPoolExecutor) -> Array:
        """Converts as `Kind.values` says."""
        del threads
        import pyarrow as pa
        import pyarrow.compute as pc

        texts = pc.utf8_trim_whitespace(batch.column(self.name).cast(pa.string()))
        _no_nulls(self.name, texts)
        places = pc.index_in(texts, pa.array(self.classes, pa.string()))
        if places.null_count:
            unknown = texts.filter(places.is_null())[0].as_py()
            raise UnfitError(f"`{self.name}` is {unknown[:40]!r}, none of its {len(self.classes)} classes")
        return np.asarray(places.to_numpy(zero_copy_only=False), np.int64)


@dataclasses.dataclass(frozen=True)
class Lists(Kind):
    """A list of numbers, or of lists of them, in each row, `sizes` long at each level."""

    sizes: tuple[int, ...]

    def values(self, batch: Any, threads: ThreadPoolExecutor) -> Array:
        """Converts as `Kind.values` says."""
        del threads
        import pyarrow as pa

        lists = batch.column(self.name)
        if isinstance(lists.type, pa.BaseExtensionType):
            lists = lists.storage
        return _flat(self.name, lists, self.sizes, self.column.dtype).reshape(-1, *self.column.shape)


@dataclasses.dataclass(frozen=True)
class Vectors(Kind):
    """A vector of Spark ML's, dense or sparse, in each row, of `size` numbers."""

    size: int

    def values(self, batch: Any, threads: ThreadPoolExecutor) -> Array:
        """Converts as `Kind.values` says."""
        del threads
        import pyarrow.compute as pc

        structs = batch.column(self.name)
        _no_nulls(self.name, structs)
        fields = dict(zip((field.name for field in structs.type), structs.flatten(), strict=True))
        sparse = fields["type"].to_numpy(zero_copy_only=False) == 0
        lengths = pc.list_value_length(fields["values"]).to_numpy(zero_copy_only=False)
        sizes = np.where(sparse, fields["size"].fill_null(0).to_numpy(zero_copy_only=False), lengths)
        wrong = sizes[sizes != self.size]
        if len(wrong):
            raise UnfitError(f"`{self.name}` is a vector of {wrong[0]} numbers, and {self.size} in the first row")
        result = np.zeros((len(structs), self.size), np.float32)
        dense = fields["values"].filter(~sparse)
        result[~sparse] = dense.flatten().to_numpy(zero_copy_only=False).reshape(-1, self.size)
        if sparse.any():
            columns = fields["indices"].filter(sparse).flatten().to_numpy(zero_copy_only=False)
            rows = np.repeat(np.flatnonzero(sparse), lengths[sparse])
            if len(columns) != len(rows) or (len(columns) and not 0 <= columns.min() <= columns.max() < self.size):
                raise UnfitError(f"`{self.name}` is a sparse vector with indices that do not fit it")
            result[rows, columns] = fields["values"].filter(sparse).flatten().to_numpy(zero_copy_only=False)
        return result.reshape(-1, *self.column.shape)


@dataclasses.dataclass(frozen=True)
class Bytes(Kind):
    """Bytes in each row, as many as `shape` holds; in `field` of a struct, where that is named."""

    field: str = ""

    def values(self, batch: Any, threads: ThreadPoolExecutor) -> Array:
        """Converts as `Kind.values` says."""
        del threads
        import pyarrow.compute as pc

        binary = _contents(self.name, batch, self.field)
        size = math.prod(self.column.shape)
        lengths = pc.binary_length(binary).to_numpy(zero_copy_only=False)
        if (lengths != size).any():
            raise UnfitError(f"`{self.name}` is {lengths[lengths != size][0]} bytes, and {size} in the first row")
        return _joined(binary).reshape(-1, *self.column.shape)


@dataclasses.dataclass(frozen=True)
class EncodedImages(Kind):
    """A JPEG, PNG or other image file in each row, kept as it is or decoded and resized, as `images` says."""

    images: Images
    field: str = ""

    def values(self, batch: Any, threads: ThreadPoolExecutor) -> Array:
        """Converts as `Kind.values` says."""
        contents = _contents(self.name, batch, self.field).to_pylist()
        # A task for each image would take longer than a small image.
        parts = [contents[start : start + 32] for start in range(0, len(contents), 32)]
        found = [pixels for part in threads.map(self._looked, parts) for pixels in part]
        if not self.column.encoded:
            return np.array(found, np.uint8).reshape(-1, *self.column.shape)
        result = np.empty(len(contents), object)
        result[:] = contents
        return result

    def _looked(self, contents: Sequence[bytes]) -> list[Array]:
        found = []
        for content in contents:
            try:
                check_whole(content)
                pixels = decode(content, self.images.color, self.images.size)
            except DataError as error:
                raise UnfitError(f"`{self.name}`: {error}") from error
            if not self.column.encoded:
                found.append(pixels)
        return found


@dataclasses.dataclass(frozen=True)
class SparkImages(Kind):
    """An image of Spark's image schema in each row: rows of pixels in BGR, bytes."""

    resized: bool

    @classmethod
    def of(cls, name: str, first: Mapping[str, Any], images: Callable[[bool], Images]) -> "SparkImages":
        """The kind that gives images as the first is, resized where the user asks for it. Raises RefusedError."""
        try:
            found = cls(Column(name, "uint8", ()), (name,), False)._pixels(first)
        except UnfitError as error:
            raise RefusedError(f"its first row: {error}") from error
        asked = images(len(found) != 1)
        channels = 1 if asked.color is False else len(found)
        shape = (channels, *(asked.size or found.shape[1:]))
        return cls(Column(name, "uint8", shape), (name,), asked.size is not None)

    def values(self, batch: Any, threads: ThreadPoolExecutor) -> Array:
        """Converts as `Kind.values` says."""
        del threads
        structs = batch.column(self.name)
        _no_nulls(self.name, structs)
        return np.array([self._fitting(row) for row in structs.to_pylist()], np.uint8).reshape(-1, *self.column.shape)

    def _fitting(self, row: Mapping[str, Any]) -> Array:
        import cv2

        pixels = self._pixels(row)
        if self.column.shape[0] == 1 and len(pixels) == 3:
            pixels = np.asarray(cv2.cvtColor(pixels.transpose(1, 2, 0), cv2.COLOR_BGR2GRAY))[None]
        if self.resized:
            pixels = planar(resize(np.ascontiguousarray(pixels.transpose(1, 2, 0)), *self.column.shape[1:]))
        if pixels.shape != self.column.shape:
            wanted, found = ("×".join(map(str, shape)) for shape in (self.column.shape, pixels.shape))
            raise UnfitError(f"`{self.name}` is an image of {found}, and {wanted} in the first row: say resize=HxW")
        return pixels

    def _pixels(self, row: Mapping[str, Any]) -> Array:
        height, width, channels, data = (row[field] for field in ("height", "width", "nChannels", "data"))
        if None in (height, width, channels, data) or min(height, width) < 1 or channels not in (1, 3, 4):
            raise UnfitError(f"`{self.name}` is no image that Spark could read ({row['origin']})")
        if len(data) != height * width * channels:
            raise UnfitError(f"`{self.name}` has {len(data)} bytes for {height}×{width} pixels of {channels}")
        pixels = np.frombuffer(data, np.uint8).reshape(height, width, channels)
        return planar(pixels[:, :, :3])


def _binary(
    name: str, first: bytes, images: Callable[[bool], Images], shape: tuple[int, ...] | None, field: str
) -> Kind:
    if shape is not None or not is_image(first):
        return Bytes(Column(name, "uint8", _shaped(name, (len(first),), shape)), (name,), field)
    try:
        channels = len(decode(first, None))
    except DataError:
        channels = 3  # It is told of when the rows are read.
    how = images(channels != 1)
    return EncodedImages(how.column(name, first), (name,), how, field)


def _lists(name: str, type: Any, first: Any, shape: tuple[int, ...] | None) -> Kind:
    sizes: list[int] = []
    whole = type
    while _is_list(type):
        if first is None or len(first) == 0:
            raise RefusedError("its first row is empty: it would say the shape")
        sizes.append(len(first))
        first, type = first[0], type.value_type
    dtype = _dtype(type)
    if dtype is None:
        raise RefusedError(f"it holds {whole}, of which no numbers can be made")
    return Lists(Column(name, dtype, _shaped(name, tuple(sizes), shape)), (name,), tuple(sizes))


def _shaped(name: str, found: tuple[int, ...], wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    if wanted is not None and math.prod(found) != math.prod(wanted):
        sizes = "×".join(map(str, wanted))
        raise RefusedError(f"its rows have {math.prod(found)} values, and shape={name}:{sizes} is {math.prod(wanted)}")
    return wanted or found


def _contents(name: str, batch: Any, field: str) -> Any:
    """The binary values of a column, or of a field of its structs, without nulls."""
    values = batch.column(name)
    if field:
        values = dict(zip((each.name for each in values.type), values.flatten(), strict=True))[field]
    _no_nulls(name, values)
    return values


def _joined(binary: Any) -> Array:
    """The bytes of binary values without nulls, one after another, as they lie."""
    import pyarrow as pa

    buffers, count = binary.buffers(), len(binary)
    if not count:
        return np.empty(0, np.uint8)
    content = np.frombuffer(buffers[-1], np.uint8)
    if pa.types.is_fixed_size_binary(binary.type):
        width = binary.type.byte_width
        return content[binary.offset * width : (binary.offset + count) * width]
    offsets = np.frombuffer(buffers[1], np.int64 if pa.types.is_large_binary(binary.type) else np.int32)
    return content[offsets[binary.offset] : offsets[binary.offset + count]]


def _no_nulls(name: str, values: Any) -> None:
    if values.null_count:
        raise UnfitError(f"`{name}` is null")


def _numbers(name: str, values: Any, dtype: str) -> Array:
    import pyarrow as pa

    _no_nulls(name, values)
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.float64())
    # A signalling conversion of a large float64 gives infinity, which the net's loss shows.
    with np.errstate(over="ignore"):
        return np.asarray(values.to_numpy(zero_copy_only=False)).astype(dtype, copy=False)


def _flat(name: str, lists: Any, sizes: Sequence[int], dtype: str) -> Array:
    """The numbers of nested lists, one after another."""
    import pyarrow.compute as pc

    for size in sizes:
        _no_nulls(name, lists)
        lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
        if (lengths != size).any():
            raise UnfitError(f"`{name}` is a list of {lengths[lengths != size][0]}, and {size} in the first row")
        lists = lists.flatten()
    if lists.null_count:
        raise UnfitError(f"`{name}` holds a null")
    return _numbers(name, lists, dtype)


def _dtype(type: Any) -> str | None:
    """The type of numpy for numbers of an Arrow type; None for what is no number."""
    import pyarrow as pa

    if pa.types.is_boolean(type):
        return "uint8"
    if pa.types.is_integer(type):
        return str(np.dtype(type.to_pandas_dtype()))
    # The engine computes in float32: wider ones would only take room.
    return "float32" if pa.types.is_floating(type) or pa.types.is_decimal(type) else None


def _is_list(type: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type))


def _is_binary(type: Any) -> bool:
    import pyarrow as pa

    return type is not None and bool(
        pa.types.is_binary(type) or pa.types.is_large_binary(type) or pa.types.is_fixed_size_binary(type)
    )


def _is_text(type: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(type) or pa.types.is_large_string(type))
