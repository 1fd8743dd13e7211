"""How good a classifier's predictions are: counts of true and predicted classes, and what follows from them."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from .average import Array


@dataclasses.dataclass
class Confusion:
    """Counts over rows: `matrix[true, predicted]`, and in how many of them the true class was among the `top` best."""

    matrix: npt.NDArray[np.int64]
    top: int
    among: int = 0

    @classmethod
    def of(cls, classes: int, top: int) -> "Confusion":
        """No rows yet."""
        return cls(np.zeros((classes, classes), np.int64), min(top, classes))

    def add(self, labels: npt.NDArray[Any], order: npt.NDArray[np.int64]) -> None:
        """Counts rows: their classes (rows), and the `top` likeliest (rows, top), the likeliest first."""
        true = labels.astype(np.int64)
        np.add.at(self.matrix, (true, order[:, 0]), 1)
        self.among += int((order == true[:, None]).any(axis=1).sum())

    @property
    def rows(self) -> int:
        """How many there are."""
        return int(self.matrix.sum())

    @property
    def accuracy(self) -> float:
        """The share of rows whose class is predicted."""
        return float(np.trace(self.matrix) / self.rows)

    def summary(self) -> dict[str, Any]:
        """As plain values; precision of a class that is never predicted, and recall of one without rows, is None."""
        hits = np.diag(self.matrix)
        predicted, support = self.matrix.sum(axis=0), self.matrix.sum(axis=1)
        return {
            "rows": self.rows,
            "accuracy": self.accuracy,
            f"top{self.top}": self.among / self.rows,
            "classes": [
                {
                    "class": index,
                    "precision": int(hits[index]) / int(predicted[index]) if predicted[index] else None,
                    "recall": int(hits[index]) / int(support[index]) if support[index] else None,
                    "support": int(support[index]),
                }
                for index in range(len(hits))
            ],
            "confusion": self.matrix.tolist(),
        }


def best(probabilities: Array, count: int) -> npt.NDArray[np.int64]:
    """The classes of the `count` largest probabilities of each row, the largest first, of equals the first."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :count]


def picture(matrix: npt.NDArray[np.int64], names: list[str] | None) -> bytes:
    """A confusion matrix as a PNG: a row for each true class, the share of its rows from white to blue, and counts.

    Counts and names are left out where there are more classes than they can be read for.
    """
    import cv2

    classes = len(matrix)
    cell = max(1, min(40, 1200 // classes))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    labelled = cell >= 20
    left = 30 + (max(8 * len(name) for name in (names or [str(classes)])) if labelled else 0)
    top = 30 + (20 if labelled else 0)
    side = cell * classes
    image = np.full((top + side + 20, left + side + 20, 3), 255, np.uint8)
    blue = np.array([160, 80, 10])  # BGR
    colors = (255 - shares[..., None] * (255 - blue)).round().astype(np.uint8)
    image[top : top + side, left : left + side] = colors.repeat(cell, axis=0).repeat(cell, axis=1)
    cv2.rectangle(image, (left - 1, top - 1), (left + side, top + side), (0, 0, 0), 1)

    def write(text: str, x: int, y: int, color: tuple[int, int, int] = (0, 0, 0)) -> None:
        cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.35, color, 1, cv2.LINE_AA)

    write("predicted", left, 14)
    write("true", 4, top - 6)
    for index in range(classes if labelled else 0):
        middle = index * cell + cell // 2
        write(names[index] if names else str(index), 6, top + middle + 4)
        write(str(index), left + middle - 4 * len(str(index)), top - 6)
        for other in range(classes):
            if matrix[index, other]:
                count = str(matrix[index, other])
                ink = (255, 255, 255) if shares[index, other] > 0.5 else (0, 0, 0)
                write(count, left + other * cell + cell // 2 - 3 * len(count), top + middle + 4, ink)
    return bytes(cv2.imencode(".png", image)[1].tobytes())
