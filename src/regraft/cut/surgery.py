"""Taking a traced network apart at its cuts, and putting it together again."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import fx, nn

from regraft.cut.cuts import Cut, Traced
from regraft.cut.graph import aten, primary_input, with_attributes
from regraft.errors import CutError


def between(traced: Traced, start: Cut | str, ends: Sequence[Cut | str]) -> fx.GraphModule:
    """The part of a network from one cut to others further on.

    Parameters are shared with the traced graph, and so with the model that was traced: training this graph
    changes that model. `copy_graph` gives one with parameters of its own.

    Args:
        traced: the network.
        start: where the part begins; "input" for the network's input.
        ends: where it ends; may include `start` itself.

    Returns:
        A graph from the activation at `start` to the tuple of activations at `ends`. Begun at "input" it
        takes what the network takes; begun elsewhere, the activation and then, by name, the inputs it needs.

    Raises:
        CutError: a cut does not exist, or an end lies above the start.

    Example:
        >>> from regraft.cut import trace
        >>> traced = trace(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), torch.zeros(2, 3))
        >>> activation, output = between(traced, "1", ["1", "output"])(torch.ones(4, 5))
        >>> activation.shape, output.shape
        (torch.Size([4, 5]), torch.Size([4, 2]))
    """
    first, last = traced.cut(start), [traced.cut(end) for end in ends]
    return _part(traced, first, last)


def split(traced: Traced, cut: Cut | str) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The two sides of a cut: prefix(input) -> activation, and suffix(activation) -> output.

    Parameters are shared with the traced graph, as in `between`.

    Raises:
        CutError: the cut is not legal.

    Example:
        >>> from regraft.cut import trace
        >>> model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
        >>> prefix, suffix = split(trace(model, torch.zeros(2, 3)), "1")
        >>> x = torch.randn(4, 3)
        >>> bool((suffix(prefix(x)) == model(x)).all()), list(suffix.state_dict())
        (True, ['2.weight', '2.bias'])
    """
    at = traced.cut(cut)
    prefix = _part(traced, traced.cuts[0], [at], single=True)
    suffix = _part(traced, at, [traced.cuts[-1]], single=True)
    return prefix, suffix


class Joined(nn.Module):
    """A prefix and a suffix as one network; takes what the prefix takes."""

    def __init__(self, prefix: fx.GraphModule, suffix: fx.GraphModule) -> None:
        super().__init__()
        self.prefix, self.suffix = prefix, suffix

    def forward(self, *inputs: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        names = _input_names(self.prefix)
        given = {**dict(zip(names, inputs, strict=False)), **named}
        again = {name: given[name] for name in _input_names(self.suffix)[1:]}
        return self.suffix(self.prefix(*inputs, **named), **again)


def join(prefix: fx.GraphModule, suffix: fx.GraphModule) -> nn.Module:
    """The network that `split` took apart."""
    return Joined(prefix, suffix)


def copy_graph(graph: fx.GraphModule) -> fx.GraphModule:
    """The same graph with parameters and buffers of its own, so that training it changes nothing else."""
    return copy.deepcopy(graph)


def _input_names(graph: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in graph.graph.nodes if node.op == "placeholder"]


def _part(traced: Traced, start: Cut, ends: list[Cut], *, single: bool = False) -> fx.GraphModule:
    above = [end for end in ends if end.index < start.index]
    if above:
        raise CutError(
            f"{above[0]} of {traced.model} lies above {start}, and an end comes after the start. "
            f"The other way round works: between(traced, {above[0].name!r}, [{start.name!r}])"
        )
    nodes = {node.name: node for node in traced.graph.graph.nodes}
    stops = [nodes[end.node] for end in ends]
    return part(traced.graph, nodes[start.node], stops, traced.saved, single=single)


def part(
    whole: fx.GraphModule,
    begin: fx.Node,
    stops: list[fx.Node],
    saved: frozenset[str],
    *,
    single: bool = False,
) -> fx.GraphModule:
    """`between` in terms of nodes: the graph from one node to the tuple of others, or to the single one."""
    graph, copies = _copied(whole.graph, begin, stops)
    reached = tuple(copies[stop] for stop in stops)
    graph.output(reached[0] if single else reached)
    return with_attributes(whole, graph, saved)


def _copied(source: fx.Graph, begin: fx.Node, stops: list[fx.Node]) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
    """A graph of what lies between, without an output yet, and the copy of each node."""
    needed = _needed(begin, stops)
    graph, copies = fx.Graph(), {}
    _declare_inputs(source, graph, copies, begin, needed)
    for node in source.nodes:
        if node not in needed or node in copies:
            continue
        if node.meta.get("batch"):  # the same for every activation, so it is read from the one at hand
            copies[node] = graph.call_function(aten.sym_size.int, (copies[begin], 0))
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return graph, copies


def _declare_inputs(
    source: fx.Graph, graph: fx.Graph, copies: dict[fx.Node, fx.Node], begin: fx.Node, needed: set[fx.Node]
) -> None:
    """From the input on, all the network's inputs; from a cut on, the activation and the inputs needed."""
    if begin is not primary_input(source):
        copies[begin] = graph.placeholder(begin.name)
    for node in source.nodes:
        if node.op != "placeholder":
            continue
        if node in needed or node is begin:
            copies[node] = graph.placeholder(str(node.target))
        elif begin is primary_input(source):
            copies[node] = graph.placeholder(str(node.target), default_value=None)


def _needed(begin: fx.Node, stops: list[fx.Node]) -> set[fx.Node]:
    """What has to be computed to get from `begin` to `stops`."""
    found, queue = {begin}, list(stops)
    while queue:
        node = queue.pop()
        if node not in found:
            found.add(node)
            queue += [] if node.meta.get("batch") else node.all_input_nodes
    return found
