"""What a task's answers are measured by, beside their merit: the field's own figures.

Shape letters: N examples, K outputs: classes, labels or numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from regraft.data import Task
from regraft.evidence.stats import ci95

# What people read: the name of the mean merit, and the words around a percentage of it.
WORDS = {
    "classification": {
        "measure": "accuracy",
        "right": "right",
        "soon": "are right",
        "things": "classes",
        "loss": "mean cross-entropy",
    },
    "multilabel": {
        "measure": "F1 per example",
        "right": "F1 per example",
        "soon": "are the mean F1",
        "things": "labels",
        "loss": "mean binary cross-entropy",
    },
    "regression": {
        "measure": "variance explained",
        "right": "variance explained",
        "soon": "of the variance are explained",
        "things": "numbers",
        "loss": "mean squared errors of standardised numbers",
    },
}


def measured(task: Task, outputs: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """The figures of `test` in metrics.json.

    Args:
        task: what is predicted.
        outputs: probabilities, or standardised numbers, (N, K).
        y: what is true, as `Dataset.y` gives it.

    Returns:
        Of classes accuracy, n and ci95 (Wilson). Of labels f1_samples, the merit, with its interval as ci95; f1_micro,
        f1_macro, accuracy (all labels of an example right) and hamming (share of labels wrong). Of numbers r2, mae and
        rmse in their own units, and score, the merit, with its interval as ci95. None where nothing is known: ci95 of a
        single score, r2 of numbers that do not vary.
    """
    merits = task.merits_of_outputs(outputs, y)
    common = {"n": len(y), "ci95": ci95(merits)}
    if task.one_of:
        return {"accuracy": int(merits.sum()) / len(y), **common}
    if task.numeric:
        return {**_of_numbers(task.natural(outputs), task.natural(y)), "score": float(merits.mean()), **common}
    return {**of_labels(outputs > 0.5, y > 0.5), "score": float(merits.mean()), **common}


def _of_numbers(said: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    off = said - truth
    spread = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    varies = spread > 0
    r2 = float((1 - (off**2).sum(axis=0)[varies] / spread[varies]).mean()) if varies.any() else None
    return {"r2": r2, "mae": float(np.abs(off).mean()), "rmse": float(np.sqrt((off**2).mean(0)).mean())}


def of_labels(said: np.ndarray, there: np.ndarray) -> dict[str, float]:
    """F1 over all labels and as the mean of each label's, exact matches, and the share of labels that are wrong.

    Args:
        said: bool (N, K).
        there: bool (N, K).

    Example:
        >>> of_labels(np.array([[True, False]]), np.array([[True, True]]))["f1_macro"]
        0.5

    References:
        G. Tsoumakas, I. Katakis, Multi-Label Classification: An Overview, 2007.
    """
    both, total = (said & there).sum(axis=0), said.sum(axis=0) + there.sum(axis=0)
    return {
        "f1_micro": float(2 * both.sum() / max(1, total.sum())),
        "f1_macro": float((2 * both / np.maximum(1, total)).mean()),
        "accuracy": float((said == there).all(axis=1).mean()),
        "hamming": float((said != there).mean()),
    }


def mean_merit(test: dict[str, Any]) -> float:
    """What everything is compared by, of `measured`'s figures."""
    return test["score"] if "score" in test else test["accuracy"]


def as_shown(metrics: dict[str, Any]) -> dict[str, Any]:
    """metrics.json with the mean merit as accuracy, for pages that show one figure whatever the task."""
    found = {name: metrics[name] for name in ("test", "val") if name in metrics}
    shown = {name: figures | {"accuracy": mean_merit(figures)} for name, figures in found.items()}
    return metrics | shown


def in_words(task_kind: str, test: dict[str, Any]) -> str:
    """The field's figures in a sentence's middle; empty for classes, of which there is one figure.

    Example:
        >>> in_words("regression", {"r2": 0.9, "mae": 0.61, "rmse": 0.8})
        'R² 0.900, mean absolute error 0.61, root mean squared error 0.8'
    """
    if task_kind == "regression":
        errors = f"mean absolute error {test['mae']:.4g}, root mean squared error {test['rmse']:.4g}"
        return errors if test["r2"] is None else f"R² {test['r2']:.3f}, {errors}"
    if task_kind == "multilabel":
        f1 = f"F1 {100 * test['f1_micro']:.1f} % over all labels, {100 * test['f1_macro']:.1f} % as the mean of labels"
        return f"{f1}; all labels right for {100 * test['accuracy']:.1f} % of the examples"
    return ""
