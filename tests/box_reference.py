"""What SSD's paper says of boxes, in NumPy: overlaps, and boxes as offsets from prior boxes."""

import numpy as np
from one_layer import RNG

VARIANCE = np.array([0.1, 0.1, 0.2, 0.2])


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    if (high <= low).any():
        return 0.0
    common = np.prod(high - low)
    return float(common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common))


def centre(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (box[:2] + box[2:]) / 2, box[2:] - box[:2]


def encode(code: str, box: np.ndarray, prior: np.ndarray) -> np.ndarray:
    (at, size), (own_at, own_size) = centre(prior), centre(box)
    if code == "CENTER_SIZE":
        return np.concatenate([(own_at - at) / size, np.log(own_size / size)])
    return (box - prior) / (np.tile(size, 2) if code == "CORNER_SIZE" else 1)


def decode(code: str, offsets: np.ndarray, prior: np.ndarray) -> np.ndarray:
    at, size = centre(prior)
    if code == "CENTER_SIZE":
        own_at, own_size = at + offsets[:2] * size, size * np.exp(offsets[2:])
        return np.concatenate([own_at - own_size / 2, own_at + own_size / 2])
    return prior + offsets * (np.tile(size, 2) if code == "CORNER_SIZE" else 1)


def random_boxes(count: int) -> np.ndarray:
    corners = RNG.uniform(0, 0.5, (count, 2))
    return np.hstack([corners, corners + RNG.uniform(0.1, 0.6, (count, 2))])


def prior_blob(boxes: np.ndarray) -> np.ndarray:
    return np.stack([boxes.ravel(), np.tile(VARIANCE, len(boxes))])[None]
