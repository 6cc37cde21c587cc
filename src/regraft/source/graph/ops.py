"""The operations of a graph as functions of tensors.

Shape letters: N examples, C channels, H and W pixels, D features. Activations are (N, C, H, W) or (N, D); padding is
(top, bottom, left, right), as "SAME" of TensorFlow pads one more below and on the right than above and on the left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Pads = Sequence[int]


def identity(x: Tensor) -> Tensor:
    """The same values under another name; a node of its own in a traced graph."""
    return torch.ops.aten.alias(x)


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pads,
    padding: Pads,
    dilation: Pads = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Weight (out, in / groups, kernel height, kernel width)."""
    x, rest = _padded(x, padding, 0.0)
    return F.conv2d(x, weight, bias, tuple(stride), rest, tuple(dilation), groups)


def conv_transpose(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: Pads, crop: Pads, groups: int = 1
) -> Tensor:
    """Weight (in, out / groups, kernel height, kernel width); `crop` is taken off the four sides of the result."""
    y = F.conv_transpose2d(x, weight, bias, tuple(stride), groups=groups)
    top, bottom, left, right = crop
    return y[:, :, top : y.shape[2] - bottom, left : y.shape[3] - right]


def _padded(x: Tensor, padding: Pads, value: float) -> tuple[Tensor, tuple[int, int]]:
    """What still has to be padded by the operation itself, where both sides are equal."""
    top, bottom, left, right = padding
    if top == bottom and left == right:
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom), value=value), (0, 0)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, transposed: bool = False) -> Tensor:
    """Weight (out, in), or (in, out) where another layer uses the same weight the other way round."""
    return F.linear(x, weight.t() if transposed else weight, bias)


def batch_norm(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float
) -> Tensor:
    """With stored statistics; a plan may switch it to the batch's."""
    return F.batch_norm(x, mean, variance, weight, bias, False, 0.1, eps)


def add_bias(x: Tensor, bias: Tensor) -> Tensor:
    """One number per channel."""
    return x + _like(bias, x)


