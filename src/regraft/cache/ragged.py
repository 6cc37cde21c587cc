"""Rows of different lengths in one tensor: places beyond an example's end hold NaN.

So one tensor carries both the values and which of them count, through the cache, the loop and the heads.

Shape letters: B examples, L places (tokens), D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


def counting(padded: Tensor) -> Tensor:
    """Which places count: (B, L, D) to booleans (B, L).

    Example:
        >>> counting(torch.tensor([[[1.0, 2.0], [float("nan")] * 2]])).tolist()
        [[True, False]]
    """
    return ~padded[..., 0].isnan()


def padded_with_nan(values: Tensor, mask: Tensor) -> Tensor:
    """(B, L, D) with NaN where the mask (B, L) is zero."""
    return values.masked_fill(~mask.bool()[..., None], float("nan"))


def lengths(rows: np.ndarray) -> np.ndarray:
    """How many places of each example count: (B, L, D) to int64 (B,)."""
    return (~np.isnan(rows[..., 0])).sum(1)


def stacked(examples: Sequence[np.ndarray]) -> np.ndarray:
    """Examples (L, D) of different lengths as one array (B, L, D), padded with NaN.

    Example:
        >>> stacked([np.zeros((1, 2)), np.ones((3, 2))]).shape
        (2, 3, 2)
    """
    longest = max(map(len, examples))
    out = np.full((len(examples), longest, *examples[0].shape[1:]), np.nan, examples[0].dtype)
    for row, example in zip(out, examples, strict=True):
        row[: len(example)] = example
    return out


class RaggedFront(nn.Module):
    """Cached rows padded with NaN to what the upper part of a network takes: values, and which of them count."""

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, D) to values with zeros in place of NaN, and an int64 mask (B, L)."""
        rows = rows.to(torch.float32)
        return rows.nan_to_num(0.0), counting(rows).to(torch.int64)


class Padded(nn.Module):
    """Keeps every place of an activation, and marks with NaN those that do not count."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, L, D) and a mask (B, L) to (B, L, D)."""
        assert mask is not None
        return padded_with_nan(x, mask)


class Whole(nn.Module):
    """Keeps every number of an activation of a fixed shape.

    Args:
        flat: as one row of columns for each example.
    """

    def __init__(self, *, flat: bool = False) -> None:
        super().__init__()
        self.flat = flat

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, …) as it is, or as (B, D)."""
        return x.flatten(1) if self.flat else x
