"""Network: body, pools and head as one module, above a cut or from the input.

Shape letters: B rows of one batch, C channels, H height, W width, D features, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Literal, Self

import torch
from torch import Tensor, fx, nn

from regraft.cache import Pool, Tap, TapModel
from regraft.cut import Traced, between, copy_graph, set_training
from regraft.source import Source


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
        batch_norm: what `train()` does to batch norms: "frozen" or "train".
        dropout: whether `train()` turns the source's dropout on.
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
        batch_norm: Literal["frozen", "train"] = "frozen",
        dropout: bool = False,
    ) -> None:
        super().__init__()
        self.body = body
        self.pools = nn.ModuleList(pools)
        self.which = tuple(which)
        self.head = head
        self.batch_norm: Literal["frozen", "train"] = batch_norm
        self.dropout = dropout
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
        if self.mean is not None and self.std is not None:
            batch = (batch.float() / 255 - self.mean) / self.std
        activations = self.body(batch)
        pooled = [pool(activations[i]) for pool, i in zip(self.pools, self.which, strict=True)]
        return pooled[0] if len(pooled) == 1 else torch.cat(pooled, 1)

    def train(self, mode: bool = True) -> Self:
        """Switch batch norms and dropout as the plan wants them; exported graphs know no other modes."""
        self.training = mode
        if self.body is not None:
            norm = self.batch_norm if mode else "frozen"
            set_training(self.body, batch_norm=norm, dropout=self.dropout and mode)
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
    batch_norm: Literal["frozen", "train"] = "frozen",
    dropout: bool = False,
) -> Network:
    """The part of a network above a cut, with a head; its tensors are its own.

    Args:
        traced: the source's graph.
        start: name of a cut, "input", or "output" (the head alone, on pooled features).
        taps: what the head reads.
        head: reads the taps' pooled features, joined; its tensors are copied.
        source: whose input normalisation belongs to the network; needed where start is "input".
        batch_norm: see Network.
        dropout: see Network.
    """
    head = copy.deepcopy(head)
    if start == "output":
        return Network(None, (), (), head)
    names = list(dict.fromkeys(tap.cut for tap in taps))
    body = copy_graph(between(traced, start, names))
    pools = [make_pool(traced, tap) for tap in taps]
    which = [names.index(tap.cut) for tap in taps]
    if start != "input":
        return Network(body, pools, which, head, batch_norm=batch_norm, dropout=dropout)
    if source is None:
        raise ValueError("a network from the input needs its source, for mean and std")
    mean, std = source.input.mean, source.input.std
    return Network(body, pools, which, head, mean=mean, std=std, batch_norm=batch_norm, dropout=dropout)


def make_pool(traced: Traced, tap: Tap) -> nn.Module:
    """What turns a tap's activation (B, ...) into columns (B, D); grid 0 keeps every value."""
    cut = traced.cut(tap.cut)
    return Pool(cut.shape, cut.layout, tap.grid) if tap.grid else nn.Flatten()


def feature_width(traced: Traced, taps: Sequence[Tap]) -> int:
    """D of the joined taps."""
    return sum(make_pool(traced, tap)(torch.zeros(1, *traced.cut(tap.cut).shape)).shape[1] for tap in taps)


def full_network(
    source: Source,
    traced: Traced,
    taps: Sequence[Tap],
    head: nn.Module,
    trained_state: Mapping[str, Tensor] | None = None,
) -> Network:
    """The delivered model: from pixels 0..255 to class scores, with a trained upper part grafted in.

    Args:
        source: gives the lower layers and the normalisation.
        traced: its graph.
        taps: what the head reads.
        head: its tensors are copied.
        trained_state: state of a Network above some cut; its tensors replace the source's and the head's.

    Raises:
        ValueError: the trained state has tensors that the network does not have.
    """
    network = network_above(traced, "input", taps, head, source=source)
    unknown = network.load_state_dict(dict(trained_state or {}), strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"the trained part does not fit this network: it also has {unknown[:5]}")
    return network


def _per_channel(values: Sequence[float] | None) -> Tensor | None:
    return None if values is None else torch.tensor(values).view(-1, 1, 1)
