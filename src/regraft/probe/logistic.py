"""Logistic regression, multinomial or one for each label, with an L2 penalty: L-BFGS; C is cross-validated.

Minimises  sum of -log p(y_i) + |w|² / (2 C)  over w and an unpenalised intercept: scikit-learn's objective
over C. With labels (N, K) of which any number may hold, p is a sigmoid of each score, and all share one C.
In the row coordinates R = U S the Hessian is nearly diagonal, with about S_j² / K + 1/C in direction
j. Dividing each direction by the square root of that makes the problem round, and L-BFGS ends in tens of
steps where it takes hundreds on raw features. Folds and values of C share R; each fit starts at the last
C's solution.

Shape letters: N examples, D features, r rank, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from regraft.data import CLASSIFICATION, Task
from regraft.probe.fitted import Fitted, assemble, log_loss
from regraft.probe.rows import RowSpace, one_thread, row_space, width

# Divided by D, because the squared length of a standardised row is about D.
RELATIVE_CS = tuple(float(value) for value in np.logspace(-1, 4, 6))
N_FOLDS = 5
# Gradients at which L-BFGS stops: in folds, where only the best C is wanted, and in the end, where
# probabilities then agree with scikit-learn to three digits.
_COARSE, _FINE = 1e-3, 1e-4

Solution = tuple[np.ndarray, np.ndarray]  # weights (r, K) and bias (K,)


@dataclass(frozen=True)
class _Tried:
    """A value of C with the scores (N, K) of rows held out, and the mean of the folds' solutions."""

    C: float
    held_out: np.ndarray
    mean: Solution


def logistic(
    X: np.ndarray | RowSpace,
    y: np.ndarray,
    n_classes: int,
    Cs: Sequence[float] | None = None,
    *,
    n_folds: int = N_FOLDS,
    seed: int = 0,
    task: Task = CLASSIFICATION,
) -> Fitted:
    """Multinomial logistic regression whose C has the least cross-validated log-loss; for labels one-vs-rest.

    Args:
        X: (N, D), or their row space.
        y: (N,), integers below n_classes; or labels as 0 and 1, (N, K).
        n_classes: K.
        Cs: inverse penalties for standardised features, as in scikit-learn; default: six from
            0.1/D to 10⁴/D.
        n_folds: stratified folds, at most N.
        seed: which rows share a fold.
        task: what y is.

    Example:
        >>> X = np.array([[0.0, 1.0], [0.2, 0.9], [1.0, 0.1], [0.9, 0.0]])
        >>> logistic(X, np.array([0, 0, 1, 1]), 2, n_folds=2).cv_accuracy
        1.0
    """
    space = row_space(X)
    Cs = sorted([value / width(space.blocks) for value in RELATIVE_CS] if Cs is None else Cs)
    with one_thread():
        tried = _cross_validate(space.coords, y, n_classes, Cs, folds(y, min(n_folds, len(y)), seed), task)
        best = min(tried, key=lambda one: log_loss(one.held_out, y, task))
        weights, bias = _fit(space.coords, y, best.C, best.mean, _FINE)
    return assemble("logistic", space, y, weights, bias, best.held_out, {"C": float(best.C)}, task)


def folds(y: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """A fold number (N,) for every row; each class, set of labels or number is spread as evenly as it can be."""
    kinds = y if y.ndim == 1 else np.unique(y, axis=0, return_inverse=True)[1].ravel()
    order = np.lexsort((np.random.default_rng(seed).random(len(y)), kinds))
    number = np.empty(len(y), dtype=np.int64)
    number[order] = np.arange(len(y)) % n_folds
    return number


def _cross_validate(
    coords: np.ndarray, y: np.ndarray, n_classes: int, Cs: Sequence[float], fold: np.ndarray, task: Task
) -> list[_Tried]:
    """Each C, as far as it is worth trying.

    The loss falls and then rises with C, and the last values cost the most steps: it ends at the first rise.
    """
    # Half the memory traffic; what is lost lies below the tolerance in folds.
    single = coords.astype(np.float32)
    started = np.zeros((coords.shape[1], n_classes)), np.zeros(n_classes)
    solutions = dict.fromkeys(np.unique(fold), started)
    tried: list[_Tried] = []
    for C in Cs:
        scores = np.empty((len(y), n_classes))
        for number, before in solutions.items():
            test = fold == number
            weights, bias = solutions[number] = _fit(single[~test], y[~test], C, before, _COARSE)
            scores[test] = coords[test] @ weights + bias
        weights, bias = (np.mean(parts, axis=0) for parts in zip(*solutions.values(), strict=True))
        tried.append(_Tried(C, scores, (weights, bias)))
        if len(tried) > 1 and log_loss(tried[-1].held_out, y, task) > log_loss(tried[-2].held_out, y, task):
            break
    return tried


def _fit(coords: np.ndarray, y: np.ndarray, C: float, start: Solution, tolerance: float) -> Solution:
    weights, bias = start
    shape, fit_of = weights.shape, _softmax_fit if y.ndim == 1 else _sigmoid_fit
    flat_by = shape[1] if y.ndim == 1 else 4  # over which the loss curves: p (1 - p) is about 1/K, or at most 1/4
    stretch = 1 / np.sqrt(np.sum(coords**2, axis=0) / flat_by + 1 / C)[:, None]
    lift = 1 / np.sqrt(len(y) / flat_by)
    design = coords * stretch[:, 0].astype(coords.dtype)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        v, b = flat[: -shape[1]].reshape(shape), flat[-shape[1] :]
        misfit, residual = fit_of(design @ v.astype(design.dtype) + b * lift, y)
        penalised = stretch**2 / C * v
        value = misfit + 0.5 * np.sum(penalised * v)
        return value, np.concatenate(
            [(design.T @ residual.astype(design.dtype) + penalised).ravel(), residual.sum(axis=0) * lift]
        )

    flat = np.concatenate([(weights / stretch).ravel(), bias / lift])
    stop = {"maxiter": 500, "gtol": tolerance * np.sqrt(len(y)), "ftol": tolerance**2}
    found = minimize(loss, flat, jac=True, method="L-BFGS-B", options=stop)
    return found.x[: -shape[1]].reshape(shape) * stretch, found.x[-shape[1] :] * lift


def _softmax_fit(scores: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """The negative log-likelihood of classes (N,), and its gradient (N, K) by the scores."""
    own, log_p = np.arange(len(y)), _log_softmax(scores)
    residual = np.exp(log_p)
    residual[own, y] -= 1
    return -log_p[own, y].sum(), residual


def _sigmoid_fit(scores: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """The same for labels as 0 and 1, (N, K)."""
    return (np.logaddexp(0, scores) - y * scores).sum(), expit(scores) - y


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
