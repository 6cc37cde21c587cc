"""The neutral graph: nodes, tensors, and their form as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from regraft.errors import SourceError

Kind = Literal["weight", "zeros", "ones", "mean", "variance", "constant"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TRAINABLE = ("weight", "zeros", "ones")
MOST_VALUES = 1 << 29  # of all tensors of a network together, and of one activation of two examples
MOST_NODES = 100_000


@dataclass(frozen=True)
class Node:
    """One operation.

    Args:
        name: as in the file.
        op: a name in `ops.OPS`.
        inputs: names of nodes, tensors, or of the graph's input.
        attributes: keyword arguments of the operation, plain JSON.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tensor:
    """A parameter or a buffer.

    Args:
        name: as in the file.
        shape: in PyTorch's layout.
        kind: how a fresh one is filled. Parameters: "weight" (uniform by fan-in, as PyTorch's layers do), "zeros",
            "ones". Buffers: "mean" (0), "variance" (1), "constant" (`value`).
        value: of a small constant, as nested lists.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind
    value: Any = None


@dataclass(frozen=True)
class Graph:
    """A network of one input and one output.

    Args:
        input: the name by which nodes read the network's input.
        shape: of the input, (C, H, W).
        nodes: in the order in which they can be computed.
        tensors: parameters and buffers.
        output: the node that is the network's output.

    Example:
        >>> graph = Graph("x", (1, 2, 2), (Node("flat", "reshape", ("x",), {"shape": [4]}),), (), "flat")
        >>> Graph.from_dict(graph.to_dict()) == graph
        True
    """

    input: str
    shape: tuple[int, int, int]
    nodes: tuple[Node, ...]
    tensors: tuple[Tensor, ...]
    output: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they go into JSON."""
        return {
            "input": self.input,
            "shape": list(self.shape),
            "nodes": [[n.name, n.op, list(n.inputs), dict(n.attributes)] for n in self.nodes],
            "tensors": [[t.name, list(t.shape), t.kind, t.value] for t in self.tensors],
            "output": self.output,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Graph:
        """The inverse of `to_dict`.

        Raises:
            SourceError: not the form that `to_dict` gives, or a graph that cannot be computed in its order.
        """
        try:
            graph = cls(
                input=str(values["input"]),
                shape=_sizes(values["shape"]),  # type: ignore[arg-type]
                nodes=tuple(
                    Node(str(n), str(op), tuple(map(str, inputs)), dict(a)) for n, op, inputs, a in values["nodes"]
                ),
                tensors=tuple(Tensor(str(n), _sizes(s), kind, value) for n, s, kind, value in values["tensors"]),
                output=str(values["output"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise SourceError(f"this is not a network's graph ({error!r}). Graph.to_dict() gives one") from error
        _check(graph)
        return graph


def _sizes(values: Any) -> tuple[int, ...]:
    sizes = tuple(int(value) for value in values)
    if any(not 0 <= size <= MOST_VALUES for size in sizes):
        raise ValueError(f"sizes {sizes}")
    return sizes


def _check(graph: Graph) -> None:
    """Every name once, and only of what comes before: so there is no cycle."""
    known: set[str] = {graph.input}
    if len(graph.shape) != 3 or len(graph.nodes) > MOST_NODES:
        raise SourceError(f"a graph's input is (C, H, W) and it has at most {MOST_NODES} nodes; see Graph.to_dict()")
    for tensor in graph.tensors:
        if tensor.kind not in KINDS:
            raise SourceError(f"tensor {tensor.name!r} is of kind {tensor.kind!r}. Known kinds: {', '.join(KINDS)}")
        if tensor.value is not None and not _holds(tensor):
            raise SourceError(
                f"tensor {tensor.name!r} has a value that is not of shape {tensor.shape}; see Graph.to_dict()"
            )
        _enter(tensor.name, known)
    for node in graph.nodes:
        absent = [name for name in node.inputs if name not in known]
        if absent:
            raise SourceError(f"node {node.name!r} reads {absent[0]!r} before it is computed. Put its inputs first")
        _enter(node.name, known)
    if graph.output not in {node.name for node in graph.nodes}:
        raise SourceError(f"the output {graph.output!r} is none of the graph's nodes. Name one of them")


def _holds(tensor: Tensor) -> bool:
    try:
        return np.asarray(tensor.value, np.float32).shape == tensor.shape
    except (TypeError, ValueError):
        return False


def _enter(name: str, known: set[str]) -> None:
    if not name or name in known:
        raise SourceError(f"the name {name!r} occurs twice in the graph, or is empty. Give every node its own name")
    known.add(name)
