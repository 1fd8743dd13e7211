"""`sparknet-run`: from the command line's words to a finished run and an exit status."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from .. import caffe_ext
from .command import guarded
from .events import JsonLines
from .trainer import Trainer


def main(
    model: str,
    *,
    workers: int | None = None,
    master: str | None = None,
    train: str | None = None,
    test: str | None = None,
    tau: str | None = None,
    averaging_share: float | None = None,
    averaging: Mapping[str, Any] = {},
    rounds: int | None = None,
    seed: int | None = None,
    snapshot_dir: str | None = None,
    weights: str | None = None,
    resume: bool = False,
    precision: caffe_ext.Precision = "float32",
    memory: caffe_ext.Memory = "reuse",
    conf: Sequence[str] = (),
    ship_env: str | None = None,
    pin: bool = True,
    average: str | None = None,
    defines: Mapping[str, str] = {},
    json: str | None = None,
    plan: bool = False,
) -> int:
    """Trains the model in the file `model` (.snet, or a solver's .prototxt); None stands for an option not given.

    `plan`: measures in place of training, and prints what other settings would bring.
    `averaging` has those of averaging.Averaging's fields that were given.

    Prints progress to standard output and errors to standard error, one message each. Returns the exit status: 0
    done, 1 the model or the data is wrong, 2 the command line is wrong, 3 the cluster failed, 130 interrupted.
    """

    def body() -> None:
        with contextlib.ExitStack() as stack:
            sinks = [] if json is None or plan else [stack.enter_context(JsonLines(json))]
            settings: dict[str, Any] = {
                "workers": workers,
                "master": master,
                "tau": tau,
                "averaging_share": averaging_share,
                "averaging": averaging,
                "rounds": rounds,
                "seed": seed,
                "snapshot_dir": snapshot_dir,
                "weights": weights,
                "precision": precision,
                "memory": memory,
                "conf": conf,
                "ship_env": ship_env,
                "pin": pin,
                "average": average,
            }
            trainer = Trainer(model, callbacks=sinks, defines=defines, **settings)
            if plan:
                trainer.plan(train, test, json)
            else:
                trainer.fit(train, test, resume=resume)

    return guarded(body)
