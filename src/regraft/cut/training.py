"""Training behaviour of a graph: export fixed it to evaluation, the plan chooses."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from torch import fx
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from regraft.cut.graph import aten
from regraft.cut.names import calls

# Where the training flag stands among an operation's arguments; batch norm's momentum stands behind it.
_BATCH_NORM = {aten.batch_norm: 5, aten.native_batch_norm: 5, aten.cudnn_batch_norm: 5}
_DROPOUT = dict.fromkeys(
    (aten.dropout, aten.feature_dropout, aten.alpha_dropout, aten.feature_alpha_dropout, aten.native_dropout),
    2,
)


def set_training(
    graph: fx.GraphModule,
    *,
    batch_norm: Literal["frozen", "train"],
    dropout: bool,
    only: Collection[str] | None = None,
) -> None:
    """Switch batch norm and dropout between training and evaluation, in place.

    `graph.train()` and `graph.eval()` do nothing to an exported graph; this does. What evaluation mode leaves
    no trace of cannot be switched on: stochastic depth, and dropout inside attention.

    Args:
        graph: a graph made by `between` or `split`.
        batch_norm: "frozen" normalises with the stored statistics; "train" with the batch's, and updates the
            stored ones (shared with the model, unless the graph is a copy).
        dropout: whether dropout drops.
        only: names of the tensors that are trained; batch norms whose statistics are not among them, and dropout in
            blocks without one of them, stay in evaluation. None is all.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from regraft.cut import between, trace
        >>> traced = trace(nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)), torch.zeros(2, 3))
        >>> graph = between(traced, "input", ["output"])
        >>> set_training(graph, batch_norm="frozen", dropout=True)
        >>> bool((graph(torch.ones(9, 3))[0] == 0).any())
        True
    """
    changed = [
        *(_set_flag(n, _BATCH_NORM, batch_norm == "train" and _moves(n, only)) for n in _nodes(graph, _BATCH_NORM)),
        *(_set_flag(n, _DROPOUT, dropout and _in_trained_block(graph, n, only)) for n in _nodes(graph, _DROPOUT)),
    ]
    for name, module in graph.named_modules():  # graphs that were not exported hold whole layers
        if isinstance(module, _BatchNorm):
            module.training = batch_norm == "train" and (only is None or f"{name}.running_mean" in only)
        elif isinstance(module, _DropoutNd):
            module.training = dropout and _trains(graph, name, only)
    if any(changed):
        graph.recompile()


def batch_norms(graph: fx.GraphModule) -> tuple[fx.Node, ...]:
    """The batch norms of an exported graph that remember a mean and a variance, in order of the flow.

    Of their arguments the first is what they normalise, the fourth and fifth are what they remember.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from regraft.cut import trace
        >>> traced = trace(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), torch.zeros(2, 3))
        >>> [str(node.target) for node in batch_norms(traced.graph)]
        ['aten.batch_norm.default']
    """
    return tuple(node for node in _nodes(graph, _BATCH_NORM) if isinstance(node.args[3], fx.Node))


def statistics(graph: fx.GraphModule) -> dict[str, tuple[str, ...]]:
    """The batch norms of a graph: the name of each running mean, with the names of the layer's other tensors.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from regraft.cut import between, trace
        >>> traced = trace(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), torch.zeros(2, 3))
        >>> statistics(traced.graph)
        {'1.running_mean': ('1.running_var', '1.weight', '1.bias')}
    """
    found = {}
    for node in batch_norms(graph):
        weight, bias, mean, variance = node.args[1:5]
        mean, *rest = [str(n.target) for n in (mean, variance, weight, bias) if isinstance(n, fx.Node)]
        found[mean] = tuple(rest)
    for name, module in graph.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            found[f"{name}.running_mean"] = tuple(
                f"{name}.{own}" for own in ("running_var", "weight", "bias") if getattr(module, own) is not None
            )
    return found


@contextmanager
def measuring(graph: fx.GraphModule) -> Iterator[None]:
    """Inside the block each batch norm normalises with its batch's statistics and stores exactly those."""
    nodes = list(_nodes(graph, _BATCH_NORM))
    layers = [module for module in graph.modules() if isinstance(module, _BatchNorm)]
    before = [n.args[_BATCH_NORM[_packet(n)] + 1] for n in nodes], [layer.momentum for layer in layers]
    set_training(graph, batch_norm="train", dropout=False)
    _set_momenta(graph, nodes, layers, ([1.0] * len(nodes), [1.0] * len(layers)))
    try:
        yield
    finally:
        _set_momenta(graph, nodes, layers, before)
        set_training(graph, batch_norm="frozen", dropout=False)


def _set_momenta(
    graph: fx.GraphModule, nodes: list[fx.Node], layers: list[_BatchNorm], values: tuple[list, list]
) -> None:
    for node, value in zip(nodes, values[0], strict=True):
        node.update_arg(_BATCH_NORM[_packet(node)] + 1, value)
    for layer, value in zip(layers, values[1], strict=True):
        layer.momentum = value
    graph.recompile()


def _packet(node: fx.Node) -> Any:
    return getattr(node.target, "overloadpacket", None)


def _nodes(graph: fx.GraphModule, positions: dict) -> Iterator[fx.Node]:
    return (n for n in graph.graph.nodes if n.op == "call_function" and _packet(n) in positions)


def _set_flag(node: fx.Node, positions: dict, flag: bool) -> bool:
    position = positions[_packet(node)]
    before = bool(node.args[position])
    node.update_arg(position, flag)
    return before is not flag


def _moves(node: fx.Node, only: Collection[str] | None) -> bool:
    mean = node.args[3]
    return only is None or (isinstance(mean, fx.Node) and str(mean.target) in only)


def _in_trained_block(graph: fx.GraphModule, node: fx.Node, only: Collection[str] | None) -> bool:
    path = next((path for _, path in reversed(calls(node))), "")
    return _trains(graph, path, only)


def _trains(graph: fx.GraphModule, path: str, only: Collection[str] | None) -> bool:
    """Whether something is trained in the innermost module around a place that holds tensors."""
    if only is None:
        return True
    names = [name for name, _ in graph.named_parameters()]
    while path and not any(name.startswith(f"{path}.") for name in names):
        path = path.rpartition(".")[0]
    return any(name in only for name in names if not path or name.startswith(f"{path}."))
