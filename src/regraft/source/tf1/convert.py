"""From TensorFlow's operations to the neutral graph.

Every operation that the end needs becomes one of three things: an activation (`Value`), a number known beforehand
(`ndarray`, shapes with -1 for the number of examples), or a variable (`Variable`). Activations with four axes are
(N, C, H, W) here and (N, H, W, C) in most files; `Value.channels_last` says which.

Shape letters: N examples, C channels, H and W pixels, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from regraft.errors import SourceError, first_line
from regraft.source.graph import Builder, Value
from regraft.source.graph.graph import Kind
from regraft.source.tf1.checkpoint import AVERAGE, tensor_array
from regraft.source.tf1.graphdef import PASSING, VARIABLES, Graph1, Op, Ref, is_control, is_input


@dataclass(frozen=True)
class Variable:
    """A variable of the checkpoint, or a constant that is used like one.

    Args:
        name: in the checkpoint.
        turned: whether it is read with its two axes exchanged.
        part: whether it is one of several parts, which are only read together.
    """

    name: str
    turned: bool = False
    part: bool = False


Found = Value | np.ndarray | Variable
_TO_OURS = {0: 0, 1: 2, 2: 3, 3: 1}  # axes of (N, H, W, C)


class Conversion:
    """The operations that lead to an end, one by one into a graph.

    Args:
        graph: TensorFlow's.
        start: the operation through which examples enter.
        builder: gets the nodes.
        checkpoint: gives the variables.
        averages: take each variable's moving average where there is one.
    """

    def __init__(
        self,
        graph: Graph1,
        start: Op,
        builder: Builder,
        checkpoint: Mapping[str, np.ndarray],
        *,
        averages: bool = False,
    ) -> None:
        self.graph = graph
        self.builder = builder
        self.checkpoint = checkpoint
        self.averages = averages
        self.used: set[str] = set()
        self.found: dict[Ref, Found] = {(start.name, 0): _entered(builder, start)}
        self._noise = graph.noise(start.name)
        self._constants: dict[str, np.ndarray] = {}
        self._turned: dict[str, bool] = {}

    def value(self, end: Ref) -> Value:
        """Convert what an output needs, and it.

        Raises:
            SourceError: an operation is not read, the graph has a circle, or the end is no activation.
        """
        stack, waiting = [end], set()
        while stack:
            ref = stack[-1]
            missing = [need for need in self._needs(ref) if need not in self.found] if ref not in self.found else []
            if missing:
                if ref in waiting:
                    raise SourceError(f"{self.graph.path} is damaged: {ref[0]!r} depends on itself. Copy it again")
                waiting.add(ref)
                stack += missing
                continue
            stack.pop()
            if ref not in self.found:
                self.found[ref] = self._converted(ref)
            waiting.discard(ref)
        result = self.found[end]
        if not isinstance(result, Value):
            raise SourceError(
                f"{end[0]!r} of {self.graph.path} is no activation. Choose one that depends on the examples"
            )
        return result

    def _needs(self, ref: Ref) -> list[Ref]:
        op = self.graph.ops[ref[0]]
        special = self._special(op)
        if special is not None:
            return special[1]
        if op.op in ("Merge", "RefMerge"):
            return [self.graph.live(op)]
        if op.op in ("Switch", "RefSwitch") or op.op in PASSING:
            return [op.inputs[ref[1]] if op.op == "IdentityN" and ref[1] < len(op.inputs) else self._first(op)]
        if op.op in ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3") and op.flag("is_training", True):
            return list(op.inputs[:3])
        return [] if is_input(op.op) and op.op != "PlaceholderWithDefault" else list(op.inputs)

    def _first(self, op: Op) -> Ref:
        if not op.inputs:
            raise SourceError(f"{self.graph.path} is damaged: {op.name!r} ({op.op}) reads nothing. Copy it again")
        return op.inputs[0]

    def _converted(self, ref: Ref) -> Found:
        op = self.graph.ops[ref[0]]
        try:
            result = self._one(op, ref)
        except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError, AttributeError) as error:
            raise SourceError(
                f"{op.name!r} ({op.op}) of {self.graph.path} is used in a way that is not read ({first_line(error)}). "
                f"{_way_out(op.name)}"
            ) from error
        if isinstance(result, np.ndarray) and result.size > 1 << 26:
            raise SourceError(
                f"{op.name!r} of {self.graph.path} is a constant of {result.size:,} values. Copy it again"
            )
        return result

    def _one(self, op: Op, ref: Ref) -> Found:
        special = self._special(op)
        inputs = [self.found[need] for need in self._needs(ref)]
        if special is not None:
            return special[0](self, op, inputs)
        if op.op in PASSING or op.op in ("Switch", "RefSwitch", "Merge", "RefMerge"):
            return self._handed_on(op, inputs[0])
        if op.op in VARIABLES:
            return self.variable(op)
        if op.op == "Const":
            array = tensor_array(op.attributes["value"].tensor, self.graph.path)
            self._constants[op.name] = array
            return array
        if is_input(op.op):
            return self._other_input(op, inputs)
        if op.op in _HOST and all(isinstance(value, np.ndarray) for value in inputs):
            return np.asarray(_HOST[op.op](op, inputs))
        reader = _READERS.get(op.op)
        if reader is None:
            raise SourceError(f"{op.name!r} of {self.graph.path} is a {op.op}, which is not read. {_way_out(op.name)}")
        result = reader(self, op, inputs)
        return result[ref[1]] if isinstance(result, list) else result

    def _handed_on(self, op: Op, value: Found) -> Found:
        """The same value; activations under the new name too, so that it can be addressed."""
        if isinstance(value, Value) and op.op not in ("Switch", "RefSwitch"):
            return self.builder.add(op.name, "identity", [value])
        return value

    def _other_input(self, op: Op, inputs: list[Found]) -> Found:
        """Placeholders beside the examples: what they are at inference."""
        if op.dtype() == 10:
            return np.array(False)
        if is_control(op):  # the probability to keep, or to drop
            return np.array(1.0 if "keep" in op.name.lower() or "prob" in op.name.lower() else 0.0, np.float32)
        if inputs:
            return inputs[0]
        raise SourceError(
            f"{self.graph.path} needs a second input, {op.name!r}, on the way to the end. {_way_out(op.name)}"
        )

    # variables ------------------------------------------------------------------------------------

    def variable(self, op: Op) -> Variable:
        """The variable that an operation stands for; parts of a larger one are read as the whole."""
        name = op.text("shared_name") if op.op == "VarHandleOp" else ""
        name = name or op.name
        whole, slash, part = name.rpartition("/")
        if slash and part.startswith("part_") and name not in self.checkpoint and whole in self.checkpoint:
            return Variable(whole, part=True)
        return Variable(name)

    def array(self, found: Found, op: Op) -> tuple[str, np.ndarray]:
        """Name and values of a variable, or of a constant in its place."""
        if isinstance(found, Variable):
            self.used.add(found.name)
            return found.name, self._stored(found.name)
        if isinstance(found, Value):
            raise ValueError("an activation where weights are expected")
        return next((n for n, array in self._constants.items() if array is found), f"{op.name}/constant"), found

    def _stored(self, name: str) -> np.ndarray:
        if self.averages and name + AVERAGE in self.checkpoint:
            self.used.add(name + AVERAGE)
            return self.checkpoint[name + AVERAGE]
        return self.checkpoint[name]

    def tensor(self, found: Found, op: Op, kind: Kind, axes: Sequence[int] | None = None) -> Value:
        """A variable or constant as a tensor of the graph, its axes in another order."""
        name, array = self.array(found, op)
        if array.dtype.kind not in "fiub" or (isinstance(found, Variable) and found.part):
            raise ValueError("these are no weights, or a part of some")
        array = array.transpose(axes) if axes is not None else array
        return self.builder.tensor(name, array, kind if isinstance(found, Variable) or kind == "weight" else "constant")

    def matrix(self, found: Found, op: Op, turned: bool) -> tuple[Value, bool]:
        """A weight as (out, in), and whether it is to be read the other way round.

        Args:
            found: the weight.
            op: who reads it.
            turned: whether it already is (out, in) as it stands in the file.
        """
        turned ^= isinstance(found, Variable) and found.turned
        name, array = self.array(found, op)
        if array.ndim != 2:
            raise ValueError(f"a weight with {array.ndim} axes")
        kept = self._turned.setdefault(name, turned)
        return self.tensor(found, op, "weight", None if kept else (1, 0)), kept != turned

    def operand(self, found: Found, op: Op, other: Found) -> Value:
        """An input of arithmetic, laid so that it meets the other one's channels."""
        if isinstance(found, Value):
            return found
        name, array = self.array(found, op)
        last = isinstance(other, Value) and other.channels_last
        if array.ndim > 1 and max(array.shape[:-1]) == 1:
            array = array.reshape(-1)
        elif array.ndim >= 3 and last:
            array = np.moveaxis(array, -1, -3)
        elif array.ndim > 1 and isinstance(other, Value) and other.spatial:
            raise ValueError(f"a constant of shape {array.shape}")
        kind: Kind = "constant" if isinstance(found, np.ndarray) else "ones" if "gamma" in name else "zeros"
        return self.builder.tensor(name, array, kind)

    # patterns -------------------------------------------------------------------------------------

    def _special(self, op: Op) -> tuple[Callable[..., Found], list[Ref]] | None:
        """Several operations that are one at inference: how to convert them, and what they need."""
        if op.op in ("Mul", "SelectV2", "Select", "Add", "AddV2") and len(op.inputs) >= 2:
            kept = self._under_noise(op)
            if kept is not None:
                return _dropout, [kept]
        if op.op in ("Add", "AddV2") and len(op.inputs) == 2:
            norm = self._batch_norm(op)
            if norm is not None:
                return _unfused_batch_norm, norm
        return None

    def _under_noise(self, op: Op) -> Ref | None:
        """What is multiplied with a random mask, without the factor that makes up for what it drops."""
        random = [ref[0] in self._noise for ref in op.inputs[:2]]
        if op.op in ("SelectV2", "Select"):
            random = [random[0], False]
        if random.count(True) != 1:
            return None
        kept = op.inputs[1 - random.index(True)]
        scaled = self.graph.ops[self.graph.source(kept)[0]]
        same = scaled.name.rpartition("/")[0] == op.name.rpartition("/")[0]
        if scaled.op in ("RealDiv", "Div", "Mul") and same and len(scaled.inputs) == 2:
            return scaled.inputs[0]
        return kept

    def _batch_norm(self, op: Op) -> list[Ref] | None:
        """x * s + (beta - mean * s), with s = gamma / sqrt(variance + epsilon): x, beta and what `s` is made of."""
        for x, rest in (op.inputs, op.inputs[::-1]):
            product, shift = self._op(x, "Mul"), self._op(rest, "Sub")
            moved = self._op(shift.inputs[1], "Mul") if shift and len(shift.inputs) == 2 else None
            if product is None or shift is None or moved is None:
                continue
            for mean, factor in (moved.inputs, moved.inputs[::-1]):
                kept = [ref for ref in product.inputs if self.graph.source(ref) != self.graph.source(factor)]
                scale = self._scale(factor)
                if scale is not None and len(kept) == 1:
                    return [kept[0], shift.inputs[0], *self._statistics(mean, scale[0], shift.inputs[0]), *scale[1:]]
        return None

    def _op(self, ref: Ref, *kinds: str) -> Op | None:
        op = self.graph.ops[self.graph.source(ref)[0]]
        return op if op.op in kinds and len(op.inputs) >= (1 if "Rsqrt" in kinds else 2) else None

    def _scale(self, ref: Ref) -> list[Ref] | None:
        """variance, epsilon and perhaps gamma of rsqrt(variance + epsilon) * gamma."""
        product = self._op(ref, "Mul")
        for root, gamma in (product.inputs, product.inputs[::-1]) if product else ((ref, None),):
            inverse = self._op(root, "Rsqrt")
            summed = self._op(inverse.inputs[0], "Add", "AddV2") if inverse else None
            if summed is not None:
                return [summed.inputs[0], summed.inputs[1], *([gamma] if gamma else [])]
        return None

    def _statistics(self, mean: Ref, variance: Ref, beta: Ref) -> list[Ref]:
        """The stored mean and variance; where the graph only knows the batch's, those beside the offset."""
        found = [self.graph.source(ref) for ref in (mean, variance)]
        if all(self.graph.ops[name].op in (*VARIABLES, "Const") for name, _ in found):
            return found
        return self.moving(beta)

    def moving(self, beside: Ref) -> list[Ref]:
        """The moving mean and variance that lie beside a variable of a batch norm.

        Raises:
            SourceError: the graph has none.
        """
        scope = self.graph.source(beside)[0].rpartition("/")[0]
        names = [f"{scope}/moving_mean", f"{scope}/moving_variance"]
        if not all(name in self.graph.ops for name in names):
            raise SourceError(
                f"a batch norm of {self.graph.path} normalises by the batch, and there are no "
                f"{' and '.join(names)} to use at inference. {_way_out(scope)}"
            )
        return [(name, 0) for name in names]


