"""`OnnxNet`: a graph of ONNX as a PyTorch network, and `onnx:graph` as an architecture.

Needs PyTorch alone: a saved model that began as an .onnx file is opened without the package `onnx`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft.errors import SourceError, first_line
from regraft.source.arch import ARCHITECTURES
from regraft.source.graph.constants import unpacked
from regraft.source.graph.graph import MOST_NODES, MOST_VALUES
from regraft.source.graph.net import escaped, given_graph, last_uses
from regraft.source.onnx.ops import MOST_SIZES, OPS, STEERED, Value, sizes
from regraft.spec import InputSpec

KINDS = ("weight", "zeros", "ones", "mean", "variance")
_STATISTICS = ("mean", "variance")
_SMALL = 4096  # whole numbers up to this many are sizes and axes, of which Python keeps count


@dataclass(frozen=True)
class OnnxNode:
    """One operation: attributes are plain JSON, "" among the inputs is one that was left out."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class OnnxTensor:
    """A parameter, or a statistic of a batch norm; `kind` says how a fresh one is filled."""

    name: str
    shape: tuple[int, ...]
    kind: str


@dataclass(frozen=True)
class OnnxGraph:
    """A network of one input and one output.

    Args:
        input: the input's name.
        shape: of one picture, (C, H, W).
        channels_last: whether the network takes (N, H, W, C); the module takes (N, C, H, W) all the same.
        nodes: in an order in which they can be computed.
        tensors: parameters and statistics.
        constants: name to [type, shape, content in base64], for everything that is not learned.
        output: the name of the value that is the network's output.
    """

    input: str
    shape: tuple[int, int, int]
    channels_last: bool
    nodes: tuple[OnnxNode, ...]
    tensors: tuple[OnnxTensor, ...]
    constants: Mapping[str, Any]
    output: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they go into JSON."""
        return {
            "input": self.input,
            "shape": list(self.shape),
            "channels_last": self.channels_last,
            "nodes": [[n.name, n.op, list(n.inputs), list(n.outputs), dict(n.attributes)] for n in self.nodes],
            "tensors": [[t.name, list(t.shape), t.kind] for t in self.tensors],
            "constants": dict(self.constants),
            "output": self.output,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OnnxGraph:
        """The inverse of `to_dict`.

        Raises:
            SourceError: not the form that `to_dict` gives, or a graph that cannot be computed in its order.
        """
        try:
            channels, height, width = (int(side) for side in values["shape"])
            graph = cls(
                input=str(values["input"]),
                shape=(channels, height, width),
                channels_last=bool(values["channels_last"]),
                nodes=tuple(
                    OnnxNode(str(n), str(op), tuple(map(str, i)), tuple(map(str, o)), dict(a))
                    for n, op, i, o, a in values["nodes"]
                ),
                tensors=tuple(OnnxTensor(str(n), tuple(map(int, s)), str(kind)) for n, s, kind in values["tensors"]),
                constants=dict(values["constants"]),
                output=str(values["output"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise SourceError(f"this is not a graph of ONNX ({error!r}). OnnxGraph.to_dict() gives one") from error
        _check(graph)
        return graph


def _check(graph: OnnxGraph) -> None:
    """Every name once, and only of what comes before: so there is no cycle, and sizes are sane."""
    known = {graph.input, ""}
    for name in (*(tensor.name for tensor in graph.tensors), *graph.constants):
        _enter(name, known)
    for node in graph.nodes:
        absent = [name for name in node.inputs if name not in known]
        if absent:
            raise SourceError(
                f"node {node.name!r} reads {absent[0]!r}, which nothing before it computes: the graph has a cycle or "
                "lacks a part. Export or copy it again: torch.onnx.export(model, (example,), 'net.onnx')"
            )
        for name in filter(None, node.outputs):
            _enter(name, known)
    if not graph.output or graph.output not in known or not graph.nodes:
        raise SourceError(f"nothing computes the output {graph.output!r}. Export the network again")
    counts = [math.prod(tensor.shape) for tensor in graph.tensors if min(tensor.shape, default=1) >= 0]
    insane = len(counts) < len(graph.tensors) or sum(counts) > MOST_VALUES or len(graph.nodes) > MOST_NODES
    if insane or not all(0 < side <= 1 << 16 for side in graph.shape):
        raise SourceError("the graph is larger than any network that is read here. Copy or download the file again")


def _enter(name: str, known: set[str]) -> None:
    if name in known:
        raise SourceError(f"the name {name!r} stands for two values of the graph. Export the network again")
    known.add(name)


class Step(nn.Module):
    """One node: a module of its own, so that a traced graph shows the node's name."""

    def __init__(self, node: OnnxNode) -> None:
        super().__init__()
        self.op = node.op
        self.settings = dict(node.attributes)
        if node.op == "Split":
            self.settings["outputs"] = len(node.outputs)

    def forward(self, *inputs: Value | None) -> Any:
        return OPS[self.op](*inputs, **self.settings)

    def extra_repr(self) -> str:
        return ", ".join([self.op, *(f"{name}={value}" for name, value in self.settings.items())])


