"""Network: body, pools and head as one module, above a cut or from the input.

Shape letters: B rows of one batch, C channels, H height, W width, D features, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, fx, nn

from regraft.cache import Pool, Tap, TapModel
from regraft.cut import Traced, between, copy_graph, set_training
from regraft.errors import RecipeError
from regraft.head import NEED_PLACES, parse_layers
from regraft.source import Source
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
    """From an activation, or from pixels, to class scores.

    State names are `body.<name in the source>` and `head.*`, whatever the cut, so that the upper part's state
    loads into the whole network.

    Args:
        body: from the start to a tuple of activations; None where the rows are the head's features.
        pools: one for each tap; turns the activation at `which` into (B, D).
        which: for each tap, the number of its activation in the body's tuple.
        head: from the joined features to class scores.
        mean: per channel, for pixels 0..255; None where the start is no picture.
        std: likewise.
        modes: what `train()` switches on in the body.
        logits: the number of the source's own output in the body's tuple; None where its head was dropped.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        body: fx.GraphModule | None,
        pools: Sequence[nn.Module],
        which: Sequence[int],
        head: nn.Module,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
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
        self.register_buffer("mean", _per_channel(mean), persistent=False)
        self.register_buffer("std", _per_channel(std), persistent=False)
        self.train(False)

    def forward(self, batch: Tensor) -> Tensor:
        """Pixels (B, C, H, W) in 0..255, an activation (B, ...), or features (B, D), to scores (B, K)."""
        return self.head(self.features(batch))

    def features(self, batch: Tensor) -> Tensor:
        """What the head reads, (B, D)."""
        if self.body is None:
            return batch
        activations = self._activations(batch)
        pooled = [pool(activations[i]) for pool, i in zip(self.pools, self.which, strict=True)]
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
        return self._activations(batch)[self.logits]

    def _activations(self, batch: Tensor) -> tuple[Tensor, ...]:
        assert self.body is not None
        if self.mean is not None and self.std is not None:
            batch = (batch.float() / 255 - self.mean) / self.std
        return self.body(batch)

    def train(self, mode: bool = True) -> Self:
        """Switch batch norms and dropout as the plan wants them; exported graphs know no other modes."""
        self.training = mode
        self.head.train(mode)
        if self.body is not None:
            modes = self.modes if mode else Modes()
            set_training(self.body, batch_norm=modes.batch_norm, dropout=modes.dropout, only=modes.only)
        return self


class Prefix(nn.Module):
    """Frozen layers below a cut, in eval mode for good: from pixels to the one activation of a tap model."""

    def __init__(self, taps: TapModel) -> None:
        super().__init__()
        self.taps = taps
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) in 0..255 to (B, ...)."""
        return self.taps(pixels)[0]


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
        source: whose input normalisation belongs to the network; needed where start is "input".
        modes: see Network.
        keep_source_head: whether the body goes on to the source's own output.
    """
    head = copy.deepcopy(head)
    if start == "output":
        return Network(None, (), (), head)
    names = list(dict.fromkeys([tap.cut for tap in taps] + ["output"] * keep_source_head))
    body = copy_graph(between(traced, start, names))
    pools = [make_pool(traced, tap) for tap in taps]
    which = [names.index(tap.cut) for tap in taps]
    logits = names.index("output") if keep_source_head else None
    if start != "input":
        return Network(body, pools, which, head, modes=modes, logits=logits)
    if source is None:
        raise ValueError("a network from the input needs its source, for mean and std")
    mean, std = source.input.mean, source.input.std
    return Network(body, pools, which, head, mean=mean, std=std, modes=modes, logits=logits)


def make_pool(traced: Traced, tap: Tap) -> nn.Module:
    """What turns a tap's activation (B, ...) into columns (B, D); grid 0 keeps every value."""
    cut = traced.cut(tap.cut)
    return Pool(cut.shape, cut.layout, tap.grid) if tap.grid else nn.Flatten()


def feature_width(traced: Traced, taps: Sequence[Tap]) -> int:
    """D of the joined taps."""
    return sum(make_pool(traced, tap)(torch.zeros(1, *traced.cut(tap.cut).shape)).shape[1] for tap in taps)


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
    """The delivered model: from pixels 0..255 to class scores, with a trained upper part grafted in.

    Args:
        source: gives the lower layers and the normalisation.
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


def _per_channel(values: Sequence[float] | None) -> Tensor | None:
    return None if values is None else torch.tensor(values).view(-1, 1, 1)
