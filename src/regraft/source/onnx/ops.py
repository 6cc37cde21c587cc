"""The operators of ONNX as functions of tensors and of sizes.

A value is a tensor, or a NumPy array of Python numbers: shapes, axes, indices and what is computed from them. So a
batch of any size flows through the arithmetic that exporters write around every reshape. Operator semantics:
https://onnx.ai/onnx/operators/ (opset 11 on).

N examples, C channels, H height, W width.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.source.graph.ops import avg_pool, conv, max_pool
from regraft.source.onnx.attention import attention, rms_norm, rotary_embedding

Value = Tensor | np.ndarray
MOST_SIZES = 1 << 16  # numbers in one array of sizes; no shape arithmetic needs more


def sizes(values: Any) -> np.ndarray:
    """An array of Python numbers, which may be symbolic."""
    return np.asarray(values, dtype=object)


def _numbers(values: Any) -> list[Any]:
    """A list of numbers from an attribute or a constant input."""
    if isinstance(values, Tensor):
        raise ValueError("sizes that depend on the input's values")
    return list(values.reshape(-1)) if isinstance(values, np.ndarray) else list(values)


def _operand(value: Value, like: Tensor) -> Any:
    """A number or a tensor that goes with `like`."""
    if isinstance(value, Tensor):
        return value
    if value.size == 1:
        return value.reshape(-1)[0]
    return torch.tensor(value.tolist(), device=like.device)


def _as_tensor(value: Value, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value
    plain = value.reshape(-1).tolist()
    if any(isinstance(v, float) for v in plain):
        dtype = like.dtype
    else:
        dtype = torch.bool if plain and all(isinstance(v, bool) for v in plain) else torch.int64
    return torch.tensor(plain, device=like.device, dtype=dtype).reshape(value.shape)


def _of_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
    """An operator of tensors alone, that takes constants kept as numbers too."""

    def run(*inputs: Value | None, **settings: Any) -> Any:
        like = next((value for value in inputs if isinstance(value, Tensor)), None)
        like = torch.empty(0) if like is None else like
        return function(*[value if value is None else _as_tensor(value, like) for value in inputs], **settings)

    return run


def _each(function: Callable[..., Any]) -> Callable[..., Value]:
    """An operator that works element by element, on tensors and on sizes."""

    def run(*inputs: Value) -> Value:
        like = next((value for value in inputs if isinstance(value, Tensor)), None)
        if like is None:
            if math.prod(np.broadcast_shapes(*(value.shape for value in inputs))) > MOST_SIZES:
                raise ValueError("too many sizes")
            return sizes(function(*inputs))
        return function(*[_operand(value, like) for value in inputs])

    return run


def _divide(x: Any, y: Any) -> Any:
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        whole = isinstance(x, Tensor) and not x.is_floating_point()
        return torch.div(x, y, rounding_mode="trunc") if whole else x / y
    whole = not any(isinstance(value, float) for value in (*np.ravel(x), *np.ravel(y)))
    return np.sign(x) * np.sign(y) * (abs(x) // abs(y)) if whole and np.any(x * y < 0) else x // y if whole else x / y


def modulo(x: Value, y: Value, *, fmod: int = 0) -> Value:
    """The remainder: with the divisor's sign, or with the dividend's where `fmod`."""
    if not fmod and isinstance(x, Tensor) and x.is_floating_point():
        raise ValueError("a remainder of real numbers without fmod")
    return _each(_fmod if fmod else operator.mod)(x, y)


def _fmod(x: Any, y: Any) -> Any:
    return torch.fmod(x, y) if isinstance(x, Tensor) else np.fmod(x.astype(float), np.asarray(y).astype(float))


def _fold(function: Callable[[Any, Any], Any]) -> Callable[..., Value]:
    """An operator of any number of inputs, from one of two."""
    pair = _each(function)

    def run(*inputs: Value) -> Value:
        total = inputs[0]
        for value in inputs[1:]:
            total = pair(total, value)
        return total

    return run


def _larger(x: Any, y: Any) -> Any:
    return _extreme(x, y, torch.maximum, np.maximum, "min")


def _smaller(x: Any, y: Any) -> Any:
    return _extreme(x, y, torch.minimum, np.minimum, "max")


def _extreme(x: Any, y: Any, pair: Callable[..., Any], array: Callable[..., Any], bound: str) -> Any:
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return pair(x, y)
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        tensor, number = (x, y) if isinstance(x, Tensor) else (y, x)
        return tensor.clamp(**{bound: number})
    return array(x, y)


def _real(on_tensor: Callable[[Tensor], Tensor], on_number: Callable[[float], float]) -> Callable[[Value], Value]:
    def run(x: Value) -> Value:
        if isinstance(x, Tensor):
            return on_tensor(x)
        return sizes([on_number(value) for value in x.reshape(-1)]).reshape(x.shape)

    return run


def shape(x: Value, *, start: int = 0, end: int | None = None) -> np.ndarray:
    """The sizes of a tensor's axes, as numbers that may be symbolic."""
    return sizes(list(x.shape)[slice(start, end)])


