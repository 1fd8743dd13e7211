"""Writes a table with the columns of the Adult census data, made up: what is in it follows rules of ours, and chance.

    python examples/tabular/make_data.py adult.csv --rows 5000

The real one is at https://archive.ics.uci.edu/dataset/2/adult (adult.data has no header: put this file's there).
"""

import argparse
import csv
import pathlib

import numpy as np

NUMBERS = ["age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week"]
# How many categories each column has in the real table, `?` among them.
CATEGORIES = {
    "workclass": 9,
    "education": 16,
    "marital_status": 7,
    "occupation": 15,
    "relationship": 6,
    "race": 5,
    "sex": 2,
    "native_country": 42,
}


def write(path: str, rows: int, seed: int = 1) -> None:
    """Writes `rows` rows, the same for the same seed; every category is in the first 42."""
    random = np.random.default_rng(seed)
    education = random.integers(1, 17, rows)
    numbers = {
        "age": random.integers(17, 91, rows),
        "fnlwgt": random.integers(12_000, 1_500_000, rows),
        "education_num": education,
        "capital_gain": np.where(random.random(rows) < 0.1, random.integers(0, 20_000, rows), 0),
        "capital_loss": np.where(random.random(rows) < 0.05, random.integers(0, 4_000, rows), 0),
        "hours_per_week": np.clip(random.normal(40, 12, rows), 1, 99).astype(int),
    }
    places = {name: np.minimum(random.geometric(0.3, rows) - 1, count - 1) for name, count in CATEGORIES.items()}
    for name, count in CATEGORIES.items():
        first = min(rows, 42)
        places[name][:first] = np.arange(first) % count
    places["education"] = education - 1
    score = (
        0.04 * (numbers["age"] - 40)
        + 0.35 * (education - 9)
        + 0.03 * (numbers["hours_per_week"] - 40)
        + 0.0004 * numbers["capital_gain"]
        + np.where(places["marital_status"] == 0, 1.0, -0.5)
        + random.logistic(0, 0.5, rows)
    )
    with pathlib.Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*NUMBERS, *CATEGORIES, "income"])
        for row in range(rows):
            cells = [f"{name}-{places[name][row]}" for name in CATEGORIES]
            writer.writerow([*(numbers[name][row] for name in NUMBERS), *cells, ">50K" if score[row] > 1 else "<=50K"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("--rows", type=int, default=5000)
    arguments = parser.parse_args()
    write(arguments.path, arguments.rows)
