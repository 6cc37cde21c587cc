"""Rows: the examples as the loop sees them, wherever they come from.

Shape letters: N rows, B rows of one batch, C channels, H height, W width, P padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn

from regraft.cache import FeatureCache
from regraft.cache.ragged import lengths
from regraft.data import Dataset, Preparation, decode, load_rows

# Streams of random numbers that must not repeat each other for one (seed, epoch).
ORDER, AUGMENT, VIEW = 1, 2, 3
LONGEST_STRETCH, LEAST_STRETCHES = 50, 4  # in batches, and of them in an epoch


class Rows(Protocol):
    """Examples with labels, served in batches; `batch` is a function of its arguments alone."""

    prefix: nn.Module | None  # frozen layers that run inside `batch`, for the loop to watch over
    lengths: np.ndarray | None  # places of each row, int64 (N,), where rows differ in that; batches are padded

    @property
    def labels(self) -> np.ndarray: ...  # classes, int64 (N,); labels or numbers, float32 (N, K)

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray, epoch: int) -> torch.Tensor: ...  # (B, ...)


class ArrayRows:
    """Rows held in an array or a memory map: cached activations, features, or pixels.

    Args:
        values: (N, ...), floats (activations) or uint8 (pixels, 0..255).
        labels: (N,), or (N, K) of other tasks than classification.
        augment: "flip-crop" gives each epoch its own version of each picture, for pixels (N, C, H, W).
        seed: of the augmentation, which is a function of (seed, epoch, row) and nothing else.
        lengths: places that count in each row (N, L, ...), (N,); a batch is as long as the longest of its rows.

    Example:
        >>> rows = ArrayRows(np.zeros((4, 3, 8, 8), np.uint8), np.array([0, 1, 0, 1]))
        >>> rows.batch(np.array([2, 0]), epoch=1).shape
        torch.Size([2, 3, 8, 8])
    """

    prefix: nn.Module | None = None

    def __init__(
        self,
        values: np.ndarray,
        labels: Sequence[int] | np.ndarray,
        *,
        augment: Literal["none", "flip-crop"] = "none",
        seed: int = 0,
        lengths: np.ndarray | None = None,
    ) -> None:
        self.values = values
        self.lengths = lengths
        self.labels = as_learned(labels)
        self._augment = augment
        self._seed = seed
        if len(values) != len(self.labels):
            raise ValueError(f"{len(values)} rows but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: np.ndarray, epoch: int) -> torch.Tensor:
        """The rows at some indices, (B, ...), as float32; augmented for this epoch if asked."""
        values = self.values[indices]
        if self.lengths is not None:
            values = values[:, : max(1, self.lengths[indices].max())]
        if self._augment == "flip-crop":
            values = flip_crop(values, indices, n=len(self), seed=self._seed, epoch=epoch)
        return torch.from_numpy(np.ascontiguousarray(values)).float()


class CacheRows:
    """Activations at the cut from a feature cache, read from disk batch by batch.

    Args:
        cache: of the plan's cut.
        keys: content keys of the examples, (N,).
        labels: (N,), or (N, K).
    """

    prefix: nn.Module | None = None

    def __init__(self, cache: FeatureCache, keys: Sequence[str], labels: Sequence[int] | np.ndarray) -> None:
        self._cache = cache
        self._keys = np.asarray(keys)
        self.labels = as_learned(labels)
        self.lengths = cache.lengths(keys)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: np.ndarray, epoch: int) -> torch.Tensor:
        """The rows at some indices, (B, ...), as float32; the same in every epoch."""
        return torch.from_numpy(self._cache.rows(self._keys[indices].tolist())).float()


class LiveRows:
    """Examples that are decoded for every batch and, where there is a prefix, run through it.

    Args:
        dataset: the examples.
        transform: from example to the source's input.
        prefix: frozen layers from that input to the activation at the cut; None gives the input.
    """

    def __init__(self, dataset: Dataset, transform: Preparation, prefix: nn.Module | None = None) -> None:
        self.prefix = prefix
        self.labels = dataset.y
        self._dataset = dataset
        self._transform = transform
        self.lengths = row_lengths(load_rows(dataset, transform)) if transform.ragged else None

    def __len__(self) -> int:
        return len(self.labels)

    @torch.no_grad()
    def batch(self, indices: np.ndarray, epoch: int) -> torch.Tensor:
        """Activations at the cut, or the source's input, (B, ...); the same in every epoch."""
        wanted = [int(i) for i in indices]
        parts = decode(self._dataset, self._transform, wanted, batch_size=len(wanted))
        prepared = torch.from_numpy(np.concatenate([part for _, part in parts]))
        return prepared.float() if self.prefix is None else self.prefix(prepared)


