"""TensorFlow Lite: `.tflite` files, float, half, and 8-bit weights turned back into numbers.

Weights are (q - zero point) * scale, for each channel where the file has it so; activations are floats, so the rounding
that the 8-bit network does between its layers is not done here. Jacob et al., 2017, arXiv 1712.05877

Shape letters: N examples, C channels, H and W pixels.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from regraft.errors import MissingExtra, SourceError, closest, first_line
from regraft.source.graph import Builder, Graph, Value, fragment, graph_source
from regraft.source.graph.graph import MOST_NODES, MOST_VALUES, Kind
from regraft.source.request import Request
from regraft.source.source import LoadReport, Source
from regraft.spec import InputSpec

MAGIC = b"TFL3"
_DTYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 6: "?", 7: "<i2", 9: "i1", 10: "<f8"}
_UINT8, _INT8 = 3, 9
_ACTIVATIONS = {1: ("relu", {}), 2: ("clamp", {"low": -1.0, "high": 1.0}), 3: ("relu6", {}), 4: ("tanh", {})}
_BEHIND = {"SOFTMAX", "LOG_SOFTMAX", "LOGISTIC", "QUANTIZE", "DEQUANTIZE", "ARG_MAX", "CAST"}
_TO_OURS = {0: 0, 1: 2, 2: 3, 3: 1}  # axes of (N, H, W, C)


def _tflite() -> ModuleType:
    try:
        import tflite
    except ImportError as error:
        raise MissingExtra("tflite", "graphs", "read files of TensorFlow Lite") from error
    return tflite


@dataclass(frozen=True)
class Stored:
    """A tensor of the file.

    Args:
        name: as in the file, without what converters join to it where the rest is enough.
        shape: as in the file.
        dtype: TensorFlow Lite's number of its type.
        scale: of 8-bit numbers, one or one per channel; empty for floats.
        zero: the number that stands for 0, likewise.
        axis: of the channels.
        data: the values' bytes; None for activations.
    """

    name: str
    shape: tuple[int, ...]
    dtype: int
    scale: tuple[float, ...]
    zero: tuple[int, ...]
    axis: int
    data: Any

    def values(self) -> np.ndarray:
        """What a constant stands for, as floats where it is scaled."""
        array = np.frombuffer(bytes(self.data), _DTYPES[self.dtype]).reshape(self.shape)
        if not self.scale:
            return array
        shape = [1] * array.ndim
        if len(self.scale) > 1:
            shape[self.axis] = -1
        scale, zero = np.array(self.scale, np.float32), np.array(self.zero or [0], np.float32)
        with np.errstate(all="ignore"):  # infinite values are found, and refused, with all others
            return (array.astype(np.float32) - zero.reshape(shape if len(zero) > 1 else [1])) * scale.reshape(shape)


@dataclass(frozen=True)
class Operation:
    """An operation of the file: its kind, the numbers of the tensors it reads and makes, and its settings."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


