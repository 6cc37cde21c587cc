"""Initialisers that an exporter merged because their values were equal, each on its own again.

A fresh batch norm's bias and its running mean are both zeros: one of them is trained, the other is kept by the layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_STATISTICS = {3: "mean", 4: "variance"}  # inputs of a batch norm
_REAL = {1, 10, 11, 16}  # float, half, double, bfloat16


def unshare(model: Any) -> None:
    """Give each merged vector and each batch norm's statistic an initialiser of its own, in place.

    A matrix that stands in two places stays one: equal by chance are only vectors of zeros or ones, so two layers
    share it on purpose.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    _restore_names(model, stored)
    _separate_statistics(model, stored)


def _restore_names(model: Any, stored: dict[str, Any]) -> None:
    """PyTorch's older exporter leaves an `Identity` with the original name where a merged vector was."""
    ends = {value.name for value in model.graph.output}
    kept = []
    for node in model.graph.node:
        renames = node.op_type == "Identity" and len(node.input) == len(node.output) == 1
        tensor = stored.get(node.input[0]) if renames else None
        if tensor is None or len(tensor.dims) != 1 or tensor.data_type not in _REAL or node.output[0] in ends:
            kept.append(node)
        else:
            stored[node.output[0]] = _copy(model, tensor, node.output[0])
    if len(kept) < len(model.graph.node):
        del model.graph.node[:]
        model.graph.node.extend(kept)


def _separate_statistics(model: Any, stored: dict[str, Any]) -> None:
    """A statistic that something else reads too is copied: training would change the one, and the batches the other."""
    statistics = list(_statistics(model))
    apart = {(id(node), i) for node, i in statistics}
    taken = {name for node in model.graph.node for i, name in enumerate(node.input) if (id(node), i) not in apart}
    names = {*stored, *(name for node in model.graph.node for name in (*node.input, *node.output))}
    for node, i in statistics:
        name = node.input[i]
        if name in stored and name in taken:
            own = _free_name(f"{node.name or node.output[0]}.{_STATISTICS[i]}", names)
            _copy(model, stored[name], own)
            node.input[i] = own
        taken.add(node.input[i])


def _statistics(model: Any) -> Iterator[tuple[Any, int]]:
    for node in model.graph.node:
        if node.op_type == "BatchNormalization" and node.output:
            yield from ((node, i) for i in _STATISTICS if i < len(node.input))


def _copy(model: Any, tensor: Any, name: str) -> Any:
    copy = model.graph.initializer.add()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def _free_name(name: str, names: set[str]) -> str:
    while name in names:
        name += "~"
    names.add(name)
    return name
