"""From one row per token to one row per text, as sentence-transformers and decoders do it.

Reimers & Gurevych: Sentence-BERT, 2019, arXiv 1908.10084. Muennighoff: SGPT, 2022, arXiv 2202.08904 (weights that
grow with the place).

B texts, L tokens, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    return _weighted(hidden, mask / mask.sum(1, keepdim=True).clamp(min=1))


def _mean_sqrt_length(hidden: Tensor, mask: Tensor) -> Tensor:
    return _weighted(hidden, mask / mask.sum(1, keepdim=True).clamp(min=1).sqrt())


def _weighted_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Weights 1, 2, 3 … along the text."""
    places = mask.cumsum(1) * mask
    return _weighted(hidden, places / places.sum(1, keepdim=True).clamp(min=1))


def _weighted(hidden: Tensor, weights: Tensor) -> Tensor:
    """(B, L, D) and (B, L) to (B, D), as a product of matrices: no second tensor of the size of `hidden`."""
    return (weights.unsqueeze(1) @ hidden).squeeze(1)


def _first(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden[:, 0]


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    place = (mask.sum(1) - 1).clamp(min=0).to(torch.int64)
    return hidden.gather(1, place.view(-1, 1, 1).expand(-1, 1, hidden.shape[2])).squeeze(1)


def _max(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden.masked_fill(mask.unsqueeze(-1) == 0, torch.finfo(hidden.dtype).min).amax(1)


# In the order in which sentence-transformers joins several.
POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": _first,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_length,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}


class Pooling(nn.Module):
    """One row per text; several ways are put side by side.

    Args:
        ways: names in `POOLINGS`.

    Example:
        >>> hidden = torch.tensor([[[1.0, 0.0], [3.0, 2.0], [9.0, 9.0]]])
        >>> Pooling(["cls", "mean"])(hidden, torch.tensor([[1, 1, 0]]))
        tensor([[1., 0., 2., 1.]])
    """

    def __init__(self, ways: Sequence[str]) -> None:
        super().__init__()
        self.ways = tuple(ways)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D) and (B, L) of ones and zeros to (B, D times the number of ways)."""
        weights = mask.to(hidden.dtype)
        rows = [POOLINGS[way](hidden, weights) for way in self.ways]
        return rows[0] if len(rows) == 1 else torch.cat(rows, 1)

    def extra_repr(self) -> str:
        return ", ".join(self.ways)


class UnitLength(nn.Module):
    """Each row divided by its length."""

    def forward(self, rows: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        return nn.functional.normalize(rows, dim=1)
