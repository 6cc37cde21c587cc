"""What a graph computes, as a digest: operations and constants, without the tensors that are saved with the model."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path

from torch import fx, nn

from regraft.digest import digest_file, digest_json, digest_state


def architecture_digest(graph: fx.GraphModule, saved: Collection[str]) -> str:
    """SHA-256 over the code of a graph and what it holds beside saved tensors; equal for equal exports.

    Args:
        graph: what is computed.
        saved: the names in the state dict of the model, whose values count elsewhere.

    Example:
        >>> import torch
        >>> from regraft.cut import trace
        >>> nets = (nn.Sequential(nn.Linear(3, 5), activation) for activation in (nn.ReLU(), nn.Tanh()))
        >>> one, other = (trace(net, torch.zeros(2, 3)) for net in nets)
        >>> one.architecture == other.architecture
        False
    """
    modules = dict(graph.named_modules())
    code = {name: module.code for name, module in modules.items() if isinstance(module, fx.GraphModule)}
    tensors = chain(graph.named_parameters(remove_duplicate=False), graph.named_buffers(remove_duplicate=False))
    constants = digest_state({name: tensor for name, tensor in tensors if name not in saved})
    layers = [modules[str(node.target)] for node in graph.graph.nodes if node.op == "call_module"]
    return digest_json([code, constants, [repr(layer) for layer in layers], _files(layers)])


def _files(layers: Iterable[nn.Module]) -> list[str]:
    """Digests of the files that define layers which the graph only calls."""
    kinds = {kind for layer in layers for module in layer.modules() for kind in type(module).__mro__}
    return sorted(digest_file(path) for path in set(_paths(kinds)))


def _paths(kinds: Iterable[type]) -> Iterator[Path]:
    for kind in kinds:
        try:
            path = inspect.getsourcefile(kind)
        except (TypeError, OSError):  # built in, or typed into an interpreter
            continue
        if path is not None and Path(path).is_file():
            yield Path(path)
