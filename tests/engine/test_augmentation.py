"""What transform_param has beyond Caffe, against the definitions written out in numpy, and against Pillow."""

import colorsys
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from google.protobuf import text_format

from sparknet_dsl import caffe_ext
from sparknet_dsl.errors import EngineError, SparkNetError
from sparknet_dsl.proto import caffe_pb2

SEED = 0x1234567890ABCDEF
WORD = 1 << 32
SPECS = {
    "random_rotation": "random_rotation { degrees: 30 fill: 7 }",
    "random_resized_crop": "crop_size: 9 random_resized_crop { }",
    "color_jitter": "color_jitter { brightness: 0.4 contrast: 0.4 saturation: 0.4 hue: 0.2 }",
    "cutout": "cutout { size: 4 number: 2 }",
    "mixup": "mixup { alpha: 0.4 }",
}
ALL = "mean_value: 90 scale: 0.5 " + " ".join(SPECS.values())


def transformer(text: str, phase: int = caffe_ext.TRAIN, mean: np.ndarray | None = None) -> caffe_ext.Transformer:
    return caffe_ext.Transformer(text_format.Parse(text, caffe_pb2.TransformationParameter()), phase, mean)


def apply(made: caffe_ext.Transformer, rows: np.ndarray, seed: int = SEED) -> np.ndarray:
    out = np.full((len(rows), *made.output_shape(rows.shape[1:])), np.nan, np.float32)
    made(rows, out, seed)
    made.finish(out, seed)
    return out


def images(count: int, height: int = 20, width: int = 26, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, channels, height, width), np.uint8)


# ---- the numbers that are drawn: SplitMix64 and Philox-4x32-10, by their papers ----


def mix(key: int, number: int) -> int:
    x = (key + 0x9E3779B97F4A7C15 * (number + 1)) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def philox(key: int, counter: int) -> list[int]:
    k0, k1 = key % WORD, key >> 32
    c = [counter % WORD, counter >> 32, 0, 0]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 % WORD, (p0 >> 32) ^ c[3] ^ k1, p0 % WORD]
        k0, k1 = (k0 + 0x9E3779B9) % WORD, (k1 + 0xBB67AE85) % WORD
    return c


class Draws:
    """What the engine draws for one purpose and one row."""

    def __init__(self, purpose: int, row: int, seed: int = SEED) -> None:
        key = mix(mix(seed, purpose), row)
        self._words: Iterator[int] = (word for block in range(1 << 20) for word in philox(key, block))

    def word(self) -> int:
        return next(self._words)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * ((self.word() >> 8) / 2**24)

    def below(self, count: int) -> int:
        return self.word() * count >> 32


def place(row: int, free_y: int, free_x: int, seed: int = SEED) -> tuple[int, int, bool]:
    """Where Caffe's crop is that has as many places, and whether its mirror flips."""
    words = philox(seed, row)
    return words[0] * free_y >> 32, words[1] * free_x >> 32, words[2] >= WORD // 2


# ---- each alone ----


def test_rotation_is_pillows() -> None:
    image = pytest.importorskip("PIL.Image")
    rows = images(12).astype(np.float32)
    got = apply(transformer("random_rotation { degrees: 180 fill: 50 fill: 60 fill: 70 }"), rows)
    for n, (row, out) in enumerate(zip(rows, got, strict=True)):
        degrees = Draws(1, n).between(-180, 180)
        for plane, turned, fill in zip(row, out, (50, 60, 70), strict=True):
            want = image.fromarray(plane).rotate(degrees, image.Resampling.BILINEAR, fillcolor=fill)
            # Pillow rounds the matrix; a pixel on the border may come out on the other side.
            wrong = np.abs(np.asarray(want) - turned) > 0.05
            assert wrong.mean() < 0.01


@pytest.mark.parametrize(("degrees", "turns"), [(0, 0), (90, 1), (180, 2), (-90, 3)])
def test_right_angles_are_exact(degrees: int, turns: int) -> None:
    rows = images(2, 16, 16)
    got = apply(transformer(f"random_rotation {{ degrees: {degrees} degrees: {degrees} }}"), rows)
    np.testing.assert_allclose(got, np.rot90(rows, turns, (2, 3)), atol=1e-3)


