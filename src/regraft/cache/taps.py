"""The network as the frozen pass runs it: from pixels to every wanted tap, in one pass.

Shape letters: N examples, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from regraft.cache.key import Tap
from regraft.cache.pool import Pool, pooled
from regraft.cut import Traced, between


class TapModel(nn.Module):
    """Pixels to the features of several taps.

    Args:
        traced: the network.
        taps: where features are taken.
        mean: of the normalisation, one number per channel, for pixels scaled to 0..1.
        std: the same for the standard deviation.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, traced: Traced, taps: Sequence[Tap], mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        cuts = list(dict.fromkeys(tap.cut for tap in taps))
        self.body = between(traced, "input", cuts)
        self.pools = nn.ModuleList(_pool(traced, tap) for tap in taps)
        self._which = [cuts.index(tap.cut) for tap in taps]
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(N, C, H, W) pixels from 0 to 255, uint8 or float, to one tensor (N, …) for each tap."""
        x = (pixels.to(torch.float32) / 255 - self.mean) / self.std
        activations = self.body(x)
        return tuple(pool(activations[i]) for pool, i in zip(self.pools, self._which, strict=True))


def row_shape(traced: Traced, tap: Tap) -> tuple[int, ...]:
    """Shape of one row of a tap."""
    cut = traced.cut(tap.cut)
    return (pooled(cut.shape, cut.layout, tap.grid).width,) if tap.grid else tuple(cut.shape)


def _pool(traced: Traced, tap: Tap) -> nn.Module:
    cut = traced.cut(tap.cut)
    return Pool(cut.shape, cut.layout, tap.grid) if tap.grid else nn.Identity()