def gather(data: Value, indices: Value, *, axis: int = 0) -> Value:
    """Slices of one axis, in the shape of the indices."""
    if isinstance(data, np.ndarray):
        return sizes(np.take(data, np.asarray(_numbers(indices), dtype=int).reshape(indices.shape), axis=axis))
    if isinstance(indices, np.ndarray) and indices.ndim == 0:
        return data.select(axis, int(indices))
    axis %= data.dim()
    flat = _as_tensor(indices, data).reshape(-1).to(torch.int64)
    picked = data.index_select(axis, torch.where(flat < 0, flat + data.shape[axis], flat))
    return picked.reshape(*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])


def cut_out(x: Value, starts: Value, ends: Value, axes: Value | None = None, steps: Value | None = None) -> Value:
    """Slices of several axes."""
    first, last = _numbers(starts), _numbers(ends)
    along = range(len(first)) if axes is None else [int(axis) for axis in _numbers(axes)]
    by = [1] * len(first) if steps is None else _numbers(steps)
    chosen = [slice(None)] * len(x.shape)
    for axis, start, stop, step in zip(along, first, last, by, strict=True):
        chosen[axis] = _slice(start, stop, step, x.shape[axis])
    if isinstance(x, Tensor) and any(part.step is not None and part.step < 0 for part in chosen):
        raise ValueError("slices that run backwards")
    return x[tuple(chosen)]


def _slice(start: Any, stop: Any, step: Any, length: Any) -> slice:
    far = 1 << 31  # exporters write the largest or the smallest integer for "to the end"
    ends_open = isinstance(stop, int) and (stop > far if step > 0 else stop < -far)
    return slice(start, None if ends_open or stop is length else stop, int(step))


def reshape(x: Value, shape: Value, *, allowzero: int = 0, single: int = 0) -> Value:
    """To other sizes; 0 keeps an axis, -1 is what remains; `single` says that a leading 1 means all examples."""
    wanted = _numbers(shape)
    if single and isinstance(x, Tensor) and len(wanted) > 1 and _is_one(wanted[0]):
        # Heads of attention that were folded into the first axis come apart again by what remains.
        wanted[0] = x.shape[0] if any(isinstance(size, int) and size <= 0 for size in wanted) else -1
    if not allowzero:
        wanted = [x.shape[i] if isinstance(size, int) and size == 0 else size for i, size in enumerate(wanted)]
    return x.reshape(tuple(wanted))


def expand(x: Value, shape: Value) -> Value:
    """Repeat axes of length one, as in a sum with a tensor of that shape."""
    wanted = _numbers(shape)
    if isinstance(x, np.ndarray):
        return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(wanted)))
    own = [1] * (len(wanted) - x.dim()) + list(x.shape)
    wanted = [1] * (len(own) - len(wanted)) + wanted
    if any(
        isinstance(axis, int) and axis != 1 and size not in (1, axis) for axis, size in zip(own, wanted, strict=True)
    ):
        raise ValueError(f"{own} is not repeated to {wanted}")
    return x.expand([size if axis == 1 else axis for axis, size in zip(own, wanted, strict=True)])


