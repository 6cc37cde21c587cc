"""Caffe networks: `.caffemodel` with its `.prototxt`, layers of both generations (V1 and V2).

Jia et al.: Caffe: Convolutional Architecture for Fast Feature Embedding, 2014, arXiv 1408.5093

Shape letters: N examples, C channels, H and W pixels, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from regraft.errors import SourceError, closest
from regraft.source.caffe_schema import net_parameter
from regraft.source.graph import Builder, Value, fragment, graph_source, left_over
from regraft.source.graph.graph import MOST_VALUES, Kind
from regraft.source.messages import parsed, parsed_text
from regraft.source.request import Request
from regraft.source.source import LoadReport, Source
from regraft.spec import InputSpec

TEST = 1
_DATA = {"Data", "ImageData", "HDF5Data", "MemoryData", "WindowData", "DummyData", "Input", "AnnotatedData"}
_NO_PART_OF_IT = {"Accuracy", "ArgMax", "Silence", "HDF5Output", "Python", "Threshold"}
_CROPPED_FROM = 256  # the side that ImageNet's pictures are squashed to before they are cropped to 224 or 227
_OLD_TYPES = {"LRN": "LRN", "TANH": "TanH", "RELU": "ReLU", "ABSVAL": "AbsVal", "BNLL": "BNLL", "MVN": "MVN"}


@dataclass(frozen=True)
class Layer:
    """A layer of either generation, as the newer one describes it."""

    name: str
    type: str
    bottom: tuple[str, ...]
    top: tuple[str, ...]
    message: Any = field(repr=False)

    def settings(self, name: str) -> Callable[[str, Any], Any]:
        """What the layer says about a field of its settings, or else Caffe's own default."""
        message = getattr(self.message, name)
        return lambda key, default: getattr(message, key) if message.HasField(key) else default


def open_caffe(path: Path, request: Request) -> Source:
    """A Caffe network as a source.

    The network's description is the `.prototxt` named as `arch`, else one beside the weights, else what the weight
    file itself says. How pictures are scaled is read from a data layer of either file.

    Args:
        path: a `.caffemodel` or a `.prototxt` file, or a folder with them.
        request: may name the end as `FILE#LAYER`; without it the network ends before its softmax or loss.

    Raises:
        SourceError: a file is missing, damaged, or has a layer of a type that is not read.
        MissingExtra: protobuf is not installed.
    """
    weights, description = _files(path, request)
    trained = parsed(net_parameter(), weights.read_bytes(), str(weights)) if weights else None
    net = _described(description) if description else trained
    blobs = {layer.name: layer.message.blobs for layer in _layers(trained)} if trained else None
    layers = [layer for layer in _layers(net) if _tested(layer.message)]
    spec = _spec([*layers, *(_layers(trained) if trained else ())])
    builder = Builder(*_input(net, layers, request, spec))
    end = _Network(builder, blobs, request.uri).end(layers, fragment(request))
    graph = builder.graph(end)
    stored = [f"{name}/{part}" for name, found in (blobs or {}).items() for part in _PARTS[: len(found)]]
    report = LoadReport(tuple(t.name for t in graph.tensors), unexpected=_unused(left_over(graph, stored), graph))
    return graph_source(request, "graph:caffe", graph, builder.weights, spec, report=report)


def _unused(names: Sequence[str], graph: Any) -> tuple[str, ...]:
    """Left-over blobs of layers that are not part of the network; statistics have names of their own."""
    layers = {tensor.name.rpartition("/")[0] for tensor in graph.tensors}
    return tuple(name for name in names if name.rpartition("/")[0] not in layers)


# files ------------------------------------------------------------------------------------------------