class ViewRows:
    """Several views of the same examples, of which each epoch draws one for each row; epoch 0 is plain.

    Args:
        views: rows of each view, in the same order; the first are the plain ones.
        seed: of the draws, which are a function of (seed, epoch, row) and nothing else.

    Example:
        >>> plain, flipped = (ArrayRows(np.full((4, 2), k), [0, 1, 0, 1]) for k in (0, 1))
        >>> ViewRows([plain, flipped], seed=0).batch(np.arange(4), epoch=2)[:, 0]
        tensor([1., 1., 0., 0.])
    """

    def __init__(self, views: Sequence[Rows], *, seed: int) -> None:
        self.prefix = views[0].prefix
        self.labels = views[0].labels
        self.lengths = views[0].lengths
        self._views = views
        self._seed = seed

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: np.ndarray, epoch: int) -> torch.Tensor:
        """The rows at some indices, (B, ...), each in the view that this epoch draws for it."""
        if epoch == 0:
            return self._views[0].batch(indices, 0)
        draws = np.random.default_rng([VIEW, self._seed, epoch]).integers(0, len(self._views), len(self))[indices]
        parts = {view: np.flatnonzero(draws == view) for view in np.unique(draws)}
        order = torch.from_numpy(np.argsort(np.concatenate(list(parts.values())), kind="stable"))
        return torch.cat([self._views[view].batch(indices[places], epoch) for view, places in parts.items()])[order]


def as_learned(labels: Sequence[int] | np.ndarray) -> np.ndarray:
    """Class indices as int64 (N,), labels or numbers as float32 (N, K)."""
    values = np.asarray(labels)
    return values.astype(np.int64 if values.ndim == 1 else np.float32, copy=False)


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits N rows: a function of (seed, epoch), so a resumed run repeats it."""
    return np.random.default_rng([ORDER, seed, epoch]).permutation(n)


def batches(rows: Rows, size: int, order: np.ndarray | None = None) -> list[np.ndarray]:
    """The rows in batches: in their order, or another; rows of different lengths with others of about their length.

    Without an order, the longest come first. With one, rows are sorted within each stretch of it, at least four to an
    epoch, and the batches of a stretch keep no order of lengths: so every epoch pairs other rows, and little of a batch
    is padding where there are many rows. `group_by_length` of Hugging Face's Trainer does the same.

    A row that would be a batch of its own joins the one before: a batch norm finds no variance in one value, and an
    exported one keeps that as its statistics.

    Args:
        rows: what is to be served.
        size: of a batch.
        order: (N,), all rows once.

    Example:
        >>> rows = ArrayRows(np.zeros((4, 9)), [0, 1, 0, 1], lengths=np.array([2, 9, 3, 8]))
        >>> [batch.tolist() for batch in batches(rows, 2)]
        [[1, 3], [2, 0]]
    """
    if rows.lengths is None:
        return _split(np.arange(len(rows)) if order is None else order, size)
    if order is None:
        return _split(np.argsort(-rows.lengths, kind="stable"), size)
    stretch = size * max(1, min(LONGEST_STRETCH, len(rows) // (LEAST_STRETCHES * size)))
    return [batch for stretch in _split(order, stretch) for batch in _of_like_length(stretch, rows.lengths, size)]


def _of_like_length(stretch: np.ndarray, lengths: np.ndarray, size: int) -> list[np.ndarray]:
    """Batches in the order in which the stretch comes to their first row."""
    by_length = stretch[np.argsort(-lengths[stretch], kind="stable")]
    place = {int(row): i for i, row in enumerate(stretch)}
    return sorted(_split(by_length, size), key=lambda batch: place[int(batch[0])])


def n_batches(n: int, size: int) -> int:
    """How many batches N rows make.

    Example:
        >>> n_batches(64, 32), n_batches(65, 32), n_batches(66, 32)
        (2, 2, 3)
    """
    alone = 1 < size < n and n % size == 1
    return max(1, math.ceil(n / size) - alone)


def _split(order: np.ndarray, size: int) -> list[np.ndarray]:
    return np.split(order, [size * i for i in range(1, n_batches(len(order), size))])


def row_lengths(rows: np.ndarray) -> np.ndarray:
    """Places that count in padded rows, int64 (N,): in token ids (N, L) all but -1, in floats (N, L, D) all but NaN."""
    return np.sum(rows >= 0, axis=1) if rows.ndim == 2 else lengths(rows)


def flip_crop(pixels: np.ndarray, indices: np.ndarray, *, n: int, seed: int, epoch: int) -> np.ndarray:
    """A random horizontal flip and a random crop after padding with zeros by an eighth of the side.

    Args:
        pixels: (B, C, H, W).
        indices: (B,), which of the n rows these are.
        n: number of rows in all.
        seed: with epoch and index, all that the result depends on.
        epoch: see seed.

    Returns:
        (B, C, H, W).

    References: He and others, 2015, arXiv:1512.03385 (padding 4 on 32×32).
    """
    height, width = pixels.shape[2:]
    pad = height // 8
    draws = np.random.default_rng([AUGMENT, seed, epoch]).integers(0, [2 * pad + 1, 2 * pad + 1, 2], (n, 3))
    top, left, flip = draws[indices].T
    padded = np.pad(pixels, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = sliding_window_view(padded, (height, width), axis=(2, 3))  # (B, C, 2P+1, 2P+1, H, W), a view
    crops = windows[np.arange(len(pixels)), :, top, left]
    return np.where(flip[:, None, None, None] == 1, crops[..., ::-1], crops)
