"""From a graph and its weights to a `Source`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from regraft.source.arch import build
from regraft.source.graph.graph import Graph
from regraft.source.graph.net import escaped
from regraft.source.match import check_finite
from regraft.source.request import Request
from regraft.source.source import LoadReport, Source, make_source
from regraft.spec import InputSpec


def graph_source(
    request: Request,
    arch: str,
    graph: Graph,
    weights: Mapping[str, torch.Tensor],
    spec: InputSpec | None,
    *,
    report: LoadReport | None = None,
    classes: tuple[str, ...] = (),
) -> Source:
    """A network that was read from a file as a graph.

    Args:
        request: what the user asked for; with random weights, only the graph is used.
        arch: `graph:FORMAT`.
        graph: the network.
        weights: a value for every tensor of the graph, by the file's names.
        spec: what the file says about the input.
        report: what became of the file's tensors.
        classes: names of the outputs, where known.

    Raises:
        SourceError: the weights hold NaN, or the input is not known.
    """
    used = {tensor.name: weights[tensor.name] for tensor in graph.tensors}
    input_spec = request.input_or(spec, graph.shape)
    if not request.random_weights:
        check_finite(used, request.uri)
    arch_args = {"graph": graph.to_dict()}
    model, _ = build(arch, arch_args, seed=request.seed)
    if request.random_weights:
        return make_source(request.uri, arch, arch_args, model, input_spec, classes=classes)
    model.load_state_dict({escaped(name): value for name, value in used.items()})
    report = report or LoadReport(matched=tuple(used))
    return make_source(request.uri, arch, arch_args, model, input_spec, classes=classes, report=report)


def left_over(graph: Graph, names: Iterable[str]) -> tuple[str, ...]:
    """Names of a file that the graph does not use."""
    used = {tensor.name for tensor in graph.tensors}
    return tuple(name for name in names if name not in used)


def fragment(request: Request) -> str:
    """Where the network is to end, "" where that was not said: what follows the # of a URI.

    Example:
        >>> fragment(Request("model.ckpt#dnn/hidden4/Relu:0"))
        'dnn/hidden4/Relu:0'
    """
    return request.uri.partition("#")[2]