def _way_out(name: str) -> str:
    return (
        f"End below it: load_source('model.ckpt#NAME') with a NAME before {name!r} (`regraft inspect` lists them); or "
        "convert the network where TensorFlow is installed: python -m tf2onnx.convert --checkpoint model.ckpt.meta "
        "--inputs X:0 --outputs NAME:0 --output model.onnx, and pass model.onnx"
    )


def _entered(builder: Builder, start: Op) -> Value:
    """The examples as the file's placeholder has them: pictures, or rows of (H, W, C) in one."""
    shape = start.shape() or []
    if len(shape) == 4 or not shape:
        return builder.add(start.name, "identity", [builder.input])
    rest = [math.prod(builder.shape)] if len(shape) == 2 else list(builder.shape[1:])
    return builder.add(start.name, "reshape", [builder.input], shape=rest, channels_last=builder.input.channels_last)


# readers ----------------------------------------------------------------------------------------------


def _axes(value: Value, axes: Any) -> list[int]:
    """The file's axes as ours."""
    n = len(value.shape)
    numbers = [int(axis) % n for axis in np.asarray(axes).reshape(-1)]
    return [_TO_OURS[axis] for axis in numbers] if n == 4 and value.channels_last else numbers


def _file_shape(value: Value) -> list[int]:
    """The shape as the file has it, -1 for the number of examples."""
    rest = list(value.shape[1:])
    return [-1, *(rest[1:] + rest[:1] if len(rest) == 3 and value.channels_last else rest)]


