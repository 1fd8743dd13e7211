"""Images and arrays on their way into and out of a net, as pycaffe's `io` has it.

Images are height × width × channels, RGB, from 0 to 1; nets want planes, usually BGR and up to 255. Transformer makes
the one of the other. It takes an image at a time; `caffe_ext.Transformer` does what a `transform_param` says, in bulk.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DataError, EngineError
from ..proto import caffe_pb2
from .weights import Array

# Of any numbers, whole ones included.
AnyArray = np.ndarray[Any, np.dtype[Any]]


def load_image(filename: str | os.PathLike[str], color: bool = True) -> Array:
    """The image in a file: height × width × 3 (RGB), or × 1 without `color`, float32 from 0 to 1.

    Grays become RGB, transparency is dropped. Raises DataError when the file cannot be read or is no image.
    """
    import cv2

    try:
        content = pathlib.Path(filename).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the image {filename}: {error.strerror or error}") from error
    # As stored: no rotation, and all 16 bits where there are as many.
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    if pixels is None:
        raise DataError(f"{filename} is no image that can be decoded: JPEG, PNG, BMP, TIFF and the like can")
    image = np.asarray(pixels, np.float32)
    image /= {"uint8": 255, "uint16": 65535}.get(pixels.dtype.name, 1)
    image = np.atleast_3d(image)
    image = image[:, :, 2::-1] if image.shape[2] >= 3 else np.repeat(image[:, :, :1], 3, 2)
    if not color:
        # The luminance that scikit-image takes, and with it pycaffe.
        image = image @ np.array([[0.2125], [0.7154], [0.0721]], np.float32)
    return np.ascontiguousarray(image)


def resize_image(im: AnyArray, new_dims: Sequence[int], interp_order: int = 1) -> Array:
    """An image (height × width × any channels) in another height and width, float32.

    `interp_order` 0 takes the nearest pixel, 1 interpolates linearly, up to 5 by splines. Pixels are squares: the
    picture's edges stay where they are. Raises EngineError for other shapes.
    """
    from scipy import ndimage

    height, width = (int(extent) for extent in new_dims)
    if im.ndim != 3 or 0 in im.shape or height < 1 or width < 1:
        raise EngineError(f"an image of shape {im.shape} cannot be resized to {height} × {width}")
    image = np.asarray(im, np.float32)
    if image.shape[:2] == (height, width):
        return image.copy()
    scale = (height / image.shape[0], width / image.shape[1])
    planes = [
        ndimage.zoom(image[:, :, channel], scale, order=interp_order, mode="nearest", grid_mode=True)
        for channel in range(image.shape[2])
    ]
    return np.stack(planes, axis=2)


def oversample(images: Sequence[AnyArray], crop_dims: Sequence[int]) -> Array:
    """Ten crops of each image: the four corners, the centre, and the mirror images of these five.

    `images` are height × width × channels, all of one size; the crops (10 · images × crop_dims × channels) of an image
    follow each other. Raises EngineError when a crop is larger than its image.
    """
    height, width = (int(extent) for extent in crop_dims)
    crops: list[AnyArray] = []
    for image in images:
        spare_y, spare_x = image.shape[0] - height, image.shape[1] - width
        if image.ndim != 3 or spare_y < 0 or spare_x < 0:
            raise EngineError(f"an image of shape {image.shape} has no crops of {height} × {width}")
        corners = [(y, x) for y in (0, spare_y) for x in (0, spare_x)]
        five = [image[y : y + height, x : x + width] for y, x in [*corners, (spare_y // 2, spare_x // 2)]]
        crops += [*five, *(crop[:, ::-1] for crop in five)]
    return np.array(crops, np.float32)


class Transformer:
    """Turns images into a net's input (`preprocess`) and back (`deprocess`); `inputs` has the shape of each input blob.

    In this order, each step that is set: resize to the input's size, transpose (`set_transpose`, (2, 0, 1) for planes),
    reorder channels (`set_channel_swap`, (2, 1, 0) for BGR), multiply (`set_raw_scale`, 255 for bytes), subtract the
    mean (`set_mean`), multiply (`set_input_scale`). All methods raise EngineError for what does not fit the input.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = {name: tuple(shape) for name, shape in inputs.items()}
        self.transpose: dict[str, tuple[int, ...]] = {}
        self.channel_swap: dict[str, tuple[int, ...]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, Array] = {}
        self.input_scale: dict[str, float] = {}

    def preprocess(self, in_: str, data: AnyArray) -> Array:
        """The image `data` (height × width × channels) as input `in_` takes it, without the axis of the batch."""
        shape = self._shape(in_)
        values = np.array(data, np.float32)  # a copy: what follows works in place
        if values.shape[:2] != shape[2:]:
            values = resize_image(values, shape[2:])
        if in_ in self.transpose:
            values = values.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            values = values[list(self.channel_swap[in_])]
        if in_ in self.raw_scale:
            values *= self.raw_scale[in_]
        if in_ in self.mean:
            values -= self.mean[in_]
        if in_ in self.input_scale:
            values *= self.input_scale[in_]
        return values

    def deprocess(self, in_: str, data: AnyArray) -> Array:
        """The image of which `preprocess` makes `data` for the input `in_`, in that input's size."""
        values = np.array(data, np.float32)
        if values.ndim == len(self._shape(in_)):
            values = values.squeeze(0)  # a batch of one
        if in_ in self.input_scale:
            values /= self.input_scale[in_]
        if in_ in self.mean:
            values += self.mean[in_]
        if in_ in self.raw_scale:
            values /= self.raw_scale[in_]
        if in_ in self.channel_swap:
            values = values[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            values = values.transpose(np.argsort(self.transpose[in_]))
        return values

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Sets the order in which the image's axes come to the input `in_`: (2, 0, 1) puts channels first."""
        axes = len(self._shape(in_)) - 1
        self.transpose[in_] = self._permutation(in_, order, axes, "transpose")

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Sets the order in which channels come to the input `in_`: (2, 1, 0) turns RGB into BGR."""
        self.channel_swap[in_] = self._permutation(in_, order, self._shape(in_)[1], "channel swap")

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Sets the factor before the mean is subtracted: 255 where the mean is of bytes."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: AnyArray) -> None:
        """Sets the mean to subtract: one number for each channel, or channels × height × width.

        A mean image of another size than the input's is resized.
        """
        shape = self._shape(in_)
        values = np.array(mean, np.float32)
        if values.ndim == 2:
            values = values[None]
        if values.ndim == 1:
            values = values[:, None, None]
        if values.ndim != 3 or values.shape[0] not in ((1, shape[1]) if mean.ndim == 2 else (shape[1],)):
            raise EngineError(f"a mean of shape {mean.shape} does not fit input `{in_}`, which is {shape}")
        if mean.ndim > 1 and values.shape[1:] != shape[2:]:
            values = resize_image(values.transpose(1, 2, 0), shape[2:]).transpose(2, 0, 1)
        self.mean[in_] = values

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Sets the factor after the mean was subtracted."""
        self._shape(in_)
        self.input_scale[in_] = scale

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            raise EngineError(f"`{in_}` is not one of the net's inputs: {', '.join(self.inputs)}")
        return self.inputs[in_]

    def _permutation(self, in_: str, order: Sequence[int], count: int, what: str) -> tuple[int, ...]:
        if sorted(order) != list(range(count)):
            raise EngineError(f"the {what} of input `{in_}` must order 0 to {count - 1}; got {tuple(order)}")
        return tuple(order)


# ---- messages ----


def blobproto_to_array(blob: caffe_pb2.BlobProto, return_diff: bool = False) -> Array:
    """The values of a BlobProto in its shape (`return_diff`: its gradient); EngineError where they do not fit."""
    values = np.array(blob.diff if return_diff else blob.data, np.float32)
    legacy = any(blob.HasField(field) for field in ("num", "channels", "height", "width"))
    shape = (blob.num, blob.channels, blob.height, blob.width) if legacy else tuple(blob.shape.dim)
    try:
        return values.reshape(shape)
    except ValueError as error:
        raise EngineError(f"the blob has {values.size} values, which do not fit its shape {shape}") from error


def array_to_blobproto(arr: AnyArray, diff: AnyArray | None = None) -> caffe_pb2.BlobProto:
    """A BlobProto with the shape and the values of `arr`, and the gradient `diff`."""
    blob = caffe_pb2.BlobProto(data=np.asarray(arr, np.float32).ravel())
    blob.shape.dim.extend(arr.shape)
    if diff is not None:
        blob.diff.extend(np.asarray(diff, np.float32).ravel())
    return blob


def arraylist_to_blobprotovector_str(arraylist: Sequence[AnyArray]) -> bytes:
    """Arrays of any shapes as the bytes of a BlobProtoVector, in float32."""
    return caffe_pb2.BlobProtoVector(blobs=map(array_to_blobproto, arraylist)).SerializeToString()


def blobprotovector_str_to_arraylist(str: bytes) -> list[Array]:
    """The arrays in the bytes of a BlobProtoVector, float32, in their shapes; EngineError where those do not fit."""
    return [blobproto_to_array(blob) for blob in caffe_pb2.BlobProtoVector.FromString(str).blobs]


def array_to_datum(arr: AnyArray, label: int | None = None) -> caffe_pb2.Datum:
    """A Datum of an image of channels × height × width: bytes where `arr` holds uint8, else floats; and its label.

    Raises EngineError for an array of other than three axes.
    """
    if arr.ndim != 3:
        raise EngineError(f"a datum is channels × height × width; the array's shape is {arr.shape}")
    channels, height, width = arr.shape
    datum = caffe_pb2.Datum(channels=channels, height=height, width=width, label=label)
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(np.asarray(arr, np.float32).ravel())
    return datum


def datum_to_array(datum: caffe_pb2.Datum) -> AnyArray:
    """The image of a Datum that is not encoded: channels × height × width, uint8 or float32.

    Raises EngineError where it is encoded, or holds another number of values than its shape says.
    """
    if datum.encoded:
        raise EngineError("the datum is encoded (JPEG, PNG): decode its `data` first")
    values = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, np.float32)
    shape = (datum.channels, datum.height, datum.width)
    try:
        return values.reshape(shape)
    except ValueError as error:
        raise EngineError(f"the datum has {values.size} values, which do not fit its shape {shape}") from error
