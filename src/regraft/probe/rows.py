"""Features seen from their rows: N rows span at most N - 1 directions, so that is where heads are fitted.

Let Z (N, D) be the standardised features, Z = U S V' their thin singular value decomposition of rank r,
and R = Z V = U S (N, r) the coordinates of the rows. V has orthonormal columns, and every loss used here
depends on the weights w only through Z w plus a penalty on |w|². Any part of w outside the span of V
changes nothing but the penalty, so the best w is V a for some a (r,), with Z w = R a and |w| = |a|: ridge,
L2-regularised logistic regression and shrinkage LDA give the same predictions in R as in Z, exactly.

R comes from one symmetric eigendecomposition of the smaller of Z Z' (N, N) and Z' Z (D, D). V is never
formed, because V = Z' U / S gives w = Z' (U / S) a. Z Z' of features laid side by side is the sum of the
parts', so joining stages costs one (N, N) addition.

Shape letters: N examples, D features, r rank, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import solve_triangular
from threadpoolctl import threadpool_limits

# A standard deviation below this fraction of the feature's magnitude, or of the usual feature's deviation, is
# rounding of float32 and no signal. Real encoders have such dead features, of 1e-33: stretched to 1, they drown the
# gradient of everything else once the layers below them are trained.
_CONSTANT = 1e-5
# Directions whose squared length is below this fraction of the longest are noise of the eigendecomposition.
_RANK = 1e-10
# What `moderated` believes beforehand, in rows; and the average it draws to: encoders of text have a few features a
# thousand times louder than the rest, of which none counts for more than this many usual ones.
_PRIOR_ROWS = 20
_LOUDEST = 10.0
_COLUMNS = 4096  # columns turned to float64 at a time
_KEPT = 1024  # rows; the (N, N) matrix of one block takes 8 MB then


def one_thread() -> threadpool_limits:
    """A context in which BLAS uses one thread.

    Threads of a factorisation that wait for each other on busy cores cost far more than they save: with other
    processes at work on two cores, a profile of 1,000 rows took 128 seconds with two threads, 9 with one.
    """
    return threadpool_limits(limits=1, user_api="blas")


@dataclass(frozen=True)
class Block:
    """Standardised features of one tap, and what standardised them.

    Args:
        rows: (N, D), mean 0 in every column; standard deviation 1, or less where it is moderated.
        mean: (D,).
        scale: (D,), 1 for constant features.
    """

    rows: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    @property
    def outer(self) -> np.ndarray:
        """Z Z' (N, N) in float64; kept while it is small, because joined stages need it again."""
        return self._kept_outer if len(self.rows) <= _KEPT else self._make_outer()

    @cached_property
    def _kept_outer(self) -> np.ndarray:
        return self._make_outer()

    def _make_outer(self) -> np.ndarray:
        total = np.zeros((len(self.rows), len(self.rows)))
        for start in range(0, self.rows.shape[1], _COLUMNS):
            part = self.rows[:, start : start + _COLUMNS].astype(np.float64)
            total += part @ part.T
        return total

    def apply(self, X: np.ndarray) -> np.ndarray:
        """Other rows (M, D), standardised the same way, in the arithmetic of the delivered head."""
        dtype = self.rows.dtype
        rows = X.astype(dtype) - self.mean.astype(dtype)
        rows /= self.scale.astype(dtype)
        return rows


def standardise(X: np.ndarray) -> Block:
    """Features with mean 0 and standard deviation 1, except for constant ones, which become 0.

    Args:
        X: (N, D), floating point.
    """
    mean = X.mean(axis=0, dtype=np.float64)
    rows = (X - mean).astype(np.result_type(X.dtype, np.float32))
    scale = np.sqrt(np.einsum("nd,nd->d", rows, rows, dtype=np.float64) / len(X))
    usual = np.median(scale[scale > 0]) if scale.any() else 0.0
    constant = scale <= _CONSTANT * np.maximum(np.abs(mean), usual)
    # A constant feature is centred but not stretched; its weight in every head is then zero.
    safe = np.where(constant, 1.0, scale)
    rows /= safe.astype(rows.dtype)
    rows[:, constant] = 0.0
    return Block(rows, mean, safe)


def moderated(X: np.ndarray) -> Block:
    """Standardised features of which the quiet ones are stretched less, as long as rows are few.

    How far a feature varies is hardly known from ten rows. One that seems quiet may be a usual one at a quiet moment,
    and to stretch it is to amplify noise. So the variance of N rows counts beside the average over features as if that
    were known from 20 rows; from some hundred rows on nothing is left of it. Loud features are left as they are.
    The idea is that of moderated variances in genetics (Smyth, 2004, "Linear models and empirical Bayes methods for
    assessing differential expression in microarray experiments").

    Args:
        X: (N, D), floating point.
    """
    block = standardise(X)
    live = block.rows.any(axis=0)
    if not live.any():
        return block
    variance = block.scale**2
    average = np.minimum(variance[live], _LOUDEST * np.median(variance[live])).mean()
    drawn = (len(X) * variance + _PRIOR_ROWS * average) / (len(X) + _PRIOR_ROWS)
    scale = np.where(live, np.sqrt(np.maximum(variance, drawn)), block.scale)
    return Block(block.rows * (block.scale / scale).astype(block.rows.dtype), block.mean, scale)


