"""What bench/engine.py measures of PyTorch: the same nets and weights, in each of its modes."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_net import TorchNet
from workloads import Workload, inputs

from sparknet_dsl.proto import caffe_pb2


def training(workload: Workload, weights: pathlib.Path, lr: float, mode: str) -> Callable[[], float]:
    """A step of SGD, which gives the loss. `mode` is eager, channels_last or compile, the last with channels last."""
    message = workload.training()
    net = TorchNet(message, read(weights), whole_sequences=True)
    optimizer = torch.optim.SGD(net.groups(lr, 0.0005), lr=lr, momentum=0.9, fused=True)
    net, values, forward = prepared(net, list(inputs(message, caffe_pb2.TRAIN).values()), mode)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = forward(*values)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def inference(workload: Workload, weights: pathlib.Path, batch: int, mode: str) -> Callable[[], Any]:
    """A forward pass, which gives the output. `mode` may be `freeze`, too: compiled, with constants folded."""
    message = workload.inference(batch)
    net = TorchNet(message, read(weights), caffe_pb2.TEST).requires_grad_(False)
    if mode == "freeze":
        torch._inductor.config.freezing = True
    net, values, forward = prepared(net, list(inputs(message, caffe_pb2.TEST).values()), mode)

    @torch.inference_mode()
    def step() -> Any:
        return forward(*values).numpy()

    return step


def product(size: int) -> Callable[[], Any]:
    a, b = torch.randn(size, size), torch.randn(size, size)
    return lambda: torch.mm(a, b)


def prepared(net: TorchNet, arrays: list[Any], mode: str) -> tuple[TorchNet, list[Tensor], Callable[..., Tensor]]:
    """Net and inputs in the layout of `mode`, and what runs them."""
    values = [torch.from_numpy(array) for array in arrays]
    if mode != "eager":
        net = net.to(memory_format=torch.channels_last)
        values = [x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in values]
    return net, values, torch.compile(net, dynamic=False) if mode in ("compile", "freeze") else net


def read(weights: pathlib.Path) -> dict[str, list[Tensor]]:
    params: dict[str, list[Tensor]] = {}
    with np.load(weights) as arrays:
        for key in arrays.files:
            params.setdefault(key.rpartition(":")[0], []).append(torch.from_numpy(arrays[key]))
    return params
