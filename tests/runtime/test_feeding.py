"""How rows get into a net: decoded, cropped and changed, ahead of their use or not, with the same outcome."""

import os
import threading
import time

import numpy as np
import pytest
from google.protobuf import text_format
from source_files import coded, noise

from sparknet_dsl import caffe_ext
from sparknet_dsl.caffe_ext.images import decode
from sparknet_dsl.errors import DataError
from sparknet_dsl.proto import caffe_pb2
from sparknet_dsl.runtime import feeding
from sparknet_dsl.runtime.batches import batch_rows
from sparknet_dsl.runtime.data import Column
from sparknet_dsl.runtime.feeding import Batches, Feed, in_turn, once, shuffled
from sparknet_dsl.runtime.shards import shard
from sparknet_dsl.runtime.worker import column_sum

IMAGES = [*noise(3, (3, 12, 14)), *noise(3, (3, 16, 13), seed=1)]
AUGMENTED = "crop_size: 6 mirror: true random_resized_crop { } color_jitter { hue: 0.2 } mixup { alpha: 1 }"


def encoded_shard(folder, images):
    values = np.empty(len(images), object)
    values[:] = [coded(image) for image in images]
    columns = (Column("image", "encoded", (3, 0, 0)), Column("label", "int32", ()))
    rows = {"image": values, "label": np.arange(len(images), dtype=np.int32)}
    return shard("encoded", str(len(images)), columns, lambda bad: iter([rows]), folder)


def raw_shard(folder, count=20):
    rows = {"image": np.stack(noise(count)), "label": np.arange(count, dtype=np.int32)}
    columns = (Column("image", "uint8", (3, 10, 12)), Column("label", "int32", ()))
    return shard("raw", str(count), columns, lambda bad: iter([rows]), folder)


def input_net(*shape):
    net = caffe_pb2.NetParameter()
    layer = net.layer.add(name="data", type="Input", top=["data", "label"])
    layer.input_param.shape.add(dim=shape)
    layer.input_param.shape.add(dim=shape[:1])
    return caffe_ext.Net(net, caffe_ext.TEST)


def batches(net, rows, choose, transform="", phase="TRAIN"):
    parameter = text_format.Parse(transform, caffe_pb2.TransformationParameter())
    feeds = Feed("data", "image", parameter.SerializeToString()), Feed("label", "label")
    return Batches(net, feeds, rows, phase, choose)


def fed(net, made, count, first=0):
    """What batches hold, one after the other."""
    seen = []
    for k in range(first, first + count):
        made.feed(k)
        seen.append((net.blobs["data"].data.copy(), net.blobs["label"].data.copy()))
    return seen


def assert_same(one, other):
    for batch, same in zip(one, other, strict=True):
        for values, again in zip(batch, same, strict=True):
            np.testing.assert_array_equal(values, again)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_all_sizes_are_cropped_in_the_middle(tmp_path, channels):
    net = input_net(4, channels, 8, 8)
    made = batches(net, encoded_shard(tmp_path, IMAGES), once(7, 6, 4), "crop_size: 8 scale: 0.5", "TEST")
    ((data, labels),) = fed(net, made, 1)
    np.testing.assert_array_equal(labels, np.arange(4))
    for found, row in zip(data, range(4), strict=True):
        image = decode(coded(IMAGES[row]), channels == 3)
        top, left = (image.shape[1] - 8) // 2, (image.shape[2] - 8) // 2
        np.testing.assert_array_equal(found, 0.5 * image[:, top : top + 8, left : left + 8])


@pytest.mark.parametrize("transform", ["crop_size: 6 mirror: true", AUGMENTED])
def test_encoded_rows_become_what_raw_ones_do(tmp_path, transform):
    raw = raw_shard(tmp_path)
    encoded = encoded_shard(tmp_path, raw.columns["image"])
    seen = []
    for rows in (raw, encoded):
        net = input_net(8, 3, 6, 6)
        seen.append(fed(net, batches(net, rows, shuffled(3, 0, 20, 8), transform), 6))
    assert_same(*seen)
    for k, (_, labels) in enumerate(seen[0]):
        np.testing.assert_array_equal(labels, batch_rows(3, 0, 20, 8 * k, 8))


@pytest.mark.parametrize("transform", ["crop_size: 6 mirror: true", AUGMENTED])
@pytest.mark.parametrize("kind", [raw_shard, lambda folder: encoded_shard(folder, noise(20))])
def test_batches_depend_neither_on_threads_nor_on_what_is_ahead(tmp_path, monkeypatch, transform, kind):
    rows = kind(tmp_path)
    net = input_net(8, 3, 6, 6)
    choose = shuffled(3, 1, 20, 8)
    before = caffe_ext.num_threads()
    try:
        caffe_ext.set_num_threads(1)
        first = fed(net, batches(net, rows, choose, transform), 7)
        caffe_ext.set_num_threads(3)
        assert_same(first, fed(net, batches(net, rows, choose, transform), 7))
        monkeypatch.setattr(feeding, "AHEAD_BYTES", 0)  # one batch
        made = batches(net, rows, choose, transform)
        assert_same(first, fed(net, made, 7))
        # As after a resume, and where a round is run again.
        assert_same(first[4:], fed(net, made, 3, first=4))
        assert_same(first[:2], fed(net, made, 2))
    finally:
        caffe_ext.set_num_threads(before)
    other = fed(net, batches(net, rows, shuffled(4, 1, 20, 8), transform), 1)
    assert not np.array_equal(first[0][0], other[0][0])


