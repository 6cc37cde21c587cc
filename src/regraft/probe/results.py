"""What is known about a candidate once it is fitted, and which of two is preferred.

Shape letters: N training examples, M validation examples, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from regraft.data import CLASSIFICATION, Task, standard_error
from regraft.head import LinearHead
from regraft.probe.candidates import Candidate
from regraft.probe.fitted import Fitted, accuracy, log_loss


@dataclass(frozen=True)
class ProbeResult:
    """One candidate, fitted on the training split and judged.

    Args:
        candidate: taps and head.
        fitted: the head. Its weights are values only in `DepthProfile.best` and `single`; elsewhere they are on
            PyTorch's "meta" device (sizes, no values), and `refit` brings them back.
        val_accuracy: mean merit on the validation split (of classes: fraction right); NaN where that is empty.
        cv_accuracy: likewise of training examples, each judged by a head that had not seen it.
        se: standard error of `score`; of classes the binomial one.
        seconds: what fitting took.
        score: `val_accuracy` and `cv_accuracy` together, weighted by their numbers of examples.
        log_loss: the same for the mean loss (`Task.losses`).
        widths: how many of the D features come from each of the candidate's taps.
        val_scores: (M, K), the scores behind `val_accuracy`; None where the head has no values.
    """

    candidate: Candidate
    fitted: Fitted
    val_accuracy: float
    cv_accuracy: float | None
    se: float
    seconds: float
    score: float = float("nan")
    log_loss: float = float("nan")
    widths: tuple[int, ...] = ()
    val_scores: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def n_features(self) -> int:
        """D."""
        return sum(self.widths)


def select(results: Iterable[ProbeResult]) -> ProbeResult:
    """Among results within a standard error of the best score, the least log-loss, then the narrowest.

    Args:
        results: one or more.
    """
    results = list(results)
    top = max(results, key=lambda r: r.score)
    near = [r for r in results if r.score >= top.score - top.se]
    return min(near, key=lambda r: (round(r.log_loss, 4), r.n_features))


def judged(
    candidate: Candidate,
    fitted: Fitted,
    widths: Sequence[int],
    val_scores: np.ndarray,
    y_train: np.ndarray,
    y_val: np.ndarray,
    seconds: float,
    task: Task = CLASSIFICATION,
) -> ProbeResult:
    """A fitted candidate with its scores, from the held-out scores of both splits."""
    assert fitted.cv_scores is not None  # every head leaves rows out
    scores, y = np.concatenate([fitted.cv_scores, val_scores]), np.concatenate([y_train, y_val])
    merits = task.merits(scores, y)
    return ProbeResult(
        candidate,
        fitted,
        accuracy(val_scores, y_val, task) if len(y_val) else float("nan"),
        fitted.cv_accuracy,
        standard_error(merits),
        seconds,
        float(np.mean(merits)),
        log_loss(scores, y, task),
        tuple(widths),
        val_scores,
    )


def without_values(result: ProbeResult) -> ProbeResult:
    """Without the head's numbers: a hundred heads of ten thousand features and more would fill the memory."""
    n_classes, n_features = result.fitted.head.weight.shape
    with torch.device("meta"):
        head = LinearHead(n_features, n_classes)
    return replace(result, fitted=replace(result.fitted, head=head, cv_scores=None), val_scores=None)