def tile(x: Value, repeats: Value) -> Value:
    """Each axis several times in a row."""
    times = tuple(_numbers(repeats))
    if isinstance(x, np.ndarray) and math.prod((*times, x.size)) > MOST_SIZES:
        raise ValueError("too many sizes")
    return np.tile(x, times) if isinstance(x, np.ndarray) else x.repeat(*times)


def constant_of_shape(shape: Value, *, value: float = 0.0) -> Value:
    """One number everywhere."""
    wanted = _numbers(shape)
    if all(isinstance(size, int) for size in wanted) and math.prod(wanted) <= MOST_SIZES and isinstance(value, int):
        return sizes(np.full(wanted, value, dtype=object))
    return torch.full(tuple(wanted), value, dtype=torch.float32 if isinstance(value, float) else torch.int64)


def number_range(start: Value, limit: Value, delta: Value) -> Value:
    """Numbers from `start` on, below `limit`."""
    first, last, step = (_numbers(value)[0] for value in (start, limit, delta))
    if (last - first) / step > MOST_SIZES:
        raise ValueError("too many sizes")
    return sizes(np.arange(first, last, step).tolist())


def concat(*inputs: Value, axis: int, single: int = 0) -> Value:
    """One after the other along an axis; `single` says that a leading 1 means all examples, as of a class token."""
    like = next((value for value in inputs if isinstance(value, Tensor)), None)
    if like is None:
        return np.concatenate(inputs, axis=axis)
    parts = [_as_tensor(value, like) for value in inputs]
    return torch.cat(_for_each_example(parts) if single and axis % like.dim() else parts, axis)


def _for_each_example(parts: list[Tensor]) -> list[Tensor]:
    """What stands there once, repeated as often as there are examples in the others."""
    many = next((part.shape[0] for part in parts if not _is_one(part.shape[0])), 1)
    return [part.expand(many, *part.shape[1:]) if _is_one(part.shape[0]) else part for part in parts]


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


def unsqueeze(x: Value, where: Value | None = None, *, axes: Sequence[int] = ()) -> Value:
    """New axes of length one."""
    wanted = [int(axis) for axis in (_numbers(where) if where is not None else axes)]
    total = len(x.shape) + len(wanted)
    for axis in sorted(axis % total for axis in wanted):
        x = np.expand_dims(x, axis) if isinstance(x, np.ndarray) else x.unsqueeze(axis)
    return x


def squeeze(x: Value, where: Value | None = None, *, axes: Sequence[int] = ()) -> Value:
    """Without axes of length one."""
    wanted = tuple(int(axis) for axis in (_numbers(where) if where is not None else axes))
    if not wanted:
        wanted = tuple(i for i, size in enumerate(x.shape) if isinstance(size, int) and size == 1)
    return sizes(np.squeeze(x, wanted)) if isinstance(x, np.ndarray) else x.squeeze(wanted)


def cast(x: Value, *, to: str, saturate: int = 1, round_mode: str = "up") -> Value:
    """To "float", "int" or "bool"; here every real number is of single precision."""
    if isinstance(x, Tensor):
        return x.to({"float": torch.float32, "int": torch.int64, "bool": torch.bool}[to])
    function = {"float": float, "int": int, "bool": bool}[to]
    plain = [v if isinstance(v, torch.SymInt) else function(v) for v in x.reshape(-1)]
    return sizes(plain).reshape(x.shape)


def where(condition: Value, x: Value, y: Value) -> Value:
    """From x where the condition holds, else from y."""
    like = next((value for value in (x, y, condition) if isinstance(value, Tensor)), None)
    if like is None:
        return sizes(np.where(condition.astype(bool), x, y))  # type: ignore[union-attr]
    asked = _as_tensor(condition, like).bool()
    return torch.where(asked, _operand(x, like), _operand(y, like))


def transpose(x: Value, *, perm: Sequence[int] | None = None) -> Value:
    """The axes in another order, by default the reverse one."""
    order = tuple(perm) if perm else tuple(reversed(range(len(x.shape))))
    return x.transpose(order) if isinstance(x, np.ndarray) else x.permute(order)


