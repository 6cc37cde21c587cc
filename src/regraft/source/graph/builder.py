"""Building a graph node by node, with shapes followed as it grows.

Shape letters: N examples (2 while building), C channels, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from regraft.errors import SourceError
from regraft.source.graph.graph import Graph, Kind, Node, Tensor
from regraft.source.graph.net import computed

_SMALL = 4096  # constants up to this size are kept in the graph itself


@dataclass(frozen=True)
class Value:
    """What is known about an activation or a tensor while a graph is built.

    Args:
        name: of the node or tensor.
        shape: with the batch of two in front, for activations.
        channels_last: whether the file orders its rows as (H, W, C); here they are (C, H, W) all the same.
    """

    name: str
    shape: tuple[int, ...]
    channels_last: bool = False

    @property
    def spatial(self) -> bool:
        """Whether it is (N, C, H, W)."""
        return len(self.shape) == 4


class Builder:
    """A graph under construction.

    Args:
        input: name of the network's input.
        shape: its (C, H, W).
        channels_last: whether the file orders pictures as (H, W, C).

    Example:
        >>> builder = Builder("data", (1, 4, 4))
        >>> pooled = builder.add("pool", "mean", [builder.input], axes=[2, 3], keep=False)
        >>> pooled.shape, builder.graph(pooled).output
        ((2, 1), 'pool')
    """

    def __init__(self, input: str, shape: tuple[int, int, int], *, channels_last: bool = False) -> None:
        self.shape = shape
        self.input = Value(f"{input}:input", (2, *shape), channels_last)
        self.weights: dict[str, torch.Tensor] = {}
        self._nodes: list[Node] = []
        self._tensors: dict[str, Tensor] = {}
        self._meta = {self.input.name: torch.empty((2, *shape), device="meta")}

    def add(self, name: str, op: str, inputs: list[Value], **attributes: Any) -> Value:
        """One more node.

        Args:
            name: as in the file; made unique where it is taken.
            op: a name in `ops.OPS`.
            inputs: what it reads.
            **attributes: of the operation, plain JSON.

        Raises:
            SourceError: the operation does not take inputs of these shapes.
        """
        node = Node(self._free(name), op, tuple(value.name for value in inputs), attributes)
        result = computed(node, [self._meta[value.name] for value in inputs])
        self._meta[node.name] = result
        self._nodes.append(node)
        return Value(node.name, tuple(result.shape), any(value.channels_last for value in inputs))

    def tensor(self, name: str, array: np.ndarray, kind: Kind) -> Value:
        """A parameter or buffer with its value, in PyTorch's layout; the same name again is the same tensor.

        Raises:
            SourceError: the name stands for a tensor of another shape already.
        """
        known = self._tensors.get(name)
        if known is not None and known.shape != tuple(array.shape):
            raise SourceError(
                f"two layers read {name!r} as {known.shape} and as {tuple(array.shape)}, which is not read here. "
                "Convert the network with tf2onnx or onnx, and pass the .onnx file"
            )
        if known is None:
            name = self._free(name)
            values = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
            small = kind == "constant" and values.numel() <= _SMALL
            self._tensors[name] = Tensor(name, tuple(values.shape), kind, values.tolist() if small else None)
            self._meta[name] = torch.empty(values.shape, device="meta")
            self.weights[name] = values
        return Value(name, tuple(array.shape))

    def _free(self, name: str) -> str:
        options = (name or "unnamed", *(f"{name or 'unnamed'}_{i}" for i in range(1, len(self._meta) + 2)))
        return next(option for option in options if option not in self._meta)

    def graph(self, output: Value) -> Graph:
        """What leads from the input to an output.

        Raises:
            SourceError: the output does not depend on the input.
        """
        needed, nodes = {output.name}, []
        for node in reversed(self._nodes):
            if node.name in needed:
                needed.update(node.inputs)
                nodes.append(node)
        if self.input.name not in needed:
            raise SourceError(f"{output.name!r} does not depend on the network's input. Choose another end tensor")
        tensors = tuple(tensor for tensor in self._tensors.values() if tensor.name in needed)
        return Graph(self.input.name, self.shape, tuple(reversed(nodes)), tensors, output.name)
