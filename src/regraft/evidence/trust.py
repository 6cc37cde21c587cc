"""Where a classifier can be trusted: per class, per confidence, and against its labels.

Letters: N examples, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from regraft.evidence.stats import wilson


@dataclass(frozen=True)
class ClassFigures:
    """Precision, recall and F1 of one class; fractions in [0, 1], None where nothing can be said.

    Args:
        name: the class.
        n: test examples of the class.
        precision: share right among those predicted as this class; None if none was.
        recall: share found among those that are this class; None if there is none.
        f1: harmonic mean of the two; None where either is.
    """

    name: str
    n: int
    precision: float | None
    recall: float | None
    f1: float | None


def confusion(truth: ArrayLike, predicted: ArrayLike, k: int) -> np.ndarray:
    """Counts (K, K): row = true class, column = predicted class.

    Args:
        truth: class indices, (N,).
        predicted: class indices, (N,).
        k: number of classes.

    Example:
        >>> confusion([0, 0, 1], [0, 1, 1], 2).tolist()
        [[1, 1], [0, 1]]
    """
    counts = np.zeros((k, k), dtype=np.int64)
    np.add.at(counts, (np.asarray(truth, dtype=np.int64), np.asarray(predicted, dtype=np.int64)), 1)
    return counts


def per_class(counts: np.ndarray, classes: Sequence[str]) -> tuple[ClassFigures, ...]:
    """Precision, recall and F1 of every class, from a confusion matrix (K, K).

    Example:
        >>> ant, bee = per_class(confusion([0, 0, 1], [0, 1, 1], 2), ["ant", "bee"])
        >>> ant.recall, bee.precision
        (0.5, 0.5)
    """
    return tuple(_class_figures(counts, i, name) for i, name in enumerate(classes))


def _class_figures(counts: np.ndarray, i: int, name: str) -> ClassFigures:
    right, called, there = int(counts[i, i]), int(counts[:, i].sum()), int(counts[i].sum())
    precision = right / called if called else None
    recall = right / there if there else None
    f1 = 2 * right / (called + there) if called and there else None
    return ClassFigures(name, there, precision, recall, f1)


def calibration_error(probability: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error: how far stated confidence and accuracy lie apart, on average.

    Args:
        probability: of the predicted class, (N,), in [0, 1].
        correct: right or wrong, (N,).
        bins: bins of equal width.

    Returns:
        A fraction in [0, 1]; 0 is perfectly calibrated.

    Example:
        >>> round(calibration_error([0.9] * 10, [1] * 5 + [0] * 5), 3)
        0.4

    References:
        C. Guo et al., On Calibration of Modern Neural Networks, 2017, arXiv:1706.04599.
    """
    p, right = np.asarray(probability, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(place, right - p, minlength=bins)
    return float(np.abs(gaps).sum() / p.size)


def reliability(probability: ArrayLike, correct: ArrayLike, bins: int = 10) -> list[dict[str, Any]]:
    """How often a model is right, by the probability that it stated.

    Args:
        probability: of the predicted class, (N,), in [0, 1].
        correct: right or wrong, (N,).
        bins: bins of equal width; those without examples are left out.

    Returns:
        {confidence (mean of the bin), accuracy, n, ci95 (Wilson)} for each bin, rising.

    Example:
        >>> [(b["accuracy"], b["n"]) for b in reliability([0.55, 0.55, 0.95], [1, 0, 1])]
        [(0.5, 2), (1.0, 1)]
    """
    p, right = np.asarray(probability, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    found = []
    for bin in np.unique(place):
        inside = place == bin
        n, k = int(inside.sum()), int(right[inside].sum())
        found.append({"confidence": float(p[inside].mean()), "accuracy": k / n, "n": n, "ci95": list(wilson(k, n))})
    return found


def suspected_labels(probabilities: ArrayLike, labels: ArrayLike, least: float = 0.5) -> np.ndarray:
    """Examples whose label a model that never saw them contradicts, the most certain first.

    An example is suspected when the model gives some other class more than that class's own average
    confidence (and at least `least`): confident learning's rule, which allows for classes that are always
    predicted timidly.

    Args:
        probabilities: out-of-fold or validation probabilities, (N, K); never from a model fitted on these
            rows.
        labels: given class indices, (N,).
        least: probability below which nothing is suspected.

    Returns:
        Indices into the rows, int64.

    Example:
        >>> suspected_labels([[0.9, 0.1], [0.8, 0.2], [0.95, 0.05], [0.2, 0.8]], [0, 0, 1, 1]).tolist()
        [2]

    References:
        C. Northcutt, L. Jiang, I. Chuang, Confident Learning, 2019, arXiv:1911.00068.
    """
    p, given = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    bar = np.array([_mean_or_one(p[given == k, k]) for k in range(p.shape[1])])
    best = p.argmax(axis=1)
    top = p[np.arange(len(p)), best]
    suspected = np.flatnonzero((best != given) & (top >= np.maximum(bar[best], least)))
    return suspected[np.argsort(-top[suspected], kind="stable")]


def _mean_or_one(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 1.0