def split(x: Value, parts: Value | None = None, *, axis: int = 0, split: Sequence[int] = (), num_outputs: int = 0,
          outputs: int) -> tuple[Value, ...]:  # fmt: skip
    """Pieces along an axis."""
    lengths = [int(n) for n in (_numbers(parts) if parts is not None else split)]
    if not lengths:
        whole = -(-x.shape[axis] // outputs)
        lengths = [whole] * (outputs - 1) + [x.shape[axis] - whole * (outputs - 1)]
    if isinstance(x, np.ndarray):
        return tuple(np.split(x, np.cumsum(lengths)[:-1].tolist(), axis))
    return torch.split(x, lengths, axis)


def _padding(x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], auto_pad: str,
             pads: Sequence[int]) -> tuple[int, int, int, int]:  # fmt: skip
    """(top, bottom, left, right)."""
    if x.dim() != 4 or len(kernel) != 2:
        raise ValueError("convolution and pooling of anything but (N, C, H, W)")
    if auto_pad in ("NOTSET", "VALID", ""):
        top, left, bottom, right = pads or (0, 0, 0, 0)
        return top, bottom, left, right
    found: list[int] = []
    for length, size, step, spread in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max(0, (-(-length // step) - 1) * step + (size - 1) * spread + 1 - length)
        less, more = total // 2, total - total // 2
        found += [less, more] if auto_pad == "SAME_UPPER" else [more, less]
    return found[0], found[1], found[2], found[3]


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, auto_pad: str = "NOTSET",
                dilations: Sequence[int] = (1, 1), group: int = 1, kernel_shape: Sequence[int] = (),
                pads: Sequence[int] = (), strides: Sequence[int] = (1, 1)) -> Tensor:  # fmt: skip
    """Weight (out, in / group, kernel height, kernel width)."""
    padding = _padding(x, weight.shape[2:], strides, dilations, auto_pad, pads)
    return conv(x, weight, bias, stride=strides, padding=padding, dilation=dilations, groups=group)


def transposed_convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, auto_pad: str = "NOTSET",
                           dilations: Sequence[int] = (1, 1), group: int = 1, kernel_shape: Sequence[int] = (),
                           output_padding: Sequence[int] = (0, 0), pads: Sequence[int] = (0, 0, 0, 0),
                           strides: Sequence[int] = (1, 1)) -> Tensor:  # fmt: skip
    """Weight (in, out / group, kernel height, kernel width)."""
    top, left, bottom, right = pads
    if auto_pad != "NOTSET" or top != bottom or left != right:
        raise ValueError("a transposed convolution with uneven padding")
    return F.conv_transpose2d(
        x, weight, bias, tuple(strides), (top, left), tuple(output_padding), group, tuple(dilations)
    )


def pool_max(x: Tensor, *, kernel_shape: Sequence[int], auto_pad: str = "NOTSET", ceil_mode: int = 0,
             dilations: Sequence[int] = (1, 1), pads: Sequence[int] = (), storage_order: int = 0,
             strides: Sequence[int] = (1, 1)) -> Tensor:  # fmt: skip
    """The largest of each window."""
    if tuple(dilations) != (1, 1):
        raise ValueError("dilated pooling")
    padding = _padding(x, kernel_shape, strides, dilations, auto_pad, pads)
    return max_pool(x, kernel=kernel_shape, stride=strides, padding=padding, ceil=bool(ceil_mode))


def pool_mean(x: Tensor, *, kernel_shape: Sequence[int], auto_pad: str = "NOTSET", ceil_mode: int = 0,
              count_include_pad: int = 0, dilations: Sequence[int] = (1, 1), pads: Sequence[int] = (),
              strides: Sequence[int] = (1, 1)) -> Tensor:  # fmt: skip
    """The mean of each window."""
    if tuple(dilations) != (1, 1):
        raise ValueError("dilated pooling")
    padding = _padding(x, kernel_shape, strides, dilations, auto_pad, pads)
    if ceil_mode and any(padding):
        raise ValueError("average pooling with padding and ceil_mode, which frameworks count differently")
    return avg_pool(
        x, kernel=kernel_shape, stride=strides, padding=padding, ceil=bool(ceil_mode),
        count_padding=bool(count_include_pad),
    )  # fmt: skip


def _spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, epsilon: float = 1e-5,
               momentum: float = 0.9, training_mode: int = 0) -> Tensor:  # fmt: skip
    """With stored statistics; a plan may switch it to the batch's."""
    if training_mode:
        raise ValueError("batch norm in training mode; export the network after model.eval()")
    return F.batch_norm(x, mean, variance, weight, bias, False, 0.1, epsilon)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5,
               stash_type: int = 1) -> Tensor:  # fmt: skip
    """Over all axes from `axis` on."""
    return F.layer_norm(x, tuple(x.shape[axis:]), weight, bias, epsilon)


