"""Ridge regression on one-vs-rest targets or numbers, with exact leave-one-out for every lambda.

One decomposition serves all. With targets Y (N, K), in {-1, 1} for classes and labels, and R = U S from `rows`, the
fit with an unpenalised intercept is

    H(l) = 1 1'/N + U diag(S² / (S² + l)) U'        (columns of U are orthogonal to 1, because R is centred)
    leave-one-out score of row i = y_i - (y_i - (H y)_i) / (1 - H_ii)

so a new lambda costs one (N, r) by (r, K) product and no new fit. Mean and scale of the features are those
of all rows throughout: they do not look at labels.

References:
    Rifkin, Lippert (2007), "Notes on regularized least squares", MIT-CSAIL-TR-2007-025.

Shape letters: N examples, D features, r rank, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from regraft.data import CLASSIFICATION, Task
from regraft.probe.fitted import Fitted, assemble
from regraft.probe.rows import RowSpace, row_space

# Multiples of the mean squared length of a direction, so that they mean the same for every N and D.
RELATIVE_LAMBDAS = tuple(float(value) for value in np.logspace(-4, 2, 13))


def ridge(
    X: np.ndarray | RowSpace,
    y: np.ndarray,
    n_classes: int,
    lambdas: Sequence[float] | None = None,
    *,
    task: Task = CLASSIFICATION,
) -> Fitted:
    """A ridge classifier, or regression, whose lambda is the best of `lambdas` by leave-one-out.

    Args:
        X: (N, D), or their row space.
        y: (N,), integers below n_classes; labels as 0 and 1, or numbers, (N, K).
        n_classes: K.
        lambdas: penalties on |w|² for standardised features; default: 13 multiples of the mean eigenvalue.
        task: what y is.

    Returns:
        The head with the most leave-one-out merit (of classes: rows right); ties go to the smaller leave-one-out
        squared error.

    Example:
        >>> X = np.array([[0.0, 1.0], [0.2, 0.9], [1.0, 0.1], [0.9, 0.0]])
        >>> ridge(X, np.array([0, 0, 1, 1]), 2).cv_accuracy
        1.0
    """
    space = row_space(X)
    if lambdas is None:
        lambdas = [value * float(np.mean(space.singular**2)) for value in RELATIVE_LAMBDAS]
    targets = one_vs_rest(y, n_classes) if task.one_of else y.astype(float) if task.numeric else 2.0 * y - 1
    tried = [loo_scores(space, targets, value) for value in lambdas]
    best = max(range(len(tried)), key=lambda i: _merit(tried[i], targets, y, task))
    weights = _solve(space, targets, lambdas[best])
    settings = {"lambda": float(lambdas[best])}
    return assemble("ridge", space, y, weights, targets.mean(axis=0), tried[best], settings, task)


def one_vs_rest(y: np.ndarray, n_classes: int) -> np.ndarray:
    """Targets (N, K): 1 for the row's class, -1 elsewhere."""
    return np.where(np.arange(n_classes) == y[:, None], 1.0, -1.0)


def loo_scores(space: RowSpace, targets: np.ndarray, penalty: float) -> np.ndarray:
    """What each row (N, K) would score under the ridge fitted to all other rows."""
    kept = space.singular**2 / (space.singular**2 + penalty)
    fitted = targets.mean(axis=0) + space.left @ (kept[:, None] * (space.left.T @ targets))
    leverage = 1 / len(targets) + space.left_squared @ kept
    return targets - (targets - fitted) / np.maximum(1 - leverage, 1e-12)[:, None]


def _solve(space: RowSpace, targets: np.ndarray, penalty: float) -> np.ndarray:
    filtered = space.singular / (space.singular**2 + penalty)
    return filtered[:, None] * (space.left.T @ targets)


def _merit(scores: np.ndarray, targets: np.ndarray, y: np.ndarray, task: Task) -> tuple[float, float]:
    return float(np.sum(task.merits(scores, y))), -float(np.mean((scores - targets) ** 2))