def test_a_rotated_image_is_cropped_and_has_its_mean_taken_off() -> None:
    rows = images(20)
    mean = np.random.default_rng(4).uniform(0, 255, rows.shape[1:]).astype(np.float32)
    turned = apply(transformer("random_rotation { degrees: 25 }"), rows)
    got = apply(transformer("crop_size: 8 scale: 0.5 random_rotation { degrees: 25 }", mean=mean), rows)
    for n, (whole, out) in enumerate(zip(turned, got, strict=True)):
        y, x, _ = place(n, 20 - 8 + 1, 26 - 8 + 1)
        want = (whole - mean)[:, y : y + 8, x : x + 8] * 0.5
        np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-4)


def region_of(row: int, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]) -> list[int]:
    """The rectangle (top, left, height, width) as torchvision documents and computes it."""
    draws = Draws(2, row)
    for _ in range(10):
        area = height * width * draws.between(*scale)
        aspect = math.exp(draws.between(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = draws.below(height - h + 1)
            return [top, draws.below(width - w + 1), h, w]
    if width / height < ratio[0]:
        w, h = width, round(width / ratio[0])
    elif width / height > ratio[1]:
        w, h = round(height * ratio[1]), height
    else:
        w, h = width, height
    return [(height - h) // 2, (width - w) // 2, h, w]


@pytest.mark.parametrize(
    ("fields", "scale", "ratio"),
    [
        ("", (0.08, 1.0), (3 / 4, 4 / 3)),
        ("scale: 0.01 scale: 0.2 ratio: 0.5 ratio: 2", (0.01, 0.2), (0.5, 2.0)),
        ("scale: 1 scale: 1 ratio: 3 ratio: 4", (1.0, 1.0), (3.0, 4.0)),  # never fits
        ("scale: 1 scale: 1 ratio: 0.2 ratio: 0.3", (1.0, 1.0), (0.2, 0.3)),
    ],
)
@pytest.mark.parametrize("size", [9, 40])
def test_resized_crops_are_pillows(
    fields: str, scale: tuple[float, float], ratio: tuple[float, float], size: int
) -> None:
    image = pytest.importorskip("PIL.Image")
    rows = images(16, 37, 52)
    got = apply(transformer(f"crop_size: {size} random_resized_crop {{ {fields} }}"), rows)
    for n, (row, out) in enumerate(zip(rows, got, strict=True)):
        top, left, height, width = region_of(n, 37, 52, scale, ratio)
        part = row[:, top : top + height, left : left + width].astype(np.float32)
        want = [image.fromarray(plane).resize((size, size), image.Resampling.BILINEAR) for plane in part]
        np.testing.assert_allclose(out, np.stack([np.asarray(plane) for plane in want]), atol=2e-2)


def jittered(row: int, pixels: np.ndarray, amounts: tuple[float, float, float, float]) -> np.ndarray:
    """torchvision's ColorJitter, pixel by pixel, for blue, green, red."""
    draws = Draws(3, row)
    factors = [draws.between(max(0.0, 1 - x), 1 + x) for x in amounts[:3]] + [draws.between(-amounts[3], amounts[3])]
    order = [0, 1, 2, 3]
    for i in (3, 2, 1):
        j = draws.below(i + 1)
        order[i], order[j] = order[j], order[i]
    weights = np.array([0.114, 0.587, 0.299]).reshape(3, 1, 1) if len(pixels) == 3 else np.ones((1, 1, 1))
    image = pixels.astype(np.float64)
    for change in order:
        gray = (weights * image).sum(axis=0)
        if change == 0:
            image = image * factors[0]
        elif change == 1:
            image = image * factors[1] + (1 - factors[1]) * gray.mean()
        elif change == 2 and len(image) == 3:
            image = image * factors[2] + (1 - factors[2]) * gray
        elif change == 3 and len(image) == 3:
            image = np.apply_along_axis(_turned, 0, image, factors[3])
        image = image.clip(0, 255)
    return image


def _turned(pixel: np.ndarray, turn: float) -> np.ndarray:
    hue, saturation, value = colorsys.rgb_to_hsv(*pixel[::-1])
    return np.array(colorsys.hsv_to_rgb((hue + turn) % 1.0, saturation, value))[::-1]


@pytest.mark.parametrize(
    "amounts", [(0.4, 0, 0, 0), (0, 0.9, 0, 0), (0, 0, 1.5, 0), (0, 0, 0, 0.5), (0.4, 0.4, 0.4, 0.1), (2, 3, 4, 0.3)]
)
@pytest.mark.parametrize("channels", [3, 1])
def test_colours(amounts: tuple[float, float, float, float], channels: int) -> None:
    rows = images(10, 6, 7, channels)
    rows[0] = rows[0, :1]  # grey: no hue
    names = ("brightness", "contrast", "saturation", "hue")
    fields = " ".join(f"{name}: {amount}" for name, amount in zip(names, amounts, strict=True))
    got = apply(transformer(f"color_jitter {{ {fields} }}"), rows)
    want = np.stack([jittered(n, row, amounts) for n, row in enumerate(rows)])
    np.testing.assert_allclose(got, want, atol=5e-3)


def test_cutout() -> None:
    rows = images(40) | 1  # no zeros
    got = apply(transformer("mean_value: 0.5 cutout { size: 5 number: 3 }"), rows)
    for n, (row, out) in enumerate(zip(rows, got, strict=True)):
        want = row.astype(np.float32) - 0.5
        draws = Draws(4, n)
        for _ in range(3):
            y, x = draws.below(20) - 2, draws.below(26) - 2
            want[:, max(y, 0) : y + 5, max(x, 0) : x + 5] = 0
        np.testing.assert_array_equal(out, want)


def mixed(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Own weights and partners of a batch that mixup has made of rows that are unit vectors."""
    own = batch.diagonal().copy()
    rest = batch.copy()
    np.fill_diagonal(rest, 0)
    return own, np.where(own == 1, np.arange(len(batch)), rest.argmax(axis=1))


def test_mixup_takes_means_of_two_rows() -> None:
    own, partners = mixed(apply(transformer("mixup { alpha: 0.4 }"), np.eye(64, dtype=np.float32)))
    assert sorted(partners) == list(range(64))
    rows = images(64).astype(np.float32)
    want = own.reshape(-1, 1, 1, 1) * rows + (1 - own).reshape(-1, 1, 1, 1) * rows[partners]
    np.testing.assert_allclose(apply(transformer("mixup { alpha: 0.4 }"), rows), want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_weights_have_the_moments_of_beta(alpha: float) -> None:
    made = transformer(f"mixup {{ alpha: {alpha} }}")
    weights = []
    for seed in range(60):
        own, partners = mixed(apply(made, np.eye(50, dtype=np.float32), seed))
        weights.append(own[partners != np.arange(50)])
    found = np.concatenate(weights)
    a, b = alpha + 1, alpha
    mean, variance = a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))
    assert abs(found.mean() - mean) < 4 * math.sqrt(variance / len(found))
    assert abs(found.var() - variance) < 0.1 * variance
    assert found.min() >= 0 and found.max() <= 1


def test_mixup_has_the_gradient_of_mixed_labels_in_the_mean() -> None:
    # Linear scores w · x of two rows, cross-entropy against mixed labels (Zhang et al.), integrated over
    # Beta(1, 1) = uniform weights; and ours: the row's own label, weights from Beta(2, 1), density 2w.
    rows, labels, w = np.array([[1.0, 2.0], [-0.5, 0.3]]), np.eye(2), np.array([[0.3, -0.2], [0.1, 0.7]])
    steps = (np.arange(20000) + 0.5) / 20000

    def gradient(weight: np.ndarray, own: int, other: int, target: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        x = weight[:, None] * rows[own] + (1 - weight[:, None]) * rows[other]
        scores = np.exp(x @ w)
        p = scores / scores.sum(axis=1, keepdims=True)
        return np.einsum("ki,kj->kij", x, p - target(weight[:, None]))

    pairs = ((0, 1), (1, 0))
    theirs = sum(gradient(steps, a, b, lambda v, a=a, b=b: v * labels[a] + (1 - v) * labels[b]) for a, b in pairs)
    ours = sum(2 * steps[:, None, None] * gradient(steps, a, b, lambda v, a=a: labels[a] + 0 * v) for a, b in pairs)
    np.testing.assert_allclose(np.mean(ours, axis=0), np.mean(theirs, axis=0), rtol=1e-6)


# ---- all together ----


def test_the_order() -> None:
    """Rotation, resized crop, colours, mean and scale, mirror, cutout: each is the next one's input."""
    rows = images(30)
    rotated = "random_rotation { degrees: 30 fill: 7 }"
    crop = "crop_size: 9 random_resized_crop { scale: 1 scale: 1 ratio: 1.3 ratio: 1.3 }"  # the whole image
    turned = apply(transformer(rotated), rows)
    scaled = apply(transformer(crop), turned)
    coloured = apply(transformer(SPECS["color_jitter"]), scaled)
    normal = (coloured - np.float32(90)) * np.float32(0.5)
    for n, row in enumerate(normal):
        if place(n, 1, 1)[2]:
            row[:] = row[:, :, ::-1].copy()
    want = apply(transformer(SPECS["cutout"]), normal)
    text = f"mirror: true mean_value: 90 scale: 0.5 {rotated} {crop} {SPECS['color_jitter']} {SPECS['cutout']}"
    np.testing.assert_allclose(apply(transformer(text), rows), want, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("text", [*SPECS.values(), ALL])
def test_any_number_of_threads_gives_the_same(text: str) -> None:
    made, rows = transformer(text), images(37)
    before = caffe_ext.num_threads()
    try:
        caffe_ext.set_num_threads(1)
        first = apply(made, rows)
        for threads in (2, 3, 5):
            caffe_ext.set_num_threads(threads)
            np.testing.assert_array_equal(first, apply(made, rows))
    finally:
        caffe_ext.set_num_threads(before)
    assert np.any(first != apply(made, rows, SEED + 1))
    assert len({row.tobytes() for row in apply(made, np.repeat(rows[:1], 20, axis=0))}) > 1 or text == SPECS["mixup"]


@pytest.mark.parametrize(
    "neutral", ["random_rotation { degrees: 0 }", "color_jitter { hue: 0.5 }", "cutout { size: 1 }"]
)
def test_what_one_draws_does_not_change_caffes_crop_and_mirror(neutral: str) -> None:
    rows = np.full((200, 1, 30, 30), 128, np.uint8) + np.arange(30, dtype=np.uint8)
    plain = apply(transformer("crop_size: 3 mirror: true"), rows)
    got = apply(transformer(f"crop_size: 3 mirror: true {neutral}"), rows)
    differ = (np.abs(got - plain) > 1e-3).sum(axis=(1, 2, 3))
    np.testing.assert_array_equal(differ, int("cutout" in neutral))


@pytest.mark.parametrize("text", [*SPECS.values(), ALL])
def test_off_in_test(text: str) -> None:
    rows = images(6)
    caffes = "mean_value: 90 scale: 0.5" + " crop_size: 9" * ("crop_size" in text)
    plain = text.replace("mean_value: 90 scale: 0.5", "")
    got = apply(transformer(f"mean_value: 90 scale: 0.5 {plain}", caffe_ext.TEST), rows)
    np.testing.assert_array_equal(got, apply(transformer(caffes, caffe_ext.TEST), rows))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(
    "text", ["crop_size: 7 mirror: true mean_value: 3 mean_value: 5 mean_value: 7", f"mirror: true {ALL}"]
)
@pytest.mark.parametrize("channels", [3, 4])
def test_views_are_read_as_they_lie(text: str, dtype: type, channels: int) -> None:
    if channels == 4:
        text = "crop_size: 7 mirror: true mean_value: 3"
    rows = images(5, channels=channels).astype(dtype)
    channels_last = np.ascontiguousarray(rows.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    reversed_ = np.ascontiguousarray(rows[:, :, ::-1])[:, :, ::-1]
    every_second = np.repeat(rows, 2, axis=3)[..., ::2]
    for view in (channels_last, reversed_, every_second):
        assert not view.flags.c_contiguous
        np.testing.assert_array_equal(apply(transformer(text), view), apply(transformer(text), rows))


def test_an_image_may_be_smaller_than_a_resized_crop() -> None:
    made = transformer("crop_size: 32 random_resized_crop { }")
    assert made.output_shape((3, 5, 4)) == (3, 32, 32)
    assert np.isfinite(apply(made, images(3, 5, 4))).all()
    made = transformer("crop_size: 32 random_resized_crop { }", caffe_ext.TEST)
    with pytest.raises(EngineError, match="crop_size 32 is larger than the rows"):
        made.output_shape((3, 5, 4))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("random_resized_crop { }", "random_resized_crop wants a crop_size"),
        ('crop_size: 4 mean_file: "m" random_resized_crop { }', "give mean_value"),
        ("crop_size: 4 random_resized_crop { scale: 0.5 }", "random_resized_crop wants two numbers as scale"),
        (
            "crop_size: 4 random_resized_crop { scale: 0.5 scale: 0.4 }",
            "random_resized_crop wants two numbers as scale",
        ),
        ("crop_size: 4 random_resized_crop { scale: 0 scale: 1 }", "the scale of random_resized_crop is a share"),
        ("crop_size: 4 random_resized_crop { scale: 0.5 scale: 1.5 }", "the scale of random_resized_crop is a share"),
        ("crop_size: 4 random_resized_crop { ratio: nan ratio: 1 }", "random_resized_crop wants two numbers as ratio"),
        ("crop_size: 4 random_resized_crop { ratio: 0 ratio: 1 }", "the ratio of random_resized_crop must be more"),
        ("random_rotation { }", "random_rotation wants degrees"),
        ("random_rotation { degrees: -5 }", "random_rotation wants degrees"),
        ("random_rotation { degrees: inf }", "random_rotation wants degrees"),
        ("random_rotation { degrees: 5 degrees: 3 }", "random_rotation wants two numbers as degrees"),
        ("random_rotation { degrees: 1 degrees: 2 degrees: 3 }", "random_rotation wants degrees"),
        ("color_jitter { brightness: -1 }", "the brightness of color_jitter must be at least 0"),
        ("color_jitter { contrast: nan }", "the contrast of color_jitter must be at least 0"),
        ("color_jitter { saturation: inf }", "the saturation of color_jitter must be at least 0"),
        ("color_jitter { hue: 0.6 }", "the hue of color_jitter must be at least 0 and at most 0.5"),
        ("cutout { }", "cutout wants a size"),
        ("cutout { size: 3 number: 0 }", "the number of cutout must be at least 1"),
        ("mixup { }", "mixup wants an alpha"),
        ("mixup { alpha: 0 }", "mixup wants an alpha"),
        ("mixup { alpha: nan }", "mixup wants an alpha"),
    ],
)
@pytest.mark.parametrize("phase", [caffe_ext.TRAIN, caffe_ext.TEST])
def test_settings_without_sense(text: str, reason: str, phase: int) -> None:
    with pytest.raises(EngineError, match=reason):
        transformer(text, phase)
    layer = caffe_pb2.LayerParameter(name="data", type="Input", top=["data"])
    layer.input_param.shape.add(dim=[2, 3, 4, 4])
    text_format.Parse(text, layer.transform_param)
    problems = caffe_ext.check_net(caffe_pb2.NetParameter(layer=[layer]), phase).problems
    assert [problem.layer for problem in problems] == ["data"] and reason in problems[0].reason


@pytest.mark.parametrize(
    ("text", "shape", "reason"),
    [
        (SPECS["random_rotation"], (5,), "random_rotation, which is for images"),
        (SPECS["random_resized_crop"], (5, 6), "random_resized_crop, which is for images"),
        (SPECS["color_jitter"], (), "color_jitter, which is for images"),
        (SPECS["cutout"], (2, 3, 4, 5), "cutout, which is for images"),
        (SPECS["color_jitter"], (2, 6, 6), "color_jitter is for images of 3 channels or 1, not 2"),
        ("random_rotation { degrees: 1 fill: 1 fill: 2 }", (3, 6, 6), "random_rotation has 2 fill"),
    ],
)
def test_rows_that_do_not_fit(text: str, shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        transformer(text).output_shape(shape)


def test_a_layer_that_does_not_transform_refuses() -> None:
    layer = caffe_pb2.LayerParameter(name="data", type="WindowData", top=["data", "label"])
    layer.transform_param.crop_size = 8
    layer.transform_param.cutout.size = 3
    with pytest.raises(SparkNetError, match="`cutout`"):
        caffe_ext.Net(caffe_pb2.NetParameter(layer=[layer]), caffe_ext.TRAIN)