def gemm(a: Tensor, b: Tensor, c: Value | None = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0,
         transB: int = 0) -> Tensor:  # fmt: skip
    """alpha A B + beta C."""
    a, weight = (a.t() if transA else a), (b if transB else b.t())
    if alpha == beta == 1.0 and isinstance(c, Tensor) and c.dim() == 1:
        return F.linear(a, weight, c)
    product = alpha * F.linear(a, weight) if alpha != 1.0 else F.linear(a, weight)
    return product if c is None else product + beta * _operand(c, a)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Matrix products; one with a single matrix is a linear layer, and shows as such in a traced graph."""
    return F.linear(a, b.t()) if b.dim() == 2 and a.dim() > 1 else torch.matmul(a, b)


def flatten(x: Value, *, axis: int = 1) -> Value:
    """To two axes."""
    if isinstance(x, np.ndarray):
        return x.reshape(math.prod(x.shape[:axis]), -1)
    return x.flatten(1) if axis == 1 else x.reshape(math.prod(x.shape[:axis]), -1)


def softmax_flat(x: Tensor, *, axis: int = 1) -> Tensor:
    """Before opset 13: over all axes from `axis` on, together."""
    return F.softmax(x.flatten(axis), -1).reshape(x.shape)


def _reduce(on_tensor: Callable[..., Tensor], on_sizes: Callable[..., Any] | None = None) -> Callable[..., Value]:
    def run(x: Value, where: Value | None = None, *, axes: Sequence[int] = (), keepdims: int = 1,
            noop_with_empty_axes: int = 0) -> Value:  # fmt: skip
        wanted = tuple(int(axis) for axis in (_numbers(where) if where is not None else axes))
        if not wanted and noop_with_empty_axes:
            return x
        if isinstance(x, np.ndarray) and on_sizes is not None:
            return sizes(on_sizes(x, axis=wanted or None, keepdims=bool(keepdims)))
        x = _as_tensor(x, torch.empty(0))
        return on_tensor(x, wanted or tuple(range(x.dim())), bool(keepdims))

    return run


def _product(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def pad(x: Value, pads: Value, value: Value | None = None, axes: Value | None = None, *,
        mode: str = "constant") -> Tensor:  # fmt: skip
    """On both sides of each axis."""
    x = _as_tensor(x, torch.empty(0))
    given = [int(n) for n in _numbers(pads)]
    along = [int(axis) % x.dim() for axis in _numbers(axes)] if axes is not None else list(range(x.dim()))
    half = len(given) // 2
    sides = {axis: (given[i], given[half + i]) for i, axis in enumerate(along)}
    flat = [n for axis in reversed(range(x.dim())) for n in sides.get(axis, (0, 0))]
    kind = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}[mode]
    if kind != "constant":
        return F.pad(x, flat[:4] if x.dim() == 4 and not any(flat[4:]) else flat, kind)
    return F.pad(x, flat, value=0.0 if value is None else float(_operand(value, x)))


def clip(x: Value, low: Value | None = None, high: Value | None = None) -> Value:
    """Within bounds."""
    if isinstance(x, Tensor) and all(isinstance(bound, np.ndarray) for bound in (low, high)):
        return x.clamp(_operand(low, x), _operand(high, x))  # type: ignore[arg-type]
    for bound, pair in ((low, _larger), (high, _smaller)):
        x = x if bound is None else _each(pair)(x, bound)
    return x


def resize(x: Tensor, roi: Value | None = None, scales: Value | None = None, lengths: Value | None = None, *,
           mode: str = "nearest", coordinate_transformation_mode: str = "half_pixel",
           nearest_mode: str = "round_prefer_floor",
           cubic_coeff_a: float = -0.75, exclude_outside: int = 0, extrapolation_value: float = 0.0, antialias: int = 0,
           keep_aspect_ratio_policy: str = "stretch") -> Tensor:  # fmt: skip
    """To other heights and widths, where PyTorch has the same rule."""
    kind = (mode, coordinate_transformation_mode, nearest_mode if mode == "nearest" else "")
    plain = cubic_coeff_a == -0.75 and not exclude_outside and not antialias and keep_aspect_ratio_policy == "stretch"
    if kind not in _RESIZES or not plain or x.dim() != 4:
        raise ValueError(f"resizing by {kind}")
    how, aligned = _RESIZES[kind]
    if lengths is not None and np.size(lengths):
        size = [int(n) for n in _numbers(lengths)[2:]]
        _check_ties(kind, [new / old for new, old in zip(size, x.shape[2:], strict=True)])
        if "pytorch" in coordinate_transformation_mode and 1 in size:
            raise ValueError(f"resizing by {kind} to a single row")
        return F.interpolate(x, size, mode=how, align_corners=aligned)
    factors = [float(factor) for factor in _numbers(scales)[2:]]
    _check_ties(kind, factors)
    if aligned and any(length * factor % 1 for length, factor in zip(x.shape[2:], factors, strict=True)):
        raise ValueError(f"resizing by {kind} to a fraction of a pixel")
    return F.interpolate(x, scale_factor=factors, mode=how, align_corners=aligned)


def _check_ties(kind: tuple[str, str, str], factors: Sequence[float]) -> None:
    """Halfway between two pixels, PyTorch takes the upper one; enlarging by whole numbers never ends there."""
    if kind[2] == "round_prefer_floor" and any(factor != int(factor) for factor in factors):
        raise ValueError(f"resizing by {kind} and {factors}")


# Inputs of these operators after the first say how, and are no weights.
STEERED = ("Clip", "Dropout", "Pad", "Resize")
# These know tensors alone; a constant among their inputs may be kept as numbers.
_OF_TENSORS = (
    "Asin", "Atan", "Attention", "Celu", "Conv", "ConvTranspose", "Cos", "Einsum", "Elu", "Erf",
    "GatherElements", "GatherND", "Gelu", "GlobalAveragePool", "GlobalMaxPool", "GridSample", "GroupNormalization",
    "HardSigmoid", "HardSwish", "InstanceNormalization", "BatchNormalization", "IsNaN", "LRN", "LayerNormalization",
    "LeakyRelu", "LogSoftmax", "LogSoftmaxFlat", "LpNormalization", "MatMul", "Mean", "Mish", "PRelu",
    "RMSNormalization", "Relu", "RotaryEmbedding", "ScatterND", "Selu", "Sigmoid", "Sin", "Softmax", "SoftmaxFlat",
    "Softplus", "Softsign", "SwiGLU", "Swish", "Tan", "Tanh",
)  # fmt: skip
_RESIZES: dict[tuple[str, str, str], tuple[str, bool | None]] = {
    ("nearest", "asymmetric", "floor"): ("nearest", None),
    ("nearest", "half_pixel", "round_prefer_floor"): ("nearest-exact", None),
    ("nearest", "half_pixel", "round_prefer_ceil"): ("nearest-exact", None),
    **{("linear", how, ""): ("bilinear", False) for how in ("half_pixel", "pytorch_half_pixel")},
    **{("cubic", how, ""): ("bicubic", False) for how in ("half_pixel", "pytorch_half_pixel")},
    ("linear", "align_corners", ""): ("bilinear", True),
    ("cubic", "align_corners", ""): ("bicubic", True),
}


def gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """One value for each index, from the same place on the other axes."""
    return x.gather(axis, torch.where(indices < 0, indices + x.shape[axis], indices))


def gather_points(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """What stands at places that the last axis of `indices` names."""
    if batch_dims:
        raise ValueError("places of each example")
    return x[tuple(indices.unbind(-1))]


def scatter_points(x: Tensor, indices: Tensor, values: Tensor, *, reduction: str = "none") -> Tensor:
    """New values at places that the last axis of `indices` names."""
    if reduction not in ("none", "add"):
        raise ValueError(f"the reduction {reduction!r}")
    return x.index_put(tuple(indices.unbind(-1)), values, reduction == "add")


def grid_sample(x: Tensor, grid: Tensor, *, mode: str = "linear", padding_mode: str = "zeros",
                align_corners: int = 0) -> Tensor:  # fmt: skip
    """The pixels at real places."""
    how = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    if how == "bicubic" or x.dim() != 4:
        raise ValueError(f"sampling by {mode} of {x.dim()} axes")
    return F.grid_sample(x, grid, how, padding_mode, bool(align_corners))


def triangle(x: Value, k: Value | None = None, *, upper: int = 1) -> Tensor:
    """What lies on and above a diagonal, or on and below it."""
    x, diagonal = _as_tensor(x, torch.empty(0)), 0 if k is None else int(_numbers(k)[0])
    return x.triu(diagonal) if upper else x.tril(diagonal)


def _sign(x: Any) -> Any:
    return torch.sign(x) if isinstance(x, Tensor) else (x > 0).astype(int) - (x < 0).astype(int)


def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """(N, C * size², H, W) to (N, C, H * size, W * size)."""
    if mode == "CRD":
        return F.pixel_shuffle(x, blocksize)
    n, channels, height, width = x.shape
    x = x.reshape(n, blocksize, blocksize, channels // blocksize**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, channels // blocksize**2, height * blocksize, width * blocksize)


def space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """The inverse of `depth_to_space`."""
    if mode == "CRD":
        return F.pixel_unshuffle(x, blocksize)
    n, channels, height, width = x.shape
    x = x.reshape(n, channels, height // blocksize, blocksize, width // blocksize, blocksize).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, channels * blocksize**2, height // blocksize, width // blocksize)


def dropout(x: Value, ratio: Value | None = None, training: Value | None = None, *, seed: int = 0) -> Value:
    """Off; a plan may switch it on."""
    p = 0.5 if ratio is None else float(_numbers(ratio)[0])
    return F.dropout(x, p, False) if isinstance(x, Tensor) else x


def prelu(x: Tensor, slope: Value) -> Tensor:
    """A slope for negative values."""
    return torch.where(x < 0, x * _operand(slope, x), x)


def group_norm(x: Tensor, weight: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5,
               stash_type: int = 1) -> Tensor:  # fmt: skip
    """Weight and bias by channel (opset 21) or by group (opset 18)."""
    times = x.shape[1] // weight.shape[0]
    return F.group_norm(x, num_groups, weight.repeat_interleave(times), bias.repeat_interleave(times), epsilon)


OPS: dict[str, Callable[..., Any]] = {
    "Abs": _each(abs),
    "Add": _each(operator.add),
    "And": _each(lambda x, y: x & y),
    "Asin": torch.asin,
    "Atan": torch.atan,
    "Attention": attention,
    "AveragePool": pool_mean,
    "BatchNormalization": batch_norm,
    "Cast": cast,
    "Ceil": _real(torch.ceil, math.ceil),
    "Celu": lambda x, *, alpha=1.0: F.celu(x, alpha),
    "Clip": clip,
    "Concat": concat,
    "ConstantOfShape": constant_of_shape,
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "Cos": torch.cos,
    "DepthToSpace": depth_to_space,
    "Div": _each(_divide),
    "Dropout": dropout,
    "Einsum": lambda *inputs, equation: torch.einsum(equation, *inputs),
    "Elu": lambda x, *, alpha=1.0: F.elu(x, alpha),
    "Equal": _each(operator.eq),
    "Erf": torch.erf,
    "Exp": _real(torch.exp, math.exp),
    "Expand": expand,
    "Flatten": flatten,
    "Floor": _real(torch.floor, math.floor),
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_points,
    "Gelu": lambda x, *, approximate="none": F.gelu(x, approximate=approximate),
    "Gemm": gemm,
    "GlobalAveragePool": lambda x: x.mean(_spatial(x), keepdim=True),
    "GlobalMaxPool": lambda x: x.amax(_spatial(x), keepdim=True),
    "Greater": _each(operator.gt),
    "GreaterOrEqual": _each(operator.ge),
    "GroupNormalization": group_norm,
    "GridSample": grid_sample,
    "HardSigmoid": lambda x, *, alpha=0.2, beta=0.5: (alpha * x + beta).clamp(0, 1),
    "HardSwish": F.hardswish,
    "Identity": lambda x: torch.ops.aten.alias(x) if isinstance(x, Tensor) else x,
    "InstanceNormalization": lambda x, weight, bias, *, epsilon=1e-5: F.instance_norm(
        x, None, None, weight, bias, True, 0.0, epsilon
    ),
    "IsNaN": torch.isnan,
    "LRN": lambda x, *, size, alpha=1e-4, beta=0.75, bias=1.0: F.local_response_norm(x, size, alpha, beta, bias),
    "LayerNormalization": layer_norm,
    "LeakyRelu": lambda x, *, alpha=0.01: F.leaky_relu(x, alpha),
    "Less": _each(operator.lt),
    "LessOrEqual": _each(operator.le),
    "Log": _real(torch.log, math.log),
    "LogSoftmaxFlat": lambda x, *, axis=1: F.log_softmax(x.flatten(axis), -1).reshape(x.shape),
    "LogSoftmax": lambda x, *, axis=-1: F.log_softmax(x, axis),
    "LpNormalization": lambda x, *, axis=-1, p=2: F.normalize(x, p, axis),
    "MatMul": matmul,
    "Max": _fold(_larger),
    "MaxPool": pool_max,
    "Mean": lambda *inputs: sum(inputs) / len(inputs),
    "Min": _fold(_smaller),
    "Mish": F.mish,
    "Mod": modulo,
    "Mul": _each(operator.mul),
    "Neg": _each(operator.neg),
    "Not": _real(torch.logical_not, operator.not_),
    "Or": _each(lambda x, y: x | y),
    "PRelu": prelu,
    "Pad": pad,
    "Pow": _each(operator.pow),
    "RMSNormalization": rms_norm,
    "Range": number_range,
    "Reciprocal": _real(torch.reciprocal, lambda x: 1 / x),
    "ReduceL1": _reduce(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "ReduceL2": _reduce(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
    "ReduceLogSumExp": _reduce(lambda x, axes, keep: x.logsumexp(axes, keep)),
    "ReduceLogSum": _reduce(lambda x, axes, keep: x.sum(axes, keep).log()),
    "ReduceMax": _reduce(lambda x, axes, keep: x.amax(axes, keep), np.max),
    "ReduceMean": _reduce(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceMin": _reduce(lambda x, axes, keep: x.amin(axes, keep), np.min),
    "ReduceProd": _reduce(_product, np.prod),
    "ReduceSum": _reduce(lambda x, axes, keep: x.sum(axes, keep), np.sum),
    "ReduceSumSquare": _reduce(lambda x, axes, keep: x.square().sum(axes, keep)),
    "Relu": F.relu,
    "Reshape": reshape,
    "Resize": resize,
    "RotaryEmbedding": rotary_embedding,
    "Round": _real(torch.round, round),
    "ScatterND": scatter_points,
    "Selu": lambda x, *, alpha=1.6732632, gamma=1.0507010: gamma * F.elu(x, alpha),
    "Shape": shape,
    "Sigmoid": torch.sigmoid,
    "Sign": _each(_sign),
    "Sin": torch.sin,
    "Slice": cut_out,
    "Size": lambda x: sizes(math.prod(x.shape)),
    "Softmax": lambda x, *, axis=-1: F.softmax(x, axis),
    "SoftmaxFlat": softmax_flat,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Sqrt": _real(torch.sqrt, math.sqrt),
    "Squeeze": squeeze,
    "Sub": _each(operator.sub),
    "Sum": _fold(operator.add),
    "SwiGLU": lambda gate, x, *, alpha=1.0: gate * torch.sigmoid(alpha * gate) * x,
    "Swish": lambda x, *, alpha=1.0: x * torch.sigmoid(alpha * x),
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "Tile": tile,
    "Transpose": transpose,
    "Trilu": triangle,
    "Unsqueeze": unsqueeze,
    "Where": where,
}
OPS |= {name: _of_tensors(OPS[name]) for name in _OF_TENSORS}
