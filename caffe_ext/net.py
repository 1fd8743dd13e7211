"""Networks, with pycaffe's names."""

import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import EngineError
from ..proto import caffe_pb2
from . import _native, batching, net_weights
from ._native import Blob
from .common import next_seed
from .data_layers import DataLayers
from .debug import log_passes
from .hdf5 import Array
from .messages import net_message
from .python_layer import Layer
from .report import TEST as TEST
from .report import TRAIN as TRAIN
from .report import Memory, Precision

# Called with the number of a layer.
Callback = Callable[[int], object]


class Net:
    """A network built for a phase.

    `network_file` is a prototxt file or a NetParameter; `weights` a `.caffemodel`, copied in by layer name. Layers
    choose by `phase`, `level` and `stages` (added to the file's own) whether they are in. Parameters are filled at
    random as a function of `seed`; without one, of `set_random_seed`, or of chance. Also, as in old pycaffe:
    Net(network_file, weights, phase).

    `blobs` (by name, in order of making) and `params` (by layer) hold Blobs, whose `data` and `diff` are live views.
    `layers` has each Layer in order (of type Python: the object of the user's own class), `layer_dict` by name.
    `inputs` are the tops of source layers that the caller feeds, `outputs` the blobs that no layer reads, in
    alphabetical order. Automatic Splits appear among layers and blobs under Caffe's names. With `debug_info` in the
    net every pass is logged, layer by layer: then `memory` is "all" and `fusion` off.

    Layers that work in place may run as one with the layer before them (BatchNorm, Scale and ReLU), as long as a pass
    includes them all; `fusion=False` runs each on its own. With `memory="reuse"` blobs give their memory to others as
    soon as no layer needs what it holds: what a backward pass leaves for sure are parameters' gradients, outputs and
    inputs, after a forward pass in TEST outputs and inputs. Other values can be looked at only by who has asked for
    their array before, which keeps them. With `memory="lean"`, in addition, the backward pass computes values again
    from a few that are kept: the same results to the bit, a third more time or less, for a fraction of the memory.

    Data layers that name a source read it, a batch before each pass; those without one are fed by the caller.

    With `precision` "bf16" convolutions and large inner products multiply in bfloat16 (8 bits of mantissa), which CPUs
    with AMX do several times faster, and add up in float32; blobs, parameters and gradients are float32 all the same.
    In float32 those with kernels of 3 or 5 and stride 1 save multiplications where that is faster (Winograd's
    algorithms); `winograd=False` computes all by their definition. The rounding errors of the former are some five
    times as large: 1e-6 of the results' root mean square, 4e-6 with kernels of 5.

    Raises LayerError, naming the layer, for what the engine refuses and for data that cannot be read, EngineError for a
    net's file that cannot be read, and for bf16 on a CPU without AVX-512.
    A net serves one thread at a time; another one is refused while it computes.
    """

    def __init__(
        self,
        network_file: str | os.PathLike[str] | caffe_pb2.NetParameter,
        phase: int | str | os.PathLike[str] = TEST,
        legacy_phase: int | None = None,
        *,
        weights: str | os.PathLike[str] | None = None,
        level: int = 0,
        stages: Sequence[str] | None = None,
        seed: int | None = None,
        memory: Memory = "all",
        fusion: bool = True,
        precision: Precision = "float32",
        winograd: bool = True,
    ) -> None:
        if isinstance(phase, int):
            if legacy_phase is not None:
                raise EngineError("Net takes (network_file, phase) or (network_file, weights, phase)")
            self.phase = phase
        else:
            weights = phase
            self.phase = TEST if legacy_phase is None else legacy_phase
        self._message = net_message(network_file)
        self.name = self._message.name
        all_stages = [*self._message.state.stage, *(stages or ())]
        seed = pick_seed(seed)
        data_layers = DataLayers(self._message, self.phase, level, all_stages, seed)
        looked_at = self._message.debug_info  # all values, of every layer
        self._native = _native.Net(
            self._message,
            self.phase,
            level,
            all_stages,
            seed,
            data_layers.shapes,
            memory="all" if looked_at else memory,
            fuse=fusion and not looked_at,
            precision=precision,
            winograd=winograd,
        )
        data_layers.attach(self._native)
        self._data_layers = data_layers

        blobs = self._native.blobs()
        layers = self._native.layers()
        names = [blob.name for blob in blobs]
        self._indices: list[int] = [index for index, *_ in layers]
        self._ids = [(bottoms, tops) for _, _, _, bottoms, tops, _, _ in layers]
        self.blobs: OrderedDict[str, Blob] = OrderedDict(zip(names, blobs, strict=True))
        self.blob_names = names
        self.blob_loss_weights = OrderedDict(zip(names, self._native.loss_weights(), strict=True))
        self.layers = [self._layer(index, name, type, params, own) for index, name, type, _, _, params, own in layers]
        self.layer_names = [layer.name for layer in self.layers]
        self.layer_dict = OrderedDict(zip(self.layer_names, self.layers, strict=True))
        self.params: OrderedDict[str, list[Blob]] = OrderedDict(
            (layer.name, layer.blobs) for layer in self.layers if layer.blobs
        )
        self.bottom_names = OrderedDict((name, [names[i] for i in ids]) for _, name, _, ids, *_ in layers)
        self.top_names = OrderedDict((name, [names[i] for i in ids]) for _, name, _, _, ids, *_ in layers)
        self.inputs: list[str] = [names[i] for i in self._native.inputs() if i not in data_layers.read_tops]
        self.outputs: list[str] = [names[i] for i in self._native.outputs()]
        self.loss = math.nan  # of the last forward pass
        self._callbacks: dict[str, list[Callback]] = {}
        if self._message.debug_info:
            log_passes(self)
        net_weights.take_blobs(self)
        if weights is not None:
            self.copy_from(weights)

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **inputs: Any
    ) -> dict[str, Array]:
        """Writes `inputs` into the input blobs (all of them, or none), runs the layers, gives the outputs' data.

        Runs from layer `start` (else the first) to layer `end` (else the last), that one included; with `end`, its
        tops are the outputs. `blobs` names others to be given as well. An input has the batch size of its blob; other
        axes may be of extent 1 and are then repeated. `loss` has the objective afterwards.

        Raises EngineError for unknown names and shapes that do not fit, LayerError for what a layer refuses.
        """
        first = 0 if start is None else self._layer_index(start)
        last = len(self.layers) - 1 if end is None else self._layer_index(end)
        outputs = self._known([*(self.outputs if end is None else self.top_names[end]), *(blobs or ())])
        if inputs and set(inputs) != set(self.inputs):
            raise EngineError(f"the inputs are {', '.join(self.inputs) or 'none'}; got {', '.join(inputs)}")
        for name, values in inputs.items():
            _assign(self.blobs[name].data, values, f"input {name}")
        self._forward(first, last)
        return {name: self.blobs[name].data for name in outputs}

    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **gradients: Any
    ) -> dict[str, Array]:
        """Writes `gradients` into the output blobs' diff, runs the layers backward, gives the inputs' gradients.

        Runs from layer `start` (else the last) back to layer `end` (else the first), that one included; with `end`,
        the gradients given are those of its bottoms. `diffs` names others to be given as well. Parameter gradients are
        added up (`clear_param_diffs` sets them to zero). Raises EngineError for names that are no outputs and shapes
        that do not fit.
        """
        first = len(self.layers) - 1 if start is None else self._layer_index(start)
        last = 0 if end is None else self._layer_index(end)
        wanted = self._known([*(self.inputs if end is None else self.bottom_names[end]), *(diffs or ())])
        for name, values in gradients.items():
            if name not in self.outputs:
                raise EngineError(f"`{name}` is no output; the outputs are {', '.join(self.outputs) or 'none'}")
            _assign(self.blobs[name].diff, values, f"gradient of {name}")
        self._backward(first, last)
        return {name: self.blobs[name].diff for name in wanted}

    def forward_all(self, blobs: Sequence[str] | None = None, **inputs: Any) -> dict[str, Array]:
        """Runs `forward` over inputs of any number of rows, a batch at a time; see `batching.forward_all`."""
        return batching.forward_all(self, blobs, inputs)

    def forward_backward_all(
        self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **arrays: Any
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """`forward_all` with a backward pass for each batch; see `batching.forward_backward_all`."""
        return batching.forward_backward_all(self, blobs, diffs, arrays)

    def before_forward(self, callback: Callback) -> None:
        """From here on calls `callback(i)` before layer `i` runs forward."""
        self._callbacks.setdefault("before_forward", []).append(callback)

    def after_forward(self, callback: Callback) -> None:
        """From here on calls `callback(i)` after layer `i` ran forward."""
        self._callbacks.setdefault("after_forward", []).append(callback)

    def before_backward(self, callback: Callback) -> None:
        """From here on calls `callback(i)` before layer `i` runs backward, also where it has nothing to do."""
        self._callbacks.setdefault("before_backward", []).append(callback)

    def after_backward(self, callback: Callback) -> None:
        """From here on calls `callback(i)` after layer `i` ran backward, also where it had nothing to do."""
        self._callbacks.setdefault("after_backward", []).append(callback)

    def reshape(self) -> None:
        """Gives all blobs the shapes that follow from those of the inputs."""
        self._native.reshape()

    def share_with(self, other: "Net") -> None:
        """Layers that `other` has by the same name use its parameters from here on: one memory for both nets.

        The two nets then serve one thread at a time together, and only `other` has `flat_data`, which solvers need.
        Raises LayerError, and changes nothing, when numbers or shapes of parameters differ.
        """
        self._native.share_params(other._native)

    def clear_param_diffs(self) -> None:
        """Sets the gradients of all parameters to zero."""
        self._native.clear_param_diffs()

    def set_seed(self, seed: int) -> None:
        """From here on what Dropout and its like draw is a function of `seed` (below 2^64) and the passes since."""
        self._native.set_seed(pick_seed(seed))

    @property
    def flat_data(self) -> Array:
        """All learnable parameters one after the other: a live view of one axis.

        Each parameter is there once, in its owner's place; BatchNorm's statistics are among them.
        """
        return self._native.flat_data

    @property
    def flat_diff(self) -> Array:
        """The gradients of `flat_data`: a live view."""
        return self._native.flat_diff

    @property
    def statistics(self) -> tuple[tuple[int, int], ...]:
        """Where in `flat_data` the statistics of BatchNorm and BN begin and end.

        A forward pass in TRAIN moves them, no solver does.
        """
        keeping = {name for name, layer in self.layer_dict.items() if layer.type in ("BatchNorm", "BN")}
        ranges: list[tuple[int, int]] = []
        start = 0
        for name, _, shape, lr_mult, _ in self._native.learnable():
            end = start + math.prod(shape)
            if name in keeping and lr_mult == 0:
                begin = ranges.pop()[0] if ranges and ranges[-1][1] == start else start
                ranges.append((begin, end))
            start = end
        return tuple(ranges)

    def copy_from(self, path: str | os.PathLike[str]) -> None:
        """Copies the weights in the file `path` into the layers of the same names; other layers stay as they are.

        A binary file (`.caffemodel`) or an HDF5 one, by its content.

        Raises WeightsError, and changes nothing, when the file cannot be read, or a layer's parameters differ in number
        or shape.
        """
        net_weights.load(self, path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the net with its weights to `path`, in binary form (`.caffemodel`); whole or not at all.

        Raises OutputError when the file cannot be written.
        """
        net_weights.save(self, path)

    def load_hdf5(self, path: str | os.PathLike[str]) -> None:
        """`copy_from` for HDF5 files. Parameters that a layer shares with an earlier one need not be there."""
        net_weights.load_hdf5(self, path)

    def save_hdf5(self, path: str | os.PathLike[str]) -> None:
        """Writes the weights to `path` as Caffe's HDF5 snapshots (`.caffemodel.h5`) have them; whole or not at all.

        Of shared parameters only the owner's is written. Raises OutputError when the file cannot be written.
        """
        net_weights.save_hdf5(self, path)

    def set_input_arrays(self, data: Any, labels: Any) -> None:
        """Gives the (first) MemoryData layer images, (rows, channels, height, width), and a label for each.

        Each pass takes the next `batch_size` rows, from the first again after the last; arrays of float32 are not
        copied, so what is written into them later counts. As in Caffe transform_param is not applied. Raises LayerError
        when shapes do not fit the layer, or the rows are no multiple of its `batch_size`.
        """
        self._data_layers.set_input_arrays(data, labels)

    def to_proto(self) -> caffe_pb2.NetParameter:
        """The net as it was built, Splits included, with its weights in the layers' `blobs`."""
        return net_weights.to_proto(self)

    # ---- pycaffe's inner names, which scripts rely on ----

    @property
    def _layer_names(self) -> list[str]:
        return self.layer_names

    @property
    def _blob_names(self) -> list[str]:
        return self.blob_names

    @property
    def _blob_loss_weights(self) -> list[float]:
        return list(self.blob_loss_weights.values())

    @property
    def _inputs(self) -> list[int]:
        return self._native.inputs()

    @property
    def _outputs(self) -> list[int]:
        return self._native.outputs()

    def _bottom_ids(self, layer: int) -> list[int]:
        return self._ids[layer][0]

    def _top_ids(self, layer: int) -> list[int]:
        return self._ids[layer][1]

    def _batch(self, arrays: Mapping[str, Any]) -> Iterator[dict[str, Array]]:
        return batching.batches(self, arrays)

    def _forward(self, start: int, end: int) -> float:
        """Runs layer number `start` to layer number `end`, that one included; the objective of these."""
        self._check_range(start, end)
        before, after = self._callbacks.get("before_forward"), self._callbacks.get("after_forward")
        if before is None and after is None:
            self.loss = self._native.forward(start, end + 1)
            return self.loss
        loss = 0.0
        for layer in range(start, end + 1):
            for callback in before or ():
                callback(layer)
            loss += self._native.forward(layer, layer + 1, new_pass=layer == start)
            for callback in after or ():
                callback(layer)
        self.loss = loss
        return loss

    def _backward(self, start: int, end: int) -> None:
        """Runs layer number `start` back to layer number `end`, that one included."""
        self._check_range(end, start)
        before, after = self._callbacks.get("before_backward"), self._callbacks.get("after_backward")
        if before is None and after is None:
            self._native.backward(end, start + 1)
            return
        for layer in range(start, end - 1, -1):
            for callback in before or ():
                callback(layer)
            self._native.backward(layer, layer + 1)
            for callback in after or ():
                callback(layer)

    # ---- inner matters ----

    def _layer(self, index: int, name: str, type: str, params: list[Blob], own: Layer | None) -> Layer:
        """Layer `index` of the message (-1: a Split); `own` is the object of one that is written in Python."""
        param = caffe_pb2.LayerParameter(name=name, type=type) if index < 0 else self._message.layer[index]
        layer = own
        if layer is None:
            layer = Layer(param)
            layer.phase = param.phase if param.HasField("phase") else self.phase
        layer.blobs = params
        return layer

    def _layer_index(self, name: str) -> int:
        if name not in self.layer_dict:
            raise EngineError(f"the net has no layer `{name}`; it has {', '.join(self.layer_names)}")
        return self.layer_names.index(name)

    def _known(self, blobs: Sequence[str]) -> list[str]:
        """The names, each once; EngineError for one that is no blob's."""
        for name in blobs:
            if name not in self.blobs:
                raise EngineError(f"the net has no blob `{name}`; it has {', '.join(self.blob_names)}")
        return list(dict.fromkeys(blobs))

    def _check_range(self, first: int, last: int) -> None:
        if not (0 <= first <= last + 1 <= len(self.layers)):
            raise EngineError(f"there are no layers {first} to {last}: they count from 0 to {len(self.layers) - 1}")


def pick_seed(seed: int | None) -> int:
    """`seed`, or one by chance."""
    if seed is None:
        return next_seed()
    if not 0 <= seed < 2**64:
        raise EngineError(f"a seed lies between 0 and 2^64 - 1; got {seed}")
    return seed


def _assign(to: Array, values: Any, what: str) -> None:
    try:
        array = np.asarray(values)
        if array.shape[:1] == to.shape[:1] and array.ndim == to.ndim:
            to[...] = array
            return
    except (TypeError, ValueError) as error:
        raise EngineError(f"{what}: {error}") from error
    raise EngineError(f"{what} has shape {array.shape}; the net wants {to.shape}")
