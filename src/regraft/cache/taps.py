"""The network as the frozen pass runs it: from prepared rows to every wanted tap, in one pass.

Shape letters: N examples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from regraft.cache.key import Tap
from regraft.cache.pool import Pool, pooled
from regraft.cache.ragged import Padded, Whole
from regraft.cut import Traced, between
from regraft.source import front
from regraft.spec import Spec

RAGGED = "ragged"  # the layout of activations with as many places as an example has


class TapModel(nn.Module):
    """Prepared rows to the features of several taps.

    Args:
        traced: the network.
        taps: where features are taken.
        spec: the network's input: what its rows are.
    """

    def __init__(self, traced: Traced, taps: Sequence[Tap], spec: Spec) -> None:
        super().__init__()
        cuts = list(dict.fromkeys(tap.cut for tap in taps))
        self.front = front(spec)
        self.body = between(traced, "input", cuts)
        self.pools = nn.ModuleList(make_pool(traced, tap) for tap in taps)
        self._which = [cuts.index(tap.cut) for tap in taps]

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(N, …), as a preparation gives them or as float, to one tensor (N, …) for each tap."""
        inputs = self.front(rows)
        activations = self.body(*inputs)
        mask = mask_of(inputs)
        return tuple(pool(activations[i], mask) for pool, i in zip(self.pools, self._which, strict=True))


def mask_of(inputs: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Which places of each example count (N, L), where a network takes that beside its first input."""
    return inputs[1] if len(inputs) > 1 else None


def make_pool(traced: Traced, tap: Tap, *, flat: bool = False) -> nn.Module:
    """What turns an activation and its mask into rows of a tap; grid 0 keeps every value.

    Args:
        traced: the network.
        tap: where, and on which grid.
        flat: whether what grid 0 keeps comes as columns (N, D); rows of different lengths never do.
    """
    cut = traced.cut(tap.cut)
    if tap.grid:
        return Pool(cut.shape, cut.layout, tap.grid)
    return Padded() if cut.layout == RAGGED else Whole(flat=flat)


def row_shape(traced: Traced, tap: Tap) -> tuple[int, ...]:
    """Shape of one row of a tap; where rows have different lengths, of one as long as the traced example."""
    cut = traced.cut(tap.cut)
    return (pooled(cut.shape, cut.layout, tap.grid).width,) if tap.grid else tuple(cut.shape)


def is_ragged(traced: Traced, tap: Tap) -> bool:
    """Whether the rows of a tap have different lengths."""
    return not tap.grid and traced.cut(tap.cut).layout == RAGGED