def scale(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """One factor per channel, and perhaps one summand."""
    y = x * _like(weight, x)
    return y if bias is None else y + _like(bias, x)


def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """A slope for each channel, or one for all."""
    return F.prelu(x, weight.reshape(-1))


def _like(values: Tensor, x: Tensor) -> Tensor:
    """(C,) laid along the channels of x, which are the second axis; other shapes as they are."""
    if values.dim() == 1 and x.dim() > 2 and values.shape[0] > 1:
        return values.view(-1, *[1] * (x.dim() - 2))
    return values


def _both(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, y: function(_like(x, y), _like(y, x))


def weighted_sum(*inputs: Tensor, factors: Sequence[float]) -> Tensor:
    """A sum with a factor for each summand."""
    total = inputs[0] * factors[0]
    for value, factor in zip(inputs[1:], factors[1:], strict=True):
        total = total + value * factor
    return total


def max_pool(x: Tensor, *, kernel: Pads, stride: Pads, padding: Pads, ceil: bool = False) -> Tensor:
    """With `ceil`, the last window may hang over the edge but starts inside the picture or its upper padding."""
    equal = padding[0] == padding[1] and padding[2] == padding[3]
    if equal and 2 * padding[0] <= kernel[0] and 2 * padding[2] <= kernel[1]:
        return F.max_pool2d(x, tuple(kernel), tuple(stride), (padding[0], padding[2]), ceil_mode=ceil)
    top, bottom, left, right = padding
    x = F.pad(x, (left, right, top, bottom), value=torch.finfo(x.dtype).min)
    return F.max_pool2d(x, tuple(kernel), tuple(stride), ceil_mode=ceil)


def avg_pool(
    x: Tensor, *, kernel: Pads, stride: Pads, padding: Pads, ceil: bool = False, count_padding: bool = False
) -> Tensor:
    """The mean of each window; padding counts as zeros only if `count_padding`."""
    size, step = tuple(kernel), tuple(stride)
    equal = padding[0] == padding[1] and padding[2] == padding[3]
    if equal and 2 * padding[0] <= kernel[0] and 2 * padding[2] <= kernel[1]:
        return F.avg_pool2d(x, size, step, (padding[0], padding[2]), ceil, count_padding)
    top, bottom, left, right = padding
    sums = F.avg_pool2d(F.pad(x, (left, right, top, bottom)), size, step, 0, ceil)
    if count_padding:
        return sums
    inside = F.pad(x.new_ones(1, 1, *x.shape[2:]), (left, right, top, bottom))
    return sums / F.avg_pool2d(inside, size, step, 0, ceil)


def local_response_norm(x: Tensor, *, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """Across channels (Krizhevsky et al., 2012); alpha is divided by `size`."""
    return F.local_response_norm(x, size, alpha, beta, k)


def local_response_norm_within(x: Tensor, *, size: int, alpha: float, beta: float) -> Tensor:
    """Within each channel, over a square window."""
    mean = F.avg_pool2d(x * x, size, 1, size // 2)
    return x * (1 + alpha * mean) ** -beta


def reshape(x: Tensor, *, shape: Sequence[int], channels_last: bool = False) -> Tensor:
    """Each row to `shape`, in the order (H, W, C) where that is the file's."""
    if channels_last and x.dim() == 4:
        x = x.permute(0, 2, 3, 1)
    if len(shape) == 1 and x.dim() > 2:
        return x.flatten(1)  # the same without reading the batch size, so that a classifier behind it is found
    x = x.reshape(x.shape[0], *shape)
    return x.permute(0, 3, 1, 2) if channels_last and len(shape) == 3 else x


def pad(x: Tensor, *, padding: Pads, value: float = 0.0, mode: str = "constant") -> Tensor:
    """Padding as `torch.nn.functional.pad` takes it."""
    return F.pad(x, tuple(padding), mode, value if mode == "constant" else None)


def dropout(x: Tensor, *, p: float) -> Tensor:
    """Off; a plan may switch it on."""
    return F.dropout(x, p, False)


def resize(x: Tensor, *, size: Pads, mode: str, align_corners: bool = False) -> Tensor:
    """To (height, width)."""
    return F.interpolate(x, tuple(size), mode=mode, align_corners=align_corners if mode == "bilinear" else None)


def cut_out(x: Tensor, *, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
    """A slice of one axis."""
    chosen = [slice(None)] * axis + [slice(start, stop, step)]
    return x[tuple(chosen)]


def pixel_shift(x: Tensor, *, size: int) -> Tensor:
    """(N, C * size², H, W) to (N, C, H * size, W * size), channels in TensorFlow's order."""
    n, channels, height, width = x.shape
    x = x.reshape(n, size, size, channels // size**2, height, width)
    return x.permute(0, 3, 4, 1, 5, 2).reshape(n, channels // size**2, height * size, width * size)


OPS: dict[str, Callable[..., Any]] = {
    "identity": identity,
    "conv": conv,
    "conv_transpose": conv_transpose,
    "linear": linear,
    "batch_norm": batch_norm,
    "add_bias": add_bias,
    "scale": scale,
    "prelu": prelu,
    "weighted_sum": weighted_sum,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "local_response_norm": local_response_norm,
    "local_response_norm_within": local_response_norm_within,
    "reshape": reshape,
    "pad": pad,
    "dropout": dropout,
    "resize": resize,
    "slice": cut_out,
    "depth_to_space": pixel_shift,
    "add": _both(torch.add),
    "sub": _both(torch.sub),
    "mul": _both(torch.mul),
    "div": _both(torch.div),
    "maximum": _both(torch.maximum),
    "minimum": _both(torch.minimum),
    "squared_difference": _both(lambda x, y: (x - y).square()),
    "pow": _both(torch.pow),
    "relu": F.relu,
    "relu6": F.relu6,
    "elu": lambda x, *, alpha=1.0: F.elu(x, alpha),
    "selu": F.selu,
    "leaky_relu": lambda x, *, slope: F.leaky_relu(x, slope),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "swish": F.silu,
    "gelu": lambda x, *, approximate="none": F.gelu(x, approximate=approximate),
    "hard_swish": F.hardswish,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "square": torch.square,
    "abs": torch.abs,
    "neg": torch.neg,
    "power": lambda x, *, power, scale, shift: (shift + scale * x) ** power,
    "clamp": lambda x, *, low, high: x.clamp(low, high),
    "softmax": lambda x, *, axis: F.softmax(x, axis),
    "log_softmax": lambda x, *, axis: F.log_softmax(x, axis),
    "l2_normalize": lambda x, *, axes, eps: x * x.square().sum(axes, keepdim=True).clamp(min=eps).rsqrt(),
    "mean": lambda x, *, axes, keep: x.mean(axes, keep),
    "sum": lambda x, *, axes, keep: x.sum(axes, keep),
    "max": lambda x, *, axes, keep: x.amax(axes, keep),
    "concat": lambda *inputs, axis: torch.cat(inputs, axis),
    "permute": lambda x, *, order: x.permute(tuple(order)),
    "squeeze": lambda x, *, axes: x.squeeze(tuple(axes)),
}  # fmt: skip
