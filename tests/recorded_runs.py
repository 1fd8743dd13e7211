"""Events of made-up runs, as a run's folder has them: what reports are rendered from in tests."""

import dataclasses
import json
import math
import pathlib

import numpy as np

from sparknet_dsl.runtime.events import (
    Again,
    Dropped,
    End,
    Event,
    Iteration,
    Layers,
    LayerStats,
    Round,
    Snapshot,
    Start,
    Test,
    Worker,
    to_json,
)
from sparknet_dsl.runtime.layer_stats import spread

START = Start(
    model="LeNet",
    workers=4,
    tau=10,
    rounds=40,
    seed=7,
    master="local[4,4]",
    average="RING",
    rule={"momentum": "AVERAGE"},
    round=0,
    iteration=0,
    batch=64,
    parameters=431080,
    train="mnist:/data",
    test="mnist:/data",
    train_rows=60000,
    test_rows=10000,
    notes=("starts from x.caffemodel: weights of conv1",),
    time=1.75e9,
)


def spark_run(rounds: int = 40, workers: int = 4, tests: int = 5, seed: int = 0, late: int | None = 2) -> list[Event]:
    """A run on Spark that learns; worker `late` takes longer than the others, and is left out of the third round."""
    rng = np.random.default_rng(seed)
    events: list[Event] = [dataclasses.replace(START, rounds=rounds, workers=workers, seed=seed)]
    for round in range(1, rounds + 1):
        loss = 2.3 * math.exp(-round / (rounds / 4)) + 0.05 + 0.02 * rng.random()
        each = [Worker(0.8 + 0.1 * rng.random() + (0.5 if worker == late else 0), 640) for worker in range(workers)]
        if round == 3 and late is not None and late < workers:
            each[late] = Worker(0.0, 0)
            events.append(Dropped(round=2, iteration=20, reason=f"worker {late + 1} is late"))
        events.append(
            Round(
                round=round,
                rounds=rounds,
                tau=10,
                iteration=10 * round,
                loss=loss,
                rate=0.01 * (1 + round / 100) ** -0.75,
                rows=sum(worker.rows for worker in each),
                seconds=1.6,
                averaging=0.12 + 0.05 * rng.random(),
                each=tuple(each),
                time=1.75e9 + 1.6 * round,
            )
        )
        if tests and round % tests == 0:
            at = {"round": round, "iteration": 10 * round}
            metrics = {"accuracy": 1 - loss / 2.6, "loss": loss * 1.1}
            events += [layers(seed=round, **at), Test(**at, metrics=metrics, rows=10000, seconds=0.4)]
    if rounds > 20:
        events.append(Again(round=rounds, iteration=10 * rounds, reason="worker 1 is lost"))
    at = {"round": rounds, "iteration": 10 * rounds}
    files = (f"/snapshots/lenet_iter_{10 * rounds}.caffemodel",)
    last = next((event.metrics for event in events[::-1] if isinstance(event, Test)), {})
    events.append(Snapshot(**at, files=files))
    events.append(End(status="done", message=None, **at, seconds=1.7 * rounds, metrics=last, files=files))
    return events


def layers(round: int | None, iteration: int, seed: int, gradients: bool = False) -> Layers:
    """Two parameters that spread as training goes on."""
    rng = np.random.default_rng(seed)
    found = []
    for name, shape in (("conv1", (20, 1, 5, 5)), ("ip1", (10, 500))):
        values = rng.normal(0.02 * seed, 0.1 + 0.01 * seed, shape).astype(np.float32)
        gradient = spread(rng.normal(0, 0.01, shape).astype(np.float32)) if gradients else None
        found.append(LayerStats(layer=name, param=0, shape=shape, gradient=gradient, **vars(spread(values))))
    return Layers(round=round, iteration=iteration, layers=tuple(found))


def local_run(losses: list[float]) -> list[Event]:
    """A run on one machine with these losses, one at each display; it fails where the last is not finite."""
    start = Start(
        model="LeNet",
        seed=7,
        iteration=0,
        max_iter=100 * len(losses),
        batch=64,
        parameters=431080,
        train="the net's own",
        test=None,
        train_rows=None,
        test_rows=None,
        notes=(),
    )
    events: list[Event] = [start]
    for index, loss in enumerate(losses, 1):
        at = 100 * index
        events.append(
            Iteration(iteration=at, max_iter=start.max_iter or 0, loss=loss, rate=0.01, rows=6400, seconds=1.5)
        )
    bad = bool(losses) and not math.isfinite(losses[-1])
    status, message = ("failed", "training diverged: the loss is nan") if bad else ("done", None)
    events.append(
        End(
            status=status,
            message=message,
            round=None,
            iteration=100 * len(losses),
            seconds=1.5 * len(losses),
            metrics={},
            files=(),
        )
    )
    return events


def write_run(folder: pathlib.Path, events: list[Event], **parts: object) -> pathlib.Path:
    """A run's folder with these events, and `settings`, `environment`, `evidence` as given."""
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_text("".join(to_json(event) + "\n" for event in events))
    for name, content in parts.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder
