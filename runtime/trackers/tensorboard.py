"""`--tensorboard DIR`: TensorBoard's event files, with scalars, histograms of weights and gradients, and the net."""

import os
import pathlib
from typing import Any

from ... import Model
from ...errors import UsageError
from ..events import End, Event, Layers, Spread
from .base import Tracker, numbers
from .graph import graph


class TensorBoard(Tracker):
    """Writes one event file for each run into `folder`; steps are iterations.

    `tensorboard --logdir FOLDER` shows it, also while training goes on. Raises UsageError without the package
    tensorboardX.
    """

    name = "TensorBoard"

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__()
        try:
            import tensorboardX  # noqa: F401
        except ImportError as error:
            raise UsageError("--tensorboard takes tensorboardX: pip install 'sparknet-dsl[tensorboard]'") from error
        self.place = os.fspath(folder)
        self._writer: Any = None

    def start(self, model: Model) -> None:
        """Opens the file and draws the net."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event as Record

        folder = pathlib.Path(self.place)
        folder.mkdir(parents=True, exist_ok=True)
        # tensorboardX's own name is the same for all of a second.
        runs = len(list(folder.glob("events.out.tfevents.*")))
        self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}.{runs}")
        self._writer.write_event(Record(graph_def=graph(model).SerializeToString()))
        self._writer.flush()

    def tell(self, event: Event) -> None:
        """Writes the numbers of `event`; the file is whole after each."""
        from tensorboardX.proto.event_pb2 import Event as Record

        if self._writer is None:
            return
        if isinstance(event, End):
            self._writer.close()
            self._writer = None
            return
        record = Record(wall_time=event.time, step=getattr(event, "iteration", 0))
        for name, value in numbers(event):
            record.summary.value.add(tag=name, simple_value=value)
        if isinstance(event, Layers):
            for layer in event.layers:
                record.summary.value.add(tag=f"weights/{layer.layer}/{layer.param}", histo=_histogram(layer))
                if layer.gradient is not None:
                    tag = f"gradients/{layer.layer}/{layer.param}"
                    record.summary.value.add(tag=tag, histo=_histogram(layer.gradient))
        if record.summary.value:
            self._writer.write_event(record)
            self._writer.flush()


def _histogram(spread: Spread) -> Any:
    """The histogram of the finite numbers; where some are not, its sums are NaN."""
    from tensorboardX.proto.summary_pb2 import HistogramProto

    count = sum(spread.counts)
    return HistogramProto(
        min=spread.min,
        max=spread.max,
        num=count,
        sum=spread.mean * count,
        sum_squares=(spread.std**2 + spread.mean**2) * count,
        # The first bucket of a histogram begins at its limit before: an empty one says where.
        bucket_limit=spread.edges,
        bucket=(0, *spread.counts),
    )