def _reshaped(c: Conversion, op: Op, x: Value, shape: Sequence[int]) -> Value:
    """Every row to a shape, in the file's order."""
    size, rest = math.prod(x.shape[1:]), list(map(int, shape))
    if rest.count(-1) == 1:
        known = -math.prod(rest)
        rest[rest.index(-1)] = size // known if known > 0 else 0
    if math.prod(rest) != size or not rest:
        raise ValueError(f"rows of {size} values as {rest}, which mixes examples")
    moves = (x.spatial and math.prod(x.shape[2:]) > 1) or len(rest) == 3
    return c.builder.add(op.name, "reshape", [x], shape=rest, channels_last=x.channels_last and moves)


def _reshape(c: Conversion, op: Op, inputs: list[Any]) -> Found:
    x, shape = inputs
    if not isinstance(x, Value):
        return _host_reshape(op, inputs)
    return _reshaped(c, op, x, np.asarray(shape).reshape(-1)[1:].tolist())


def _flatten(c: Conversion, op: Op, inputs: list[Any]) -> Value:
    return _reshaped(c, op, inputs[0], [math.prod(inputs[0].shape[1:])])


def _squeeze(c: Conversion, op: Op, inputs: list[Any]) -> Value:
    shape = _file_shape(inputs[0])
    chosen = {axis % len(shape) for axis in op.wholes("squeeze_dims") or op.wholes("axis")}
    chosen = chosen or {i for i, size in enumerate(shape) if size == 1}
    return _reshaped(c, op, inputs[0], [size for i, size in enumerate(shape) if i not in chosen][1:])


