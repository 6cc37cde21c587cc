"""Linear discriminant analysis with a shrunk shared covariance, and its leave-one-out.

Every class is a Gaussian with its own mean m_k and the shared covariance

    A = (1 - s) W / N + s t I,      W = within-class scatter,  t = trace(W / N) / D,

where s is Ledoit and Wolf's estimate of the shrinkage that loses least. Their formula only needs trace(W),
|W|_F² and the sum of |x|⁴ over rows centred on their class: all three are the same in the row coordinates
as in the D features, so D enters as a number and never as a matrix.

Leaving row i out moves its class mean by -d/(n-1) and takes n/(n-1) d d' from W, with d = x_i - m_k. Up to
one common factor A becomes A - a d d', a = (1-s)/N · n/(n-1), and Sherman and Morrison's formula gives its
inverse: with v any vector, |v|² in the new metric is v'A⁻¹v + a (d'A⁻¹v)² / (1 - a d'A⁻¹d). The penalty
s t N is held fixed, as lambda is in ridge regression; the result is then exact.

References:
    Ledoit, Wolf (2004), "A well-conditioned estimator for large-dimensional covariance matrices",
    Journal of Multivariate Analysis 88(2).

Shape letters: N examples, D features, r rank, K classes.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_triangular

from regraft.probe.fitted import Fitted, assemble
from regraft.probe.rows import QuickSpace, RowSpace, quick_space, width


def lda(X: np.ndarray | RowSpace | QuickSpace, y: np.ndarray, n_classes: int, shrinkage: float | None = None) -> Fitted:
    """Shrinkage LDA, scored by leave-one-out.

    Args:
        X: (N, D), or their row space.
        y: (N,), integers below n_classes; each class has at least one row.
        n_classes: K.
        shrinkage: s in (0, 1]; default: Ledoit and Wolf's estimate.

    Example:
        >>> X = np.array([[0.0, 1.0], [0.2, 0.9], [1.0, 0.1], [0.9, 0.0]])
        >>> lda(X, np.array([0, 0, 1, 1]), 2).cv_accuracy
        1.0
    """
    space = quick_space(X)
    n_features = width(space.blocks)
    counts = np.bincount(y, minlength=n_classes)
    means = _class_means(space.coords, y, counts)
    centred = space.coords - means[y]
    scatter = centred.T @ centred
    s = ledoit_wolf(centred, n_features, scatter) if shrinkage is None else shrinkage
    # White coordinates: the shared covariance is the identity there. Columns of B are rows of the data.
    root = np.linalg.cholesky(_shrunk(scatter, len(y), s, n_features))
    white, white_means = (solve_triangular(root, part.T, lower=True) for part in (space.coords, means))
    prior = np.log(np.maximum(counts, 1) / len(y))
    weights = solve_triangular(root.T, white_means, lower=False)
    bias = prior - 0.5 * np.sum(white_means**2, axis=0)
    held_out = _loo_scores(white.T, white_means.T, y, counts, s)
    return assemble("lda", space, y, weights, bias, held_out, {"shrinkage": float(s)})


def ledoit_wolf(centred: np.ndarray, n_features: int, scatter: np.ndarray) -> float:
    """Ledoit and Wolf's shrinkage for rows (N, r) already centred, whose covariance lives in D dimensions.

    Args:
        centred: (N, r).
        n_features: D, at least r; the other D - r directions have no variance.
        scatter: X'X (r, r), or X X' (N, N), which has the same norm.
    """
    n_rows = len(centred)
    norm2 = float(np.vdot(scatter, scatter)) / n_rows**2  # |S|_F² of S = X'X / N
    trace = float(np.sum(centred**2)) / n_rows
    distance = norm2 - trace**2 / n_features  # |S - t I|_F²
    error = (float(np.sum(np.sum(centred**2, axis=1) ** 2)) / n_rows - norm2) / n_rows
    return 1.0 if distance <= 0 else float(np.clip(error / distance, 0.0, 1.0))


def _class_means(coords: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    member = np.arange(len(counts)) == y[:, None]
    return (member.T @ coords) / np.maximum(counts, 1)[:, None]


def _shrunk(scatter: np.ndarray, n_rows: int, s: float, n_features: int) -> np.ndarray:
    covariance = (1 - s) / n_rows * scatter
    target = float(np.trace(scatter)) / n_rows / n_features
    # The floor keeps the matrix invertible when every class has one row or all rows of a class are equal.
    covariance[np.diag_indices_from(covariance)] += max(s * target, 1e-9 * target, 1e-12)
    return covariance


def _loo_scores(white: np.ndarray, means: np.ndarray, y: np.ndarray, counts: np.ndarray, s: float) -> np.ndarray:
    """Scores (N, K) of each row under the model of all other rows; white (N, r), means (K, r)."""
    n_rows, own = len(white), np.arange(len(white))
    n_own = counts[y].astype(float)
    d = white - means[y]
    size = np.maximum(n_own - 1, 1e-12)  # a class of one: its mean is unknown, handled at the end
    stretch = n_own / size  # the row's offset from its class mean without itself is stretch · d
    along = np.sum(white * d, axis=1)[:, None] - d @ means.T  # d'v for v = x - m_k
    distance = np.sum(white**2, axis=1)[:, None] - 2 * white @ means.T + np.sum(means**2, axis=1)
    length = along[own, y]  # d'd
    along[own, y] = stretch * length
    distance[own, y] = stretch**2 * length
    a = (1 - s) / n_rows * stretch
    distance = distance + (a / np.maximum(1 - a * length, 1e-12))[:, None] * along**2
    left = np.where(np.arange(len(counts)) == y[:, None], n_own[:, None] - 1, counts)
    scores = np.log(np.maximum(left, 1e-12)) - 0.5 * (n_rows - 1) / n_rows * distance
    scores[own[n_own == 1], y[n_own == 1]] = scores.min() - 1.0  # nothing left to recognise it by
    return scores
