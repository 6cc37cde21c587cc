"""Pooling of activations to small grids, by exact area weights.

One class serves the frozen pass (in PyTorch or on an inference engine) and the delivered model, so both do
the same arithmetic: one product with a constant matrix.

Shape letters: N examples, C channels, H and W (pixels of the activation), L tokens, P prefix tokens,
G cells on a side of the grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

# Class token; class and distillation token; class token and four registers.
_PREFIX_TOKENS = (0, 1, 2, 5)


@dataclass(frozen=True)
class Pooled:
    """What pooling makes of an activation: the resolved form of (shape, layout, grid).

    Args:
        kind: "grid" pools H x W (or a square of tokens); "tokens" averages tokens that form no square and
            keeps the first beside the mean; "sequence" averages as many tokens as an example has, and on a grid of
            2 keeps the first and the last beside the mean; "mean" averages all axes but the first; "identity"
            changes nothing.
        channels: C.
        grid: G, cells on a side. It is the wanted grid, halved until it fits into the activation.
        prefix: tokens kept as they are, after the grid's columns.
        size: (H, W) of the grid's input; (L, 1) for "tokens"; (0, 0) where nothing is pooled.
    """

    kind: Literal["identity", "grid", "tokens", "sequence", "mean"]
    channels: int
    grid: int = 1
    prefix: int = 0
    size: tuple[int, int] = (0, 0)

    @property
    def width(self) -> int:
        """Columns of a pooled row: C·G·G for the grid, then C for each prefix token."""
        if self.kind == "sequence":
            return self.channels * (3 if self.grid > 1 else 1)
        return self.channels * (self.grid * self.grid + self.prefix)

    def cells(self, rows: np.ndarray) -> np.ndarray:
        """What each channel has in each cell of the grid, (N, C, G·G), without prefix tokens.

        Args:
            rows: (N, width), as a `Pool` of this plan, of the kind "grid", gave them.
        """
        return rows[:, : self.channels * self.grid**2].reshape(len(rows), self.channels, -1)

    def coarsen(self, rows: np.ndarray, to: int) -> np.ndarray:
        """The rows of this tap on a coarser grid; unchanged where it is already that coarse.

        Args:
            rows: (N, width), as a `Pool` of this plan gave them.
            to: cells on a side of the coarser grid; divides `grid`.

        Returns:
            (N, C·to·to + C·P).
        """
        if self.grid <= to:
            return rows
        if self.kind == "sequence":
            return rows[:, : self.channels]
        return coarsen(rows, to, grid=self.grid, extra=self.channels * self.prefix)


def pooled(shape: tuple[int, ...], layout: str, grid: int) -> Pooled:
    """What pooling makes of an activation of this shape.

    Args:
        shape: of one example's activation, without the batch.
        layout: "NCHW", "NHWC", "NLC", "ragged", "NC" or "other", as a cut states it.
        grid: cells wanted on a side, 1 or more.

    Example:
        >>> pooled((512, 7, 7), "NCHW", 4).width
        8192
        >>> pooled((197, 192), "NLC", 2)
        Pooled(kind='grid', channels=192, grid=2, prefix=1, size=(14, 14))
    """
    if grid < 1:
        raise ValueError(f"a grid has at least one cell on a side, not {grid}")
    if layout == "NCHW":
        return _on_grid(shape[0], (shape[1], shape[2]), grid)
    if layout == "NHWC":
        return _on_grid(shape[2], (shape[0], shape[1]), grid)
    if layout == "NLC":
        return _tokens(shape[0], shape[1], grid)
    if layout == "ragged":
        return Pooled("sequence", shape[1], min(grid, 2))
    return Pooled("identity" if len(shape) == 1 else "mean", shape[0] if shape else 1)


def _on_grid(channels: int, size: tuple[int, int], grid: int, prefix: int = 0) -> Pooled:
    # Halving keeps every grid derivable from the next finer one.
    while grid > min(size):
        grid = max(grid // 2, 1)
    return Pooled("grid", channels, grid, prefix, size)


def _tokens(length: int, channels: int, grid: int) -> Pooled:
    for prefix in _PREFIX_TOKENS:
        side = math.isqrt(max(length - prefix, 0))
        if side and side * side == length - prefix:
            return _on_grid(channels, (side, side), grid, prefix)
    return Pooled("tokens", channels, 1, 1, (length, 1))


def area_weights(size: int, cells: int) -> np.ndarray:
    """The share of each of `size` pixels in the mean of each of `cells` equal stretches.

    Returns:
        (size, cells), float64; each column sums to 1. A pixel on a border is shared by area.

    Example:
        >>> area_weights(3, 2) * 3
        array([[2., 0.],
               [1., 1.],
               [0., 2.]])
    """
    edges = np.arange(cells + 1) * (size / cells)
    pixel = np.arange(size)[:, None]
    overlap = np.minimum(pixel + 1, edges[None, 1:]) - np.maximum(pixel, edges[None, :-1])
    return np.clip(overlap, 0, None) * (cells / size)


def coarsen(rows: np.ndarray, to: int, *, grid: int = 4, extra: int = 0) -> np.ndarray:
    """The same features on a coarser grid: exactly what pooling straight to that grid would have given.

    Args:
        rows: (N, C·grid·grid + extra), flattened in the order (C, grid, grid).
        to: cells on a side of the coarser grid; divides `grid`.
        grid: cells on a side of the given rows.
        extra: columns at the end that are no cells (prefix tokens) and stay as they are.

    Returns:
        (N, C·to·to + extra).

    Example:
        >>> coarsen(np.arange(16.0)[None], to=1)
        array([[7.5]])
    """
    if grid % to:
        raise ValueError(f"a grid of {to} cells on a side does not follow from one of {grid}")
    share = np.kron(area_weights(grid, to), area_weights(grid, to)).astype(rows.dtype)
    cells = rows[:, : rows.shape[1] - extra].reshape(-1, grid * grid)
    means = (cells @ share).reshape(len(rows), -1)  # several times faster than a mean over strided axes
    return np.concatenate([means, rows[:, rows.shape[1] - extra :]], axis=1) if extra else means


class Pool(nn.Module):
    """Exact area-weighted means of an activation over the cells of a grid, flattened to one row.

    A 7x7 activation goes on a 4x4 grid with fractional weights, so the mean of the cells is the global mean,
    and coarser grids follow exactly from finer ones (`coarsen`). `nn.AdaptiveAvgPool2d` overlaps its cells
    there. Prefix tokens are kept beside the grid; an activation without a place in it passes as it is.

    Args:
        shape: of one example's activation, without the batch.
        layout: "NCHW", "NHWC", "NLC", "ragged", "NC" or "other".
        grid: cells wanted on a side. An activation smaller than that gets the grid halved until it fits.

    Example:
        >>> Pool((64, 7, 7), "NCHW", 4)(torch.ones(2, 64, 7, 7)).shape
        torch.Size([2, 1024])
    """

    weights: torch.Tensor

    def __init__(self, shape: tuple[int, ...], layout: str, grid: int) -> None:
        super().__init__()
        self.plan = pooled(shape, layout, grid)
        self.layout = layout
        rows, columns = (area_weights(s, self.plan.grid) for s in self.plan.size) if self._has_grid else ([], [])
        # Derived from the shape: not a part of the state that is saved.
        self.register_buffer("weights", torch.as_tensor(np.kron(rows, columns), dtype=torch.float32), persistent=False)

    @property
    def _has_grid(self) -> bool:
        return self.plan.kind == "grid"

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """The pooled rows: (N, …) to (N, D); for rows of different lengths, a mask (N, L) says what counts."""
        if self.plan.kind == "sequence":
            assert mask is not None
            return self._sequence(x, mask)
        if self.plan.kind == "grid":
            return self._pool(x)
        if self.plan.kind == "tokens":
            return torch.cat([x.mean(1), x[:, 0]], 1)
        return x.flatten(2).mean(2) if self.plan.kind == "mean" else x

    def _sequence(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        counts = mask.to(x.dtype)[:, :, None]
        number = counts.sum(1).clamp(min=1)
        mean = (x * counts).sum(1) / number
        if self.plan.grid == 1:
            return mean
        # The end by a product with a one-hot vector: inference engines know no indexing by a tensor of lengths.
        places = torch.arange(x.shape[1], device=x.device)[None, :, None]
        last = (x * (places == number.to(torch.int64)[:, None] - 1).to(x.dtype)).sum(1)
        return torch.cat([mean, x[:, 0], last], 1)

    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        if self.layout == "NLC":
            prefix = x[:, : self.plan.prefix].flatten(1)
            cells = x[:, self.plan.prefix :].transpose(1, 2) @ self.weights.to(x.dtype)
            return torch.cat([cells.flatten(1), prefix], 1)
        # (N, C, H·W); a channels-last tensor is only seen otherwise here, not copied twice.
        flat = x.flatten(1, 2).transpose(1, 2) if self.layout == "NHWC" else x.flatten(2)
        return (flat @ self.weights.to(x.dtype)).flatten(1)