@dataclass(frozen=True)
class Model:
    """The first subgraph of a file, which is the network."""

    tensors: tuple[Stored, ...]
    operations: tuple[Operation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def open_tflite(path: Path, request: Request) -> Source:
    """A `.tflite` file as a source.

    Args:
        path: the file.
        request: may name the end as `FILE#TENSOR`; without it the network ends before its softmax.

    Raises:
        SourceError: the file is damaged, or has operations that are not read.
        MissingExtra: the package tflite is not installed.
    """
    request.without_arch()
    model = read_model(path)
    shape = _picture(model, request)
    spec = request.picture_or(input_of(model), shape)
    graph, builder = _Conversion(model, request, spec.size if spec else shape).graph()
    used = tuple(tensor.name for tensor in graph.tensors)
    return graph_source(request, "graph:tflite", graph, builder.weights, spec, report=LoadReport(used))


# the file ---------------------------------------------------------------------------------------------


def read_model(path: Path) -> Model:
    """The tensors and operations of a file.

    Raises:
        SourceError: the file is no TensorFlow Lite file, or a damaged one.
    """
    data = path.read_bytes()
    if data[4:8] != MAGIC:
        raise _damaged(path, "it does not begin as a TensorFlow Lite file")
    try:
        return _read(data, path)
    except (SourceError, MissingExtra):
        raise
    except Exception as error:  # a damaged table can make its reader raise nearly anything
        raise _damaged(path, first_line(error)) from error


def _damaged(path: Path, reason: str) -> SourceError:
    return SourceError(f"{path} is damaged or cut short: {reason}. Copy or download it again, then pass it")


def _read(data: bytes, path: Path) -> Model:
    lite = _tflite()
    model = lite.Model.GetRootAs(data, 0)
    if not model.SubgraphsLength():
        raise _damaged(path, "it holds no network")
    graph = model.Subgraphs(0)
    counts = (graph.TensorsLength(), graph.OperatorsLength(), model.BuffersLength(), model.OperatorCodesLength())
    if max(counts) > min(MOST_NODES, len(data) // 4):
        raise _damaged(path, f"it claims {max(counts):,} tensors or operations")
    names = _names([_text(graph.Tensors(i).Name()) for i in range(counts[0])])
    tensors = tuple(_stored(model, graph.Tensors(i), name) for i, name in enumerate(names))
    kinds = {v: k for k, v in vars(lite.BuiltinOperator).items() if isinstance(v, int)}
    operations = tuple(_operation(lite, model, graph.Operators(i), kinds) for i in range(counts[1]))
    found = Model(tensors, operations, _numbers(graph.InputsAsNumpy()), _numbers(graph.OutputsAsNumpy()))
    mentioned = {*found.inputs, *found.outputs, *(n for op in operations for n in (*op.inputs, *op.outputs))}
    if not found.inputs or not found.outputs or min(mentioned) < -1 or max(mentioned) >= len(tensors):
        raise _damaged(path, "it mentions tensors that it does not have")
    return found


def _text(name: bytes | None) -> str:
    return (name or b"").decode("utf-8", "replace")


def _names(full: Sequence[str]) -> list[str]:
    """Converters join the names of what they fused by ";": the first one, where it is no other tensor's too."""
    first, whole = Counter(name.partition(";")[0] for name in full), Counter(full)
    names = []
    for i, name in enumerate(full):
        short = name.partition(";")[0]
        names.append(short if first[short] == 1 else name if whole[name] == 1 else f"{name}:{i}")
    return names


def _numbers(values: Any) -> tuple[Any, ...]:
    """A vector of a table, which is the number 0 where it is missing."""
    return tuple(values.tolist()) if isinstance(values, np.ndarray) else ()


def _stored(model: Any, tensor: Any, name: str) -> Stored:
    shape = _numbers(tensor.ShapeAsNumpy())
    if any(not 0 <= side <= MOST_VALUES for side in shape) or math.prod(shape) > MOST_VALUES:
        raise ValueError(f"a tensor of shape {shape}")
    buffer = model.Buffers(tensor.Buffer()) if tensor.Buffer() < model.BuffersLength() else None
    data = buffer.DataAsNumpy() if buffer is not None else None
    data = data if isinstance(data, np.ndarray) and data.size else None
    if data is not None and tensor.Type() in _DTYPES:
        wanted = math.prod(shape) * np.dtype(_DTYPES[tensor.Type()]).itemsize
        if wanted != data.nbytes:
            raise ValueError(f"{name!r} has {data.nbytes} bytes, and its shape wants {wanted}")
    quantization = tensor.Quantization()
    scale = _numbers(quantization.ScaleAsNumpy()) if quantization else ()
    zero = _numbers(quantization.ZeroPointAsNumpy()) if quantization else ()
    axis = quantization.QuantizedDimension() if quantization else 0
    if len(scale) > 1 and not (
        0 <= axis < len(shape) and shape[axis] == len(scale) and len(zero) in (0, 1, len(scale))
    ):
        raise ValueError(f"{name!r} has {len(scale)} scales")
    return Stored(name, shape, tensor.Type(), scale, zero, axis, data)


# Whose settings are read, and by which table.
_OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "DIV": "DivOptions",
    "CONCATENATION": "ConcatenationOptions",
    "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "LOCAL_RESPONSE_NORMALIZATION": "LocalResponseNormalizationOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "GELU": "GeluOptions",
}


def _operation(lite: ModuleType, model: Any, operator: Any, kinds: dict[int, str]) -> Operation:
    if operator.OpcodeIndex() >= model.OperatorCodesLength():
        raise ValueError("an operation of a kind that the file does not list")
    code = model.OperatorCodes(operator.OpcodeIndex())
    kind = kinds.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "unknown")
    table = operator.BuiltinOptions()
    options = None
    if kind in _OPTIONS:
        if table is None:
            raise ValueError(f"a {kind} without settings")
        options = getattr(lite, _OPTIONS[kind])()
        options.Init(table.Bytes, table.Pos)
    return Operation(kind, _numbers(operator.InputsAsNumpy()), _numbers(operator.OutputsAsNumpy()), options)


