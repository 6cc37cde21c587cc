"""Layers of Keras as nodes of a graph.

Shape letters: N examples, C channels, H and W pixels, D features, K kernel side, M multiplier. Keras orders pictures
(N, H, W, C) and kernels (K, K, in, out); here they are (N, C, H, W) and (out, in, K, K), and `Flatten` keeps
Keras's order of features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft.errors import SourceError
from regraft.source.graph.builder import Builder, Value


@dataclass(frozen=True)
class Layer:
    """One layer of a file.

    Args:
        name: with the names of the models that it lies in, "encoder/conv1".
        kind: its class in Keras.
        config: its settings.
        weights: its values, in Keras's order.
        version: of Keras that wrote the file, 2 or 3.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    weights: Sequence[np.ndarray]
    version: int = 3


Rule = Callable[[Builder, Layer, list[Value]], Value]


def add_layer(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
    """One more layer.

    Raises:
        SourceError: a kind that is not read, or settings or weights that do not go together.
    """
    config = layer.config
    if config.get("data_format") == "channels_first":
        raise _refuse(layer, "channels first, expected channels last")
    try:
        return RULES[layer.kind](builder, layer, inputs)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ZeroDivisionError, OverflowError) as error:
        raise _refuse(layer, f"settings or weights that do not go together ({error!r})") from error


def _refuse(layer: Layer, what: str) -> SourceError:
    return SourceError(
        f"layer {layer.name!r} ({layer.kind}) has {what}. Copy the file again, or convert the network and pass that: "
        "tf2onnx, then load_source('net.onnx', input=...)"
    )


def _axis(layer: Layer, value: Value, default: int = -1) -> int:
    """An axis of Keras's as ours: pictures have their channels second here."""
    given = layer.config.get("axis", default)
    axis = np.asarray(given).reshape(-1).item() % len(value.shape)
    return (0, 2, 3, 1)[axis] if value.spatial else axis


def _pair(value: Any) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else value
    return int(first), int(second)


