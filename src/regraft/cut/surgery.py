"""Taking a traced network apart at its cuts, and putting it together again."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import fx, nn

from regraft.cut.cuts import Cut, Traced
from regraft.cut.graph import aten, attribute, primary_input, with_attributes
from regraft.cut.layout import layout
from regraft.cut.live import active_nodes
from regraft.cut.names import calls
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


def around(traced: Traced, block: str) -> tuple[Cut, Cut]:
    """The cut that a block's input crosses, and the one that its output crosses.

    Args:
        traced: the network.
        block: path of a module whose output is a cut.

    Raises:
        CutError: no such block, or its input is more than one activation.
    """
    end = traced.cut(block)
    order = {node: i for i, node in enumerate(traced.graph.graph.nodes)}
    active = active_nodes(traced.graph.graph)
    inside = [n for n in active if str(n.target) == block or block in (path for _, path in calls(n))]
    if not inside:
        raise CutError(f"{block!r} of {traced.model} is a place, not a block. Name a module: {_blocks(traced)}.")
    by_name = {node.name: order[node] for node in order}
    start = max((c for c in traced.cuts if by_name[c.node] < order[inside[0]]), key=lambda c: c.index)
    others = [n for n in active if by_name[start.node] < order[n] <= by_name[end.node] and n not in inside]
    if others or start.needs_input:
        raise CutError(
            f"{block!r} of {traced.model} cannot be taken out: between {start} and {end} something else is computed "
            f"too. Take out a larger block: {_blocks(traced)}."
        )
    return start, end


def replaced(traced: Traced, block: str, layer: nn.Module) -> Traced:
    """A network with a new layer in the place of a block; where its shape does not fit, the network ends there.

    The model that was traced stays as it is; all other tensors are shared with it.

    Args:
        traced: the network.
        block: path of a module, as in `around`.
        layer: takes the activation before the block; its tensors are called "BLOCK.…".

    Raises:
        CutError: the block cannot be taken out.

    Example:
        >>> from regraft.cut import trace
        >>> model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 5), nn.Linear(5, 2))
        >>> changed = replaced(trace(model, torch.zeros(2, 3)), "2", nn.Linear(5, 4))
        >>> [cut.name for cut in changed.cuts], changed.cut("2").shape
        (['input', '0', '1', '2', 'output'], (4,))
    """
    start, end = around(traced, block)
    shape = tuple(layer(torch.zeros(2, *start.shape)).shape[1:])
    graph, copies = _spliced(traced, (start, end), block, shape)
    used = {str(n.target) for n in graph.nodes if n.op in ("get_attr", "call_module")} - {block}
    root = {name: attribute(traced.graph, name) for name in used} | {block: layer}
    saved = traced.saved | {f"{block}.{name}" for name in layer.state_dict()}
    grown = sum(p.numel() for p in layer.parameters()) - (end.params_below - start.params_below)
    return _recut(traced, (start, end), with_attributes(root, graph, saved), copies, saved, grown)


def _spliced(
    traced: Traced, ends: tuple[Cut, Cut], block: str, shape: tuple[int, ...]
) -> tuple[fx.Graph, dict[str, fx.Node]]:
    """The graph with the call of a new layer, and the new node of each old one that is left."""
    start, end = ends
    graph, copies = fx.Graph(), {}
    by_name: dict[str, fx.Node] = {}
    for node in traced.graph.graph.nodes:
        if node.op == "output" and shape != end.shape:
            graph.output(by_name[end.node])
            continue
        copies[node] = by_name[node.name] = graph.node_copy(node, copies.__getitem__)
        if node.name == end.node:
            new = graph.call_module(block, (by_name[start.node],))
            ragged = start.ragged and shape[:-1] == start.shape[:1]  # it kept the length
            new.meta = {"row": shape, "ragged": ragged, "nn_module_stack": {block: (block, "")}}
            copies[node] = by_name[node.name] = new
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    left = set(graph.nodes)
    return graph, {name: node for name, node in by_name.items() if node in left}


def _recut(
    traced: Traced,
    ends: tuple[Cut, Cut],
    graph: fx.GraphModule,
    copies: dict[str, fx.Node],
    saved: frozenset[str],
    grown: int,
) -> Traced:
    """The cuts that are left, counted anew, with `grown` parameters more above the block; the last is the output."""
    start, end = ends
    by_name = {name: node.name for name, node in copies.items()}
    kept = [c for c in traced.cuts if c.node in by_name and not start.index < c.index < end.index]
    if copies[end.node].meta["row"] != end.shape:
        last = replace(traced.cuts[-1], node=end.node, params_below=end.params_below)
        kept = [*(c for c in kept if c.index <= end.index), last]
    last = next(name for name in (traced.feature.name, end.name, "output") if name in {c.name for c in kept})
    stages = [*(c.name for c in traced.stages if c in kept and c.name != last), last]
    new: dict[str, Cut] = {}
    for i, cut in enumerate(kept):
        node = copies[cut.node]
        shape = node.meta.get("row", cut.shape)
        below = cut.params_below + (grown if cut.index >= end.index else 0)
        stage = min(sum(name in new for name in stages), len(stages) - 1)
        new[cut.name] = replace(
            cut, node=node.name, index=i, stage=stage, shape=shape, layout=layout(node, shape), params_below=below
        )
    return replace(
        traced,
        make_graph=lambda: graph,
        cuts=tuple(new.values()),
        stages=tuple(new[name] for name in stages),
        feature=new[last],
        aliases={alias: name for alias, name in traced.aliases.items() if name in new},
        saved=saved,
        known="",
    )


def _blocks(traced: Traced) -> str:
    return ", ".join(repr(cut.name) for cut in traced.stages)


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