# input ------------------------------------------------------------------------------------------------


def _picture(model: Model, request: Request) -> tuple[int, int, int]:
    """(C, H, W) of the input."""
    shape = model.tensors[model.inputs[0]].shape
    if len(shape) != 4 or min(shape[1:]) < 1 or math.prod(shape[1:]) > 1 << 27:
        raise SourceError(
            f"{request.uri} takes an input of shape {shape}, expected one picture (1, H, W, C). Name another file"
        )
    return shape[3], shape[1], shape[2]


def input_of(model: Model) -> InputSpec | None:
    """What the scaling of an 8-bit input says about pictures: their values 0..255 are what is scaled."""
    start = model.tensors[model.inputs[0]]
    if start.dtype not in (_UINT8, _INT8):
        readers = [op for op in model.operations if model.inputs[0] in op.inputs]
        if len(readers) != 1 or readers[0].kind != "QUANTIZE" or not readers[0].outputs:
            return None
        start = model.tensors[readers[0].outputs[0]]
    if len(start.scale) != 1 or not (0 < start.scale[0] < math.inf) or len(start.shape) != 4:
        return None
    channels, high, wide = start.shape[3], start.shape[1], start.shape[2]
    zero = (start.zero or (0,))[0] + (128 if start.dtype == _INT8 else 0)
    if channels not in (1, 3):
        return None
    return InputSpec(
        size=(channels, high, wide),
        mean=(zero / 255,) * channels,
        std=(1 / (255 * start.scale[0]),) * channels,
        interpolation="bilinear",
    )


# operations -------------------------------------------------------------------------------------------

Found = Value | np.ndarray


