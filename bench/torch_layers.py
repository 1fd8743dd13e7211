"""What torch_net.py needs beside PyTorch's own functions: messages as attributes, Caffe's losses and recurrence."""

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody uses
from google.protobuf.message import Message
from torch import Tensor, nn


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


def per_axis(values: list[int], h: int, w: int, default: int, axes: int = 2) -> tuple[int, ...]:
    """Caffe's `pad`, `pad_h`, `pad_w` and their like: a value for each spatial axis."""
    if values:
        return tuple(values) if len(values) > 1 else tuple(values) * axes
    return (h, w) if h or w else (default,) * axes


def channels(values: Tensor, like: Tensor, axis: int) -> Tensor:
    """`values`, whose axes are those of `like` from `axis` on, ready to be broadcast."""
    return values.reshape(*values.shape, *[1] * (like.ndim - axis - values.ndim))


# ---- recurrence ----


def lstm(x: Tensor, cont: Tensor, w_x: Tensor, bias: Tensor, w_h: Tensor) -> Tensor:
    """Caffe's LSTM, step by step; the gates' order is input, forget, output, candidate."""
    hidden = w_h.shape[1]
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


def own_lstm(w_x: Tensor, bias: Tensor, w_h: Tensor) -> nn.LSTM:
    """PyTorch's LSTM with the weights of Caffe's, whose one bias is the first of its two."""
    result = nn.LSTM(w_x.shape[1], w_h.shape[1])
    with torch.no_grad():
        for to, values in ((result.weight_ih_l0, w_x), (result.bias_ih_l0, bias), (result.weight_hh_l0, w_h)):
            i, f, o, g = values.chunk(4)
            to.copy_(torch.cat([i, f, g, o]))
        result.bias_hh_l0.zero_()
    result.bias_hh_l0.requires_grad_(False)
    return result


def rnn(x: Tensor, cont: Tensor, w_x: Tensor, bias: Tensor, w_h: Tensor, w_o: Tensor, bias_o: Tensor) -> Tensor:
    """Caffe's RNN, step by step."""
    h = x.new_zeros(x.shape[1], w_h.shape[1])
    steps = []
    for t in range(x.shape[0]):
        h = (F.linear(x[t].flatten(1), w_x, bias) + F.linear(cont[t][:, None] * h, w_h)).tanh()
        steps.append(F.linear(h, w_o, bias_o).tanh())
    return torch.stack(steps)


# ---- losses ----


def softmax_loss(scores: Tensor, label: Tensor, axis: int, p: Fields) -> Tensor:
    rows = scores.movedim(axis, -1).flatten(0, -2)
    truth = label.flatten().long()
    items = F.cross_entropy(rows, truth, reduction="none")
    # A probability counts as at least FLT_MIN, of which the gradient knows nothing.
    items = items - F.relu(items - 126 * math.log(2)).detach()
    valid = truth.numel()
    if "ignore_label" in p.written:
        counts = truth != p.ignore_label
        items = torch.where(counts, items, 0.0)
        valid = int(counts.sum())
    batch = math.prod(scores.shape[:axis])
    by = {p.FULL: truth.numel(), p.VALID: valid, p.BATCH_SIZE: batch, p.NONE: 1}[p.normalization]
    return items.sum() / max(by, 1)


def sigmoid_loss(scores: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(scores, target, reduction="sum") / scores.shape[0]


def euclidean_loss(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum() / (2 * a.shape[0])


def hinge_loss(scores: Tensor, label: Tensor, squared: bool) -> Tensor:
    scores = scores.flatten(1)
    sign = 1 - 2 * F.one_hot(label.flatten().long(), scores.shape[1]).to(scores)
    margins = F.relu(1 + sign * scores)
    return (margins.square() if squared else margins).sum() / scores.shape[0]
