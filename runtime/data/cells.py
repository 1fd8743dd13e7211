"""Columns of Arrow, which Parquet and Spark's DataFrames come in, as the columns that feed nets.

| in Arrow | as a column |
|---|---|
| numbers, booleans | () of their own type |
| lists of numbers, in lists or not, each as long as its neighbours | their lengths |
| Spark ML's vectors, dense or sparse | (size), float64 |
| bytes | an image that is encoded (JPEG, PNG, ...) |
| Spark's image schema, 8 bits | (channels, height, width), Caffe's BGR as Spark's; encoded (PNG) where sizes differ |
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...errors import DataError

VECTOR = {"type", "size", "indices", "values"}
IMAGE = {"height", "width", "nChannels", "data"}


def from_arrow(cells: pa.Array, name: str) -> npt.NDArray[Any]:
    """The cells of the column `name`: (rows, *shape of a row), or bytes, (rows,), of encoded images.

    Raises DataError for null, lists of different lengths and types that are not in the table.
    """
    if cells.null_count:
        row = np.flatnonzero(np.asarray(cells.is_null()))[0]
        raise DataError(f"column `{name}`: null in row {row} of {len(cells)}; drop such rows, or fill them (df.na)")
    kind = cells.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return np.asarray(cells.to_numpy(zero_copy_only=False))
    if pa.types.is_decimal(kind):
        return np.asarray(cells.cast(pa.float64()))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _lists(cells, name)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _objects(cells.to_pylist())
    if pa.types.is_struct(kind):
        names = {field.name for field in kind}
        if names >= IMAGE:
            return _images(cells, name)
        if names >= VECTOR:
            return _vectors(cells, name)
    raise DataError(f"column `{name}` is of the type {kind}, which feeds no net")


def fitted(values: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """`values` with rows of `shape`, where they have as many numbers in one axis less, or more; else as they are.

    So flat rows feed images, and (1) or (1, 1, 1) a number. Rows with axes of their own, an image that is yet to be
    cropped, say, stay what they are.
    """
    own = values.shape[1:]
    if values.dtype != object and own != shape and (len(own) <= 1 or len(shape) <= 1):
        if int(np.prod(own)) == int(np.prod(shape)):
            return values.reshape(len(values), *shape)
    return values


def _lists(cells: Any, name: str) -> npt.NDArray[Any]:
    lengths = np.unique(np.asarray(cells.value_lengths()))
    if len(lengths) > 1:
        raise DataError(
            f"column `{name}`: lists of {lengths[0]} to {lengths[-1]} values; all rows of a column have one shape"
        )
    inner = from_arrow(cells.flatten(), name)
    length = int(lengths[0]) if len(lengths) else 0
    return inner.reshape(len(cells), length, *inner.shape[1:])


def _vectors(cells: Any, name: str) -> npt.NDArray[Any]:
    kinds = np.asarray(cells.field("type"))
    if kinds.all():
        return _lists(cells.field("values"), name)
    sizes = np.array([
        len(values) if size is None else size
        for size, values in zip(cells.field("size").to_pylist(), cells.field("values"), strict=True)
    ])
    if len(np.unique(sizes)) > 1:
        raise DataError(f"column `{name}`: vectors of {sizes.min()} to {sizes.max()} values; all rows have one shape")
    result = np.zeros((len(cells), int(sizes[0])), np.float64)
    for row, (dense, cell) in enumerate(zip(kinds, cells, strict=True)):
        values = np.asarray(cell["values"].values)
        result[row, slice(None) if dense else np.asarray(cell["indices"].values)] = values
    return result


def _images(cells: Any, name: str) -> npt.NDArray[Any]:
    images = []
    for row, cell in enumerate(cells):
        height, width, channels = (cell[key].as_py() for key in ("height", "width", "nChannels"))
        data = np.frombuffer(cell["data"].as_buffer(), np.uint8)
        if channels not in (1, 3, 4) or height < 1 or width < 1 or data.size != height * width * channels:
            raise DataError(
                f"column `{name}`, row {row}: an image of {height}×{width} and {channels} channels, 8 bits each, has "
                f"{height * width * channels} bytes; it has {data.size} (-1s mark one that Spark could not decode)"
            )
        # The fourth channel, transparency, is nothing to a net.
        images.append(data.reshape(height, width, channels)[:, :, : 3 if channels == 4 else channels])
    if len({image.shape for image in images}) <= 1:
        return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))
    import cv2

    return _objects([cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes() for image in images])


def _objects(values: list[Any]) -> npt.NDArray[Any]:
    result = np.empty(len(values), object)
    result[:] = values
    return result
