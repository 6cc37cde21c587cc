"""`Pt2Net`: an exported program as a PyTorch network, and `pt2:graph` as an architecture.

The modules of the program are modules again, and each operation runs inside the module that it was exported from: so
parameters, buffers and cuts have the names that they had in the original network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import nn

from regraft.errors import SourceError, first_line
from regraft.source.arch import ARCHITECTURES
from regraft.source.graph.constants import unpacked
from regraft.source.graph.graph import MOST_NODES, MOST_VALUES
from regraft.source.graph.net import given_graph, last_uses
from regraft.source.pt2.ops import MOST_PARTS, find_op, op_name
from regraft.spec import InputSpec

BATCH = "%batch"  # the number of pictures, where a graph was exported for a fixed one and mended
_PARAMETERS = ("weight", "zeros", "ones")
_KINDS = (*_PARAMETERS, "mean", "variance", "counter", "constant", "hidden")
_DTYPES = {name: getattr(torch, name) for name in ("float32", "int64", "int32", "int16", "int8", "uint8", "bool")}
_FORMATS = {
    name: getattr(torch, name) for name in ("contiguous_format", "channels_last", "channels_last_3d", "preserve_format")
}
_DEEPEST = 32
_MOST_LIVE = 3 << 27  # values at once, of two or three pictures: one and a half GiB
_TAKES_APART = ("unbind", "split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk")
RE_EXPORT = (
    "torch.export.save(torch.export.export(model.eval(), (pictures,), "
    "dynamic_shapes=({0: torch.export.Dim('batch')},)), 'net.pt2'), with two pictures or more as the example"
)


@dataclass(frozen=True)
class Pt2Node:
    """One operation.

    Args:
        target: as in the file, for example torch.ops.aten.relu.default.
        modules: the paths of the modules around it, outermost first.
        args: plain JSON; {"value": NAME} is a value of the graph, and other objects with one key are a dtype, a memory
            format, a number that JSON lacks, or the device, which is the input's.
        kwargs: likewise.
        outputs: names of the results; "" where nothing reads it.
    """

    target: str
    modules: tuple[str, ...]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Pt2Tensor:
    """A parameter or buffer.

    Args:
        name: its path in the original network.
        value: its name in the graph.
        kind: how a fresh one is filled; a "constant" keeps its value, a "hidden" one is no part of the state dict.
        shape: of the tensor.
        content: of a constant, as `graph.constants.packed` gives it.
        twin: the path of a parameter that it shares its memory with, "" for none.
    """

    name: str
    value: str
    kind: str
    shape: tuple[int, ...]
    content: Any = None
    twin: str = ""


@dataclass(frozen=True)
class Pt2Graph:
    """An exported program of one picture input and one output.

    Args:
        input: the input's name.
        shape: of one picture, (C, H, W).
        channels_last: whether the program takes (N, H, W, C); the network takes (N, C, H, W) all the same.
        nodes: in an order in which they can be computed.
        tensors: parameters and buffers.
        output: the name of the value that is the network's output.
    """

    input: str
    shape: tuple[int, int, int]
    channels_last: bool
    nodes: tuple[Pt2Node, ...]
    tensors: tuple[Pt2Tensor, ...]
    output: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they go into JSON."""
        return {
            "input": self.input,
            "shape": list(self.shape),
            "channels_last": self.channels_last,
            "nodes": [[n.target, list(n.modules), list(n.args), dict(n.kwargs), list(n.outputs)] for n in self.nodes],
            "tensors": [[t.name, t.value, t.kind, list(t.shape), t.content, t.twin] for t in self.tensors],
            "output": self.output,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Pt2Graph:
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
                    Pt2Node(str(op), tuple(map(str, m)), tuple(a), dict(k), tuple(map(str, o)))
                    for op, m, a, k, o in values["nodes"]
                ),
                tensors=tuple(
                    Pt2Tensor(str(n), str(v), str(kind), tuple(map(int, s)), content, str(twin))
                    for n, v, kind, s, content, twin in values["tensors"]
                ),
                output=str(values["output"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise SourceError(f"this is no exported program ({error!r}). Pt2Graph.to_dict() gives one") from error
        _check(graph)
        return graph


def references(argument: Any, depth: int = 0) -> Iterator[str]:
    """The values of the graph that an argument names.

    Example:
        >>> list(references([{"value": "x"}, 3, [{"value": "y"}], {"dtype": "float32"}]))
        ['x', 'y']
    """
    if depth > _DEEPEST:
        raise SourceError("an argument of the program is nested without end. Copy or download the file again")
    if isinstance(argument, Mapping) and "value" in argument:
        yield str(argument["value"])
    elif isinstance(argument, list | tuple):
        for inner in argument:
            yield from references(inner, depth + 1)


def reads(node: Pt2Node) -> list[str]:
    """The values that a node takes."""
    return list(references([*node.args, *node.kwargs.values()]))


def _check(graph: Pt2Graph) -> None:
    """Every name once, and only of what comes before: so there is no cycle, and sizes are sane."""
    known = {graph.input, BATCH}
    for tensor in graph.tensors:
        _enter(tensor.value, known)
    for node in graph.nodes:
        absent = [name for name in reads(node) if name not in known]
        if absent:
            raise SourceError(
                f"{op_name(node.target)} reads {absent[0]!r}, which nothing before it computes: the program has a "
                f"cycle or lacks a part. Copy it again, or export it anew: {RE_EXPORT}"
            )
        for name in filter(None, node.outputs):
            _enter(name, known)
    if graph.output not in known or not graph.nodes:
        raise SourceError(f"nothing computes the output {graph.output!r}. Export the program again: {RE_EXPORT}")
    sane = all(min(t.shape, default=1) >= 0 and t.kind in _KINDS for t in graph.tensors)
    too_large = sum(math.prod(t.shape) for t in graph.tensors) > MOST_VALUES or len(graph.nodes) > MOST_NODES
    if not sane or too_large or not all(0 < side <= 1 << 16 for side in graph.shape):
        raise SourceError("the program is larger than any network that is read here. Copy or download it again")


def _enter(name: str, known: set[str]) -> None:
    if name in known or not name:
        raise SourceError(f"the name {name!r} stands for two values of the program. Export it again: {RE_EXPORT}")
    known.add(name)


class Part(nn.Module):
    """A module of the original network: it holds its tensors and runs the operations that stood in it."""

    def forward(self, root: nn.Module, items: Sequence[Any], values: dict[str, Any]) -> None:
        """Compute some of the graph's values from those that are there."""
        _run(root, items, values)


@dataclass(frozen=True)
class _Inside:
    """A call of a module."""

    path: str
    items: tuple[Any, ...]


@dataclass(frozen=True)
class _Step:
    """An operation, and the values that nothing reads any more after it."""

    node: Pt2Node
    done: tuple[str, ...]


def _run(root: nn.Module, items: Sequence[Any], values: dict[str, Any]) -> None:
    for item in items:
        if isinstance(item, _Inside):
            root.get_submodule(item.path)(root, item.items, values)
            continue
        compute(item.node, values)
        for name in item.done:
            del values[name]


def compute(node: Pt2Node, values: dict[str, Any]) -> None:
    """Run one operation and enter its results among the values."""
    results = _results(node, values)
    values.update({name: value for name, value in zip(node.outputs, results, strict=False) if name})


def _results(node: Pt2Node, values: Mapping[str, Any]) -> Sequence[Any]:
    op = find_op(node.target)
    assert op is not None
    device = values[""]
    args = [_given(argument, values, device) for argument in node.args]
    result = op(*args, **{name: _given(argument, values, device) for name, argument in node.kwargs.items()})
    return result if isinstance(result, tuple | list) else (result,)


def _given(argument: Any, values: Mapping[str, Any], device: Any) -> Any:
    if isinstance(argument, list | tuple):
        return [_given(inner, values, device) for inner in argument]
    if not isinstance(argument, Mapping):
        return argument
    kind, inner = next(iter(argument.items()))
    if kind == "value":
        return values[inner]
    if kind == "device":
        return device
    return float(inner) if kind == "float" else {"dtype": _DTYPES, "memory_format": _FORMATS}[kind][inner]


def _grouped(steps: Sequence[_Step], depth: int = 0) -> tuple[Any, ...]:
    """Operations that stand together in one module, as one call of it."""
    items: list[Any] = []
    for path, group in groupby(steps, lambda s: s.node.modules[depth] if len(s.node.modules) > depth else ""):
        some = tuple(group)
        items += [_Inside(path, _grouped(some, depth + 1))] if path else some
    return tuple(items)


def _steps(graph: Pt2Graph) -> list[_Step]:
    ends = last_uses([(reads(node), node.outputs) for node in graph.nodes], graph.output)
    return [_Step(node, names) for node, names in zip(graph.nodes, ends, strict=True)]


class Pt2Net(nn.Module):
    """An exported program that runs, with the original network's names.

    Args:
        graph: seen to be computable.

    Raises:
        SourceError: an operation that is not let through, or names that no network can have.
    """

    def __init__(self, graph: Pt2Graph) -> None:
        super().__init__()
        unknown = sorted({node.target for node in graph.nodes if find_op(node.target) is None})
        if unknown:
            raise SourceError(f"operations that are not read here: {', '.join(unknown)}")
        self._pt2_graph = graph
        self._pt2_plan = _grouped(_steps(graph))
        for path in dict.fromkeys(path for node in graph.nodes for path in node.modules):
            self._part(path)
        for tensor in graph.tensors:
            self._register(tensor)

    @property
    def program(self) -> Pt2Graph:
        """The graph that it runs."""
        return self._pt2_graph

    def _part(self, path: str) -> nn.Module:
        """The module at a path, made if it is not there."""
        owner: nn.Module = self
        names = path.split(".") if path else []
        for name in names:
            if name not in owner._modules:
                if not name or hasattr(owner, name) or len(names) > _DEEPEST:
                    raise _no_name(path)
                owner.add_module(name, Part())
            owner = owner._modules[name]  # type: ignore[assignment]
        return owner

    def _register(self, tensor: Pt2Tensor) -> None:
        path, _, leaf = tensor.name.rpartition(".")
        owner = self._part(path)
        if not leaf or hasattr(owner, leaf):
            raise _no_name(tensor.name)
        if tensor.kind in _PARAMETERS:
            twin = dict(self.named_parameters()).get(tensor.twin) if tensor.twin else None
            owner.register_parameter(leaf, nn.Parameter(torch.empty(tensor.shape)) if twin is None else twin)
        else:
            owner.register_buffer(leaf, _fresh_buffer(tensor), persistent=tensor.kind != "hidden")

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Fill every parameter afresh, weights uniformly by fan-in as PyTorch's own layers do."""
        for tensor in self._pt2_graph.tensors:
            if tensor.kind in _PARAMETERS:
                value = self.get_parameter(tensor.name)
                bound = 1 / math.sqrt(max(1, math.prod(tensor.shape[1:])))
                _ = value.uniform_(-bound, bound) if tensor.kind == "weight" else value.fill_(tensor.kind == "ones")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the output's (N, ...)."""
        values = self.known(x)
        _run(self, self._pt2_plan, values)
        return values[self._pt2_graph.output]

    def known(self, x: torch.Tensor) -> dict[str, Any]:
        """The graph's values before its first operation; "" is the device."""
        values: dict[str, Any] = {"": x.device, BATCH: x.shape[0]}
        for tensor in self._pt2_graph.tensors:
            owner = self.get_submodule(tensor.name.rpartition(".")[0])
            values[tensor.value] = getattr(owner, tensor.name.rpartition(".")[2])
        values[self._pt2_graph.input] = x.permute(0, 2, 3, 1) if self._pt2_graph.channels_last else x
        return values

    def check(self) -> None:
        """Run on shapes alone, with two numbers of pictures; to be called on the meta device.

        Raises:
            SourceError: an operation does not take what it gets, or the number of pictures is fixed.
        """
        steps = _steps(self._pt2_graph)
        for n in (2, 3):
            values = self.known(torch.empty((n, *self._pt2_graph.shape)))
            live = 0
            for step in steps:
                checked(step.node, values)
                live += sum(_count(values[name]) for name in filter(None, step.node.outputs))
                if live > _MOST_LIVE:
                    raise SourceError(_too_large(step.node, live))
                live -= sum(_count(values.pop(name)) for name in step.done)
            found = values[self._pt2_graph.output]
            if not isinstance(found, torch.Tensor) or found.dim() < 1 or found.shape[0] != n:
                raise SourceError(
                    f"{n} pictures give the output {self._pt2_graph.output!r} of shape "
                    f"{tuple(getattr(found, 'shape', ()))}, expected one row for each: the program was exported for a "
                    f"fixed number of pictures. Export it for any: {RE_EXPORT}"
                )


def _count(value: Any) -> int:
    return value.numel() if isinstance(value, torch.Tensor) else 0


def _too_large(node: Pt2Node, live: int) -> str:
    return (
        f"at {op_name(node.target)} the program holds {live:,} values at once for two or three pictures, more than any "
        "network that is read here. Take smaller pictures: --input-size 3,224,224"
    )


def checked(
    node: Pt2Node, values: dict[str, Any], named: Callable[[Sequence[Any]], tuple[str, ...]] | None = None
) -> Pt2Node:
    """Compute one node on shapes alone, and enter its results among the values.

    Args:
        node: an operation that is let through.
        values: of the graph so far; "" is the device.
        named: gives the results their names, where the node does not say them.

    Raises:
        SourceError: it does not take what it gets, or gives more than any network does.
    """
    try:
        if op_name(node.target) in _TAKES_APART:
            _check_parts(values[next(references(node.args[0]))])
        results = _results(node, values)
        node = replace(node, outputs=named(results)) if named else node
        found = {name: value for name, value in zip(node.outputs, results, strict=False) if name}
        for value in found.values():
            _check_result(value)
        values.update(found)
        return node
    except Exception as error:  # PyTorch refuses with errors of many classes
        raise SourceError(_no_fit(node, values, error)) from error


def _check_parts(whole: torch.Tensor) -> None:
    if max(whole.shape, default=0) > MOST_PARTS:
        raise ValueError(f"{max(whole.shape):,} parts")


def _check_result(value: Any) -> None:
    if isinstance(value, torch.Tensor):
        if value.numel() > MOST_VALUES:
            raise ValueError(f"{value.numel():,} values")
    elif not isinstance(value, int | float) or abs(value) > 1 << 62:
        raise ValueError(f"a {type(value).__name__} that is no size")


def _no_fit(node: Pt2Node, values: Mapping[str, Any], error: Exception) -> str:
    inputs = [values.get(name) for name in reads(node)]
    shapes = ", ".join(str(tuple(v.shape)) if isinstance(v, torch.Tensor) else str(v) for v in inputs)
    where = f" in {node.modules[-1]}" if node.modules else ""
    return (
        f"{op_name(node.target)}{where} cannot be applied to {shapes or 'nothing'}: {first_line(error)}. Either the "
        "file is damaged, or the program was exported for a fixed number of pictures; export it for any "
        f"number: {RE_EXPORT}"
    )


def _no_name(path: str) -> SourceError:
    return SourceError(
        f"the program has a module or tensor {path!r}, which is no name in a network, or is taken by PyTorch itself. "
        f"Name it otherwise and export again: {RE_EXPORT}"
    )


def _fresh_buffer(tensor: Pt2Tensor) -> torch.Tensor:
    if tensor.kind == "counter":
        return torch.zeros(tensor.shape, dtype=torch.int64)
    if tensor.kind in ("mean", "variance"):
        return torch.full(tensor.shape, float(tensor.kind == "variance"))
    values = torch.from_numpy(unpacked(tensor.name, tensor.content).copy())
    if tuple(values.shape) != tensor.shape:
        raise SourceError(f"the constant {tensor.name!r} is damaged. Copy or download the file again")
    return values.to(torch.empty(0).device)  # the meta device, where only shapes are wanted


def build_pt2(name: str, arch_args: dict[str, Any]) -> tuple[nn.Module, InputSpec | None]:
    """`pt2:graph` with its graph among the arguments: the network with fresh weights.

    Raises:
        SourceError: the arguments are not a graph, or one that does not fit together.
    """
    graph = Pt2Graph.from_dict(given_graph(f"pt2:{name}", arch_args))
    with torch.device("meta"):
        Pt2Net(graph).check()
    network = Pt2Net(graph)
    network.reset_parameters()
    return network, None


ARCHITECTURES.add("pt2", build_pt2)
