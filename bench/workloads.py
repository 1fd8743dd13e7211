"""The nets that bench/engine.py runs, and what they are fed with."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparknet_dsl.proto import caffe_pb2

MODELS = pathlib.Path(__file__).resolve().parent.parent / "models"
# No label and no character code is higher.
CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Workload:
    """A model with a batch size.

    path   of the model
    row    shape of a row of its data; () where the model's own shapes count, as those of sequences do
    batch  rows of a training step; of sequences, how many the model's own batch has
    caffe  milliseconds that BVLC Caffe (OpenBLAS) and PyTorch's best mode took for it in one run on a quiet machine,
           Caffe without the update
    """

    path: str
    row: tuple[int, ...]
    batch: int
    caffe: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        return pathlib.Path(self.path).stem

    def training(self) -> "caffe_pb2.NetParameter":
        """The net of both phases, without Dropout: two engines drop other values."""
        import sparknet_dsl

        rows = {phase: [self.row, ()] for phase in ("TRAIN", "TEST")} if self.row else None
        net = sparknet_dsl.compile_file(self.path, data_shapes=rows).net
        return self._resized(without_dropout(net), self.batch)

    def inference(self, batch: int) -> "caffe_pb2.NetParameter":
        """The deploy net."""
        import sparknet_dsl

        net = sparknet_dsl.compile_file(self.path).deploy
        assert net is not None, f"{self.path} has no layer @deploy"
        return self._resized(without_dropout(net), batch)

    def _resized(self, net: "caffe_pb2.NetParameter", batch: int) -> "caffe_pb2.NetParameter":
        for layer in net.layer:
            for shape in layer.input_param.shape if self.row else ():
                shape.dim[0] = batch
        return net


def _model(name: str, row: tuple[int, ...], batch: int, caffe: tuple[float, float] | None = None) -> Workload:
    return Workload(str(MODELS / f"{name}.snet"), row, batch, caffe)


WORKLOADS = {
    workload.name: workload
    for workload in (
        _model("lenet", (1, 28, 28), 64, caffe=(16.5, 7.3)),
        _model("cifar10_quick", (3, 32, 32), 100, caffe=(158, 33.6)),
        _model("caffenet", (3, 227, 227), 64, caffe=(2320, 1366)),
        _model("googlenet", (3, 224, 224), 32, caffe=(3781, 2618)),
        _model("resnet50", (3, 224, 224), 16),
        _model("vgg16", (3, 224, 224), 8),
        _model("mobilenet", (3, 224, 224), 16),
        _model("char_lstm", (), 32),
    )
}
INFERENCE = ("caffenet", "googlenet", "resnet50")


def find(text: str) -> Workload:
    """The workload of that name, or of the form FILE:CxHxW:BATCH; raises ValueError."""
    if text in WORKLOADS:
        return WORKLOADS[text]
    path, *rest = text.split(":")
    if len(rest) != 2:
        raise ValueError(f"{text} is neither FILE:CxHxW:BATCH nor one of {', '.join(WORKLOADS)}")
    return Workload(path, tuple(map(int, rest[0].split("x"))), int(rest[1]))


def without_dropout(net: "caffe_pb2.NetParameter") -> "caffe_pb2.NetParameter":
    """Takes the Dropout layers out of `net`; what read their tops reads their bottoms."""
    kept = []
    instead: dict[str, str] = {}
    for layer in net.layer:
        layer.bottom[:] = [instead.get(name, name) for name in layer.bottom]
        if layer.type == "Dropout":
            instead[layer.top[0]] = layer.bottom[0]
        else:
            kept.append(layer)
    del net.layer[:]
    net.layer.extend(kept)
    return net


def inputs(net: "caffe_pb2.NetParameter", phase: int) -> dict[str, Any]:
    """An array for each input of `net`, always the same: pixels, labels, character codes, `cont`.

    `cont` is 0 at the first step of a batch only.
    """
    import numpy as np

    from sparknet_dsl import caffe_ext

    random = np.random.default_rng(0)
    report = caffe_ext.check_net(net, phase)
    result = {}
    for name in report.inputs:
        shape = report.blobs[name]
        assert shape is not None
        if name == "cont":
            result[name] = np.ones(shape, np.float32)
            result[name][0] = 0
        elif len(shape) < 3:
            result[name] = random.integers(0, CLASSES, shape).astype(np.float32)
        else:
            result[name] = random.standard_normal(shape, dtype=np.float32)
    return result