class OnnxNet(nn.Module):
    """A graph of ONNX that runs; nodes and parameters are found under the file's names.

    Args:
        graph: seen to be computable.

    Raises:
        SourceError: an operator that is not known.
    """

    def __init__(self, graph: OnnxGraph) -> None:
        super().__init__()
        unknown = sorted({node.op for node in graph.nodes if node.op not in OPS})
        if unknown:
            raise SourceError(f"operators that are not read here: {', '.join(unknown)}. Known: {', '.join(OPS)}")
        self.graph = graph
        self._steps = [self._place(node.name, Step(node)) for node in graph.nodes]
        self._tensors = [self._register(tensor) for tensor in graph.tensors]
        self._sizes: dict[str, np.ndarray] = {}
        self._constants: dict[str, str] = {}
        steering = {name for node in graph.nodes if node.op in STEERED for name in node.inputs[1:]}
        for name, constant in graph.constants.items():
            self._keep(name, unpacked(name, constant), name in steering)
        self._last_use = last_uses([(node.inputs, node.outputs) for node in graph.nodes], graph.output)

    def _keep(self, name: str, values: np.ndarray, steers: bool) -> None:
        """A constant: numbers that steer, or a tensor that is not saved since the graph holds it."""
        if values.size <= (1 if values.dtype == np.float32 and not steers else _SMALL):
            self._sizes[name] = sizes(values.tolist()).reshape(values.shape)
            return
        attribute = f"constant%{len(self._constants)}"
        value = torch.from_numpy(values.copy())
        default = torch.empty(0).device  # the meta device, where only shapes are wanted
        self.register_buffer(attribute, value.to(default), persistent=False)
        self._constants[name] = attribute

    def _register(self, tensor: OnnxTensor) -> str:
        owner, leaf, path = self._owner(tensor.name)
        value = torch.empty(tensor.shape)
        if tensor.kind in _STATISTICS:
            owner.register_buffer(leaf, value)
        else:
            owner.register_parameter(leaf, nn.Parameter(value))
        return path

    def _place(self, name: str, step: Step) -> str:
        owner, leaf, path = self._owner(name)
        owner.add_module(leaf, step)
        return path

    def _owner(self, name: str) -> tuple[nn.Module, str, str]:
        """The module that holds this name, the name inside it, and the whole path.

        Dots make nested modules, so that a state dict shows the file's own names; where that is impossible, the
        name is escaped.
        """
        parts = name.split(".")
        owner: nn.Module = self
        clean = all(part == escaped(part) and part for part in parts)
        for part in parts[:-1] if clean else ():
            inner = getattr(owner, part, None)
            if inner is None:
                inner = nn.Module()
                owner.add_module(part, inner)
            if not isinstance(inner, nn.Module):
                clean = False
                break
            owner = inner
        if clean and not hasattr(owner, parts[-1]):
            return owner, parts[-1], name
        options = (f"{escaped(name) or 'unnamed'}{'~' * i}" for i in range(len(self._modules) + 2))
        leaf = next(option for option in options if not hasattr(self, option))
        return self, leaf, leaf

    @property
    def paths(self) -> dict[str, str]:
        """Where each tensor of the file stands in the state dict."""
        return {tensor.name: path for tensor, path in zip(self.graph.tensors, self._tensors, strict=True)}

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Fill every tensor afresh, weights uniformly by fan-in as PyTorch's own layers do."""
        for tensor, path in zip(self.graph.tensors, self._tensors, strict=True):
            value = operator.attrgetter(path)(self)
            if tensor.kind == "weight":
                bound = 1 / math.sqrt(max(1, math.prod(tensor.shape[1:])))
                value.uniform_(-bound, bound)
            else:
                value.fill_(1.0 if tensor.kind in ("ones", "variance") else 0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the output's (N, ...)."""
        values = self._known(x)
        for node, path, done in zip(self.graph.nodes, self._steps, self._last_use, strict=True):
            self._run(node, operator.attrgetter(path)(self), values)
            for name in done:
                del values[name]
        return values[self.graph.output]

    def _known(self, x: torch.Tensor) -> dict[str, Any]:
        values: dict[str, Any] = {"": None, **self._sizes}
        values |= {name: getattr(self, attribute) for name, attribute in self._constants.items()}
        values |= {name: operator.attrgetter(path)(self) for name, path in self.paths.items()}
        values[self.graph.input] = x.permute(0, 2, 3, 1) if self.graph.channels_last else x
        return values

    def _run(self, node: OnnxNode, step: Step, values: dict[str, Any]) -> None:
        result = step(*[values[name] for name in node.inputs])
        results = result if isinstance(result, tuple) else (result,)
        values.update({name: value for name, value in zip(node.outputs, results, strict=False) if name})

    def check(self) -> None:
        """Run once on shapes alone; to be called on the meta device.

        Raises:
            SourceError: a node does not take what it gets.
        """
        values = self._known(torch.empty((2, *self.graph.shape)))
        for node, path in zip(self.graph.nodes, self._steps, strict=True):
            try:
                self._run(node, operator.attrgetter(path)(self), values)
                _check_results([values[name] for name in node.outputs if name in values])
            except Exception as error:  # PyTorch and NumPy refuse with errors of many classes
                raise SourceError(_no_fit(node, values, self.graph.shape, error)) from error
        found = values[self.graph.output]
        if not isinstance(found, torch.Tensor) or found.dim() < 1 or found.shape[0] != 2:
            shape = tuple(getattr(found, "shape", ()))
            raise SourceError(
                f"two pictures give the output {self.graph.output!r} of shape {shape}, expected one row "
                "for each: the network was exported for a single picture. Export it for any number: "
                "torch.onnx.export(model, (two_pictures,), 'net.onnx', dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))"
            )


def _check_results(results: list[Value]) -> None:
    for value in results:
        most, count = (MOST_VALUES, value.numel()) if isinstance(value, torch.Tensor) else (MOST_SIZES, value.size)
        if count > most:
            raise ValueError(f"{count:,} values")


def _no_fit(node: OnnxNode, values: Mapping[str, Any], size: tuple[int, int, int], error: Exception) -> str:
    inputs = [values[name] for name in node.inputs]
    shapes = ", ".join("nothing" if value is None else str(tuple(value.shape)) for value in inputs)
    return (
        f"node {node.name!r} ({node.op}) cannot be applied to the shapes {shapes} and {dict(node.attributes)}: "
        f"{first_line(error)}. Either the file is damaged, or the network was exported for a single picture or another "
        f"size than (C, H, W) = {size}. Export it for any number of pictures of this size: "
        "torch.onnx.export(model, (two_pictures,), 'net.onnx', dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))"
    )


def build_onnx(name: str, arch_args: dict[str, Any]) -> tuple[nn.Module, InputSpec | None]:
    """`onnx:graph` with its graph among the arguments: the network with fresh weights.

    Raises:
        SourceError: the arguments are not a graph, or one that does not fit together.
    """
    graph = OnnxGraph.from_dict(given_graph(f"onnx:{name}", arch_args))
    with torch.device("meta"):
        OnnxNet(graph).check()
    network = OnnxNet(graph)
    network.reset_parameters()
    return network, None


ARCHITECTURES.add("onnx", build_onnx)
