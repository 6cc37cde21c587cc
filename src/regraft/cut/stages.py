"""Grouping a network's cuts into a few stages, for people and for search.

C channels, H and W pixels, L tokens, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import fx, nn

from regraft.cut.graph import aten, output_node, row_shape
from regraft.cut.names import calls

MOST_STAGES = 16
FEWEST_STAGES = 4


def stage_ends(nodes: Sequence[fx.Node], feature: int, leaves: set[str], below: Sequence[int]) -> list[int]:
    """The positions of the last cut of each stage, in order; the feature's is the last.

    A stage ends where a numbered block ends, or outside blocks where the size changes; blocks are the
    smallest ones, unless there are too many: then larger ones, then an even choice. Where that gives next to none, as
    in a transformer whose file names no blocks, a stage ends before the next layer. Pooled but not yet
    flattened features are no stage beside the feature.

    Args:
        nodes: the activations of the cuts between input and output.
        feature: the position of the classifier's input among them.
        leaves: the paths of modules without modules inside.
        below: for each activation how many parameters have been used once it has been computed.
    """
    ways: list[Callable[[fx.Node], str]] = [
        _smallest_block(leaves),
        _largest_block(leaves),
        _numbered_prefix(leaves),
    ]
    for way in ways:
        ends = _ends(nodes, feature, way)
        if FEWEST_STAGES <= len(ends) <= MOST_STAGES:
            return ends
    finest, coarse = _ends(nodes, feature, ways[0]), _ends(nodes, feature, ways[-1])
    if len(finest) < FEWEST_STAGES:
        finest = sorted({*finest, *_before_layers(nodes[: feature + 1], below)})
    return _thinned(finest, [end for end in coarse if end in finest])


def _ends(nodes: Sequence[fx.Node], feature: int, block: Callable[[fx.Node], str]) -> list[int]:
    shapes = [row_shape(node) or () for node in nodes]
    blocks = [block(node) for node in nodes]
    ends = []
    for i in range(feature):
        same_block = blocks[i] == blocks[i + 1]
        grows = math.prod(shapes[i]) != math.prod(shapes[i + 1])
        pooled = math.prod(shapes[i]) == max(shapes[i]) and max(shapes[i]) == math.prod(shapes[feature])
        if (not same_block or (not blocks[i] and grows)) and not pooled:
            ends.append(i)
    return [*ends, feature]


def _before_layers(nodes: Sequence[fx.Node], below: Sequence[int]) -> list[int]:
    """Where what comes next has more parameters than a normalisation, which has two for each of its features."""
    sizes = [max(row_shape(node) or (1,)) for node in nodes]
    return [i for i in range(len(nodes) - 1) if below[i + 1] - below[i] > 2 * sizes[i + 1]]


def _thinned(ends: list[int], kept: list[int]) -> list[int]:
    """At most MOST_STAGES of the ends: those to be kept as far as they go, the others evenly."""
    if len(ends) <= MOST_STAGES:
        return ends
    kept = _evenly([end for end in kept if end != ends[-1]], MOST_STAGES - 1)
    others = [end for end in ends[:-1] if end not in kept]
    return sorted({*kept, *_evenly(others, MOST_STAGES - 1 - len(kept)), ends[-1]})


def _evenly(values: list[int], n: int) -> list[int]:
    if len(values) <= n:
        return values
    return [values[(i + 1) * len(values) // n - 1] for i in range(n)]


def _smallest_block(leaves: set[str]) -> Callable[[fx.Node], str]:
    return lambda node: next(reversed(_blocks(node, leaves)), "")


def _largest_block(leaves: set[str]) -> Callable[[fx.Node], str]:
    return lambda node: next(iter(_blocks(node, leaves)), "")


def _numbered_prefix(leaves: set[str]) -> Callable[[fx.Node], str]:
    """ "layer3" of "layer3.1": the outermost module whose name ends in a digit."""
    return lambda node: next((p for _, p in calls(node) if p[-1].isdigit() and p not in leaves), "")


def _blocks(node: fx.Node, leaves: set[str]) -> list[str]:
    return [path for _, path in calls(node) if path.rpartition(".")[2].isdigit() and path not in leaves]


# What may stand between the classifier and the output without making it something else.
_AFTER_CLASSIFIER = {
    aten.flatten, aten.reshape, aten.view, aten.squeeze, aten.contiguous, aten.clone, aten.to, aten.dropout,
    aten.alias, aten.add, aten.div, aten.mul, aten.mean, aten.adaptive_avg_pool2d,
    aten.relu, aten.softmax, aten.log_softmax, aten.sigmoid,
}  # fmt: skip


def classifier_inputs(graph: fx.GraphModule) -> list[fx.Node]:
    """The activations that the final classifiers read; none where the network ends in something else.

    Some networks average two classifiers. Dropout before a classifier counts as part of it.
    """
    read, queue = [], [output_node(graph.graph)]
    while queue:
        node = queue.pop()
        if _is_classifier(graph, node):
            read.append(_before_dropout(graph, node.all_input_nodes[0]))
        elif _packet(node) in _AFTER_CLASSIFIER:
            queue += [n for n in node.all_input_nodes if n.op != "get_attr"]  # a bias of its own is no activation
        else:
            return []
    return list(dict.fromkeys(read))


def _before_dropout(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    while _packet(node) is aten.dropout or isinstance(_layer(graph, node), nn.modules.dropout._DropoutNd):
        node = node.all_input_nodes[0]
    return node


def _is_classifier(graph: fx.GraphModule, node: fx.Node) -> bool:
    if isinstance(_layer(graph, node), nn.Linear) or _packet(node) is aten.linear:
        return True
    if _packet(node) is not aten.conv2d:
        return False
    weight = graph.get_parameter(str(node.all_input_nodes[1].target))
    return tuple(weight.shape[2:]) == (1, 1)


def _layer(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return graph.get_submodule(str(node.target)) if node.op == "call_module" else None


def _packet(node: fx.Node) -> object:
    return getattr(node.target, "overloadpacket", None)
