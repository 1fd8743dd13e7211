"""Builds a PyTorch module from a NetParameter, so that both engines run the same message.

What is measured (bench/engine.py) and what is compared (tests/engine/test_torch.py) come from here; what PyTorch
lacks is written out in its elementary functions. A layer type that is not here raises NotImplementedError.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody uses
from torch import Tensor, nn
from torch_layers import (
    Fields,
    channels,
    euclidean_loss,
    hinge_loss,
    lstm,
    own_lstm,
    per_axis,
    rnn,
    sigmoid_loss,
    softmax_loss,
)

from sparknet_dsl.proto import caffe_pb2

Blobs = dict[str, Tensor]

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
DECONVOLUTIONS = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class TorchNet(nn.Module):
    """`net` in phase TRAIN, or in TEST; `forward` takes the Input layers' tops and gives the loss, or the last top.

    Parameters are in the order of the layers, one for each place: `params` of layers that share theirs are not shared.
    With `whole_sequences`, `cont` must be 0 at the first step of a batch and 1 at all others: LSTM layers are then
    PyTorch's own, whose gates have another order.
    """

    def __init__(
        self,
        net: caffe_pb2.NetParameter,
        params: dict[str, list[Tensor]],
        phase: int = caffe_pb2.TRAIN,
        whole_sequences: bool = False,
    ) -> None:
        super().__init__()
        self.phase = phase
        self.whole_sequences = whole_sequences
        self.inputs: list[str] = []
        self.steps: list[Callable[[Blobs], None]] = []
        self.losses: list[tuple[str, float]] = []
        self.weights = nn.ParameterList()
        self.modules_of_layers = nn.ModuleList()
        self.multipliers: list[tuple[float, float]] = []
        self.train(phase == caffe_pb2.TRAIN)
        layers = [layer for layer in net.layer if self._is_in(layer)]
        places: dict[str, list[int]] = {}
        for layer in layers:
            places[layer.name] = blobs = []
            for index, value in enumerate(params.get(layer.name, [])):
                spec = layer.param[index] if index < len(layer.param) else caffe_pb2.ParamSpec()
                self.multipliers.append((spec.lr_mult, spec.decay_mult))
                self.weights.append(nn.Parameter(value))
                blobs.append(len(self.weights) - 1)
        scales = scales_of_statistics(layers)
        done = {scale.name for scale in scales.values()}
        for layer in layers:
            fields, blobs = Fields(layer), places[layer.name]
            if layer.name in scales:
                # PyTorch's batch normalisation scales as well.
                fields.top = list(scales[layer.name].top)
                self.add_batchnorm(fields, blobs, places[scales[layer.name].name])
            elif layer.name not in done:
                build = getattr(self, f"add_{layer.type.lower()}", None)
                if build is None:
                    raise NotImplementedError(f"layer type {layer.type}")
                build(fields, blobs)
        self.top = layers[-1].top[0]

    def _is_in(self, layer: caffe_pb2.LayerParameter) -> bool:
        phases = [rule.phase for rule in layer.include if rule.HasField("phase")]
        return not layer.include or len(phases) < len(layer.include) or self.phase in phases

    def forward(self, *inputs: Tensor) -> Tensor:
        blobs = dict(zip(self.inputs, inputs, strict=True))
        for step in self.steps:
            step(blobs)
        if not self.losses:
            return blobs[self.top]
        return torch.stack([blobs[name].sum() * weight for name, weight in self.losses]).sum()

    def groups(self, base_lr: float, weight_decay: float) -> list[dict[str, object]]:
        """Parameter groups of torch.optim.SGD with Caffe's multipliers."""
        alike: dict[tuple[float, float], list[Tensor]] = {}
        for value, multipliers in zip(self.weights, self.multipliers, strict=True):
            alike.setdefault(multipliers, []).append(value)
        return [
            {"params": values, "lr": base_lr * lr, "weight_decay": weight_decay * decay}
            for (lr, decay), values in alike.items()
        ]

    def unary(self, layer: Fields, function: Callable[[Tensor], Tensor]) -> None:
        self.joining(layer, lambda values: function(values[0]))

    def joining(self, layer: Fields, function: Callable[[list[Tensor]], Tensor]) -> None:
        bottoms, top = list(layer.bottom), layer.top[0]

        def step(blobs: Blobs) -> None:
            blobs[top] = function([blobs[name] for name in bottoms])

        self.steps.append(step)
        weights = list(layer.loss_weight) or ([1.0] if layer.type.endswith("Loss") else [])
        if weights:
            self.losses.append((top, weights[0]))

    def add_input(self, layer: Fields, blobs: list[int]) -> None:
        self.inputs.extend(layer.top)

    # ---- convolution, pooling, products ----

    def add_convolution(self, layer: Fields, blobs: list[int]) -> None:
        p = layer.convolution_param

        def convolve(x: Tensor) -> Tensor:
            weight = self.weights[blobs[0]]
            axes = weight.ndim - 2
            bias = self.weights[blobs[1]] if p.bias_term else None
            stride = per_axis(list(p.stride), p.stride_h, p.stride_w, 1, axes)
            pad = per_axis(list(p.pad), p.pad_h, p.pad_w, 0, axes)
            dilation = per_axis(list(p.dilation), 0, 0, 1, axes)
            if layer.type == "Deconvolution":
                return DECONVOLUTIONS[axes](x, weight, bias, stride, pad, 0, p.group, dilation)
            return CONVOLUTIONS[axes](x, weight, bias, stride, pad, dilation, p.group)

        self.unary(layer, convolve)

    add_deconvolution = add_convolution

    def add_pooling(self, layer: Fields, blobs: list[int]) -> None:
        p = layer.pooling_param

        def pool(x: Tensor) -> Tensor:
            if p.global_pooling:
                return x.amax((2, 3), keepdim=True) if p.pool == p.MAX else x.mean((2, 3), keepdim=True)
            kernel = (p.kernel_h or p.kernel_size, p.kernel_w or p.kernel_size)
            stride = (p.stride_h or p.stride, p.stride_w or p.stride)
            function = F.max_pool2d if p.pool == p.MAX else F.avg_pool2d
            ceil = p.round_mode == p.CEIL
            return function(x, kernel, stride, (p.pad_h or p.pad, p.pad_w or p.pad), ceil_mode=ceil)

        self.unary(layer, pool)

    def add_innerproduct(self, layer: Fields, blobs: list[int]) -> None:
        p = layer.inner_product_param

        def product(x: Tensor) -> Tensor:
            weight = self.weights[blobs[0]]
            bias = self.weights[blobs[1]] if p.bias_term else None
            return F.linear(x.flatten(p.axis), weight.t() if p.transpose else weight, bias)

        self.unary(layer, product)

    def add_embed(self, layer: Fields, blobs: list[int]) -> None:
        p = layer.embed_param

        def embed(x: Tensor) -> Tensor:
            y = F.embedding(x.long(), self.weights[blobs[0]])
            return y + self.weights[blobs[1]] if p.bias_term else y

        self.unary(layer, embed)

    def add_lstm(self, layer: Fields, blobs: list[int]) -> None:
        if not self.whole_sequences:
            self.joining(layer, lambda values: lstm(*values, *(self.weights[blob] for blob in blobs)))
            return
        own = own_lstm(*(self.weights[blob] for blob in blobs))
        for blob, weight in zip(blobs, (own.weight_ih_l0, own.bias_ih_l0, own.weight_hh_l0), strict=True):
            self.weights[blob] = weight
        self.modules_of_layers.append(own)
        self.joining(layer, lambda values: own(values[0])[0])

    def add_rnn(self, layer: Fields, blobs: list[int]) -> None:
        self.joining(layer, lambda values: rnn(*values, *(self.weights[blob] for blob in blobs)))

    # ---- element by element ----

    def add_relu(self, layer: Fields, blobs: list[int]) -> None:
        slope = layer.relu_param.negative_slope
        in_place = layer.bottom[0] == layer.top[0]
        if slope:
            self.unary(layer, lambda x: F.leaky_relu(x, slope))
        else:
            self.unary(layer, lambda x: F.relu(x, inplace=in_place))

    def add_prelu(self, layer: Fields, blobs: list[int]) -> None:
        self.unary(layer, lambda x: F.prelu(x, self.weights[blobs[0]].reshape(-1)))

    def add_elu(self, layer: Fields, blobs: list[int]) -> None:
        self.unary(layer, lambda x: F.elu(x, layer.elu_param.alpha))

    def add_sigmoid(self, layer: Fields, blobs: list[int]) -> None:
        self.unary(layer, torch.sigmoid)

    def add_tanh(self, layer: Fields, blobs: list[int]) -> None:
        self.unary(layer, torch.tanh)

    def add_bnll(self, layer: Fields, blobs: list[int]) -> None:
        self.unary(layer, F.softplus)

    def add_absval(self, layer: Fields, blobs: list[int]) -> None:
        self.unary(layer, torch.abs)

    def add_swish(self, layer: Fields, blobs: list[int]) -> None:
        self.unary(layer, lambda x: x * torch.sigmoid(layer.swish_param.beta * x))

    def add_power(self, layer: Fields, blobs: list[int]) -> None:
        p = layer.power_param
        self.unary(layer, lambda x: (p.shift + p.scale * x) ** p.power)

    def add_dropout(self, layer: Fields, blobs: list[int]) -> None:
        self.unary(layer, lambda x: F.dropout(x, layer.dropout_param.dropout_ratio, self.training))

    # ---- normalisation, scaling ----

    def add_lrn(self, layer: Fields, blobs: list[int]) -> None:
        p = layer.lrn_param

        def within(x: Tensor) -> Tensor:
            return x * (1 + p.alpha * F.avg_pool2d(x * x, p.local_size, 1, p.local_size // 2)) ** -p.beta

        def across(x: Tensor) -> Tensor:
            return F.local_response_norm(x, p.local_size, p.alpha, p.beta, p.k)

        self.unary(layer, within if p.norm_region == p.WITHIN_CHANNEL else across)

    def add_batchnorm(self, layer: Fields, blobs: list[int], scale: Sequence[int] = ()) -> None:
        p = layer.batch_norm_param
        mean, variance, count = (self.weights[blob].detach() for blob in blobs)
        mean, variance = mean / count, variance / count
        stored = p.use_global_stats if "use_global_stats" in p.written else self.phase == caffe_pb2.TEST

        def normalise(x: Tensor) -> Tensor:
            affine = [self.weights[blob] for blob in scale] + [None] * (2 - len(scale))
            if stored:
                return F.batch_norm(x, mean, variance, *affine, eps=p.eps)
            return F.batch_norm(x, None, None, *affine, training=True, eps=p.eps)

        self.unary(layer, normalise)

    def add_mvn(self, layer: Fields, blobs: list[int]) -> None:
        p = layer.mvn_param

        def normalise(x: Tensor) -> Tensor:
            axes = tuple(range(1 if p.across_channels else 2, x.ndim))
            centred = x - x.mean(axes, keepdim=True)
            if not p.normalize_variance:
                return centred
            return centred / (centred.square().mean(axes, keepdim=True).sqrt() + p.eps)

        self.unary(layer, normalise)

    def add_scale(self, layer: Fields, blobs: list[int]) -> None:
        p = layer.scale_param

        def scale(values: list[Tensor]) -> Tensor:
            x, *others = [*values, *(self.weights[blob] for blob in blobs)]
            axis = p.axis % x.ndim
            y = x * channels(others[0], x, axis)
            return y + channels(others[1], x, axis) if p.bias_term else y

        self.joining(layer, scale)

    def add_bias(self, layer: Fields, blobs: list[int]) -> None:
        def add(values: list[Tensor]) -> Tensor:
            x, bias = [*values, *(self.weights[blob] for blob in blobs)]
            return x + channels(bias, x, layer.bias_param.axis % x.ndim)

        self.joining(layer, add)

    # ---- joining, cutting, shaping ----

    def add_eltwise(self, layer: Fields, blobs: list[int]) -> None:
        p = layer.eltwise_param

        def combine(values: list[Tensor]) -> Tensor:
            if p.operation == p.PROD:
                return torch.stack(values).prod(0)
            if p.operation == p.MAX:
                return torch.stack(values).amax(0)
            return sum(c * x for c, x in zip(p.coeff or [1.0] * len(values), values, strict=True))  # type: ignore[return-value]

        self.joining(layer, combine)

    def add_concat(self, layer: Fields, blobs: list[int]) -> None:
        self.joining(layer, lambda values: torch.cat(values, layer.concat_param.axis))

    def add_slice(self, layer: Fields, blobs: list[int]) -> None:
        p = layer.slice_param

        def step(values: Blobs) -> None:
            x = values[layer.bottom[0]]
            parts = x.tensor_split(list(p.slice_point) or len(layer.top), p.axis)
            values.update(zip(layer.top, parts, strict=True))

        self.steps.append(step)

    def add_crop(self, layer: Fields, blobs: list[int]) -> None:
        p = layer.crop_param

        def crop(values: list[Tensor]) -> Tensor:
            x, like = values
            axis = p.axis % x.ndim
            for i in range(axis, x.ndim):
                offset = 0 if not p.offset else p.offset[i - axis] if len(p.offset) > 1 else p.offset[0]
                x = x.narrow(i, offset, like.shape[i])
            return x

        self.joining(layer, crop)

    def add_flatten(self, layer: Fields, blobs: list[int]) -> None:
        p = layer.flatten_param
        self.unary(layer, lambda x: x.flatten(p.axis, p.end_axis))

    def add_tile(self, layer: Fields, blobs: list[int]) -> None:
        p = layer.tile_param
        self.unary(layer, lambda x: torch.cat([x] * p.tiles, p.axis))

    def add_reduction(self, layer: Fields, blobs: list[int]) -> None:
        p = layer.reduction_param

        def reduce(x: Tensor) -> Tensor:
            rows = x.flatten(p.axis % x.ndim)
            rows = {p.ASUM: torch.abs, p.SUMSQ: torch.square}.get(p.operation, torch.clone)(rows)
            return p.coeff * (rows.mean(-1) if p.operation == p.MEAN else rows.sum(-1))

        self.unary(layer, reduce)

    def add_softmax(self, layer: Fields, blobs: list[int]) -> None:
        self.unary(layer, lambda x: x.softmax(layer.softmax_param.axis))

    # ---- losses ----

    def add_softmaxwithloss(self, layer: Fields, blobs: list[int]) -> None:
        axis, p = layer.softmax_param.axis, layer.loss_param
        self.joining(layer, lambda values: softmax_loss(values[0], values[1], axis, p))

    def add_sigmoidcrossentropyloss(self, layer: Fields, blobs: list[int]) -> None:
        self.joining(layer, lambda values: sigmoid_loss(*values))

    def add_euclideanloss(self, layer: Fields, blobs: list[int]) -> None:
        self.joining(layer, lambda values: euclidean_loss(*values))

    def add_hingeloss(self, layer: Fields, blobs: list[int]) -> None:
        squared = layer.hinge_loss_param.norm == layer.hinge_loss_param.L2
        self.joining(layer, lambda values: hinge_loss(values[0], values[1], squared))


def scales_of_statistics(layers: Sequence[caffe_pb2.LayerParameter]) -> dict[str, caffe_pb2.LayerParameter]:
    """By the name of each BatchNorm that a Scale, a factor for each channel, and nobody else reads: that Scale."""
    result = {}
    for at, layer in enumerate(layers):
        readers = [other for other in layers[at + 1 :] if layer.top[0] in other.bottom]
        if layer.type == "BatchNorm" and readers and readers[0].type == "Scale":
            scale, p = readers[0], readers[0].scale_param
            alone = len(readers) == 1 or scale.top[0] == layer.top[0]
            if alone and len(scale.bottom) == 1 and p.axis == 1 and p.num_axes == 1:
                result[layer.name] = scale
    return result
