"""`Gather` that only gives a flat tensor its shape back, as the `Reshape` it is.

PyTorch's mean over height and width ends in `as_strided`, which its exporter writes as a flat tensor read at the
places 0, 1, 2, …, counted from the number of pictures. Read so, no cut is possible behind it.

N pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from regraft.source.graph.constants import packed, unpacked
from regraft.source.onnx.net import OnnxGraph, OnnxNode
from regraft.source.onnx.ops import MOST_SIZES, OPS, sizes

_COUNTING = ("Add", "Mul", "Cast", "Identity", "Range", "Reshape", "Squeeze", "Unsqueeze", "Gather", "Concat", "Slice")


def without_counting(graph: OnnxGraph, *, single: bool) -> OnnxGraph:
    """The same graph with each such `Gather` as a `Reshape`; what counted its places stays, and is read by nothing.

    Args:
        graph: as the file has it.
        single: whether it was exported for a single picture, so that it counts the places of one alone.
    """
    constants, nodes = dict(graph.constants), list(graph.nodes)
    flat = _flat(graph)
    for i, node in enumerate(nodes):
        if node.op != "Gather" or len(node.inputs) != 2 or node.inputs[0] not in flat or not node.outputs:
            continue
        shapes = [_counted(graph, i, pictures) for pictures in ((1,) if single else (2, 3))]
        if not all(shapes) or shapes[0][1:] != shapes[-1][1:]:
            continue
        name = f"{node.outputs[0]}%shape"
        constants[name] = packed(np.array([-1, *shapes[0][1:]]))
        nodes[i] = OnnxNode(node.name, "Reshape", (node.inputs[0], name), node.outputs, {})
    return replace(graph, nodes=tuple(nodes), constants=constants)


def _flat(graph: OnnxGraph) -> set[str]:
    """Tensors that were reshaped to a single axis."""
    constants = _constants(graph.constants, {name for node in graph.nodes for name in node.inputs[1:2]})
    ends = {name for name, values in constants.items() if values.tolist() == [-1]}
    found = (node for node in graph.nodes if node.op == "Reshape" and ends.intersection(node.inputs[1:]))
    return {name for node in found for name in node.outputs}


def _counted(graph: OnnxGraph, i: int, pictures: int) -> tuple[int, ...]:
    """The shape of a node's places if they are 0, 1, 2, … for so many pictures, else ()."""
    name = graph.nodes[i].inputs[1]
    places = _places(graph, graph.nodes[:i], name, pictures)
    if places is None or places.ndim < 2 or places.shape[0] != pictures:
        return ()
    return places.shape if places.reshape(-1).tolist() == list(range(places.size)) else ()


def _places(graph: OnnxGraph, before: Sequence[OnnxNode], name: str, pictures: int) -> np.ndarray | None:
    """A value for so many pictures; None where it hangs on more than the shape of the input."""
    nodes = _leading_to(before, name)
    values = _constants(graph.constants, {name, *(read for node in nodes for read in node.inputs)})
    channels, height, width = graph.shape
    row = (height, width, channels) if graph.channels_last else (channels, height, width)
    try:
        for node in nodes:
            if node.op == "Shape" and node.inputs == (graph.input,):
                given = [np.broadcast_to(np.False_, (pictures, *row))]
            elif node.op in _COUNTING:
                given = [values[read] for read in node.inputs]
            else:
                return None
            values[node.outputs[0]] = OPS[node.op](*given, **node.attributes)
            if values[node.outputs[0]].size > MOST_SIZES:
                return None
    except Exception:  # a damaged file, of which the check of the whole graph tells
        return None
    return values.get(name)


def _leading_to(nodes: Sequence[OnnxNode], name: str) -> list[OnnxNode]:
    """The nodes that a value is computed by, back to shapes."""
    wanted, found = {name}, []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            found.append(node)
            wanted.update(() if node.op == "Shape" else node.inputs)
    return found[::-1]


def _constants(constants: Mapping[str, Any], names: set[str]) -> dict[str, np.ndarray]:
    """Those of them that may be sizes."""
    found = {name: constants[name] for name in names if name in constants and constants[name][0] == "int64"}
    plain = {name: unpacked(name, constant) for name, constant in found.items()}
    return {name: sizes(v.tolist()).reshape(v.shape) for name, v in plain.items() if v.size <= MOST_SIZES}