def _files(path: Path, request: Request) -> tuple[Path | None, Path | None]:
    """The weights and the description; either may be missing."""
    folder = path if path.is_dir() else path.parent
    if request.arch is not None and not request.arch.endswith(".prototxt"):
        raise SourceError(
            f"{request.uri} is a Caffe network, whose architecture is a .prototxt file; arch={request.arch!r} is none. "
            f"Name one: load_source({request.uri!r}, arch='deploy.prototxt'), or leave it out"
        )
    named = Path(request.arch).expanduser() if request.arch else None
    if named and not named.is_file():
        raise SourceError(f"there is no file {named}. Pass the network's description: arch='deploy.prototxt'")
    weights = path if path.suffix == ".caffemodel" else _only(sorted(folder.glob("*.caffemodel")), path, request)
    description = named or (path if path.suffix == ".prototxt" else _best_description(weights, folder))
    if weights is None and not request.random_weights:
        raise SourceError(
            f"there is no .caffemodel beside {path}. Put it there, or take the architecture alone: "
            f"load_source({request.uri!r}, random_weights=True)"
        )
    return weights, description


def _only(found: list[Path], path: Path, request: Request) -> Path | None:
    same = [weights for weights in found if weights.stem == path.stem] or found
    if len(same) > 1:
        raise SourceError(f"{request.uri} has several weight files. Name one: load_source('{same[0]}')")
    return same[0] if same else None


def _best_description(weights: Path | None, folder: Path) -> Path | None:
    found = [path for path in sorted(folder.glob("*.prototxt")) if "solver" not in path.name]
    if weights is None or not found:
        return found[0] if found else None

    def rank(path: Path) -> tuple[bool, bool, int]:
        common = sum(1 for a, b in zip(path.stem, weights.stem, strict=False) if a == b)
        return "deploy" not in path.name, "train" in path.name, -common

    return min(found, key=rank)


