"""Mean images (`.binaryproto`)."""

import os

from google.protobuf.message import DecodeError

from ..errors import WeightsError
from ..proto import weights_pb2
from .weights import Array, blob_array, read_bytes


def read_mean(path: str | os.PathLike[str]) -> Array:
    """The mean image that `compute_image_mean` wrote to `path`: channels × height × width, float32.

    Raises WeightsError, naming the file, when it cannot be read or is no mean image.
    """
    content = read_bytes(path, "mean image")
    try:
        blob = weights_pb2.Blob.FromString(content)
    except DecodeError as error:
        raise WeightsError(f"{path} is not a .binaryproto, or is cut short") from error
    mean = blob_array(blob, str(path))
    if mean.ndim == 4 and mean.shape[0] == 1:
        mean = mean[0]
    if mean.ndim != 3:
        raise WeightsError(f"{path} has {mean.ndim} axes; a mean image has channels × height × width")
    return mean
