"""The transformer of data rows against the rules written out in numpy."""

import itertools

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import EngineError
from sparknet_dsl.proto import caffe_pb2

SHAPE = (3, 6, 7)


def transformer(text: str, phase: int = caffe_ext.TEST, mean: np.ndarray | None = None) -> caffe_ext.Transformer:
    return caffe_ext.Transformer(text_format.Parse(text, caffe_pb2.TransformationParameter()), phase, mean)


def apply(made: caffe_ext.Transformer, rows: np.ndarray, seed: int = 1) -> np.ndarray:
    out = np.full((len(rows), *made.output_shape(rows.shape[1:])), np.nan, np.float32)
    made(rows, out, seed)
    return out


def pixels(count: int, shape: tuple[int, ...] = SHAPE, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(0, 256, (count, *shape)).astype(dtype)


def expected(
    row: np.ndarray, y: int, x: int, crop: int, mirrored: bool, mean: np.ndarray | float, scale: float
) -> np.ndarray:
    """(row - mean) * scale, cropped at (y, x), mirrored; `mean` has the row's shape or is one number a channel."""
    centred = (row.astype(np.float32) - np.asarray(mean, np.float32)) * np.float32(scale)
    size_y, size_x = (crop, crop) if crop else row.shape[1:]
    cut = centred[:, y : y + size_y, x : x + size_x]
    return cut[:, :, ::-1] if mirrored else cut


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("crop", [0, 4, 5, 6])
@pytest.mark.parametrize("means", ["none", "one", "each", "image"])
def test_test_phase(dtype: type, crop: int, means: str) -> None:
    rows = pixels(5, dtype=dtype)
    image = np.random.default_rng(9).uniform(0, 255, SHAPE).astype(np.float32)
    mean: np.ndarray | float = {
        "none": 0.0,
        "one": 7.5,
        "each": np.array([1.5, 100, 20], np.float32).reshape(3, 1, 1),
        "image": image,
    }[means]
    text = {"one": "mean_value: 7.5", "each": "mean_value: 1.5 mean_value: 100 mean_value: 20"}.get(means, "")
    made = transformer(f"scale: 0.25 crop_size: {crop} {text}", mean=image if means == "image" else None)
    got = apply(made, rows)
    y, x = ((6 - crop) // 2, (7 - crop) // 2) if crop else (0, 0)
    want = np.stack([expected(row, y, x, crop, False, mean, 0.25) for row in rows])
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("with_mean", [False, True])
def test_train_phase_draws_every_place_and_mirror(with_mean: bool) -> None:
    crop, count = 4, 600
    rows = pixels(count)
    image = np.random.default_rng(9).uniform(0, 255, SHAPE).astype(np.float32)
    made = transformer(f"scale: 0.5 crop_size: {crop} mirror: true", caffe_ext.TRAIN, mean=image if with_mean else None)
    got = apply(made, rows, seed=3)
    seen: dict[tuple[int, int, bool], int] = {}
    for row, out in zip(rows, got, strict=True):
        fits = [
            (y, x, mirrored)
            for y, x, mirrored in itertools.product(range(3), range(4), (False, True))
            if np.allclose(out, expected(row, y, x, crop, mirrored, image if with_mean else 0.0, 0.5), rtol=1e-6)
        ]
        assert len(fits) == 1
        seen[fits[0]] = seen.get(fits[0], 0) + 1
    assert len(seen) == 3 * 4 * 2
    assert max(seen.values()) < 60  # 25 expected


def test_mirror_without_crop_in_both_phases() -> None:
    rows = pixels(200)
    for phase in (caffe_ext.TRAIN, caffe_ext.TEST):
        got = apply(transformer("mirror: true", phase), rows)
        mirrored = [np.array_equal(out, row[:, :, ::-1]) for row, out in zip(rows, got, strict=True)]
        plain = [np.array_equal(out, row) for row, out in zip(rows, got, strict=True)]
        assert all(a != b for a, b in zip(mirrored, plain, strict=True))
        assert 60 < sum(mirrored) < 140


def test_choices_are_a_function_of_seed_and_row() -> None:
    made = transformer("crop_size: 3 mirror: true", caffe_ext.TRAIN)
    rows = pixels(300, (3, 40, 40))
    before = caffe_ext.num_threads()
    try:
        caffe_ext.set_num_threads(1)
        first = apply(made, rows, seed=11)
        caffe_ext.set_num_threads(3)
        np.testing.assert_array_equal(first, apply(made, rows, seed=11))
    finally:
        caffe_ext.set_num_threads(before)
    np.testing.assert_array_equal(first[:100], apply(made, rows[:100], seed=11))
    assert np.any(first != apply(made, rows, seed=12))
    same = np.repeat(rows[:1], 50, axis=0)
    assert len(np.unique(apply(made, same, seed=11).reshape(50, -1), axis=0)) > 40


@pytest.mark.parametrize("shape", [(), (5,), (4, 6), (2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_rows_that_are_no_images_just_convert(shape: tuple[int, ...], dtype: type) -> None:
    made = transformer("scale: 0.1 mean_value: 3 crop_size: 2 mirror: true", caffe_ext.TRAIN)
    rows = pixels(9, shape, dtype)
    assert tuple(made.output_shape(shape)) == shape
    np.testing.assert_array_equal(apply(made, rows), rows.astype(np.float32))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    count=st.integers(0, 5),
    scale=st.floats(-4, 4, width=32),
    mean=st.floats(-300, 300, width=32),
    data=st.data(),
)
def test_any_shape(shape: tuple[int, int, int], count: int, scale: float, mean: float, data: st.DataObject) -> None:
    crop = data.draw(st.integers(0, min(shape[1:])))
    rows = np.random.default_rng(count).integers(0, 256, (count, *shape)).astype(np.uint8)
    got = apply(transformer(f"scale: {scale!r} mean_value: {mean!r} crop_size: {crop}"), rows)
    y, x = ((shape[1] - crop) // 2, (shape[2] - crop) // 2) if crop else (0, 0)
    want = [expected(row, y, x, crop, False, mean, scale) for row in rows]
    assert got.shape == (count, shape[0], crop or shape[1], crop or shape[2])
    for out, one in zip(got, want, strict=True):
        np.testing.assert_allclose(out, one, rtol=1e-5, atol=1e-5)


def test_mean_image_with_leading_ones() -> None:
    image = np.random.default_rng(9).uniform(0, 255, (1, *SHAPE)).astype(np.float32)
    rows = pixels(2)
    np.testing.assert_allclose(apply(transformer("", mean=image), rows), rows - image, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "mean_shape", "row", "reason"),
    [
        ("crop_size: 7", None, SHAPE, "crop_size 7 is larger than the rows (3 × 6 × 7)"),
        ("mean_value: 1 mean_value: 2", None, SHAPE, "has 2 mean_value, but the rows (3 × 6 × 7) have 3 channels"),
        ("", (3, 7, 6), SHAPE, "the mean image is 3 × 7 × 6, but the rows are 3 × 6 × 7"),
        ("mean_value: 1", SHAPE, SHAPE, "both mean_value and a mean image"),
        ('mean_value: 1 mean_file: "m.binaryproto"', None, SHAPE, "both mean_value and a mean image"),
        ("", (6, 7), SHAPE, "must have the axes channels × height × width, not 6 × 7"),
    ],
)
def test_refused(text: str, mean_shape: tuple[int, ...] | None, row: tuple[int, ...], reason: str) -> None:
    mean = None if mean_shape is None else np.zeros(mean_shape, np.float32)
    with pytest.raises(EngineError) as error:
        apply(transformer(text, mean=mean), pixels(2, row))
    assert reason in str(error.value)