def _described(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not text ({error}). Copy it again, then pass it") from error
    return parsed_text(net_parameter(), text, str(path))


def _layers(net: Any) -> list[Layer]:
    return [
        *(Layer(m.name, m.type, tuple(m.bottom), tuple(m.top), m) for m in net.layer),
        *(Layer(m.name, _new_type(m), tuple(m.bottom), tuple(m.top), m) for m in net.layers),
    ]


def _new_type(message: Any) -> str:
    """INNER_PRODUCT is InnerProduct since the second generation."""
    name = message.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[message.type].name
    if name == "SOFTMAX_LOSS":
        return "SoftmaxWithLoss"
    return _OLD_TYPES.get(name) or "".join(word if word == "HDF5" else word.title() for word in name.split("_"))


def _tested(message: Any) -> bool:
    """Whether a layer is there when the network is used, not trained."""
    if "phase" in message.DESCRIPTOR.fields_by_name and message.HasField("phase") and message.phase != TEST:
        return False
    included = [not rule.HasField("phase") or rule.phase == TEST for rule in message.include]
    excluded = [not rule.HasField("phase") or rule.phase == TEST for rule in message.exclude]
    return any(included) if included else not any(excluded)


# input ------------------------------------------------------------------------------------------------


def _input(net: Any, layers: list[Layer], request: Request, spec: InputSpec | None) -> tuple[str, tuple[int, int, int]]:
    """Name and (C, H, W) of the input."""
    name, size = _declared_input(net, layers)
    wanted = request.picture_or(spec, size)
    if wanted is not None:
        return name, wanted.size
    if size is None:
        request.input_or(None)
    assert size is not None
    return name, size


def _declared_input(net: Any, layers: list[Layer]) -> tuple[str, tuple[int, int, int] | None]:
    data = [layer for layer in layers if layer.type in _DATA and layer.top]
    name = net.input[0] if net.input else data[0].top[0] if data else _first_unmade(layers)
    shapes = [list(shape.dim) for shape in net.input_shape] or [list(net.input_dim[:4])]
    for layer in data:
        if layer.type == "Input":
            shapes += [list(shape.dim) for shape in layer.message.input_param.shape]
        if layer.type == "MemoryData":
            memory = layer.message.memory_data_param
            shapes.append([1, memory.channels, memory.height, memory.width])
    sizes = [tuple(shape[1:]) for shape in shapes if len(shape) == 4 and 0 < math.prod(shape[1:]) <= MOST_VALUES]
    return name, sizes[0] if sizes else None  # type: ignore[return-value]


def _first_unmade(layers: list[Layer]) -> str:
    made = {top for layer in layers for top in layer.top}
    return next((bottom for layer in layers for bottom in layer.bottom if bottom not in made), "data")


def _spec(layers: list[Layer]) -> InputSpec | None:
    """What a data layer says about its pictures; None where none says it, or where the mean is in another file.

    Caffe reads pictures as BGR in 0..255, subtracts the mean and then multiplies by the scale.
    """
    data = [layer for layer in layers if layer.type in _DATA]
    said = [layer for layer in data if layer.message.HasField("transform_param")]
    if not said or said[0].message.transform_param.mean_file:
        return None
    transform = said[0].message.transform_param
    size = _size(layers, transform.crop_size)
    if size is None or size[0] not in (1, 3) or not (math.isfinite(transform.scale)):
        return None
    means = list(transform.mean_value) or [0.0]
    means = means * size[0] if len(means) == 1 else means[: size[0]]
    factor = transform.scale if transform.HasField("scale") else 1.0
    if len(means) != size[0] or factor <= 0:
        return None
    cropped = transform.crop_size in (224, 227)
    return InputSpec(
        size,
        mean=tuple(value / 255 for value in means),
        std=(1 / (255 * factor),) * size[0],
        interpolation="bilinear",
        crop_pct=transform.crop_size / _CROPPED_FROM if cropped else 1.0,
        crop_mode="squash",
        channel_order="BGR" if size[0] == 3 else "RGB",
    )


def _size(layers: list[Layer], crop: int) -> tuple[int, int, int] | None:
    for layer in layers:
        for shape in layer.message.input_param.shape if layer.type == "Input" else ():
            if len(shape.dim) == 4:
                return tuple(shape.dim[1:])  # type: ignore[return-value]
    channels = [b.shape.dim[1] if b.shape.dim else b.channels for b in _first_kernels(layers)]
    return (int(channels[0]), crop, crop) if crop and channels else None


def _first_kernels(layers: list[Layer]) -> list[Any]:
    return [layer.message.blobs[0] for layer in layers if layer.type == "Convolution" and layer.message.blobs][:1]


# layers -----------------------------------------------------------------------------------------------

_PARTS = ("weight", "bias", "factor")


class _Network:
    """Layers one by one into a graph."""

    def __init__(self, builder: Builder, blobs: dict[str, Any] | None, uri: str) -> None:
        self.builder = builder
        self.blobs = blobs
        self.uri = uri
        name = builder.input.name.rpartition(":")[0]
        self.values = {name: builder.add(name, "identity", [builder.input])}
        self.layers = dict(self.values)

    def end(self, layers: list[Layer], wanted: str) -> Value:
        """Add what can be computed; the value of the layer that was asked for, or of the last before the softmax."""
        last = next(iter(self.layers.values()))
        for layer in layers:
            if layer.type in _DATA or layer.type in _NO_PART_OF_IT or layer.type.endswith("Loss"):
                continue
            if any(bottom not in self.values for bottom in layer.bottom):
                raise SourceError(
                    f"layer {layer.name!r} of {self.uri} reads a blob that no layer before it makes. Pass the "
                    "description that belongs to the weights: arch='deploy.prototxt'"
                )
            value = self._add(layer)
            last = last if layer.type == "Softmax" else value
            self.layers |= {layer.name: value}
            if wanted in (layer.name, *layer.top):
                return self.values[wanted] if wanted in layer.top and wanted != layer.name else value
        if wanted:
            raise SourceError(
                f"{self.uri} names {wanted!r}, which is no layer of it.{closest(wanted, self.layers)} "
                f"Its last ones: {', '.join(list(self.layers)[-5:])}"
            )
        return last

    def _add(self, layer: Layer) -> Value:
        reader = _READERS.get(layer.type)
        if reader is None:
            raise SourceError(
                f"layer {layer.name!r} of {self.uri} is of type {layer.type!r}, which is not read. Read are "
                f"{', '.join(sorted(_READERS))}. End below it: load_source('FILE.caffemodel#LAYER')"
            )
        inputs = [self.values[bottom] for bottom in layer.bottom]
        if not inputs or not layer.top:
            raise SourceError(f"layer {layer.name!r} of {self.uri} has no input or no output. Copy the file again")
        try:
            found = reader(self, layer, inputs)
        except (TypeError, ValueError, IndexError, ZeroDivisionError, OverflowError) as error:
            raise SourceError(
                f"layer {layer.name!r} of {self.uri} has impossible settings ({error}). Copy the file again"
            ) from error
        outputs = found if isinstance(found, list) else [found]
        self.values |= dict(zip(layer.top, outputs, strict=False))
        return outputs[0]

    def weight(self, layer: Layer, index: int, shape: Sequence[int], kind: Kind, name: str = "") -> Value:
        """Blob number `index` of a layer, in a shape of as many values."""
        name = f"{layer.name}/{name or _PARTS[index]}"
        return self.builder.tensor(name, self.array(layer, index, shape), kind)

    def array(self, layer: Layer, index: int, shape: Sequence[int]) -> np.ndarray:
        """The values of a blob; zeros where there is no weight file."""
        count = math.prod(shape)
        if not 0 < count <= MOST_VALUES:
            raise SourceError(f"layer {layer.name!r} of {self.uri} wants weights of shape {tuple(shape)}")
        if self.blobs is None:
            return np.zeros(shape, np.float32)
        stored = self.blobs.get(layer.name, ())
        found = stored[index] if index < len(stored) else None
        data = (found.data or found.double_data) if found is not None else ()
        if len(data) != count:
            raise SourceError(
                f"the weights of layer {layer.name!r} in {self.uri} have {len(data):,} values, and the network's "
                f"description wants {tuple(shape)}. Pass the one that belongs to them: arch='deploy.prototxt'"
            )
        return np.fromiter(data, np.float32, count).reshape(shape)


def _pair(setting: Callable[[str, Any], Any], name: str, default: int, short: str = "") -> list[int]:
    """Height and width of a setting, which is written once or twice or as name_h and name_w."""
    short = short or name
    both = setting(f"{short}_h", 0), setting(f"{short}_w", 0)
    return list(both) if any(both) else [setting(name, default)] * 2


def _spatial(message: Any, name: str, default: int, short: str = "") -> list[int]:
    """The same of a convolution, whose settings are lists."""
    short = short or name
    both = (getattr(message, f"{short}_h", 0), getattr(message, f"{short}_w", 0))
    values = list(getattr(message, name)) or [default]
    return list(both) if any(both) else (values * 2)[:2] if len(values) == 1 else values[:2]


def _convolution(net: _Network, layer: Layer, inputs: list[Value]) -> Value:
    message = layer.message.convolution_param
    setting = layer.settings("convolution_param")
    (x,), out, groups = inputs, message.num_output, setting("group", 1)
    kernel = _spatial(message, "kernel_size", 0, "kernel")
    high, wide = _spatial(message, "pad", 0)
    stride, dilation = _spatial(message, "stride", 1), _spatial(message, "dilation", 1)
    inside = x.shape[1]
    transposed = layer.type == "Deconvolution"
    shape = [inside, out // groups, *kernel] if transposed else [out, inside // groups, *kernel]
    tensors = [net.weight(layer, 0, shape, "weight")]
    tensors += [net.weight(layer, 1, [out], "zeros")] if setting("bias_term", True) else []
    if transposed:
        crop = [high, high, wide, wide]
        return net.builder.add(layer.name, "conv_transpose", [x, *tensors], stride=stride, crop=crop, groups=groups)
    settings = {"stride": stride, "padding": [high, high, wide, wide], "dilation": dilation, "groups": groups}
    return net.builder.add(layer.name, "conv", [x, *tensors], **settings)


def _pooling(net: _Network, layer: Layer, inputs: list[Value]) -> Value:
    setting, (x,) = layer.settings("pooling_param"), inputs
    largest = setting("pool", 0) == 0
    if setting("global_pooling", False):
        return net.builder.add(layer.name, "max" if largest else "mean", [x], axes=[2, 3], keep=True)
    kernel, stride = _pair(setting, "kernel_size", 0, "kernel"), _pair(setting, "stride", 1)
    high, wide = _pair(setting, "pad", 0)
    settings: dict[str, Any] = {"kernel": kernel, "stride": stride, "padding": [high, high, wide, wide]}
    settings["ceil"] = setting("round_mode", 0) == 0
    if largest:
        return net.builder.add(layer.name, "max_pool", [x], **settings)
    return net.builder.add(layer.name, "avg_pool", [x], **settings, count_padding=True)


def _inner_product(net: _Network, layer: Layer, inputs: list[Value]) -> Value:
    message, setting, (x,) = layer.message.inner_product_param, layer.settings("inner_product_param"), inputs
    flat = _flat(net, layer, x)
    shape = [message.num_output, flat.shape[1]]
    array = net.array(layer, 0, shape[::-1]).T if setting("transpose", False) else net.array(layer, 0, shape)
    tensors = [net.builder.tensor(f"{layer.name}/weight", array, "weight")]
    tensors += [net.weight(layer, 1, shape[:1], "zeros")] if setting("bias_term", True) else []
    return net.builder.add(layer.name, "linear", [flat, *tensors])


def _flat(net: _Network, layer: Layer, x: Value) -> Value:
    if len(x.shape) == 2:
        return x
    return net.builder.add(f"{layer.name}/flat", "reshape", [x], shape=[math.prod(x.shape[1:])])


def _relu(net: _Network, layer: Layer, inputs: list[Value]) -> Value:
    slope = layer.settings("relu_param")("negative_slope", 0.0)
    if slope:
        return net.builder.add(layer.name, "leaky_relu", inputs, slope=slope)
    return net.builder.add(layer.name, "relu", inputs)


def _prelu(net: _Network, layer: Layer, inputs: list[Value]) -> Value:
    shared = layer.settings("prelu_param")("channel_shared", False)
    slope = net.weight(layer, 0, [1 if shared else inputs[0].shape[1]], "ones")
    return net.builder.add(layer.name, "prelu", [*inputs, slope])


def _lrn(net: _Network, layer: Layer, inputs: list[Value]) -> Value:
    setting = layer.settings("lrn_param")
    settings = {"size": setting("local_size", 5), "alpha": setting("alpha", 1.0), "beta": setting("beta", 0.75)}
    if setting("norm_region", 0) == 1:
        return net.builder.add(layer.name, "local_response_norm_within", inputs, **settings)
    return net.builder.add(layer.name, "local_response_norm", inputs, **settings, k=setting("k", 1.0))


def _batch_norm(net: _Network, layer: Layer, inputs: list[Value]) -> Value:
    """Statistics are stored as sums, with the factor that they are to be divided by."""
    channels = [inputs[0].shape[1]]
    factor = float(net.array(layer, 2, [1])[0])
    factor = 1 / factor if factor else 0.0
    arrays = [net.array(layer, i, channels) * np.float32(factor) for i in range(2)]
    if net.blobs is None:
        arrays[1] = np.ones(channels, np.float32)
    mean = net.builder.tensor(f"{layer.name}/mean", arrays[0], "mean")
    variance = net.builder.tensor(f"{layer.name}/variance", arrays[1], "variance")
    eps = layer.settings("batch_norm_param")("eps", 1e-5)
    return net.builder.add(layer.name, "batch_norm", [*inputs, mean, variance], eps=eps)


def _scale(net: _Network, layer: Layer, inputs: list[Value]) -> Value:
    if len(inputs) == 2:
        x, factors = inputs
        if len(factors.shape) == 2 and x.spatial:
            factors = net.builder.add(f"{layer.name}/factors", "reshape", [factors], shape=[factors.shape[1], 1, 1])
        return net.builder.add(layer.name, "mul", [x, factors])
    channels = [inputs[0].shape[1]]
    tensors = [net.weight(layer, 0, channels, "ones")]
    tensors += [net.weight(layer, 1, channels, "zeros")] if layer.settings("scale_param")("bias_term", False) else []
    return net.builder.add(layer.name, "scale", [*inputs, *tensors])


def _bias(net: _Network, layer: Layer, inputs: list[Value]) -> Value:
    return net.builder.add(layer.name, "add_bias", [*inputs, net.weight(layer, 0, [inputs[0].shape[1]], "zeros")])


def _eltwise(net: _Network, layer: Layer, inputs: list[Value]) -> Value:
    operation = layer.settings("eltwise_param")("operation", 1)
    factors = list(layer.message.eltwise_param.coeff) or [1.0] * len(inputs)
    if operation == 1 and (len(inputs) != 2 or set(factors) != {1.0}):
        return net.builder.add(layer.name, "weighted_sum", inputs, factors=factors)
    op, total = ("mul", "add", "maximum")[operation], inputs[0]
    for i, value in enumerate(inputs[1:], 2):
        name = layer.name if i == len(inputs) else f"{layer.name}/first{i}"
        total = net.builder.add(name, op, [total, value])
    return total


def _concat(net: _Network, layer: Layer, inputs: list[Value]) -> Value:
    setting = layer.settings("concat_param")
    return net.builder.add(layer.name, "concat", inputs, axis=setting("axis", setting("concat_dim", 1)))


def _slice(net: _Network, layer: Layer, inputs: list[Value]) -> list[Value]:
    setting, (x,) = layer.settings("slice_param"), inputs
    axis = setting("axis", setting("slice_dim", 1))
    size, n = x.shape[axis], len(layer.top)
    points = list(layer.message.slice_param.slice_point) or [size * i // n for i in range(1, n)]
    edges = zip([0, *points], [*points, size], layer.top, strict=True)
    return [net.builder.add(top, "slice", [x], axis=axis, start=a, stop=b) for a, b, top in edges]


def _reshape(net: _Network, layer: Layer, inputs: list[Value]) -> Value:
    x = inputs[0]
    wanted = list(layer.message.reshape_param.shape.dim)[1:]
    shape = [x.shape[i + 1] if size == 0 else size for i, size in enumerate(wanted)]
    return net.builder.add(layer.name, "reshape", [x], shape=shape)


def _flatten(net: _Network, layer: Layer, inputs: list[Value]) -> Value:
    return net.builder.add(layer.name, "reshape", inputs, shape=[math.prod(inputs[0].shape[1:])])


def _power(net: _Network, layer: Layer, inputs: list[Value]) -> Value:
    setting = layer.settings("power_param")
    settings = {name: setting(name, default) for name, default in (("power", 1.0), ("scale", 1.0), ("shift", 0.0))}
    return net.builder.add(layer.name, "power", inputs, **settings)


def _plain(op: str) -> Callable[[_Network, Layer, list[Value]], Value]:
    return lambda net, layer, inputs: net.builder.add(layer.name, op, inputs)


_READERS: dict[str, Callable[[_Network, Layer, list[Value]], Value | list[Value]]] = {
    "Convolution": _convolution,
    "Deconvolution": _convolution,
    "Pooling": _pooling,
    "InnerProduct": _inner_product,
    "ReLU": _relu,
    "PReLU": _prelu,
    "LRN": _lrn,
    "BatchNorm": _batch_norm,
    "Scale": _scale,
    "Bias": _bias,
    "Eltwise": _eltwise,
    "Concat": _concat,
    "Slice": _slice,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Power": _power,
    "Sigmoid": _plain("sigmoid"),
    "TanH": _plain("tanh"),
    "AbsVal": _plain("abs"),
    "BNLL": _plain("softplus"),
    "Split": lambda net, layer, inputs: [inputs[0]] * len(layer.top),
    "ELU": lambda net, layer, inputs: net.builder.add(
        layer.name, "elu", inputs, alpha=layer.settings("elu_param")("alpha", 1.0)
    ),
    "Softmax": lambda net, layer, inputs: net.builder.add(
        layer.name, "softmax", inputs, axis=layer.settings("softmax_param")("axis", 1)
    ),
    "Dropout": lambda net, layer, inputs: net.builder.add(
        layer.name, "dropout", inputs, p=layer.settings("dropout_param")("dropout_ratio", 0.5)
    ),
}