def test_the_next_batches_are_made_while_nobody_asks(tmp_path, monkeypatch):
    rows = encoded_shard(tmp_path, noise(20))
    net = input_net(4, 3, 6, 6)
    decoded = []
    real = feeding.decode
    monkeypatch.setattr(feeding, "decode", lambda content, color: decoded.append(1) or real(content, color))
    batch_bytes = 4 * (3 * 6 * 6 + 1) * 4
    monkeypatch.setattr(feeding, "AHEAD_BYTES", 3 * batch_bytes)
    made = batches(net, rows, shuffled(3, 0, 20, 4), "crop_size: 6")
    made.feed(0)
    deadline = time.monotonic() + 20
    while len(decoded) < 4 * 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(decoded) == 4 * 4  # the one that was asked for, and three that fit


def test_threads_that_work_ahead_step_back(tmp_path, monkeypatch):
    seen = []
    real = feeding.decode

    def decode(content, color):
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return real(content, color)

    monkeypatch.setattr(feeding, "decode", decode)
    net = input_net(4, 3, 6, 6)
    fed(net, batches(net, encoded_shard(tmp_path, noise(20)), in_turn(3, 20, 4), "crop_size: 6"), 2)
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert set(seen) == {min(own + 5, 19)}


def test_the_last_batch_of_a_test_may_be_smaller(tmp_path):
    rows = encoded_shard(tmp_path, noise(7))
    net = input_net(4, 3, 6, 6)
    made = batches(net, rows, once(1, 7, 4), "crop_size: 6", "TEST")
    ((data, _),) = fed(net, made, 1)
    net.blobs["data"].reshape(3, 3, 6, 6)
    net.blobs["label"].reshape(3)
    net.reshape()
    ((rest, labels),) = fed(net, made, 1, first=1)
    assert len(data) == 4
    np.testing.assert_array_equal(labels, [4, 5, 6])
    np.testing.assert_array_equal(rest, np.stack([image[:, 2:8, 3:9] for image in noise(7)[4:]]))


def test_an_image_of_another_size_is_one_clear_error(tmp_path):
    net = input_net(4, 3, 12, 14)
    made = batches(net, encoded_shard(tmp_path, IMAGES), once(0, 6, 4))
    reason = r"image 3 of the column `image`: it is 3×16×13, and the top `data` 3×12×14: crop \(crop_size\)"
    for _ in range(2):
        with pytest.raises(DataError, match=reason):
            made.feed(0)


def test_an_image_that_is_damaged_is_named_by_the_batch_that_has_it(tmp_path):
    values = np.empty(9, object)
    values[:] = [coded(image) for image in noise(9)]
    values[5] = b"no image"
    columns = (Column("image", "encoded", (3, 0, 0)), Column("label", "int32", ()))
    chunk = {"image": values, "label": np.zeros(9, np.int32)}
    net = input_net(3, 3, 10, 12)
    made = batches(net, shard("bad", "9", columns, lambda bad: iter([chunk]), tmp_path), once(0, 9, 3))
    made.feed(0)
    with pytest.raises(DataError, match="image 5 of the column `image`: the image cannot be decoded"):
        made.feed(1)


def test_the_sum_of_encoded_images(tmp_path):
    total, rows = column_sum(encoded_shard(tmp_path, IMAGES[:3]), 0, "image")
    np.testing.assert_array_equal(total, np.sum(IMAGES[:3], axis=0, dtype=np.float64))
    assert rows == 3
    with pytest.raises(DataError, match="the images of `image` differ in size, so they have no mean image: resize"):
        column_sum(encoded_shard(tmp_path, IMAGES), 0, "image")


@pytest.mark.parametrize("dtype", ["float64", "int16", "float16"])
def test_columns_of_any_type_are_transformed(tmp_path, dtype):
    values = np.arange(48).reshape(4, 3, 2, 2).astype(dtype)
    columns = (Column("image", dtype, (3, 2, 2)), Column("label", "int32", ()))
    chunk = {"image": values, "label": np.arange(4, dtype=np.int32)}
    rows = shard("typed", dtype, columns, lambda bad: iter([chunk]), tmp_path)
    net = input_net(4, 3, 2, 2)
    batches(net, rows, in_turn(0, 4, 4), "scale: 0.5").feed(0)
    np.testing.assert_array_equal(net.blobs["data"].data, values.astype(np.float32) / 2)