def _padding(layer: Layer, value: Value, kernel: tuple[int, int], stride: tuple[int, int]) -> list[int]:
    """(top, bottom, left, right): "same" pads one more below and on the right than above and on the left."""
    if layer.config["padding"] == "valid":
        return [0, 0, 0, 0]
    if layer.config["padding"] != "same":
        raise ValueError(f"padding {layer.config['padding']!r}")
    sides: list[int] = []
    spread = _pair(layer.config.get("dilation_rate", 1))
    for length, size, step, gap in zip(value.shape[2:], kernel, stride, spread, strict=True):
        total = max(0, (-(-length // step) - 1) * step + (size - 1) * gap + 1 - length)
        sides += [total // 2, total - total // 2]
    return sides


def _activated(builder: Builder, layer: Layer, before: Callable[[str], Value]) -> Value:
    """A layer with an activation of its own: two nodes, the second of the layer's name."""
    kind = layer.config.get("activation")
    if kind in (None, "linear"):
        return before(layer.name)
    return _activate(builder, layer, before(f"{layer.name}/linear"), kind)


def _activate(builder: Builder, layer: Layer, value: Value, kind: Any) -> Value:
    if isinstance(kind, Mapping):
        kind = kind.get("config")
    kind = {"silu": "swish", "hard_silu": "hard_swish", "exponential": "exp"}.get(kind, kind)
    if kind in ("softmax", "log_softmax"):
        return builder.add(layer.name, kind, [value], axis=1 if value.spatial else len(value.shape) - 1)
    if kind == "leaky_relu":
        return builder.add(layer.name, kind, [value], slope=0.2)
    if kind == "hard_sigmoid":
        factor = 1 / 6 if layer.version == 3 else 0.2
        line = builder.add(f"{layer.name}/line", "power", [value], power=1.0, scale=factor, shift=0.5)
        return builder.add(layer.name, "clamp", [line], low=0.0, high=1.0)
    if kind == "linear":
        return builder.add(layer.name, "identity", [value])
    if kind not in _PLAIN:
        raise _refuse(layer, f"the activation {kind!r}, which is not read")
    return builder.add(layer.name, kind, [value])


_PLAIN = (
    "relu",
    "relu6",
    "sigmoid",
    "tanh",
    "elu",
    "selu",
    "softplus",
    "softsign",
    "swish",
    "gelu",
    "hard_swish",
    "exp",
)


def _bias(builder: Builder, layer: Layer, at: int) -> list[Value]:
    if not layer.config.get("use_bias", True):
        return []
    return [builder.tensor(f"{layer.name}/bias", layer.weights[at], "zeros")]


def _kernel(builder: Builder, layer: Layer, name: str, values: np.ndarray, order: tuple[int, ...]) -> Value:
    return builder.tensor(f"{layer.name}/{name}", values.transpose(order), "weight")


def dense(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
    """(…, D) to (…, out); on pictures, at every pixel."""
    x = inputs[0]
    if x.spatial:
        weight = builder.tensor(f"{layer.name}/kernel", layer.weights[0].T[:, :, None, None], "weight")
        stay: dict[str, Any] = {"stride": [1, 1], "padding": [0, 0, 0, 0]}
        return _activated(
            builder, layer, lambda n: builder.add(n, "conv", [x, weight, *_bias(builder, layer, 1)], **stay)
        )
    weight = _kernel(builder, layer, "kernel", layer.weights[0], (1, 0))
    return _activated(builder, layer, lambda n: builder.add(n, "linear", [x, weight, *_bias(builder, layer, 1)]))


def _convolved(builder: Builder, layer: Layer, x: Value, weight: Value, rest: list[Value], groups: int) -> Callable:
    stride = _pair(layer.config["strides"])
    settings = {
        "stride": list(stride),
        "padding": _padding(layer, x, (weight.shape[2], weight.shape[3]), stride),
        "dilation": list(_pair(layer.config.get("dilation_rate", 1))),
        "groups": groups,
    }
    return lambda name: builder.add(name, "conv", [x, weight, *rest], **settings)


def conv(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
    """Kernel (K, K, in / groups, out)."""
    weight = _kernel(builder, layer, "kernel", layer.weights[0], (3, 2, 0, 1))
    groups = int(layer.config.get("groups", 1))
    return _activated(builder, layer, _convolved(builder, layer, inputs[0], weight, _bias(builder, layer, 1), groups))


def _depthwise_weight(builder: Builder, layer: Layer, name: str) -> Value:
    """Kernel (K, K, C, M) to (C * M, 1, K, K)."""
    kernel = layer.weights[0].transpose(2, 3, 0, 1)
    return builder.tensor(f"{layer.name}/{name}", kernel.reshape(-1, 1, *kernel.shape[2:]), "weight")


def depthwise(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
    """Each channel by itself."""
    weight = _depthwise_weight(builder, layer, "kernel")
    rest, channels = _bias(builder, layer, 1), layer.weights[0].shape[2]
    return _activated(builder, layer, _convolved(builder, layer, inputs[0], weight, rest, channels))


def separable(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
    """Each channel by itself, then across channels."""
    weight = _depthwise_weight(builder, layer, "depthwise_kernel")
    along = _convolved(builder, layer, inputs[0], weight, [], layer.weights[0].shape[2])(f"{layer.name}/depthwise")
    across = _kernel(builder, layer, "pointwise_kernel", layer.weights[1], (3, 2, 0, 1))
    rest = _bias(builder, layer, 2)
    stay: dict[str, Any] = {"stride": [1, 1], "padding": [0, 0, 0, 0]}
    return _activated(builder, layer, lambda name: builder.add(name, "conv", [along, across, *rest], **stay))


def batch_norm(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
    """gamma and beta if there are any, then mean and variance."""
    x, config, weights = inputs[0], layer.config, list(layer.weights)
    if _axis(layer, x) != 1:
        raise ValueError(f"axis {config.get('axis')}")
    gamma = weights.pop(0) if config.get("scale", True) else np.ones_like(weights[-1])
    beta = weights.pop(0) if config.get("center", True) else np.zeros_like(weights[-1])
    values = [
        x,
        builder.tensor(f"{layer.name}/moving_mean", weights[0], "mean"),
        builder.tensor(f"{layer.name}/moving_variance", weights[1], "variance"),
        builder.tensor(f"{layer.name}/gamma", gamma, "ones"),
        builder.tensor(f"{layer.name}/beta", beta, "zeros"),
    ]
    return builder.add(layer.name, "batch_norm", values, eps=float(config.get("epsilon", 1e-3)))


def _pooling(op: str) -> Rule:
    def rule(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
        kernel = _pair(layer.config["pool_size"])
        stride = _pair(layer.config.get("strides") or kernel)
        padding = _padding(layer, inputs[0], kernel, stride)
        return builder.add(layer.name, op, inputs, kernel=list(kernel), stride=list(stride), padding=padding)

    return rule


def _global(op: str) -> Rule:
    def rule(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
        keep = bool(layer.config.get("keepdims", False))
        return builder.add(layer.name, op, inputs, axes=[2, 3], keep=keep)

    return rule


def flatten(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
    """Features in Keras's order, (H, W, C)."""
    total = int(np.prod(inputs[0].shape[1:]))
    return builder.add(layer.name, "reshape", inputs, shape=[total], channels_last=True)


def reshape(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
    """To other sizes, in Keras's order."""
    shape, total = [int(size) for size in layer.config["target_shape"]], int(np.prod(inputs[0].shape[1:]))
    known = int(np.prod([size for size in shape if size != -1]))
    shape = [total // known if size == -1 else size for size in shape]
    return builder.add(layer.name, "reshape", inputs, shape=shape, channels_last=True)


def _pairwise(op: str) -> Rule:
    def rule(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
        total = inputs[0]
        for i, value in enumerate(inputs[1:], start=2):
            name = layer.name if i == len(inputs) else f"{layer.name}/{i}"
            total = builder.add(name, op, [total, value])
        return total

    return rule


def average(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
    """The mean of all inputs."""
    return builder.add(layer.name, "weighted_sum", inputs, factors=[1 / len(inputs)] * len(inputs))


def concatenate(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
    """One after the other."""
    return builder.add(layer.name, "concat", inputs, axis=_axis(layer, inputs[0]))


def zero_padding(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
    """Zeros on all four sides."""
    (top, bottom), (left, right) = _sides(layer.config["padding"])
    return builder.add(layer.name, "pad", inputs, padding=[left, right, top, bottom])


def cropping(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
    """Without some rows and columns at the edges."""
    (top, bottom), (left, right) = _sides(layer.config["cropping"])
    height, width = inputs[0].shape[2:]
    rows = builder.add(f"{layer.name}/rows", "slice", inputs, axis=2, start=top, stop=height - bottom)
    return builder.add(layer.name, "slice", [rows], axis=3, start=left, stop=width - right)


def _sides(value: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    rows, columns = (value, value) if isinstance(value, int) else value
    return _pair(rows), _pair(columns)


def relu(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
    """With a slope for negative values, or a largest value."""
    most, config = layer.config.get("max_value"), layer.config
    slope = float(config.get("negative_slope") or 0.0)
    if config.get("threshold") or (slope and most is not None):
        raise ValueError("a threshold, or a slope with a largest value")
    if most is not None:
        return builder.add(layer.name, "clamp", inputs, low=0.0, high=float(most))
    return (
        builder.add(layer.name, "leaky_relu", inputs, slope=slope) if slope else builder.add(layer.name, "relu", inputs)
    )


def leaky_relu(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
    """The slope is called alpha in Keras 2."""
    slope = layer.config.get("negative_slope", layer.config.get("alpha", 0.3))
    return builder.add(layer.name, "leaky_relu", inputs, slope=float(np.asarray(slope)))


def prelu(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
    """A learned slope for each channel."""
    slope = layer.weights[0].reshape(-1)
    if len(slope) not in (1, inputs[0].shape[1]):
        raise ValueError("a slope for every pixel, expected shared_axes=[1, 2]")
    return builder.add(layer.name, "prelu", [inputs[0], builder.tensor(f"{layer.name}/alpha", slope, "zeros")])


def upsampling(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
    """Larger by whole numbers."""
    down, across = _pair(layer.config["size"])
    mode = layer.config.get("interpolation", "nearest")
    if mode not in ("nearest", "bilinear"):
        raise ValueError(f"interpolation {mode!r}")
    size = [inputs[0].shape[2] * down, inputs[0].shape[3] * across]
    return builder.add(layer.name, "resize", inputs, size=size, mode=mode)


def rescaling(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
    """Times a number, plus a number, each perhaps one per channel."""
    factor, shift = np.asarray(layer.config["scale"], np.float32), np.asarray(layer.config.get("offset", 0), np.float32)
    if factor.size == shift.size == 1:
        return builder.add(
            layer.name, "power", inputs, power=1.0, scale=float(factor.item()), shift=float(shift.item())
        )
    channels = inputs[0].shape[1]
    values = [
        builder.tensor(f"{layer.name}/{name}", np.broadcast_to(value.reshape(-1), (channels,)), "constant")
        for name, value in (("scale", factor), ("offset", shift))
    ]
    return builder.add(layer.name, "scale", [inputs[0], *values])


def normalization(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
    """Minus the mean, divided by the standard deviation that were measured on the training data."""
    given = (layer.config.get("mean"), layer.config.get("variance"))
    mean, variance = given if given[0] is not None else layer.weights[:2]
    channels = inputs[0].shape[1]
    parts = [np.broadcast_to(np.asarray(v, np.float32).reshape(-1), (channels,)) for v in (mean, variance)]
    deviation = np.maximum(np.sqrt(parts[1]), 1e-7)
    if layer.config.get("invert"):
        raise ValueError("an inverted normalization")
    centre = builder.tensor(f"{layer.name}/mean", parts[0], "constant")
    spread = builder.tensor(f"{layer.name}/deviation", deviation, "constant")
    centred = builder.add(f"{layer.name}/centred", "sub", [inputs[0], centre])
    return builder.add(layer.name, "div", [centred, spread])


def _same(builder: Builder, layer: Layer, inputs: list[Value]) -> Value:
    """Layers that only training needs."""
    return builder.add(layer.name, "identity", inputs)


RULES: dict[str, Rule] = {
    "Activation": lambda b, layer, inputs: _activate(b, layer, inputs[0], layer.config["activation"]),
    "Add": _pairwise("add"),
    "Average": average,
    "AveragePooling2D": _pooling("avg_pool"),
    "BatchNormalization": batch_norm,
    "Concatenate": concatenate,
    "Conv2D": conv,
    "Cropping2D": cropping,
    "Dense": dense,
    "DepthwiseConv2D": depthwise,
    "Dropout": lambda b, layer, inputs: b.add(layer.name, "dropout", inputs, p=float(layer.config["rate"])),
    "ELU": lambda b, layer, inputs: b.add(layer.name, "elu", inputs, alpha=float(layer.config.get("alpha", 1.0))),
    "Flatten": flatten,
    "GlobalAveragePooling2D": _global("mean"),
    "GlobalMaxPooling2D": _global("max"),
    "LeakyReLU": leaky_relu,
    "MaxPooling2D": _pooling("max_pool"),
    "Maximum": _pairwise("maximum"),
    "Minimum": _pairwise("minimum"),
    "Multiply": _pairwise("mul"),
    "Normalization": normalization,
    "PReLU": prelu,
    "ReLU": relu,
    "Rescaling": rescaling,
    "Reshape": reshape,
    "SeparableConv2D": separable,
    "Softmax": lambda b, layer, inputs: b.add(layer.name, "softmax", inputs, axis=_axis(layer, inputs[0])),
    "Subtract": _pairwise("sub"),
    "UpSampling2D": upsampling,
    "ZeroPadding2D": zero_padding,
    **dict.fromkeys(
        ("ActivityRegularization", "AlphaDropout", "GaussianDropout", "GaussianNoise", "RandomBrightness",
         "RandomContrast", "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "SpatialDropout2D"),
        _same,
    ),
}  # fmt: skip
