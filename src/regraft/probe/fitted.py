"""A fitted head with its settings, and the calibration that all heads share.

Shape letters: N examples, D features, r rank, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from regraft.data import CLASSIFICATION, Task
from regraft.head import LinearHead
from regraft.probe.rows import QuickSpace, RowSpace


@dataclass(frozen=True)
class Fitted:
    """A linear head with how it was chosen.

    Args:
        head: scores in, softmax of them are probabilities.
        name: "ridge", "logistic", "lda", "selected" or "average".
        settings: what was chosen (lambda, C, shrinkage, share of the features) and the temperature; plain JSON.
        cv_accuracy: mean merit (of classes: fraction right) of training examples, each judged by a head that had not
            seen it.
        cv_log_loss: their mean loss (`Task.losses`).
        cv_scores: (N, K), the scores behind both.
    """

    head: LinearHead
    name: str
    settings: dict[str, Any]
    cv_accuracy: float | None = None
    cv_log_loss: float | None = None
    cv_scores: np.ndarray | None = field(default=None, repr=False, compare=False)


def log_loss(scores: np.ndarray, y: np.ndarray, task: Task = CLASSIFICATION) -> float:
    """Mean loss (`Task.losses`) of scores (N, K); of classes the negative log-likelihood of labels (N,), in nats."""
    return float(np.mean(task.losses(scores, y)))


def accuracy(scores: np.ndarray, y: np.ndarray, task: Task = CLASSIFICATION) -> float:
    """Mean merit (`Task.merits`) of scores (N, K); of classes the fraction of labels (N,) with the highest score."""
    return float(np.mean(task.merits(scores, y)))


def temperature(scores: np.ndarray, y: np.ndarray, task: Task = CLASSIFICATION) -> float:
    """The factor on scores (N, K) that makes them most likely; the ranking of classes stays. 1 for numbers.

    Ridge scores are near -1 and 1, LDA scores can be in the hundreds: neither is a log-probability until
    scaled. One number, fitted on held-out scores; labels count as (N + 1) / (N + 2) certain, after Platt, or
    scores that are right for every one of few rows would ask for an infinite factor.

    References:
        Guo, Pleiss, Sun, Weinberger (2017), "On calibration of modern neural networks", arXiv:1706.04599.
        Platt (1999), "Probabilistic outputs for support vector machines".
    """
    if task.numeric:
        return 1.0
    spread = float(np.std(scores)) or 1.0
    doubt = 1 / (len(y) + 2)
    gap = _gap(scores, y, task)

    def loss(log: float) -> float:
        factor = np.exp(log) / spread
        return log_loss(factor * scores, y, task) + doubt * factor * gap

    found: Any = minimize_scalar(loss, bounds=(-7.0, 7.0), method="bounded")
    return float(np.exp(found.x) / spread)


def _gap(scores: np.ndarray, y: np.ndarray, task: Task) -> float:
    """How far scores (N, K) favour what is so, on average; doubt about labels costs in proportion to it."""
    if not task.one_of:
        return float(np.mean((2 * y - 1) * scores))
    own = scores[np.arange(len(y)), y]
    return float(np.mean(own - (scores.sum(axis=1) - own) / (scores.shape[1] - 1)))


def assemble(
    name: str,
    space: RowSpace | QuickSpace,
    y: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    held_out: np.ndarray,
    settings: dict[str, Any],
    task: Task = CLASSIFICATION,
) -> Fitted:
    """A `Fitted` from weights (r, K) on the coordinates and held-out scores (N, K), calibrated on these."""
    factor = temperature(held_out, y, task)
    head = LinearHead.from_arrays(
        weight=space.lift(weights * factor).T,
        bias=bias * factor,
        mean=np.concatenate([block.mean for block in space.blocks]),
        scale=np.concatenate([block.scale for block in space.blocks]),
    )
    scores = held_out * factor
    settings = {**settings, "temperature": factor}
    return Fitted(head, name, settings, accuracy(scores, y, task), log_loss(scores, y, task), scores)
