"""Builds a PyTorch module from a NetParameter, so that both engines run the same message.

What is measured (bench/engine.py) and what is compared (tests/engine/test_torch.py) come from here; what PyTorch
lacks is written out in its elementary functions. A layer type that is not here raises NotImplementedError.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody uses
from google.protobuf.message import Message
from torch import Tensor, nn

from sparknet_dsl.proto import caffe_pb2

Blobs = dict[str, Tensor]


CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
DECONVOLUTIONS = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def per_axis(values: list[int], h: int, w: int, default: int, axes: int = 2) -> tuple[int, ...]:
    """Caffe's `pad`, `pad_h`, `pad_w` and their like: a value for each spatial axis."""
    if values:
        return tuple(values) if len(values) > 1 else tuple(values) * axes
    return (h, w) if h or w else (default,) * axes


def channels(values: Tensor, like: Tensor, axis: int) -> Tensor:
    """`values`, whose axes are those of `like` from `axis` on, ready to be broadcast."""
    return values.reshape(*values.shape, *[1] * (like.ndim - axis - values.ndim))


class Fields:
    """The fields of a message and the numbers of its enums as attributes: torch.compile cannot look into messages.

    `written` names the fields that are not there by default only.
    """

    def __init__(self, message: Message) -> None:
        self.written = frozenset(field.name for field, _ in message.ListFields())
        for enum in message.DESCRIPTOR.enum_types:
            vars(self).update((value.name, value.number) for value in enum.values)
        for field in message.DESCRIPTOR.fields:
            value = getattr(message, field.name)
            if field.message_type is not None:
                value = [Fields(item) for item in value] if field.is_repeated else Fields(value)
            elif field.is_repeated:
                value = list(value)
            setattr(self, field.name, value)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class TorchNet(nn.Module):
    """The TRAIN phase of `net`; `forward` takes the Input layers' tops and gives the loss.

    Parameters are in the order of the layers, one for each place: `params` of layers that share theirs are not shared.
    """

    def __init__(self, net: caffe_pb2.NetParameter, params: dict[str, list[Tensor]]) -> None:
        super().__init__()
        self.inputs: list[str] = []
        self.steps: list[Callable[[Blobs], None]] = []
        self.losses: list[tuple[str, float]] = []
        self.weights = nn.ParameterList()
        self.multipliers: list[tuple[float, float]] = []
        for layer in net.layer:
            if layer.include and all(rule.phase == caffe_pb2.TEST for rule in layer.include if rule.HasField("phase")):
                continue
            blobs = []
            for index, value in enumerate(params.get(layer.name, [])):
                spec = layer.param[index] if index < len(layer.param) else caffe_pb2.ParamSpec()
                self.multipliers.append((spec.lr_mult, spec.decay_mult))
                self.weights.append(nn.Parameter(value))
                blobs.append(len(self.weights) - 1)
            build = getattr(self, f"add_{layer.type.lower()}", None)
            if build is None:
                raise NotImplementedError(f"layer type {layer.type}")
            build(Fields(layer), blobs)

    def forward(self, *inputs: Tensor) -> Tensor:
        blobs = dict(zip(self.inputs, inputs, strict=True))
        for step in self.steps:
            step(blobs)
        return torch.stack([blobs[name].sum() * weight for name, weight in self.losses]).sum()

    def groups(self, base_lr: float, weight_decay: float) -> list[dict[str, object]]:
        """Parameter groups of torch.optim.SGD with Caffe's multipliers."""
        return [
            {"params": [value], "lr": base_lr * lr, "weight_decay": weight_decay * decay}
            for value, (lr, decay) in zip(self.weights, self.multipliers, strict=True)
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

    def add_lstm(self, layer: Fields, blobs: list[int]) -> None:
        hidden = layer.recurrent_param.num_output

        def run(values: list[Tensor]) -> Tensor:
            x, cont = values
            w_x, bias, w_h = (self.weights[blob] for blob in blobs)
            h = c = x.new_zeros(x.shape[1], hidden)
            steps = []
            for t in range(x.shape[0]):
                on = cont[t][:, None]
                gates = F.linear(x[t].flatten(1), w_x, bias) + F.linear(on * h, w_h)
                i, f, o, g = gates.split(hidden, 1)
                c = on * f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
                steps.append(h)
            return torch.stack(steps)

        self.joining(layer, run)

    def add_rnn(self, layer: Fields, blobs: list[int]) -> None:
        def run(values: list[Tensor]) -> Tensor:
            x, cont = values
            w_x, bias, w_h, w_o, bias_o = (self.weights[blob] for blob in blobs)
            h = x.new_zeros(x.shape[1], layer.recurrent_param.num_output)
            steps = []
            for t in range(x.shape[0]):
                h = (F.linear(x[t].flatten(1), w_x, bias) + F.linear(cont[t][:, None] * h, w_h)).tanh()
                steps.append(F.linear(h, w_o, bias_o).tanh())
            return torch.stack(steps)

        self.joining(layer, run)

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

    def add_batchnorm(self, layer: Fields, blobs: list[int]) -> None:
        p = layer.batch_norm_param

        def normalise(x: Tensor) -> Tensor:
            if not p.use_global_stats:
                return F.batch_norm(x, None, None, training=True, eps=p.eps)
            mean, variance, count = (self.weights[blob].detach() for blob in blobs)
            return F.batch_norm(x, mean / count, variance / count, eps=p.eps)

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
        axis = layer.softmax_param.axis

        def loss(values: list[Tensor]) -> Tensor:
            scores, label = values
            rows = scores.movedim(axis, -1).flatten(0, -2)
            truth = label.flatten().long()
            items = F.cross_entropy(rows, truth, reduction="none")
            # A probability counts as at least FLT_MIN, of which the gradient knows nothing.
            items = items - F.relu(items - 126 * math.log(2)).detach()
            return normalised(items, truth, math.prod(scores.shape[:axis]), layer.loss_param)

        self.joining(layer, loss)

    def add_sigmoidcrossentropyloss(self, layer: Fields, blobs: list[int]) -> None:
        def loss(values: list[Tensor]) -> Tensor:
            scores, target = values
            return F.binary_cross_entropy_with_logits(scores, target, reduction="sum") / scores.shape[0]

        self.joining(layer, loss)

    def add_euclideanloss(self, layer: Fields, blobs: list[int]) -> None:
        def loss(values: list[Tensor]) -> Tensor:
            a, b = values
            return (a - b).square().sum() / (2 * a.shape[0])

        self.joining(layer, loss)

    def add_hingeloss(self, layer: Fields, blobs: list[int]) -> None:
        squared = layer.hinge_loss_param.norm == layer.hinge_loss_param.L2

        def loss(values: list[Tensor]) -> Tensor:
            scores, label = values
            scores = scores.flatten(1)
            sign = 1 - 2 * F.one_hot(label.flatten().long(), scores.shape[1]).to(scores)
            margins = F.relu(1 + sign * scores)
            return (margins.square() if squared else margins).sum() / scores.shape[0]

        self.joining(layer, loss)


def normalised(items: Tensor, truth: Tensor, batch: int, p: Fields) -> Tensor:
    """The sum of the items that count, divided as `p` says."""
    valid = truth.numel()
    if "ignore_label" in p.written:
        counts = truth != p.ignore_label
        items = torch.where(counts, items, 0.0)
        valid = int(counts.sum())
    by = {p.FULL: truth.numel(), p.VALID: valid, p.BATCH_SIZE: batch, p.NONE: 1}[p.normalization]
    return items.sum() / max(by, 1)
