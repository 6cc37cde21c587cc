"""The linear layers of a graph, which export has taken apart into calls on tensors, as layers again."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import fx, nn

from regraft.cut.graph import aten


def linear_layers(graph: fx.GraphModule) -> tuple[str, ...]:
    """The paths of the linear layers that a graph computes, in order.

    A layer is one that holds a weight, a bias or none, and nothing else; its weight is read by nothing else. GPT-2's
    layers, whose weights lie transposed (transformers' "Conv1D"), are among them.

    Example:
        >>> import torch
        >>> from regraft.cut import between, trace
        >>> traced = trace(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), torch.zeros(2, 3))
        >>> linear_layers(between(traced, "input", ["output"]))
        ('0', '2')
    """
    found: dict[str, None] = {}
    for node in graph.graph.nodes:
        if node.op == "call_module":
            target = str(node.target)
            inside = graph.get_submodule(target).named_modules(prefix=target)
            found |= {path: None for path, module in inside if type(module) is nn.Linear}
        elif (path := _layer(graph, node)) is not None:
            found[path] = None
    return tuple(found)


def as_modules(
    graph: fx.GraphModule, layers: Collection[str], transposed: Callable[[int, int], nn.Module] | None = None
) -> None:
    """Turn some linear layers into modules that hold the same tensors under the same names, in place.

    Args:
        graph: a graph made by `between` or `split`.
        layers: paths, of `linear_layers`; those that are modules already stay.
        transposed: makes a layer with so many outputs and inputs whose weight lies as (in, out); transformers' Conv1D
            is one. Without it, such layers stay calls.

    Example:
        >>> import torch
        >>> from regraft.cut import between, trace
        >>> traced = trace(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), torch.zeros(2, 3))
        >>> graph = between(traced, "input", ["output"])
        >>> as_modules(graph, ["2"])
        >>> graph.get_submodule("2"), list(graph.state_dict())
        (Linear(in_features=5, out_features=2, bias=True), ['0.weight', '0.bias', '2.weight', '2.bias'])
    """
    found = [(node, _layer(graph, node)) for node in graph.graph.nodes]
    made: set[str] = set()
    for node, path in found:
        make = _linear if node.target is aten.linear.default else transposed
        if path is None or path not in layers or make is None:
            continue
        if path not in made:  # a layer may be called more than once
            shape = weight_shape(graph, path)
            with torch.device("meta"):
                layer = make(*shape)
            graph.set_submodule(path, _holding(layer, graph.get_submodule(path)))
            made.add(path)
        with graph.graph.inserting_before(node):
            call = graph.graph.call_module(path, (_rows(node),))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    graph.recompile()


def weight_shape(graph: fx.GraphModule, layer: str) -> tuple[int, int]:
    """How many features a linear layer gives and takes, (out, in), however its weight lies.

    Args:
        graph: in which it is.
        layer: its path, of `linear_layers`.
    """
    first, second = graph.get_parameter(f"{layer}.weight").shape
    readers = (node for node in graph.graph.nodes if node.target is aten.addmm.default)
    return (second, first) if any(_layer(graph, node) == layer for node in readers) else (first, second)


def _layer(graph: fx.GraphModule, node: fx.Node) -> str | None:
    """The path of the linear layer that a node computes; None if it computes something else."""
    tensors = _tensors(node)
    if not tensors or any(tensor.op != "get_attr" for tensor in tensors):
        return None
    names = [str(tensor.target) for tensor in tensors]
    path = names[0].rpartition(".")[0]
    alone = all(user.target is node.target for user in tensors[0].users)
    owned = path and set(names) == {f"{path}.{name}" for name in graph.get_submodule(path).state_dict()}
    return path if owned and alone else None


def _tensors(node: fx.Node) -> list[fx.Node]:
    """The weight of a linear layer, first, and its bias; nothing if a node is no such layer."""
    if node.target is aten.linear.default:
        return [arg for arg in node.args[1:] if isinstance(arg, fx.Node)]
    if node.target is aten.addmm.default and not node.kwargs:  # GPT-2's "Conv1D": bias + rows @ weight
        bias, _, weight = node.args
        return [arg for arg in (weight, bias) if isinstance(arg, fx.Node)]
    return []


def _rows(node: fx.Node) -> fx.Node:
    """What a linear layer is applied to."""
    rows = node.args[0] if node.target is aten.linear.default else node.args[1]
    assert isinstance(rows, fx.Node)
    return rows


def _linear(out: int, into: int) -> nn.Module:
    return nn.Linear(into, out)


def _holding(layer: nn.Module, owner: nn.Module) -> nn.Module:
    """A layer with the tensors of the bare module that export left of one."""
    for name in ("weight", "bias"):
        setattr(layer, name, getattr(owner, name, None))
    return layer.eval()
