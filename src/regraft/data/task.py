"""What is to be predicted: one class, any number of labels, or numbers; and how good an answer is.

Everything that chooses or compares goes by the *merit* of an answer, one number for each example, so that means,
standard errors and paired intervals are of one kind whatever the task:

    classification  1 if the class is right, else 0; the mean is accuracy
    multilabel      F1 of the labels said and the labels there are; 1 if both are none
    regression      1 - squared error / variance of the training targets; the mean: variance explained

Shape letters: N examples, K outputs: classes, labels or numbers.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from scipy.special import expit

Kind = Literal["classification", "multilabel", "regression"]
KINDS: tuple[str, ...] = get_args(Kind)
BETWEEN = "|"  # labels of one example, in tables and files


@dataclass(frozen=True)
class Task:
    """The kind of targets, and for numbers the scale that they are learned on.

    Args:
        kind: "classification", "multilabel" or "regression".
        mean: of each number, over the training examples.
        std: likewise; 1 for numbers that never change.

    Example:
        >>> numbers = Task("regression").scaled_to(np.array([[1.0], [3.0]]))
        >>> y = numbers.standardised(np.array([[3.0]]))
        >>> float(y[0, 0]), float(numbers.natural(y)[0, 0]), numbers.merits(np.zeros((1, 1)), y).tolist()
        (1.0, 3.0, [0.0])
    """

    kind: Kind = "classification"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def one_of(self) -> bool:
        """Whether each example has exactly one class."""
        return self.kind == "classification"

    @property
    def numeric(self) -> bool:
        """Whether targets are numbers."""
        return self.kind == "regression"

    def scaled_to(self, targets: np.ndarray) -> Task:
        """The same task with the scale of some targets (N, K)."""
        mean, std = targets.mean(axis=0, dtype=np.float64), targets.std(axis=0, dtype=np.float64)
        return replace(self, mean=tuple(mean.tolist()), std=tuple(np.where(std > 0, std, 1.0).tolist()))

    def standardised(self, targets: np.ndarray) -> np.ndarray:
        """Numbers (N, K) as they are learned: mean 0 and standard deviation 1 over the training examples."""
        return ((targets - np.array(self.mean)) / np.array(self.std)).astype(np.float32)

    def natural(self, outputs: np.ndarray) -> np.ndarray:
        """The inverse of `standardised`, float64."""
        return np.asarray(outputs, np.float64) * np.array(self.std) + np.array(self.mean)

    def outputs(self, scores: np.ndarray) -> np.ndarray:
        """What people read of scores (N, K): probabilities of classes or labels, or standardised numbers."""
        if self.one_of:
            grown = np.exp(scores - scores.max(axis=1, keepdims=True))
            return grown / grown.sum(axis=1, keepdims=True)
        return scores if self.numeric else expit(scores)

    def merits(self, scores: np.ndarray, y: np.ndarray) -> np.ndarray:
        """How good each answer is, (N,): bool for classes, else float.

        Args:
            scores: (N, K), before softmax or sigmoid.
            y: class indices (N,), labels as 0 and 1 (N, K), or standardised numbers (N, K).
        """
        return self._merits(scores, y, 0.0)

    def merits_of_outputs(self, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
        """`merits` of what `outputs` gives, or of the mean of several."""
        return self._merits(outputs, y, 0.5)

    def losses(self, scores: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Loss of each row (N,): cross-entropy in nats (of labels their mean), or the mean squared error."""
        if self.one_of:
            top = scores.max(axis=1)
            return np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top - scores[np.arange(len(y)), y]
        if self.numeric:
            return ((scores - y) ** 2).mean(axis=1)
        return (np.logaddexp(0, scores) - y * scores).mean(axis=1)

    def said(self, outputs: np.ndarray, names: tuple[str, ...]) -> list[str]:
        """Answers in words: the class, the labels with "|" between them, or the numbers.

        Example:
            >>> Task("multilabel").said(np.array([[0.9, 0.2], [0.1, 0.2]]), ("even", "prime"))
            ['even', '']
        """
        if self.one_of:
            return [names[k] for k in outputs.argmax(axis=1)]
        if self.numeric:
            return [BETWEEN.join(map(_written, row, self.std)) for row in self.natural(outputs).tolist()]
        return [BETWEEN.join(name for name, on in zip(names, row > 0.5, strict=True) if on) for row in outputs]

    def truth(self, y: np.ndarray, names: tuple[str, ...]) -> list[str]:
        """`said` of what is so: class indices (N,), or rows (N, K) as heads learn them."""
        return [names[int(k)] for k in y] if self.one_of else self.said(y, names)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Task:
        """The inverse of `to_dict`.

        Raises:
            ValueError: there is no such task, or a scale is no scale.
        """
        found = cls(values["kind"], tuple(map(float, values["mean"])), tuple(map(float, values["std"])))
        if found.kind not in KINDS or len(found.mean) != len(found.std) or not all(s > 0 for s in found.std):
            raise ValueError(f"no task {values!r}")
        return found

    def _merits(self, values: np.ndarray, y: np.ndarray, threshold: float) -> np.ndarray:
        if self.one_of:
            return values.argmax(axis=1) == y
        if self.numeric:
            return 1.0 - self.losses(values, y)
        said, there = values > threshold, y > 0.5
        total = said.sum(axis=1) + there.sum(axis=1)
        return np.where(total == 0, 1.0, 2 * (said & there).sum(axis=1) / np.maximum(total, 1))


CLASSIFICATION = Task()


def _written(value: float, std: float) -> str:
    """A number without what single precision leaves of it, a millionth of its standard deviation.

    Example:
        >>> _written(-7.8e-8, 2.9), _written(3.0000001, 2.9), _written(0.000012345, 1e-5)
        ('0', '3', '1.2345e-05')
    """
    return f"{round(value, 5 - math.floor(math.log10(std))) + 0.0:.6g}"


def standard_error(merits: np.ndarray) -> float:
    """Of the mean of merits (N,).

    Right or wrong: binomial, with one more right and one more wrong than seen, because a perfect score on few examples
    still has an error.

    Example:
        >>> round(standard_error(np.array([True] * 8)), 3), standard_error(np.array([0.5, 0.5]))
        (0.106, 0.0)
    """
    n = len(merits)
    if merits.dtype != bool:
        return float(merits.std(ddof=1) / np.sqrt(n)) if n > 1 else 1.0
    smooth = (merits.mean() * n + 1) / (n + 2)
    return float(np.sqrt(smooth * (1 - smooth) / n))