def _expand(c: Conversion, op: Op, inputs: list[Any]) -> Found:
    if not isinstance(inputs[0], Value):
        raise ValueError("a variable with one more axis")
    shape, axis = _file_shape(inputs[0]), int(np.asarray(inputs[1]).reshape(()))
    shape.insert(axis % (len(shape) + 1), 1)
    return _reshaped(c, op, inputs[0], shape[1:])


def _shape(c: Conversion, op: Op, inputs: list[Any]) -> np.ndarray:
    if not isinstance(inputs[0], Value):
        raise ValueError("the shape of a variable")
    return np.array(_file_shape(inputs[0]))


def _transpose(c: Conversion, op: Op, inputs: list[Any]) -> Found:
    x, order = inputs[0], np.asarray(inputs[1]).reshape(-1).tolist()
    if isinstance(x, Variable) and order == [1, 0]:
        return replace(x, turned=not x.turned)
    if not isinstance(x, Value):
        raise ValueError("a variable whose axes are exchanged")
    wanted = [0, 3, 1, 2] if x.channels_last else [0, 2, 3, 1]
    if x.spatial and order == wanted:
        return replace(c.builder.add(op.name, "identity", [x]), channels_last=not x.channels_last)
    if x.spatial or order[:1] != [0]:
        raise ValueError(f"axes in the order {order}")
    return c.builder.add(op.name, "permute", [x], order=order)


