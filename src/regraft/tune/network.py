"""Network: body, pools and head as one module, above a cut or from the input.

Shape letters: B rows of one batch, L places (tokens), D features, K classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, fx, nn

from regraft.cache import RAGGED, RaggedFront, Tap, TapModel, make_pool, mask_of, row_shape
from regraft.cut import Traced, between, copy_graph, set_training
from regraft.errors import RecipeError
from regraft.head import NEED_PLACES, parse_layers
from regraft.source import Source, front
from regraft.tune.edit import edited
from regraft.tune.lora import adapt, adapted_layers, merge
from regraft.tune.recipe import Recipe


@dataclass(frozen=True)
class Modes:
    """What training mode switches on in a body.

    Args:
        batch_norm: "train" lets statistics follow the batches, "frozen" none.
        dropout: whether the source's dropout drops.
        only: tensors that are trained, by their names in the source: the batch norms whose statistics are not among
            them and the dropout of blocks without one of them stay in evaluation. None is all.
    """

    batch_norm: Literal["frozen", "train"] = "frozen"
    dropout: bool = False
    only: frozenset[str] | None = None


class Network(nn.Module):
    """From an activation, or from prepared rows (pixels, token ids), to class scores.

    State names are `body.<name in the source>` and `head.*`, whatever the cut, so that the upper part's state
    loads into the whole network.

    Args:
        body: from the start to a tuple of activations; None where the rows are the head's features.
        pools: one for each tap; turns the activation at `which` into (B, D), or into (B, L, D) padded with NaN.
        which: for each tap, the number of its activation in the body's tuple.
        head: from the joined features to class scores.
        front: from rows to the tuple of tensors that the body takes; None where that is the rows themselves.
        modes: what `train()` switches on in the body.
        logits: the number of the source's own output in the body's tuple; None where its head was dropped.
    """

    def __init__(
        self,
        body: fx.GraphModule | None,
        pools: Sequence[nn.Module],
        which: Sequence[int],
        head: nn.Module,
        *,
        front: nn.Module | None = None,
        modes: Modes | None = None,
        logits: int | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        self.pools = nn.ModuleList(pools)
        self.which = tuple(which)
        self.head = head
        self.modes = modes or Modes()
        self.logits = logits
        self.front = front
        self._takes = sum(node.op == "placeholder" for node in body.graph.nodes) if body is not None else 0
        self.train(False)

    def forward(self, batch: Tensor) -> Tensor:
        """Prepared rows, an activation (B, ...), or features (B, D), to scores (B, K)."""
        return self.head(self.features(batch))

    def features(self, batch: Tensor) -> Tensor:
        """What the head reads, (B, D), or (B, L, D) padded with NaN."""
        if self.body is None:
            return batch
        inputs = self._inputs(batch)
        activations, mask = self.body(*inputs[: self._takes]), mask_of(inputs)
        pooled = [pool(activations[i], mask) for pool, i in zip(self.pools, self.which, strict=True)]
        return pooled[0] if len(pooled) == 1 else torch.cat(pooled, 1)

    def source_logits(self, batch: Tensor) -> Tensor:
        """What the source's own head says of a batch, (B, classes of the source).

        The layers below that head may have been trained since; where they are frozen, this is the source's output.

        Raises:
            RecipeError: the source's head was not kept.
        """
        if self.logits is None:
            raise RecipeError(
                "the source's own head is not part of this network. Keep it: recipe.with_(keep_source_head=True)."
            )
        assert self.body is not None
        return self.body(*self._inputs(batch)[: self._takes])[self.logits]

    def _inputs(self, batch: Tensor) -> tuple[Tensor, ...]:
        return (batch,) if self.front is None else self.front(batch)

    def train(self, mode: bool = True) -> Self:
        """Switch batch norms and dropout as the plan wants them; exported graphs know no other modes."""
        self.training = mode
        self.head.train(mode)
        if self.body is not None:
            modes = self.modes if mode else Modes()
            set_training(self.body, batch_norm=modes.batch_norm, dropout=modes.dropout, only=modes.only)
        return self


class Prefix(nn.Module):
    """Frozen layers below a cut, in eval mode for good: from prepared rows to the one activation of a tap model."""

    def __init__(self, taps: TapModel) -> None:
        super().__init__()
        self.taps = taps
        self.eval()

    def forward(self, rows: Tensor) -> Tensor:
        """(B, ...) as prepared to (B, ...) at the cut."""
        return self.taps(rows)[0]


def network_above(
    traced: Traced,
    start: str,
    taps: Sequence[Tap],
    head: nn.Module,
    *,
    source: Source | None = None,
    modes: Modes | None = None,
    keep_source_head: bool = False,
) -> Network:
    """The part of a network above a cut, with a head; its tensors are its own.

    Args:
        traced: the source's graph.
        start: name of a cut, "input", or "output" (the head alone, on pooled features).
        taps: what the head reads.
        head: reads the taps' pooled features, joined; its tensors are copied.
        source: whose front belongs to the network; needed where start is "input".
        modes: see Network.
        keep_source_head: whether the body goes on to the source's own output.
    """
    head = copy.deepcopy(head)
    if start == "output":
        return Network(None, (), (), head)
    names = list(dict.fromkeys([tap.cut for tap in taps] + ["output"] * keep_source_head))
    body = copy_graph(between(traced, start, names))
    pools = [make_pool(traced, tap, flat=True) for tap in taps]
    which = [names.index(tap.cut) for tap in taps]
    logits = names.index("output") if keep_source_head else None
    return Network(body, pools, which, head, front=_front(traced, start, source), modes=modes, logits=logits)


def _front(traced: Traced, start: str, source: Source | None) -> nn.Module | None:
    if start != "input":
        return RaggedFront() if traced.cut(start).layout == RAGGED else None
    if source is None:
        raise ValueError("a network from the input needs its source, for what stands before it")
    return front(source.input)


def feature_width(traced: Traced, taps: Sequence[Tap]) -> int:
    """D of the joined taps."""
    return sum(math.prod(row_shape(traced, tap)) for tap in taps)


def head_shape(traced: Traced, taps: Sequence[Tap], layers: str) -> tuple[tuple[int, ...], str]:
    """Shape and layout of what a head reads: of a whole activation where its layers need places, else of a row."""
    kind, _ = parse_layers(layers) or ("linear", 0)
    cut = traced.cut(taps[0].cut)
    return (cut.shape, cut.layout) if kind in NEED_PLACES else ((feature_width(traced, taps),), "NC")


def full_network(
    source: Source,
    traced: Traced,
    taps: Sequence[Tap],
    head: nn.Module,
    trained_state: Mapping[str, Tensor] | None = None,
    *,
    recipe: Recipe | None = None,
) -> Network:
    """The delivered model: from prepared rows to class scores, with a trained upper part grafted in.

    Args:
        source: gives the lower layers and what stands before them.
        traced: its graph.
        taps: what the head reads.
        head: its tensors are copied.
        trained_state: state of a Network above some cut; its tensors replace the source's and the head's, and
            adapters are merged into the weights they adapt.
        recipe: says which blocks were replaced, how much adapters count, and whether the source's own head is kept.

    Raises:
        ValueError: the trained state has tensors that the network does not have.
    """
    kept = recipe is not None and recipe.keep_source_head
    network = network_above(
        edited(traced, recipe) if recipe else traced, "input", taps, head, source=source, keep_source_head=kept
    )
    state = dict(trained_state or {})
    layers = adapted_layers(name.removeprefix("body.") for name in state)
    assert network.body is not None
    if recipe and layers:
        adapt(network.body, layers, recipe)
    unknown = network.load_state_dict(state, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"the trained part does not fit this network: it also has {unknown[:5]}")
    merge(network.body, layers)
    return network
