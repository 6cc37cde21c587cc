"""Finding every legal cut of a network, whatever its architecture."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx, nn

from regraft.cut.cuts import Cut, Traced
from regraft.cut.fallback import layered
from regraft.cut.graph import attribute, exported, inputs_of, normalised, primary_input, row_shape
from regraft.cut.layout import layout
from regraft.cut.live import active_nodes, legal_nodes, needing_input
from regraft.cut.names import is_leaf, left_modules, unique_names
from regraft.cut.stages import classifier_inputs, stage_ends
from regraft.errors import first_line

Example = torch.Tensor | tuple | Mapping[str, torch.Tensor]


def trace(
    model: nn.Module, example: Example, *, name: str = "the network", output: int = 0, ragged: bool = False
) -> Traced:
    """The network as a graph with its legal cuts, found by live-set analysis of the exported graph.

    Args:
        model: any network; left as it is, in its own mode. The graph shares its parameters.
        example: a batch (N, ...), or a tuple or mapping of several inputs, of which the first carries the
            examples. Only shapes and types matter.
        name: what to call the network in messages.
        output: which of several output tensors is the network's output.
        ragged: whether the second axis of every input is a free length L, as of token ids (N, L) and their mask
            (N, L). The length is read from the second input, which suffixes take again by name.

    Returns:
        the graph and its cuts; `fallback_reason` says so if `torch.export` could not make the graph.

    Raises:
        CutError: the network can be traced in no way.

    Example:
        >>> traced = trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2)),
        ...                torch.zeros(2, 3, 8, 8))
        >>> [cut.name for cut in traced.cuts], traced.feature.name
        (['input', '0', '1', '2', 'output'], '2')
    """
    inputs = inputs_of(example, ragged=ragged)
    try:
        graph = normalised(exported(model, inputs, ragged=ragged), model, output, ragged=ragged)
    except Exception as error:  # export fails in as many ways as there are models
        reason = f"torch.export failed: {type(error).__name__}: {first_line(error)}"
        graph, legal = layered(model, inputs, name, reason)
        return _with_cuts(graph, model, legal, name, reason)
    return _with_cuts(graph, model, legal_nodes(graph.graph), name, "")


def _with_cuts(graph: fx.GraphModule, model: nn.Module, legal: list[fx.Node], name: str, reason: str) -> Traced:
    leaves = {path for path, _ in model.named_modules() if is_leaf(model, path)}
    names = unique_names(legal[:-1], leaves)
    feature = _feature(graph, legal)
    below = _params_below(graph)
    again = needing_input(graph.graph)
    ends = stage_ends(legal, feature, leaves, [below[n] for n in legal])
    ends = _useful(ends, feature, [below[n] > 0 and n not in again for n in legal])
    cuts = _cuts(graph, legal, ["input", *names, "output"], ends, below, again)
    return Traced(
        make_graph=lambda: graph,
        cuts=cuts,
        stages=tuple(cuts[end + 1] for end in ends),
        feature=cuts[feature + 1],
        fallback_reason=reason,
        model=name,
        aliases=_aliases([primary_input(graph.graph), *legal], cuts),
        saved=frozenset(model.state_dict()),
    )


def _feature(graph: fx.GraphModule, legal: list[fx.Node]) -> int:
    """The position of the classifier's input, or of the last cut before the output if that is no legal cut."""
    read, output = classifier_inputs(graph), len(legal) - 1
    if len(read) == 1 and read[0] in legal:
        return legal.index(read[0])
    before = max(0, output - 1)
    return before if read and legal[before] not in needing_input(graph.graph) else output


def _useful(ends: list[int], feature: int, useful: list[bool]) -> list[int]:
    """Without stages that hold the padded input or need the input beside them, unless all of them do."""
    return [end for end in ends if end == feature or useful[end] or not any(useful[:feature])]


def _cuts(
    graph: fx.GraphModule,
    legal: list[fx.Node],
    names: list[str],
    ends: list[int],
    below: dict[fx.Node, int],
    again: set[fx.Node],
) -> tuple[Cut, ...]:
    nodes = [primary_input(graph.graph), *legal]
    cuts = []
    for i, (node, name) in enumerate(zip(nodes, names, strict=True)):
        shape = row_shape(node) or ()
        stage = min(sum(end + 1 < i for end in ends), len(ends) - 1)
        cuts.append(Cut(name, node.name, shape, i, stage, layout(node, shape), below.get(node, 0), node in again))
    return tuple(cuts)


def _params_below(graph: fx.GraphModule) -> dict[fx.Node, int]:
    """For each active node, how many parameters have been used once it has been computed."""
    seen: set[fx.Node] = set()
    counted: set[int] = set()
    total, below = 0, {}
    active = active_nodes(graph.graph)
    for node in active:
        for parameter in _parameters(graph, node, seen, set(active)):
            if id(parameter) not in counted:
                counted.add(id(parameter))
                total += parameter.numel()
        below[node] = total
    return below


def _parameters(graph: fx.GraphModule, node: fx.Node, seen: set[fx.Node], active: set[fx.Node]) -> list[nn.Parameter]:
    """The parameters that a node uses, directly or through what is recomputed, and not seen before."""
    found = list(graph.get_submodule(str(node.target)).parameters()) if node.op == "call_module" else []
    queue = [n for n in node.all_input_nodes if n not in active]
    while queue:
        source = queue.pop()
        if source in seen:
            continue
        seen.add(source)
        queue += [n for n in source.all_input_nodes if n not in active]
        if source.op == "get_attr":
            value = attribute(graph, str(source.target))
            found += [value] if isinstance(value, nn.Parameter) else []
    return found


def _aliases(nodes: list[fx.Node], cuts: tuple[Cut, ...]) -> dict[str, str]:
    """Every module whose output a cut is, and the node's own name, with the cut's name."""
    names = {cut.name for cut in cuts}
    aliases: dict[str, str] = {}
    for node, cut in zip(nodes, cuts, strict=True):
        for other in (node.name, *left_modules(node)):
            if other not in names:
                aliases.setdefault(other, cut.name)
    return aliases
