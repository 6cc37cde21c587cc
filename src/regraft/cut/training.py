"""Training behaviour of a graph: export fixed it to evaluation, the plan chooses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import fx, nn

from regraft.cut.graph import aten

# Where the training flag stands among an operation's arguments.
_BATCH_NORM = {aten.batch_norm: 5, aten.native_batch_norm: 5, aten.cudnn_batch_norm: 5}
_DROPOUT = dict.fromkeys(
    (aten.dropout, aten.feature_dropout, aten.alpha_dropout, aten.feature_alpha_dropout, aten.native_dropout),
    2,
)


def set_training(graph: fx.GraphModule, *, batch_norm: Literal["frozen", "train"], dropout: bool) -> None:
    """Switch batch norm and dropout between training and evaluation, in place.

    `graph.train()` and `graph.eval()` do nothing to an exported graph; this does. What evaluation mode leaves
    no trace of cannot be switched on: stochastic depth, and dropout inside attention.

    Args:
        graph: a graph made by `between` or `split`.
        batch_norm: "frozen" normalises with the stored statistics; "train" with the batch's, and updates the
            stored ones (shared with the model, unless the graph is a copy).
        dropout: whether dropout drops.

    Example:
        >>> import torch
        >>> from regraft.cut import between, trace
        >>> traced = trace(nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)), torch.zeros(2, 3))
        >>> graph = between(traced, "input", ["output"])
        >>> set_training(graph, batch_norm="frozen", dropout=True)
        >>> bool((graph(torch.ones(9, 3))[0] == 0).any())
        True
    """
    flags = {**dict.fromkeys(_BATCH_NORM, batch_norm == "train"), **dict.fromkeys(_DROPOUT, dropout)}
    changed = [_switch(node, flags) for node in graph.graph.nodes if node.op == "call_function"]
    for module in graph.modules():  # graphs that were not exported hold whole layers
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.training = batch_norm == "train"
        elif isinstance(module, nn.modules.dropout._DropoutNd):
            module.training = dropout
    if any(changed):
        graph.recompile()


def _switch(node: fx.Node, flags: Mapping[Any, bool]) -> bool:
    packet = getattr(node.target, "overloadpacket", None)
    if packet is None or packet not in flags:
        return False
    position = {**_BATCH_NORM, **_DROPOUT}[packet]
    before = bool(node.args[position])
    node.update_arg(position, flags[packet])
    return before is not flags[packet]
