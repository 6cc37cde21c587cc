"""`GraphNet`: a graph as a PyTorch network, and `graph:FORMAT` as an architecture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import torch
from torch import nn

from regraft.errors import SourceError, closest, first_line
from regraft.source.arch import ARCHITECTURES
from regraft.source.graph.graph import MOST_VALUES, TRAINABLE, Graph, Node, Tensor
from regraft.source.graph.ops import OPS
from regraft.spec import InputSpec

# What PyTorch or this package reads in a module's name as something else than a letter.
_SPECIAL = str.maketrans({letter: f"%{ord(letter):02X}" for letter in "%.@#"})
_TAKEN = frozenset(dir(nn.Module())) | {"graph"}


def escaped(name: str) -> str:
    """A file's name as a module may have it: as it is, but for dots and names that PyTorch's modules use.

    Example:
        >>> escaped("dnn/hidden4/Relu"), escaped("fc.1"), escaped("training")
        ('dnn/hidden4/Relu', 'fc%2E1', '%74raining')
    """
    name = name.translate(_SPECIAL)
    return f"%{ord(name[0]):02X}{name[1:]}" if name in _TAKEN else name


def original(name: str) -> str:
    """The inverse of `escaped`.

    Example:
        >>> original("fc%2E1")
        'fc.1'
    """
    return unquote(name)


class Step(nn.Module):
    """One node: a module of its own, so that a traced graph shows the node's name."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.op = node.op
        self.attributes = dict(node.attributes)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return OPS[self.op](*inputs, **self.attributes)

    def extra_repr(self) -> str:
        return ", ".join([self.op, *(f"{name}={value}" for name, value in self.attributes.items())])


class GraphNet(nn.Module):
    """A graph that runs: parameters and steps are registered under the file's names (see `escaped`).

    Args:
        graph: in an order in which it can be computed.

    Raises:
        SourceError: an operation that is not known, or tensors larger than any network's.

    Example:
        >>> graph = Graph("x", (1, 2, 2), (Node("dnn/Relu", "relu", ("x",)),), (), "dnn/Relu")
        >>> GraphNet(graph)(torch.tensor([[[[-1.0, 2.0]]]])).tolist()
        [[[[0.0, 2.0]]]]
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        _check_size(graph)
        for tensor in graph.tensors:
            self._register(tensor)
        for node in graph.nodes:
            if node.op not in OPS:
                raise SourceError(f"node {node.name!r} is of the unknown kind {node.op!r}.{closest(node.op, OPS)}")
            self.add_module(escaped(node.name), Step(node))
        self._last_use = last_uses([(node.inputs, (node.name,)) for node in graph.nodes], graph.output)

    def _register(self, tensor: Tensor) -> None:
        value = torch.empty(tensor.shape)
        if tensor.kind in TRAINABLE:
            self.register_parameter(escaped(tensor.name), nn.Parameter(value))
        else:
            self.register_buffer(escaped(tensor.name), value)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Fill every tensor afresh, weights uniformly by fan-in as PyTorch's own layers do."""
        for tensor in self.graph.tensors:
            _fill(self.tensor(tensor.name), tensor)

    def tensor(self, name: str) -> torch.Tensor:
        """A parameter or buffer by the file's name."""
        return getattr(self, escaped(name))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the output's (N, ...)."""
        values = {tensor.name: self.tensor(tensor.name) for tensor in self.graph.tensors}
        values[self.graph.input] = x
        for node, done in zip(self.graph.nodes, self._last_use, strict=True):
            step = getattr(self, escaped(node.name))
            values[node.name] = step(*[values[name] for name in node.inputs])
            for name in done:
                del values[name]
        return values[self.graph.output]


def _check_size(graph: Graph) -> None:
    total = sum(math.prod(tensor.shape) for tensor in graph.tensors)
    if total > MOST_VALUES:
        raise SourceError(
            f"the graph wants {total:,} values in its tensors, more than the {MOST_VALUES:,} of any network read "
            "here. Copy or download the file again"
        )


