"""One graph for all networks of an architecture: exporting takes seconds, exchanging tensors takes none."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import chain

import torch
from torch import fx, nn

from regraft.cut.cuts import Traced
from regraft.cut.graph import attribute, with_attributes
from regraft.errors import CutError


def with_weights_of(traced: Traced, model: nn.Module) -> Traced:
    """A traced network with the tensors of another network of the same architecture, which it shares.

    Args:
        traced: the network whose graph is used again; it stays as it is.
        model: built by the same code with the same arguments.

    Raises:
        CutError: the model lacks a tensor of the graph or has it in another shape, or the graph holds whole layers
            because it could not be exported.

    Example:
        >>> from regraft.cut import trace
        >>> one, other = (nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)) for _ in range(2))
        >>> x = torch.randn(4, 3)
        >>> bool((with_weights_of(trace(one, x), other).graph(x) == other(x)).all())
        True
    """
    tensors = dict(chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)))
    graph = traced.graph
    if any(node.op == "call_module" for node in graph.graph.nodes):
        raise CutError(
            f"the graph of {traced.model} holds whole layers. Trace the other network: trace(model, example)."
        )
    names = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for name in sorted(names & traced.saved):
        _check(name, graph, tensors, traced.model)
    # What is in no state dict is a constant of the architecture, which export may have named itself.
    root = {name: tensors.get(name, attribute(graph, name)) for name in names}
    swapped = with_attributes(root, copy.deepcopy(graph.graph), traced.saved)
    return replace(traced, make_graph=lambda: swapped, known="")


def _check(name: str, graph: fx.GraphModule, tensors: dict[str, torch.Tensor], model: str) -> None:
    ours = attribute(graph, name)
    assert isinstance(ours, torch.Tensor)
    theirs = tensors[name].shape if name in tensors else None
    if theirs != ours.shape:
        found = "none" if theirs is None else f"one of shape {tuple(theirs)}"
        raise CutError(
            f"{model} has {name!r} of shape {tuple(ours.shape)}, the other network has {found}: their architectures "
            "differ. Trace the other network: trace(model, example)."
        )
