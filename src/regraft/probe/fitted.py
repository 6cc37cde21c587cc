"""A fitted head with its settings, and the calibration that all heads share.

Shape letters: N examples, D features, r rank, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from regraft.head import LinearHead
from regraft.probe.rows import QuickSpace, RowSpace


@dataclass(frozen=True)
class Fitted:
    """A linear head with how it was chosen.

    Args:
        head: scores in, softmax of them are probabilities.
        name: "ridge", "logistic" or "lda".
        settings: what was chosen (lambda, C, shrinkage) and the temperature; plain JSON.
        cv_accuracy: fraction right among training examples, each judged by a head that had not seen it.
        cv_log_loss: their mean negative log-likelihood, in nats.
        cv_scores: (N, K), the scores behind both.
    """

    head: LinearHead
    name: str
    settings: dict[str, Any]
    cv_accuracy: float | None = None
    cv_log_loss: float | None = None
    cv_scores: np.ndarray | None = field(default=None, repr=False, compare=False)


def log_loss(scores: np.ndarray, y: np.ndarray) -> float:
    """Mean negative log-likelihood (nats) of labels (N,) under softmax(scores (N, K))."""
    top = scores.max(axis=1)
    total = np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top
    return float(np.mean(total - scores[np.arange(len(y)), y]))


def accuracy(scores: np.ndarray, y: np.ndarray) -> float:
    """Fraction of labels (N,) that have the highest of the scores (N, K)."""
    return float(np.mean(scores.argmax(axis=1) == y))


def temperature(scores: np.ndarray, y: np.ndarray) -> float:
    """The factor on scores (N, K) that makes their softmax most likely; the ranking of classes stays.

    Ridge scores are near -1 and 1, LDA scores can be in the hundreds: neither is a log-probability until
    scaled. One number, fitted on held-out scores; labels count as (N + 1) / (N + 2) certain, after Platt, or
    scores that are right for every one of few rows would ask for an infinite factor.

    References:
        Guo, Pleiss, Sun, Weinberger (2017), "On calibration of modern neural networks", arXiv:1706.04599.
        Platt (1999), "Probabilistic outputs for support vector machines".
    """
    spread = float(np.std(scores)) or 1.0
    doubt = 1 / (len(y) + 2)
    others = (scores.sum(axis=1) - scores[np.arange(len(y)), y]) / (scores.shape[1] - 1)
    gap = float(np.mean(scores[np.arange(len(y)), y] - others))

    def loss(log: float) -> float:
        factor = np.exp(log) / spread
        return log_loss(factor * scores, y) + doubt * factor * gap

    found: Any = minimize_scalar(loss, bounds=(-7.0, 7.0), method="bounded")
    return float(np.exp(found.x) / spread)


def assemble(
    name: str,
    space: RowSpace | QuickSpace,
    y: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    held_out: np.ndarray,
    settings: dict[str, Any],
) -> Fitted:
    """A `Fitted` from weights (r, K) on the coordinates and held-out scores (N, K), calibrated on these."""
    factor = temperature(held_out, y)
    head = LinearHead.from_arrays(
        weight=space.lift(weights * factor).T,
        bias=bias * factor,
        mean=np.concatenate([block.mean for block in space.blocks]),
        scale=np.concatenate([block.scale for block in space.blocks]),
    )
    scores = held_out * factor
    return Fitted(head, name, {**settings, "temperature": factor}, accuracy(scores, y), log_loss(scores, y), scores)
