"""Encoded columns on their way into a net: decoded, cropped and mirrored as raw ones are."""

import numpy as np
import pytest
from source_files import coded, noise

from sparknet_dsl import caffe_ext
from sparknet_dsl.caffe_ext.images import decode
from sparknet_dsl.errors import DataError
from sparknet_dsl.proto import caffe_pb2
from sparknet_dsl.runtime.data import Column
from sparknet_dsl.runtime.feeding import Feed, Feeder
from sparknet_dsl.runtime.shards import shard
from sparknet_dsl.runtime.worker import column_sum

IMAGES = [*noise(3, (3, 12, 14)), *noise(3, (3, 16, 13), seed=1)]


def encoded_shard(folder, images):
    values = np.empty(len(images), object)
    values[:] = [coded(image) for image in images]
    columns = (Column("image", "encoded", (3, 0, 0)),)
    return shard("tests", str(len(images)), columns, lambda bad: iter([{"image": values}]), folder)


def input_net(*shape):
    net = caffe_pb2.NetParameter()
    net.layer.add(name="data", type="Input", top=["data"]).input_param.shape.add(dim=shape)
    return caffe_ext.Net(net, caffe_ext.TEST)


def feed(transform=""):
    parameter = caffe_pb2.TransformationParameter()
    from google.protobuf import text_format

    return Feed("data", "image", text_format.Parse(transform, parameter).SerializeToString())


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_all_sizes_are_cropped_in_the_middle(tmp_path, channels):
    net = input_net(4, channels, 10, 8)
    feeder = Feeder(feed("crop_size: 8 scale: 0.5"), encoded_shard(tmp_path, IMAGES), caffe_ext.TEST)
    net = input_net(4, channels, 8, 8)
    rows = np.array([5, 0, 3, 1])
    feeder(net, rows, 7)
    for found, row in zip(net.blobs["data"].data, rows, strict=True):
        image = decode(coded(IMAGES[row]), channels == 3)
        top, left = (image.shape[1] - 8) // 2, (image.shape[2] - 8) // 2
        np.testing.assert_array_equal(found, 0.5 * image[:, top : top + 8, left : left + 8])


def test_the_same_seed_gives_the_same_crops_whatever_the_threads(tmp_path):
    seen = []
    rows = encoded_shard(tmp_path, IMAGES)
    for threads, seed in ((1, 3), (3, 3), (1, 4)):
        caffe_ext.set_num_threads(threads)
        net = input_net(6, 3, 6, 6)
        Feeder(feed("crop_size: 6 mirror: true"), rows, caffe_ext.TRAIN)(net, np.arange(6), seed)
        seen.append(net.blobs["data"].data.copy())
    np.testing.assert_array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])


def test_an_image_of_another_size_is_one_clear_error(tmp_path):
    feeder = Feeder(feed(), encoded_shard(tmp_path, IMAGES), caffe_ext.TRAIN)
    with pytest.raises(DataError, match=r"image 3 of the column `image`: it is 3×16×13, and the top `data` 3×12×14"):
        feeder(input_net(4, 3, 12, 14), np.arange(4), 0)


def test_the_sum_of_encoded_images(tmp_path):
    total, rows = column_sum(encoded_shard(tmp_path, IMAGES[:3]), 0, "image")
    np.testing.assert_array_equal(total, np.sum(IMAGES[:3], axis=0, dtype=np.float64))
    assert rows == 3
    with pytest.raises(DataError, match="the images of `image` differ in size, so they have no mean image: resize"):
        column_sum(encoded_shard(tmp_path, IMAGES), 0, "image")
