"""Which activations are live where: a place that only one of them crosses is a legal cut."""

from __future__ import annotations

from torch import fx

from regraft.cut.graph import output_node, primary_input, row_shape


def active_nodes(graph: fx.Graph) -> list[fx.Node]:
    """The nodes whose value depends on the examples, in order, without the input itself.

    The rest (parameters, masks, positions, the batch size) is recomputed wherever it is needed.
    """
    active: dict[fx.Node, None] = {primary_input(graph): None}
    for node in graph.nodes:
        if not node.meta.get("batch") and any(source in active for source in node.all_input_nodes):
            active[node] = None
    return [node for node in active if node.op not in ("placeholder", "output")]


def live_after(graph: fx.Graph) -> dict[fx.Node, frozenset[fx.Node]]:
    """For each active node, the active values that are needed once it has been computed.

    The input never counts: the dataset has it.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}
    last = {n: max((order[u] for u in n.users), default=order[n]) for n in active_nodes(graph)}
    live: set[fx.Node] = set()
    after = {}
    for node in last:
        live = {n for n in live | {node} if last[n] > order[node]}
        after[node] = frozenset(live)
    return after


def needing_input(graph: fx.Graph) -> set[fx.Node]:
    """The active nodes after which the network's input itself is read again."""
    active = active_nodes(graph)
    reads = [i for i, node in enumerate(active) if primary_input(graph) in node.all_input_nodes]
    return set(active[: reads[-1]]) if reads else set()


def legal_nodes(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that a cut may go through, in order; the network's output is the last."""
    end = output_node(graph)
    after = live_after(graph)
    inner = [n for n, live in after.items() if n is not end and live == {n} and row_shape(n)]
    return [*inner, end]