class _Conversion:
    """Operations one by one into a graph."""

    def __init__(self, model: Model, request: Request, size: tuple[int, int, int]) -> None:
        self.model = model
        self.request = request
        start = model.tensors[model.inputs[0]]
        self.builder = Builder(start.name, size, channels_last=True)
        first = self.builder.add(start.name, "identity", [self.builder.input])
        self.found: dict[int, Value] = {model.inputs[0]: first}
        self.arrays: dict[int, np.ndarray] = {}

    def graph(self) -> tuple[Graph, Builder]:
        """The network up to its end, and what its tensors hold."""
        end = self._end()
        for op in self.model.operations:
            if end in self.found:
                break
            if any(output in self.found for output in op.outputs):
                raise SourceError(f"{self.request.uri} is damaged: a tensor is made twice. Copy it again, then pass it")
            self._add(op)
        if end not in self.found:
            raise SourceError(f"{self.request.uri} is damaged: nothing makes its output. Copy it again, then pass it")
        return self.builder.graph(self.found[end]), self.builder

    def _end(self) -> int:
        wanted = fragment(self.request)
        names = {tensor.name: i for i, tensor in enumerate(self.model.tensors) if tensor.data is None}
        if wanted:
            if wanted not in names:
                raise SourceError(
                    f"{self.request.uri} has no tensor {wanted!r}.{closest(wanted, names)} `regraft inspect` lists "
                    "the cuts"
                )
            return names[wanted]
        end, makers = self.model.outputs[0], {n: op for op in self.model.operations for n in op.outputs}
        for _ in self.model.operations:
            op = makers.get(end)
            if op is None or op.kind not in _BEHIND or not op.inputs:
                break
            end = op.inputs[0]
        return end

    def _add(self, op: Operation) -> None:
        reader = _READERS.get(op.kind)
        if reader is None:
            name = self.model.tensors[op.outputs[0]].name if op.outputs else ""
            raise SourceError(
                f"{name!r} of {self.request.uri} is made by {op.kind}, which is not read. Read are "
                f"{', '.join(sorted(_READERS))}. End below it: load_source('FILE.tflite#TENSOR')"
            )
        try:
            if op.kind in ("DEQUANTIZE", "QUANTIZE") and op.inputs[0] not in self.found:
                self.arrays[op.outputs[0]] = self.array(op.inputs[0])  # half-precision weights
                return
            made = reader(self, op)
        except (struct.error, LookupError, TypeError, ValueError, ArithmeticError) as error:
            raise SourceError(
                f"a {op.kind} of {self.request.uri} is used in a way that is not read ({first_line(error)}). "
                "End below it: load_source('FILE.tflite#TENSOR')"
            ) from error
        self.found[op.outputs[0]] = made

    def name(self, op: Operation) -> str:
        """Of what an operation makes."""
        return self.model.tensors[op.outputs[0]].name

    def value(self, op: Operation, index: int) -> Value:
        """An input that is an activation."""
        return self.found[op.inputs[index]]

    def array(self, number: int) -> np.ndarray:
        """The values of a constant."""
        if number in self.arrays:
            return self.arrays[number]
        stored = self.model.tensors[number]
        if number < 0 or stored.data is None:
            raise ValueError(f"{stored.name!r} is no constant")
        return stored.values()

    def constant(self, op: Operation, index: int) -> np.ndarray:
        """An input that is a constant."""
        return self.array(op.inputs[index])

    def tensor(self, op: Operation, index: int, kind: Kind, axes: Sequence[int] | None = None) -> list[Value]:
        """A constant input as a tensor of the graph; none where the input is left out."""
        if index >= len(op.inputs) or op.inputs[index] < 0:
            return []
        array = self.constant(op, index)
        array = array.transpose(axes) if axes is not None else array
        return [self.builder.tensor(self.model.tensors[op.inputs[index]].name, array, kind)]

    def operand(self, op: Operation, index: int) -> Value:
        """An input of arithmetic: an activation, or numbers laid along its channels."""
        number = op.inputs[index]
        if number in self.found:
            return self.found[number]
        array = self.array(number)
        if array.ndim > 1 and max(array.shape[:-1]) == 1:
            array = array.reshape(-1)
        elif array.ndim >= 3:
            array = np.moveaxis(array, -1, -3)
        return self.builder.tensor(self.model.tensors[number].name, array, "constant")

    def activated(self, op: Operation, kind: str, inputs: list[Value], **attributes: Any) -> Value:
        """A node, and the activation that is fused with it, which has the tensor's name."""
        code = op.options.FusedActivationFunction()
        if not code:
            return self.builder.add(self.name(op), kind, inputs, **attributes)
        if code not in _ACTIVATIONS:
            raise ValueError(f"an activation of kind {code}")
        after, settings = _ACTIVATIONS[code]
        before = self.builder.add(f"{self.name(op)}/before", kind, inputs, **attributes)
        return self.builder.add(self.name(op), after, [before], **settings)


def _axes(value: Value, axes: Any) -> list[int]:
    n = len(value.shape)
    numbers = [int(axis) % n for axis in np.asarray(axes).reshape(-1)]
    return [_TO_OURS[axis] for axis in numbers] if n == 4 else numbers