@dataclass(frozen=True)
class RowSpace:
    """Blocks side by side, and the coordinates of their rows.

    Args:
        blocks: standardised features, in the order of the head's columns.
        left: (N, r), U: orthonormal columns.
        singular: (r,), S, falling.
    """

    blocks: tuple[Block, ...]
    left: np.ndarray
    singular: np.ndarray

    @cached_property
    def coords(self) -> np.ndarray:
        """R = U S (N, r)."""
        return self.left * self.singular

    @cached_property
    def left_squared(self) -> np.ndarray:
        """U² (N, r), element by element: what each direction adds to a row's leverage."""
        return self.left**2

    def lift(self, weights: np.ndarray) -> np.ndarray:
        """Weights (r, K) on the coordinates, as weights (D, K) on the standardised features."""
        return _spread(self.blocks, (self.left / self.singular) @ weights)


@dataclass(frozen=True)
class QuickSpace:
    """Coordinates without a decomposition: any R with R R' = Z Z' serves a method that needs no eigenvalues.

    R is Z itself where D < N, else the Cholesky factor of Z Z', at a tenth of the price of its eigenvectors.

    Args:
        blocks: standardised features, in the order of the head's columns.
        coords: (N, r).
        factored: whether `coords` is the Cholesky factor.
    """

    blocks: tuple[Block, ...]
    coords: np.ndarray
    factored: bool

    def lift(self, weights: np.ndarray) -> np.ndarray:
        """Weights (r, K) on the coordinates, as weights (D, K) on the standardised features."""
        if not self.factored:
            return weights
        return _spread(self.blocks, solve_triangular(self.coords.T, weights, lower=False))


def row_space(X: np.ndarray | RowSpace | Sequence[Block]) -> RowSpace:
    """The row space of features (N, D), or of standardised blocks laid side by side.

    Example:
        >>> space = row_space(np.random.default_rng(0).normal(size=(5, 100)))
        >>> space.coords.shape
        (5, 4)
    """
    if isinstance(X, RowSpace):
        return X
    blocks = (standardise(X),) if isinstance(X, np.ndarray) else tuple(X)
    n_rows = len(blocks[0].rows)
    left, singular = (_dual if n_rows <= width(blocks) else _primal)(blocks)
    return RowSpace(blocks, left, singular)


def quick_space(X: np.ndarray | RowSpace | QuickSpace | Sequence[Block]) -> RowSpace | QuickSpace:
    """Like `row_space`, without eigenvalues; a row space that is there already stays."""
    if isinstance(X, RowSpace | QuickSpace):
        return X
    blocks = (standardise(X),) if isinstance(X, np.ndarray) else tuple(X)
    if len(blocks[0].rows) > width(blocks):
        return QuickSpace(blocks, _side_by_side(blocks), factored=False)
    outer = _outer(blocks)
    # Z is centred, so Z Z' is singular; this little cannot be felt beside any penalty.
    outer[np.diag_indices_from(outer)] += max(_RANK * np.trace(outer), 1e-12)
    return QuickSpace(blocks, np.linalg.cholesky(outer), factored=True)


def width(blocks: Sequence[Block]) -> int:
    """D of blocks side by side."""
    return sum(block.rows.shape[1] for block in blocks)


def _spread(blocks: Sequence[Block], dual: np.ndarray) -> np.ndarray:
    return np.concatenate([block.rows.T @ dual.astype(block.rows.dtype) for block in blocks])


def _outer(blocks: Sequence[Block]) -> np.ndarray:
    return np.sum([block.outer for block in blocks], axis=0)


def _side_by_side(blocks: Sequence[Block]) -> np.ndarray:
    return np.concatenate([block.rows for block in blocks], axis=1).astype(np.float64)


def _dual(blocks: Sequence[Block]) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = _eigen(_outer(blocks))
    return vectors, np.sqrt(values)


def _primal(blocks: Sequence[Block]) -> tuple[np.ndarray, np.ndarray]:
    rows = _side_by_side(blocks)
    values, vectors = _eigen(rows.T @ rows)
    return rows @ (vectors / np.sqrt(values)), np.sqrt(values)


def _eigen(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues that are not noise, falling, and their vectors."""
    values, vectors = np.linalg.eigh(matrix)
    kept = np.flatnonzero(values > _RANK * max(values[-1], np.finfo(float).tiny))[::-1]
    return values[kept], vectors[:, kept]