def last_uses(nodes: Sequence[tuple[Iterable[str], Iterable[str]]], output: str) -> list[tuple[str, ...]]:
    """After each node, the activations that nothing reads any more.

    Args:
        nodes: what each reads and what it gives, in the order in which they are computed; "" stands for nothing.
        output: the name that is wanted at the end.

    Example:
        >>> last_uses([(["x"], ["a"]), (["a"], ["b"]), (["a", "b"], ["c"])], "c")
        [(), (), ('a', 'b')]
    """
    last = {name: i for i, (reads, gives) in enumerate(nodes) for name in (*gives, *reads)}
    made = [name for _, gives in nodes for name in gives if name and name != output]
    ends: list[list[str]] = [[] for _ in nodes]
    for name in made:
        ends[last[name]].append(name)
    return [tuple(names) for names in ends]


def _fill(value: torch.Tensor, tensor: Tensor) -> None:
    if tensor.kind == "weight":
        fan_in = math.prod(tensor.shape[1:]) if len(tensor.shape) > 1 else max(1, math.prod(tensor.shape))
        bound = 1 / math.sqrt(max(1, fan_in))
        value.uniform_(-bound, bound)
    elif tensor.kind == "constant" and tensor.value is not None:
        value.copy_(torch.tensor(tensor.value, dtype=value.dtype))
    else:
        value.fill_(1.0 if tensor.kind in ("ones", "variance") else 0.0)


def build_graph(name: str, arch_args: dict[str, Any]) -> tuple[nn.Module, InputSpec | None]:
    """`graph:FORMAT` with its graph among the arguments: the network with fresh weights.

    Raises:
        SourceError: the arguments are not a graph, or one whose shapes do not fit together.
    """
    graph = Graph.from_dict(given_graph(f"graph:{name}", arch_args))
    check_shapes(graph)
    network = GraphNet(graph)
    network.reset_parameters()
    return network, None


ARCHITECTURES.add("graph", build_graph)


def given_graph(arch: str, arch_args: Mapping[str, Any]) -> dict[str, Any]:
    """The graph among the arguments of an architecture that was read from a file.

    Raises:
        SourceError: there is none.
    """
    graph = arch_args.get("graph")
    if not isinstance(graph, dict):
        raise SourceError(
            f"{arch} is an architecture that was read from a file, and comes with its graph: "
            "build(source.arch, source.arch_args). The file itself: load_source('FILE', input=InputSpec(...))"
        )
    return graph


def check_shapes(graph: Graph) -> None:
    """Run the graph on shapes alone.

    Raises:
        SourceError: a node does not take the shapes it gets.
    """
    with torch.device("meta"):
        network = GraphNet(graph)
    values = {tensor.name: network.tensor(tensor.name) for tensor in graph.tensors}
    values[graph.input] = torch.empty((2, *graph.shape), device="meta")
    for node in graph.nodes:
        values[node.name] = computed(node, [values[name] for name in node.inputs])


def computed(node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
    """What a node makes of its inputs.

    Raises:
        SourceError: it cannot take them, or makes more values than any network does.
    """
    try:
        value = OPS[node.op](*inputs, **node.attributes)
        fits = isinstance(value, torch.Tensor) and value.numel() <= MOST_VALUES and value.dim() > 0
    except Exception as error:  # PyTorch refuses wrong shapes with errors of many classes
        raise SourceError(_no_fit(node, inputs, first_line(error))) from error
    if not fits:
        raise SourceError(_no_fit(node, inputs, "the result is no tensor of a sane size"))
    return value


def _no_fit(node: Node, inputs: list[torch.Tensor], reason: str) -> str:
    shapes = ", ".join(str(tuple(value.shape)) for value in inputs)
    return (
        f"node {node.name!r} ({node.op}) cannot be applied to the shapes {shapes}: {reason}. The file is damaged, or "
        "its input has another size; name it: load_source(uri, input=InputSpec(size=(3, 224, 224)))"
    )