def _window(x: Value, kernel: Sequence[int], options: Any, dilation: Sequence[int] = (1, 1)) -> dict[str, Any]:
    stride, padding = [options.StrideH(), options.StrideW()], [0, 0, 0, 0]
    if options.Padding() == 0:  # SAME
        for i, side in enumerate(x.shape[2:]):
            total = max((-(-side // stride[i]) - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1 - side, 0)
            padding[2 * i : 2 * i + 2] = [total // 2, total - total // 2]
    return {"stride": stride, "padding": padding}


def _conv(c: _Conversion, op: Operation) -> Value:
    x = c.value(op, 0)
    depthwise = op.kind == "DEPTHWISE_CONV_2D"
    weight = c.tensor(op, 1, "weight", (3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
    dilation = [op.options.DilationHFactor(), op.options.DilationWFactor()]
    groups = x.shape[1] if depthwise else x.shape[1] // weight[0].shape[1]
    settings = _window(x, weight[0].shape[2:], op.options, dilation)
    tensors = [*weight, *c.tensor(op, 2, "zeros")]
    return c.activated(op, "conv", [x, *tensors], **settings, dilation=dilation, groups=groups)


def _fully_connected(c: _Conversion, op: Operation) -> Value:
    x = c.value(op, 0)
    if len(x.shape) > 2:
        x = c.builder.add(f"{c.name(op)}/flat", "reshape", [x], shape=[math.prod(x.shape[1:])], channels_last=True)
    return c.activated(op, "linear", [x, *c.tensor(op, 1, "weight"), *c.tensor(op, 2, "zeros")])


def _pool(kind: str) -> Callable[[_Conversion, Operation], Value]:
    def add(c: _Conversion, op: Operation) -> Value:
        x, kernel = c.value(op, 0), [op.options.FilterHeight(), op.options.FilterWidth()]
        return c.activated(op, kind, [x], kernel=kernel, **_window(x, kernel, op.options))

    return add


def _arithmetic(kind: str) -> Callable[[_Conversion, Operation], Value]:
    def add(c: _Conversion, op: Operation) -> Value:
        operands = [c.operand(op, 0), c.operand(op, 1)]
        if op.options is None:
            return c.builder.add(c.name(op), kind, operands)
        return c.activated(op, kind, operands)

    return add


def _unary(kind: str, **settings: Any) -> Callable[[_Conversion, Operation], Value]:
    return lambda c, op: c.builder.add(c.name(op), kind, [c.value(op, 0)], **settings)


def _reduce(kind: str) -> Callable[[_Conversion, Operation], Value]:
    def add(c: _Conversion, op: Operation) -> Value:
        x = c.value(op, 0)
        axes, keep = sorted(_axes(x, c.constant(op, 1))), bool(op.options.KeepDims())
        if 0 in axes or (x.spatial and not keep and len(axes) == 1):
            raise ValueError(f"over the axes {axes}")
        return c.builder.add(c.name(op), kind, [x], axes=axes, keep=keep)

    return add


def _reshape(c: _Conversion, op: Operation) -> Value:
    """To the shape that the file gives the result, whose number of examples is one."""
    x, shape = c.value(op, 0), list(c.model.tensors[op.outputs[0]].shape[1:])
    if math.prod(shape) != math.prod(x.shape[1:]) or not shape:
        raise ValueError(f"rows of {math.prod(x.shape[1:])} values as {shape}, which mixes examples")
    moves = (x.spatial and math.prod(x.shape[2:]) > 1) or len(shape) == 3
    return c.builder.add(c.name(op), "reshape", [x], shape=shape, channels_last=moves)


def _concat(c: _Conversion, op: Operation) -> Value:
    values = [c.value(op, i) for i in range(len(op.inputs))]
    return c.activated(op, "concat", values, axis=_axes(values[0], op.options.Axis())[0])


def _pad(c: _Conversion, op: Operation) -> Value:
    x, ours = c.value(op, 0), [[0, 0]] * len(c.value(op, 0).shape)
    for axis, pair in zip(_axes(x, range(len(x.shape))), c.constant(op, 1).tolist(), strict=True):
        ours[axis] = [int(n) for n in pair]
    value = float(c.constant(op, 2).reshape(())) if len(op.inputs) > 2 else 0.0
    return c.builder.add(c.name(op), "pad", [x], padding=[n for p in reversed(ours[1:]) for n in p], value=value)


def _prelu(c: _Conversion, op: Operation) -> Value:
    slope = c.constant(op, 1)
    if max(slope.shape[:-1], default=1) != 1:
        raise ValueError(f"a slope of shape {slope.shape}")
    name = c.model.tensors[op.inputs[1]].name
    return c.builder.add(c.name(op), "prelu", [c.value(op, 0), c.builder.tensor(name, slope.reshape(-1), "ones")])


def _strided_slice(c: _Conversion, op: Operation) -> Value:
    """Of axes that the result still has: a part of the picture, as the file's shapes say."""
    x = c.value(op, 0)
    begin, step, shape = c.constant(op, 1), c.constant(op, 3), c.model.tensors[op.outputs[0]].shape
    if len(shape) != len(x.shape) or len(begin) != len(shape):
        raise ValueError("a slice that drops an axis")
    changed = [axis for axis, ours in enumerate(_axes(x, range(len(shape)))) if axis and shape[axis] != x.shape[ours]]
    for i, axis in enumerate(changed, 1):
        name = c.name(op) if i == len(changed) else f"{c.name(op)}/first{i}"
        start, stride = int(begin[axis]), int(step[axis])
        ours = _axes(x, axis)[0]
        stop = start + (shape[axis] - 1) * stride + 1
        x = c.builder.add(name, "slice", [x], axis=ours, start=start, stop=stop, step=stride)
    return x if changed else c.builder.add(c.name(op), "identity", [x])


def _lrn(c: _Conversion, op: Operation) -> Value:
    size = 2 * op.options.Radius() + 1
    settings = {"alpha": op.options.Alpha() * size, "beta": op.options.Beta(), "k": op.options.Bias()}
    return c.builder.add(c.name(op), "local_response_norm", [c.value(op, 0)], size=size, **settings)


def _softmax(kind: str) -> Callable[[_Conversion, Operation], Value]:
    return lambda c, op: c.builder.add(c.name(op), kind, [c.value(op, 0)], axis=_axes(c.value(op, 0), -1)[0])


def _resize(kind: str) -> Callable[[_Conversion, Operation], Value]:
    def add(c: _Conversion, op: Operation) -> Value:
        size, align = c.constant(op, 1).reshape(-1).tolist(), bool(op.options.AlignCorners())
        centres = bool(op.options.HalfPixelCenters())
        if (kind == "nearest") == (align or centres):
            raise ValueError("corners and centres of pixels in the older way")
        return c.builder.add(c.name(op), "resize", [c.value(op, 0)], size=size, mode=kind, align_corners=align)

    return add


_READERS: dict[str, Callable[[_Conversion, Operation], Value]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _conv,
    "FULLY_CONNECTED": _fully_connected,
    "AVERAGE_POOL_2D": _pool("avg_pool"),
    "MAX_POOL_2D": _pool("max_pool"),
    "ADD": _arithmetic("add"),
    "SUB": _arithmetic("sub"),
    "MUL": _arithmetic("mul"),
    "DIV": _arithmetic("div"),
    "MAXIMUM": _arithmetic("maximum"),
    "MINIMUM": _arithmetic("minimum"),
    "SQUARED_DIFFERENCE": _arithmetic("squared_difference"),
    "MEAN": _reduce("mean"),
    "SUM": _reduce("sum"),
    "REDUCE_MAX": _reduce("max"),
    "RESHAPE": _reshape,
    "SQUEEZE": _reshape,
    "EXPAND_DIMS": _reshape,
    "CONCATENATION": _concat,
    "PAD": _pad,
    "PADV2": _pad,
    "PRELU": _prelu,
    "STRIDED_SLICE": _strided_slice,
    "LOCAL_RESPONSE_NORMALIZATION": _lrn,
    "SOFTMAX": _softmax("softmax"),
    "LOG_SOFTMAX": _softmax("log_softmax"),
    "RESIZE_BILINEAR": _resize("bilinear"),
    "RESIZE_NEAREST_NEIGHBOR": _resize("nearest"),
    "QUANTIZE": _unary("identity"),
    "DEQUANTIZE": _unary("identity"),
    "CAST": _unary("identity"),
    "RELU": _unary("relu"),
    "RELU6": _unary("relu6"),
    "RELU_N1_TO_1": _unary("clamp", low=-1.0, high=1.0),
    "LOGISTIC": _unary("sigmoid"),
    "TANH": _unary("tanh"),
    "ELU": _unary("elu"),
    "HARD_SWISH": _unary("hard_swish"),
    "EXP": _unary("exp"),
    "LOG": _unary("log"),
    "SQRT": _unary("sqrt"),
    "RSQRT": _unary("rsqrt"),
    "SQUARE": _unary("square"),
    "ABS": _unary("abs"),
    "NEG": _unary("neg"),
    "LEAKY_RELU": lambda c, op: c.builder.add(c.name(op), "leaky_relu", [c.value(op, 0)], slope=op.options.Alpha()),
    "GELU": lambda c, op: c.builder.add(
        c.name(op), "gelu", [c.value(op, 0)], approximate="tanh" if op.options.Approximate() else "none"
    ),
    "DEPTH_TO_SPACE": lambda c, op: c.builder.add(
        c.name(op), "depth_to_space", [c.value(op, 0)], size=op.options.BlockSize()
    ),
}
