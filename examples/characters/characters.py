"""A net that writes: trained on a text to guess each next character, on Spark, then asked again and again.

    python examples/characters/characters.py                      # on this project's own documentation: some minutes
    python examples/characters/characters.py shakespeare.txt --iterations 5000

Characters are bytes below 128; others count as `?`. The text is cut into rows of 50 characters (characters.snet says
how they lie), a DataFrame of arrays, whose columns feed the net's inputs of the same names.
"""

import argparse
import pathlib
from collections.abc import Mapping

import numpy as np
from pyspark.sql import SparkSession

from sparknet_dsl import caffe_ext, compile_file
from sparknet_dsl.runtime import Trainer

HERE = pathlib.Path(__file__).resolve().parent
STEPS = 50


def pieces(text: bytes) -> list[tuple[list[int], list[int], list[int]]]:
    """Rows of a text: the codes of STEPS characters, 0 then 1s, and the codes of the characters that come next."""
    codes = np.frombuffer(text, np.uint8).astype(int)
    codes[codes > 127] = ord("?")
    begins = [0] + [1] * (STEPS - 1)
    starts = range(0, len(codes) - STEPS, STEPS)
    return [(codes[at : at + STEPS].tolist(), begins, codes[at + 1 : at + STEPS + 1].tolist()) for at in starts]


def write(net: caffe_ext.Net, begin: str, length: int, temperature: float = 0.7, seed: int = 1) -> str:
    """`begin`, and what the net goes on with, character by character, drawn by their probabilities."""
    random = np.random.default_rng(seed)
    text = begin
    for place in range(len(begin) + length - 1):
        # The net remembers from pass to pass what it has read since `cont` was 0.
        found = net.forward(data=[[ord(text[place])]], cont=[[float(place > 0)]])["prob"][0, 0]
        if place + 1 == len(text):
            chances = np.exp(np.log(np.maximum(found.astype(float), 1e-30)) / temperature)
            text += chr(random.choice(len(chances), p=chances / chances.sum()))
    return text


def run(
    spark: SparkSession,
    path: str | None = None,
    iterations: int | None = None,
    workers: int = 2,
    length: int = 300,
    options: Mapping[str, str] = {},
) -> str:
    """Trains, and gives what the trained net writes; `options` are those of characters.snet."""
    files = [pathlib.Path(path)] if path else sorted((HERE.parent.parent / "docs").glob("*.md"))
    rows = pieces(b"".join(file.read_bytes() for file in files))
    held = max(1, len(rows) // 20)
    columns = "codes array<int>, begins array<int>, nexts array<int>"
    train, test = (spark.createDataFrame(part, columns) for part in (rows[held:], rows[:held]))
    model = compile_file(HERE / "characters.snet", defines=options)
    if iterations is not None:
        model.solver.max_iter = iterations
    trainer = Trainer(model, spark, workers=workers, seed=1)
    trainer.fit(train, test)
    text = write(trainer.net(), "The ", length)
    print(text)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", help="a text file; without it, docs/*.md")
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--workers", type=int, default=2)
    # Spark's Python processes start in this folder, where a checkout must not hide the installed package.
    builder = SparkSession.builder.master("local[2]").config("spark.executorEnv.PYTHONSAFEPATH", "1")
    run(builder.getOrCreate(), **vars(parser.parse_args()))