def _window(op: Op, x: Value, kernel: Sequence[int], dilation: Sequence[int] = (1, 1)) -> dict[str, Any]:
    """Stride and padding of a window that moves over a picture; "SAME" pads below and right first."""
    last = op.text("data_format", "NHWC") in ("NHWC", "")
    if not x.spatial or last != x.channels_last:
        raise ValueError(f"a picture in another order than {op.text('data_format')}")
    at = slice(1, 3) if last else slice(2, 4)
    stride = op.wholes("strides")[at]
    how, padding = op.text("padding"), [0, 0, 0, 0]
    if how == "SAME":
        for i, side in enumerate(x.shape[2:]):
            wanted = (-(-side // stride[i]) - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1
            total = max(wanted - side, 0)
            padding[2 * i : 2 * i + 2] = [total // 2, total - total // 2]
    elif how == "EXPLICIT":
        pads = op.wholes("explicit_paddings")
        padding = pads[2:6] if last else pads[4:8]
    return {"stride": stride, "padding": padding}


def _dilation(op: Op) -> list[int]:
    every = op.wholes("dilations") or [1, 1, 1, 1]
    return every[1:3] if op.text("data_format", "NHWC") in ("NHWC", "") else every[2:4]


def _conv(c: Conversion, op: Op, inputs: list[Any]) -> Value:
    x, kernel = inputs
    _, array = c.array(kernel, op)
    high, wide, _, _ = array.shape
    dilation = _dilation(op)
    settings = _window(op, x, (high, wide), dilation)
    inside = array.shape[2]
    weight = c.tensor(kernel, op, "weight", (3, 2, 0, 1))
    return c.builder.add(op.name, "conv", [x, weight], **settings, dilation=dilation, groups=x.shape[1] // inside)


def _depthwise(c: Conversion, op: Op, inputs: list[Any]) -> Value:
    x, kernel = inputs
    name, array = c.array(kernel, op)
    high, wide, inside, times = array.shape
    dilation = _dilation(op)
    settings = _window(op, x, (high, wide), dilation)
    array = array.transpose(2, 3, 0, 1).reshape(inside * times, 1, high, wide)
    weight = c.builder.tensor(name, array, "weight")
    return c.builder.add(op.name, "conv", [x, weight], **settings, dilation=dilation, groups=inside)


def _pool(kind: str) -> Callable[[Conversion, Op, list[Any]], Value]:
    def add(c: Conversion, op: Op, inputs: list[Any]) -> Value:
        sizes = op.wholes("ksize")
        kernel = sizes[1:3] if op.text("data_format", "NHWC") in ("NHWC", "") else sizes[2:4]
        return c.builder.add(op.name, kind, [inputs[0]], kernel=kernel, **_window(op, inputs[0], kernel))

    return add


def _matmul(c: Conversion, op: Op, inputs: list[Any]) -> Value:
    x, weight = inputs
    if not isinstance(x, Value) or op.flag("transpose_a") or len(x.shape) != 2:
        raise ValueError("a product of other things than rows and weights")
    tensor, other_way = c.matrix(weight, op, op.flag("transpose_b"))
    return c.builder.add(op.name, "linear", [x, tensor], **({"transposed": True} if other_way else {}))


def _bias(c: Conversion, op: Op, inputs: list[Any]) -> Value:
    return c.builder.add(op.name, "add_bias", [inputs[0], c.tensor(inputs[1], op, "zeros")])


def _fused_batch_norm(c: Conversion, op: Op, inputs: list[Any]) -> list[Any]:
    """The first output; the others are statistics of the batch."""
    if op.flag("is_training", True):
        statistics: list[Found] = [c.variable(c.graph.ops[name]) for name, _ in c.moving(op.inputs[2])]
        inputs = [*inputs[:3], *statistics]
    x, gamma, beta, mean, variance = inputs
    eps = op.number("epsilon", 1e-4)
    return [_normalised(c, op, x, gamma, beta, mean, variance, eps)]


def _normalised(
    c: Conversion, op: Op, x: Value, gamma: Found, beta: Found, mean: Found, variance: Found, eps: float
) -> Value:
    kinds: list[Kind] = ["mean", "variance", "ones", "zeros"]
    tensors = [c.tensor(found, op, kind) for found, kind in zip((mean, variance, gamma, beta), kinds, strict=True)]
    return c.builder.add(op.name, "batch_norm", [x, *tensors], eps=eps)


def _unfused_batch_norm(c: Conversion, op: Op, inputs: list[Any]) -> Value:
    x, beta, mean, variance, eps, *gamma = inputs
    scale = gamma[0] if gamma else np.ones(x.shape[1], np.float32)
    return _normalised(c, op, x, scale, beta, mean, variance, float(np.asarray(eps).reshape(())))


def _dropout(c: Conversion, op: Op, inputs: list[Any]) -> Found:
    """The probability is a number that the graph works out, so a plan that wants dropout gets the usual one."""
    if not isinstance(inputs[0], Value):
        return inputs[0]
    return c.builder.add(op.name, "dropout", [inputs[0]], p=0.5)


def _arithmetic(kind: str) -> Callable[[Conversion, Op, list[Any]], Value]:
    def add(c: Conversion, op: Op, inputs: list[Any]) -> Value:
        x, y = inputs
        return c.builder.add(op.name, kind, [c.operand(x, op, y), c.operand(y, op, x)])

    return add


def _unary(kind: str, **settings: Any) -> Callable[[Conversion, Op, list[Any]], Value]:
    return lambda c, op, inputs: c.builder.add(op.name, kind, [c.operand(inputs[0], op, inputs[0])], **settings)


def _sum_all(c: Conversion, op: Op, inputs: list[Any]) -> Value:
    total = inputs[0]
    for i, value in enumerate(inputs[1:], 2):
        total = c.builder.add(op.name if i == len(inputs) else f"{op.name}/first{i}", "add", [total, value])
    return total


def _reduce(kind: str) -> Callable[[Conversion, Op, list[Any]], Value]:
    def add(c: Conversion, op: Op, inputs: list[Any]) -> Value:
        x, axes = inputs
        ours, keep = sorted(_axes(x, axes)), op.flag("keep_dims")
        if 0 in ours or (x.spatial and not keep and len(ours) == 1):
            raise ValueError(f"over the axes {np.asarray(axes).tolist()}")
        return c.builder.add(op.name, kind, [x], axes=ours, keep=keep)

    return add


def _concat(c: Conversion, op: Op, inputs: list[Any]) -> Found:
    axis, values = (inputs[0], inputs[1:]) if op.op == "Concat" else (inputs[-1], inputs[:-1])
    if all(isinstance(value, Variable) and value.part and value == values[0] for value in values):
        return Variable(values[0].name)
    if not all(isinstance(value, Value) for value in values):
        raise ValueError("activations joined with something else")
    return c.builder.add(op.name, "concat", values, axis=_axes(values[0], axis)[0])


def _pad(c: Conversion, op: Op, inputs: list[Any]) -> Value:
    x, pads = inputs[0], np.asarray(inputs[1])
    ours = [[0, 0]] * len(x.shape)
    for axis, pair in zip(_axes(x, range(len(x.shape))), pads.tolist(), strict=True):
        ours[axis] = pair
    if any(ours[0]):
        raise ValueError("more examples")
    if op.op == "MirrorPad":
        if len(x.shape) != 4 or any(ours[1]) or op.text("mode") != "REFLECT":
            raise ValueError(f"mode {op.text('mode')}")
        return c.builder.add(op.name, "pad", [x], padding=[*ours[3], *ours[2]], mode="reflect")
    value = float(np.asarray(inputs[2]).reshape(())) if len(inputs) > 2 else 0.0
    return c.builder.add(op.name, "pad", [x], padding=[n for pair in reversed(ours[1:]) for n in pair], value=value)


def _lrn(c: Conversion, op: Op, inputs: list[Any]) -> Value:
    size = 2 * op.whole("depth_radius", 5) + 1
    settings = {"alpha": op.number("alpha", 1.0) * size, "beta": op.number("beta", 0.5), "k": op.number("bias", 1.0)}
    return c.builder.add(op.name, "local_response_norm", [inputs[0]], size=size, **settings)


def _softmax(kind: str) -> Callable[[Conversion, Op, list[Any]], Value]:
    return lambda c, op, inputs: c.builder.add(op.name, kind, [inputs[0]], axis=_axes(inputs[0], -1)[0])


def _split(c: Conversion, op: Op, inputs: list[Any]) -> list[Found]:
    x, axis = (inputs[1], inputs[0]) if op.op == "Split" else (inputs[0], inputs[2])
    ours = _axes(x, axis)[0]
    n = op.whole("num_split", 1)
    sizes = [x.shape[ours] // n] * n if op.op == "Split" else np.asarray(inputs[1]).tolist()
    edges = np.cumsum([0, *sizes]).tolist()
    if n != len(sizes) or edges[-1] != x.shape[ours] or n > 10_000:
        raise ValueError(f"{x.shape[ours]} channels as {sizes[:5]}")
    names = [op.name if i == 0 else f"{op.name}:{i}" for i in range(n)]
    parts = zip(names, edges, edges[1:], strict=False)
    return [c.builder.add(name, "slice", [x], axis=ours, start=a, stop=b) for name, a, b in parts]


def _resize(kind: str) -> Callable[[Conversion, Op, list[Any]], Value]:
    def add(c: Conversion, op: Op, inputs: list[Any]) -> Value:
        x, size = inputs[0], np.asarray(inputs[1]).reshape(-1).tolist()
        align, centres = op.flag("align_corners"), op.flag("half_pixel_centers")
        same = list(x.shape[2:]) == size
        if not x.spatial or (not same and (kind == "nearest") == (align or centres)):
            raise ValueError("corners and centres of pixels in the way of TensorFlow 1.13 and before")
        return c.builder.add(op.name, "resize", [x], size=size, mode=kind, align_corners=align)

    return add


def _cast(c: Conversion, op: Op, inputs: list[Any]) -> Found:
    if isinstance(inputs[0], Value):
        return c.builder.add(op.name, "identity", [inputs[0]])
    return inputs[0]


_READERS: dict[str, Callable[[Conversion, Op, list[Any]], Any]] = {
    "Conv2D": _conv,
    "DepthwiseConv2dNative": _depthwise,
    "MaxPool": _pool("max_pool"),
    "AvgPool": _pool("avg_pool"),
    "MatMul": _matmul,
    "BiasAdd": _bias,
    "BiasAddV1": _bias,
    "FusedBatchNorm": _fused_batch_norm,
    "FusedBatchNormV2": _fused_batch_norm,
    "FusedBatchNormV3": _fused_batch_norm,
    "Add": _arithmetic("add"),
    "AddV2": _arithmetic("add"),
    "Sub": _arithmetic("sub"),
    "Mul": _arithmetic("mul"),
    "RealDiv": _arithmetic("div"),
    "Div": _arithmetic("div"),
    "Maximum": _arithmetic("maximum"),
    "Minimum": _arithmetic("minimum"),
    "SquaredDifference": _arithmetic("squared_difference"),
    "Pow": _arithmetic("pow"),
    "AddN": _sum_all,
    "Relu": _unary("relu"),
    "Relu6": _unary("relu6"),
    "Elu": _unary("elu"),
    "Selu": _unary("selu"),
    "Tanh": _unary("tanh"),
    "Sigmoid": _unary("sigmoid"),
    "Softplus": _unary("softplus"),
    "Softsign": _unary("softsign"),
    "Exp": _unary("exp"),
    "Log": _unary("log"),
    "Sqrt": _unary("sqrt"),
    "Rsqrt": _unary("rsqrt"),
    "Square": _unary("square"),
    "Abs": _unary("abs"),
    "Neg": _unary("neg"),
    "LeakyRelu": lambda c, op, inputs: c.builder.add(op.name, "leaky_relu", inputs, slope=op.number("alpha", 0.2)),
    "Softmax": _softmax("softmax"),
    "LogSoftmax": _softmax("log_softmax"),
    "Mean": _reduce("mean"),
    "Sum": _reduce("sum"),
    "Max": _reduce("max"),
    "ConcatV2": _concat,
    "Concat": _concat,
    "Pad": _pad,
    "PadV2": _pad,
    "MirrorPad": _pad,
    "LRN": _lrn,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "ExpandDims": _expand,
    "Shape": _shape,
    "Transpose": _transpose,
    "Split": _split,
    "SplitV": _split,
    "ResizeBilinear": _resize("bilinear"),
    "ResizeNearestNeighbor": _resize("nearest"),
    "Cast": _cast,
}

# arithmetic on shapes ---------------------------------------------------------------------------------


def _host_reshape(op: Op, inputs: list[Any]) -> np.ndarray:
    return np.asarray(inputs[0]).reshape(np.asarray(inputs[1]).reshape(-1).tolist())


def _strided_slice(op: Op, inputs: list[Any]) -> np.ndarray:
    """Of a row of numbers: what is taken from shapes."""
    x, begin, end, step = (np.asarray(value) for value in inputs)
    if x.ndim != 1 or begin.size != 1:
        raise ValueError("a slice of more than one axis")
    if op.whole("shrink_axis_mask", 0) & 1:
        return np.asarray(x[int(begin[0])])
    first = None if op.whole("begin_mask", 0) & 1 else int(begin[0])
    last = None if op.whole("end_mask", 0) & 1 else int(end[0])
    return x[first : last : int(step[0])]


def _slice(op: Op, inputs: list[Any]) -> np.ndarray:
    x, begin, size = (np.asarray(value) for value in inputs)
    first, n = int(begin.reshape(())), int(size.reshape(()))
    return x[first : first + n if n >= 0 else None]


def _fill(op: Op, inputs: list[Any]) -> np.ndarray:
    shape = np.asarray(inputs[0]).reshape(-1).tolist()
    if min(shape, default=0) < 0 or math.prod(shape) > 1 << 20:
        raise ValueError(f"a constant of shape {shape}")
    return np.full(shape, np.asarray(inputs[1]).reshape(()))


def _range(op: Op, inputs: list[Any]) -> np.ndarray:
    start, stop, step = (int(np.asarray(value).reshape(())) for value in inputs)
    if not step or abs((stop - start) // step) > 10_000:
        raise ValueError("a range of over 10,000 numbers")
    return np.arange(start, stop, step)


def _products(op: Op, inputs: list[Any]) -> np.ndarray:
    return np.prod(inputs[0], axis=tuple(np.asarray(inputs[1]).reshape(-1).tolist()), keepdims=op.flag("keep_dims"))


_HOST: dict[str, Callable[[Op, list[Any]], np.ndarray]] = {
    "Pack": lambda op, inputs: np.stack(inputs, op.whole("axis", 0)),
    "ConcatV2": lambda op, inputs: np.concatenate(inputs[:-1], int(inputs[-1])),
    "StridedSlice": _strided_slice,
    "Slice": _slice,
    "Reshape": _host_reshape,
    "Prod": _products,
    "Fill": _fill,
    "Range": _range,
    "ExpandDims": lambda op, inputs: np.expand_dims(inputs[0], int(np.asarray(inputs[1]).reshape(()))),
    "Squeeze": lambda op, inputs: np.squeeze(inputs[0]),
    "Cast": lambda op, inputs: inputs[0],
    "Add": lambda op, inputs: inputs[0] + inputs[1],
    "AddV2": lambda op, inputs: inputs[0] + inputs[1],
    "Sub": lambda op, inputs: inputs[0] - inputs[1],
    "Mul": lambda op, inputs: inputs[0] * inputs[1],
    "FloorDiv": lambda op, inputs: inputs[0] // inputs[1],
    "RealDiv": lambda op, inputs: inputs[0] / inputs[1],
    "Neg": lambda op, inputs: -inputs[0],
    "Sqrt": lambda op, inputs: np.sqrt(inputs[0]),
    "Rsqrt": lambda op, inputs: 1 / np.sqrt(inputs[0]),
    "Maximum": lambda op, inputs: np.maximum(*inputs),
    "Minimum": lambda op, inputs: np.minimum(*inputs),
}
