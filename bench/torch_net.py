"""Builds a PyTorch module from a NetParameter, so that both engines run the same message.

Covers the layer types of the nets that are measured; another type raises NotImplementedError, naming it.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody uses
from torch import Tensor, nn

from sparknet_dsl.proto import caffe_pb2

Blobs = dict[str, Tensor]


def pair(values: list[int], h: int, w: int, default: int) -> tuple[int, int]:
    """Caffe's `pad`, `pad_h`, `pad_w` and their like as (h, w)."""
    if values:
        return values[0], values[-1]
    return (h, w) if h or w else (default, default)


class TorchNet(nn.Module):
    """The TRAIN phase of `net`; `forward(data, label)` gives the loss. Parameters are in the order of the layers."""

    def __init__(self, net: caffe_pb2.NetParameter, params: dict[str, list[Tensor]]) -> None:
        super().__init__()
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
            build(layer, blobs)

    def forward(self, data: Tensor, label: Tensor) -> Tensor:
        blobs = {"data": data, "label": label}
        for step in self.steps:
            step(blobs)
        return torch.stack([blobs[name] * weight for name, weight in self.losses]).sum()

    def groups(self, base_lr: float, weight_decay: float) -> list[dict[str, object]]:
        """Parameter groups of torch.optim.SGD with Caffe's multipliers."""
        return [
            {"params": [value], "lr": base_lr * lr, "weight_decay": weight_decay * decay}
            for value, (lr, decay) in zip(self.weights, self.multipliers, strict=True)
        ]

    def unary(self, layer: caffe_pb2.LayerParameter, function: Callable[[Tensor], Tensor]) -> None:
        bottom, top = layer.bottom[0], layer.top[0]

        def step(blobs: Blobs) -> None:
            blobs[top] = function(blobs[bottom])

        self.steps.append(step)

    def add_input(self, layer: caffe_pb2.LayerParameter, blobs: list[int]) -> None:
        pass

    def add_convolution(self, layer: caffe_pb2.LayerParameter, blobs: list[int]) -> None:
        p = layer.convolution_param
        stride = pair(list(p.stride), p.stride_h, p.stride_w, 1)
        pad = pair(list(p.pad), p.pad_h, p.pad_w, 0)
        dilation = pair(list(p.dilation), 0, 0, 1)

        def convolve(x: Tensor) -> Tensor:
            bias = self.weights[blobs[1]] if p.bias_term else None
            return F.conv2d(x, self.weights[blobs[0]], bias, stride, pad, dilation, p.group)

        self.unary(layer, convolve)

    def add_pooling(self, layer: caffe_pb2.LayerParameter, blobs: list[int]) -> None:
        p = layer.pooling_param

        def pool(x: Tensor) -> Tensor:
            if p.global_pooling:
                return x.amax((2, 3), keepdim=True) if p.pool == p.MAX else x.mean((2, 3), keepdim=True)
            kernel = (p.kernel_h or p.kernel_size, p.kernel_w or p.kernel_size)
            stride = (p.stride_h or p.stride, p.stride_w or p.stride)
            function = F.max_pool2d if p.pool == p.MAX else F.avg_pool2d
            return function(x, kernel, stride, (p.pad_h or p.pad, p.pad_w or p.pad), ceil_mode=True)

        self.unary(layer, pool)

    def add_innerproduct(self, layer: caffe_pb2.LayerParameter, blobs: list[int]) -> None:
        def product(x: Tensor) -> Tensor:
            bias = self.weights[blobs[1]] if layer.inner_product_param.bias_term else None
            return F.linear(x.flatten(1), self.weights[blobs[0]], bias)

        self.unary(layer, product)

    def add_relu(self, layer: caffe_pb2.LayerParameter, blobs: list[int]) -> None:
        in_place = layer.bottom[0] == layer.top[0]
        self.unary(layer, lambda x: F.relu(x, inplace=in_place))

    def add_lrn(self, layer: caffe_pb2.LayerParameter, blobs: list[int]) -> None:
        p = layer.lrn_param
        self.unary(layer, lambda x: F.local_response_norm(x, p.local_size, p.alpha, p.beta, p.k))

    def add_dropout(self, layer: caffe_pb2.LayerParameter, blobs: list[int]) -> None:
        self.unary(layer, lambda x: F.dropout(x, layer.dropout_param.dropout_ratio, self.training))

    def add_concat(self, layer: caffe_pb2.LayerParameter, blobs: list[int]) -> None:
        def step(values: Blobs) -> None:
            values[layer.top[0]] = torch.cat([values[name] for name in layer.bottom], layer.concat_param.axis)

        self.steps.append(step)

    def add_softmaxwithloss(self, layer: caffe_pb2.LayerParameter, blobs: list[int]) -> None:
        scores, label = layer.bottom
        self.losses.append((layer.top[0], layer.loss_weight[0] if layer.loss_weight else 1.0))

        def step(values: Blobs) -> None:
            values[layer.top[0]] = F.cross_entropy(values[scores], values[label])

        self.steps.append(step)
