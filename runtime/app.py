"""`sparknet-run`: from the command line's words to a finished run and an exit status."""

import contextlib
from collections.abc import Mapping
from typing import Any

from .command import guarded
from .events import Emit, JsonLines
from .trackers import trackers
from .trainer import Trainer


def main(
    model: str,
    *,
    train: str | None = None,
    test: str | None = None,
    resume: bool = False,
    defines: Mapping[str, str] = {},
    json: str | None = None,
    plan: bool = False,
    tensorboard: str | None = None,
    mlflow: str | None = None,
    mlflow_experiment: str | None = None,
    **settings: Any,
) -> int:
    """Trains the model in the file `model` (.snet, or a solver's .prototxt); `settings` are Trainer's.

    `plan`: measures in place of training, and prints what other settings would bring. `tensorboard`, `mlflow`,
    `mlflow_experiment`: see trackers.

    Prints progress to standard output and errors to standard error, one message each. Returns the exit status: 0
    done, 1 the model or the data is wrong, 2 the command line is wrong, 3 the cluster failed, 130 interrupted.
    """

    def body() -> None:
        with contextlib.ExitStack() as stack:
            sinks: list[Emit] = [] if json is None or plan else [stack.enter_context(JsonLines(json))]
            if not plan:
                sinks += trackers(tensorboard, mlflow, mlflow_experiment)
            trainer = Trainer(model, callbacks=sinks, defines=defines, **settings)
            if plan:
                trainer.plan(train, test, json)
            else:
                trainer.fit(train, test, resume=resume)

    return guarded(body)
