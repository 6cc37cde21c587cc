"""The trivial control: what a linear model makes of the pixels themselves.

Shape letters: N examples, C channels, H and W pixels, K classes.
"""

from __future__ import annotations

import numpy as np
import torch

from regraft.cache.pool import area_weights
from regraft.probe.bench import fit
from regraft.probe.fitted import Fitted, accuracy

# Larger pictures are averaged down to this side: a linear model finds no more in 224 x 224.
SIDE = 32


def raw_pixels(
    X_train: np.ndarray,
    y_train: np.ndarray,
    X_test: np.ndarray,
    y_test: np.ndarray,
    n_classes: int,
    *,
    seed: int = 0,
) -> tuple[float, Fitted]:
    """Accuracy of logistic regression on pixels: what transfer has to beat to be worth anything.

    Args:
        X_train: (N, C, H, W) uint8.
        y_train: (N,).
        X_test: (M, C, H, W) uint8, the examples to judge it on.
        y_test: (M,).
        n_classes: K.
        seed: which rows share a fold when C is chosen.

    Returns:
        The fraction of X_test that is right, and the head, whose features are `small_pixels`.
    """
    fitted = fit("logistic", small_pixels(X_train), y_train, n_classes, seed)
    with torch.no_grad():
        scores = fitted.head(torch.from_numpy(small_pixels(X_test))).numpy()
    return accuracy(scores, y_test), fitted


def small_pixels(X: np.ndarray) -> np.ndarray:
    """Pictures (N, C, H, W) uint8 as rows (N, C·h·w) float32 in 0..1, with h and w at most 32.

    Example:
        >>> small_pixels(np.full((2, 3, 64, 64), 255, dtype=np.uint8)).shape
        (2, 3072)
    """
    height, width = X.shape[2:]
    rows, columns = (area_weights(side, min(side, SIDE)).astype(np.float32) for side in (height, width))
    down = np.ascontiguousarray(rows.T)  # matrices that lie otherwise in memory are multiplied without BLAS
    parts = []
    for i in range(0, len(X), 256):  # the float copy of a large split would be four times its pixels
        batch = X[i : i + 256].astype(np.float32) / 255
        narrow = (batch.reshape(-1, width) @ columns).reshape(-1, height, columns.shape[1])
        parts.append((down @ narrow).reshape(len(batch), -1))
    return np.concatenate(parts)
