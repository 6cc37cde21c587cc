"""The values of this stage: a `Cut`, and a `Traced` network that knows its legal cuts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from torch import fx

from regraft.cut.architecture import architecture_digest
from regraft.cut.graph import row_shape
from regraft.cut.live import live_after
from regraft.cut.names import calls
from regraft.errors import CutError, closest


@dataclass(frozen=True)
class Cut:
    """A place in a network that exactly one activation crosses.

    Args:
        name: the module whose output crosses ("layer3.1"), "input" or "output".
        node: the activation's node in the traced graph.
        shape: of one example's activation, without the batch; a free length is that of the traced example.
        index: position among the network's cuts; 0 is the input.
        stage: which of `Traced.stages` it belongs to.
        layout: what the axes of `shape` are: "NCHW", "NHWC", "NLC", "NC", "other", or "ragged" where the first is a
            free length.
        params_below: number of parameters of the prefix.
        needs_input: whether the suffix takes the network's input again, by name, beside the activation.
    """

    name: str
    node: str
    shape: tuple[int, ...]
    index: int
    stage: int
    layout: str
    params_below: int
    needs_input: bool = False

    @property
    def ragged(self) -> bool:
        """Whether the first axis of the shape is a free length, which differs between batches."""
        return self.layout == "ragged"

    @property
    def axes(self) -> str:
        """The shape for people: a free length is "L"."""
        sizes = [str(size) for size in self.shape]
        return f"({', '.join(['L', *sizes[1:]] if self.ragged else sizes)}{',' * (len(sizes) == 1)})"

    def __str__(self) -> str:
        return f"{self.name!r} {self.axes}"


@dataclass(frozen=True, eq=False)
class Traced:
    """A network as a functional graph, and its legal cuts.

    Args:
        make_graph: makes `graph`; called once, when the graph is first asked for.
        cuts: in order of the flow, from "input" to "output".
        stages: at most 16 representatives, the last cut of each stage; the classifier's input is the last.
        feature: the cut just before the classifier; the output, where there is no classifier.
        fallback_reason: why the graph was not made by `torch.export`; empty if it was.
        model: what the network is called in messages.
        aliases: further names of cuts, and the cut's name for each.
        saved: the names in the model's state dict.
        known: `architecture`, where it is known before the graph is made; else empty.
    """

    make_graph: Callable[[], fx.GraphModule] = field(repr=False)
    cuts: tuple[Cut, ...]
    stages: tuple[Cut, ...]
    feature: Cut
    fallback_reason: str = ""
    model: str = "the network"
    aliases: Mapping[str, str] = field(default_factory=dict, repr=False)
    saved: frozenset[str] = field(default=frozenset(), repr=False)
    known: str = field(default="", repr=False)

    @cached_property
    def graph(self) -> fx.GraphModule:
        """Nothing in place; parameters are the model's own, under its names; eval mode; any batch size."""
        return self.make_graph()

    @cached_property
    def architecture(self) -> str:
        """Digest of what the graph computes, whatever the tensors that are saved with the model."""
        return self.known or architecture_digest(self.graph, self.saved)

    def cut(self, name: str | Cut) -> Cut:
        """The legal cut of that name: a module's path, a name in `cuts`, or a node of the graph.

        Raises:
            CutError: there is no such place, or more than one activation crosses it.
        """
        wanted = name.name if isinstance(name, Cut) else name
        wanted = self.aliases.get(wanted, wanted)
        for cut in self.cuts:
            if cut.name == wanted:
                return cut
        raise CutError(self._why_not(wanted))

    def _why_not(self, name: str) -> str:
        inside = [n for n in self.graph.graph.nodes if n.name == name or name in (path for _, path in calls(n))]
        if not inside:
            return self._unknown(name)
        return f"{name!r} of {self.model} is not a single-tensor boundary{self._crossing(inside[-1])}. " + (
            f"Nearest legal cuts: {self._nearest(inside[-1])}."
        )

    def _unknown(self, name: str) -> str:
        names = {**{cut.name: cut for cut in self.cuts}, **{a: self.cut(n) for a, n in self.aliases.items()}}
        hint = closest(name, names)
        known = ", ".join(str(cut) for cut in self.stages)
        return f"{self.model} has no {name!r}.{hint} Legal cuts, one of each stage: {known}."

    def _crossing(self, node: fx.Node) -> str:
        live = live_after(self.graph.graph).get(node, frozenset()) - {node}
        if not live:
            return ": what follows writes into it" if row_shape(node) else ": it holds no row per example"
        if len(live) > 1:
            return f": {len(live)} other activations also cross it"
        order = {n: i for i, n in enumerate(self.graph.graph.nodes)}
        later = [user for other in live for user in other.users if order[user] > order[node]]
        block = _common_block(node, later)
        return f": the shortcut of {block} also crosses it" if block else ": another activation also crosses it"

    def _nearest(self, node: fx.Node) -> str:
        order = {n.name: i for i, n in enumerate(self.graph.graph.nodes)}
        before = [cut for cut in self.cuts if order[cut.node] < order[node.name]]
        after = [cut for cut in self.cuts if order[cut.node] > order[node.name]]
        return ", ".join(str(cut) for cut in (*before[-1:], *after[:1]))


def _common_block(node: fx.Node, users: list[fx.Node]) -> str:
    """The innermost module that a node and a later user of another activation both run in."""
    paths = [path for _, path in calls(node)]
    shared = [p for p in paths if any(p == q for user in users for _, q in calls(user))]
    return shared[-1] if shared else ""


def to_plain(traced: Traced) -> dict[str, Any]:
    """All that is known of a traced network but for its graph, as plain values."""
    return {
        "cuts": [asdict(cut) for cut in traced.cuts],
        "stages": [cut.index for cut in traced.stages],
        "feature": traced.feature.index,
        "fallback_reason": traced.fallback_reason,
        "aliases": dict(traced.aliases),
        "saved": sorted(traced.saved),
        "architecture": traced.architecture,
    }


def from_plain(facts: dict[str, Any], make_graph: Callable[[], fx.GraphModule], model: str) -> Traced:
    """The inverse of `to_plain`; the graph is made only if it is asked for.

    Args:
        facts: what `to_plain` gave.
        make_graph: traces the same network again.
        model: what the network is called in messages.
    """
    cuts = tuple(Cut(**{**cut, "shape": tuple(cut["shape"])}) for cut in facts["cuts"])
    stages, feature = tuple(cuts[i] for i in facts["stages"]), cuts[facts["feature"]]
    aliases, saved, known = facts["aliases"], frozenset(facts["saved"]), facts["architecture"]
    return Traced(make_graph, cuts, stages, feature, facts["fallback_reason"], model, aliases, saved, known)


def describe(traced: Traced) -> list[dict[str, Any]]:
    """The legal cuts as plain values, in order of the flow; a free length is that of the traced example.

    Example:
        >>> from torch import nn, zeros
        >>> from regraft.cut import trace
        >>> describe(trace(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), zeros(2, 3)))[1]
        {'name': '0', 'shape': [5], 'layout': 'NC', 'stage': 0, 'params_below': 20}
    """
    return [
        {"name": c.name, "shape": list(c.shape), "layout": c.layout, "stage": c.stage, "params_below": c.params_below}
        for c in traced.cuts
    ]
