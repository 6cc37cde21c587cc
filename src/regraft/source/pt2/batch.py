"""Programs that were exported for a fixed number of pictures, mended where only their reshapes say so."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from regraft.errors import SourceError
from regraft.source.pt2.net import BATCH, Pt2Graph, Pt2Net, Pt2Node, checked, references
from regraft.source.pt2.ops import op_name

_RESHAPES = ("view", "reshape", "_unsafe_view")
_EXPANDS = ("expand", "broadcast_to", "repeat")
_FACTORIES = {"zeros": 0, "ones": 0, "full": 0, "new_zeros": 1, "new_ones": 1, "new_full": 1}
_MOST_FAILURES = 200


def mended(graph: Pt2Graph, fixed: int) -> Pt2Graph:
    """The program for any number of pictures.

    The graph is followed with a number of pictures that is prime, so that the axis that carries them is seen in every
    shape; where an operation names a shape, that axis is left open. Where the pictures could be in several axes (of a
    single picture nothing is seen in a shape), the next is tried when one does not fit what comes after it.

    Args:
        graph: as exported.
        fixed: the number of pictures in it.

    Raises:
        SourceError: an operation cannot be mended.
    """
    probe = 61 if fixed % 61 else 67
    nodes, failures = [], []
    branches: list[tuple[int, dict[str, Any], list[Pt2Node]]] = []
    with torch.device("meta"):
        values = Pt2Net(graph).known(torch.empty((probe, *graph.shape)))
        ways = _ways(graph.nodes[0], values, fixed, probe)
        while True:
            chosen, *others = ways
            branches += [(len(nodes), dict(values), others)] if others else []
            try:
                checked(chosen, values)
                nodes.append(chosen)
            except SourceError as error:
                failures.append(error)
                if not branches or len(failures) > _MOST_FAILURES:
                    raise failures[0] from None
                at, values, ways = branches.pop()
                del nodes[at:]
                continue
            if len(nodes) == len(graph.nodes):
                return replace(graph, nodes=tuple(nodes))
            ways = _ways(graph.nodes[len(nodes)], values, fixed, probe)


def _ways(node: Pt2Node, values: dict[str, Any], fixed: int, probe: int) -> list[Pt2Node]:
    """The node as it may be for any number of pictures, the likeliest first."""
    op = op_name(node.target)
    place = _FACTORIES.get(op, 1)
    named = op in (*_RESHAPES, *_EXPANDS, *_FACTORIES) and len(node.args) > place
    sizes = node.args[place] if named else None
    if not isinstance(sizes, list) or not sizes or not all(isinstance(size, int) for size in sizes):
        return [node]
    if op in _FACTORIES:
        found = [[{"value": BATCH}, *sizes[1:]] if sizes[0] == fixed > 1 else sizes]
    else:
        shape = tuple(values[next(references(node.args[0]))].shape)
        follow = _reshaped if op in _RESHAPES else _expanded
        found = follow(sizes, shape, fixed, probe)
    return [replace(node, args=(*node.args[:place], way, *node.args[place + 1 :])) for way in found]


def _reshaped(sizes: list[int], shape: tuple[int, ...], fixed: int, probe: int) -> list[list[int]]:
    """The sizes of a reshape, with the axis that the pictures go into left open."""
    axis = next((i for i, side in enumerate(shape) if side and side % probe == 0), None)
    known = math.prod(size for size in sizes if size != -1)
    total = math.prod(shape) // probe * fixed
    if axis is None or known < 1 or total % known or sizes.count(-1) > 1:
        return [sizes]
    whole = [total // known if size == -1 else size for size in sizes]
    axes = _batch_axes(whole, math.prod(shape[:axis]), shape[axis] // probe * fixed, fixed)
    return [[-1 if i == chosen else size for i, size in enumerate(whole)] for chosen in axes] or [sizes]


def _batch_axes(sizes: list[int], before: int, merged: int, fixed: int) -> list[int]:
    """Where the pictures may be among sizes, the likeliest first.

    Args:
        sizes: all known.
        before: the product of the old shape's sides before its axis of pictures.
        merged: that axis's size. It may hold other things than pictures, inside them or around them.
        fixed: the number of pictures.
    """
    inside = math.prod(sizes) // (before * merged)  # the product of the sides after that axis
    could = [i for i, size in enumerate(sizes) if size % fixed == 0]
    begins = [i for i in could if math.prod(sizes[:i]) == before]
    ends = [i for i in could if math.prod(sizes[i + 1 :]) in (inside * merged // fixed, inside)]
    alone = [i for i in begins if sizes[i] == fixed and i in ends]
    same = [i for i in begins if sizes[i] == merged]
    past = [i for i in could if math.prod(sizes[: i + 1]) % (before * fixed) == 0]
    return list(dict.fromkeys([*alone, *same, *begins, *ends, *past[:1]]))


def _expanded(sizes: list[int], shape: tuple[int, ...], fixed: int, probe: int) -> list[list[Any]]:
    """The sizes of an expansion or repetition: of the pictures themselves, or of one thing for each picture."""
    new = len(sizes) - len(shape)
    if any(side and side % probe == 0 for side in shape):
        return [[-1 if i >= new and shape[i - new] % probe == 0 else size for i, size in enumerate(sizes)]]
    for_each = sizes[0] == fixed and (new > 0 or shape[0] == 1)
    return [[{"value": BATCH}, *sizes[1:]] if for_each else sizes]
