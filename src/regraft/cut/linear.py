"""The linear layers of a graph, which export has taken apart into calls on tensors, as layers again."""

from __future__ import annotations

from collections.abc import Collection

from torch import fx, nn

from regraft.cut.graph import aten


def linear_layers(graph: fx.GraphModule) -> tuple[str, ...]:
    """The paths of the linear layers that a graph computes, in order.

    A layer is one that holds a weight, a bias or none, and nothing else; its weight is read by nothing else.

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


def as_modules(graph: fx.GraphModule, layers: Collection[str]) -> None:
    """Turn some linear layers into modules that hold the same tensors under the same names, in place.

    Args:
        graph: a graph made by `between` or `split`.
        layers: paths, of `linear_layers`; those that are modules already stay.

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
    for node, path in found:
        if path is None or path not in layers:
            continue
        if not isinstance(graph.get_submodule(path), nn.Linear):  # a layer may be called more than once
            graph.set_submodule(path, _linear(graph.get_submodule(path)))
        with graph.graph.inserting_before(node):
            call = graph.graph.call_module(path, (node.args[0],))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    graph.recompile()


def _layer(graph: fx.GraphModule, node: fx.Node) -> str | None:
    """The path of the linear layer that a node computes; None if it computes something else."""
    if node.target is not aten.linear.default:
        return None
    tensors = [arg for arg in node.args[1:] if isinstance(arg, fx.Node)]
    names = [str(tensor.target) for tensor in tensors if tensor.op == "get_attr"]
    path = names[0].rpartition(".")[0] if len(names) == len(tensors) else ""
    alone = all(user.target is aten.linear.default for user in tensors[0].users)
    owned = path and set(names) == {f"{path}.{name}" for name in graph.get_submodule(path).state_dict()}
    return path if owned and alone else None


def _linear(owner: nn.Module) -> nn.Linear:
    """A linear layer with the tensors of the bare module that export left of one."""
    weight, bias = owner.weight, getattr(owner, "bias", None)
    assert isinstance(weight, nn.Parameter)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = weight
    if isinstance(bias, nn.Parameter):
        layer.bias = bias
    return layer.eval()
