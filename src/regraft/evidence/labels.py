"""Learning curves over labelled examples: where they lead, and how many labels one is worth to the other.

Letters: S sizes, M runs, N test examples, B bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from regraft.evidence.runs import RawRun

REPEATS = 400
LARGEST_EXPONENT = 2.0


@dataclass(frozen=True)
class LabelCurve:
    """Accuracy over the number of labelled examples.

    Args:
        n_train: sizes, rising, (S,).
        accuracy: mean over runs, (S,).
        ci95: (low, high) at each size, over runs and examples.
        draws: the same curve in bootstrap samples, (B, S).
    """

    n_train: np.ndarray
    accuracy: np.ndarray
    ci95: tuple[tuple[float, float], ...]
    draws: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "n_train": self.n_train.tolist(),
            "accuracy": self.accuracy.tolist(),
            "ci95": [list(ends) for ends in self.ci95],
        }


def label_curve(runs: Sequence[RawRun], seed: int = 0) -> LabelCurve:
    """The curve of one arm's runs, each size resampled over its runs and all sizes over the same examples.

    Args:
        runs: of one arm, at one size or more.
        seed: of the resampling.
    """
    random = np.random.default_rng(seed)
    sizes = sorted({run.n_train for run in runs})
    n = len(runs[0].correct)
    examples = random.multinomial(n, np.full(n, 1 / n), size=REPEATS) / n  # (B, N)
    columns = []
    for size in sizes:
        correct = np.stack([run.correct for run in runs if run.n_train == size]).astype(float)  # (M, N)
        picked = random.multinomial(len(correct), np.full(len(correct), 1 / len(correct)), size=REPEATS) / len(correct)
        columns.append((picked @ correct * examples).sum(1))
    draws = np.stack(columns, axis=1)
    accuracy = [float(np.mean([run.correct.mean() for run in runs if run.n_train == size])) for size in sizes]
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return LabelCurve(np.array(sizes), np.array(accuracy), tuple(zip(low.tolist(), high.tolist(), strict=True)), draws)


@dataclass(frozen=True)
class PowerLaw:
    """error(n) = limit_error + scale · n^-exponent, fitted to a curve over labels.

    Args:
        limit: accuracy with ever more labels, 1 - limit_error.
        limit_ci95: of it, from curves fitted to bootstrap samples.
        scale: see above.
        exponent: see above.
        fixed_limit: whether the limit was set to 1, for want of sizes: three tell no limit.
        at: {n: [accuracy, low, high]} at sizes beyond the measured ones.
    """

    limit: float
    limit_ci95: tuple[float, float]
    scale: float
    exponent: float
    fixed_limit: bool
    at: dict[int, tuple[float, float, float]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def power_law(curve: LabelCurve, beyond: Sequence[int] = (2, 10)) -> PowerLaw | None:
    """Extrapolate a curve over labels; None with fewer than three sizes.

    Args:
        curve: of one arm.
        beyond: factors on the largest size at which the fit is evaluated.

    References:
        J. Hestness et al., Deep Learning Scaling is Predictable, Empirically, 2017, arXiv:1712.00409.
    """
    if len(curve.n_train) < 3:
        return None
    n, fixed = curve.n_train.astype(float), len(curve.n_train) < 4
    found = _fit(n, 1 - curve.accuracy, fixed=fixed)
    draws = np.stack([_fit(n, 1 - row, fixed=fixed) for row in curve.draws[: REPEATS // 4]])
    places = [int(factor * n[-1]) for factor in beyond]
    at = {place: (_value(found, place), *_ends([_value(row, place) for row in draws])) for place in places}
    limit_error, scale, exponent = found.tolist()
    return PowerLaw(1 - limit_error, _ends(1 - draws[:, 0]), scale, exponent, fixed, at)


def _fit(n: np.ndarray, error: np.ndarray, *, fixed: bool) -> np.ndarray:
    """(limit_error, scale, exponent): given the exponent, the other two are non-negative least squares."""
    from scipy.optimize import minimize_scalar, nnls

    def solve(exponent: float) -> tuple[np.ndarray, float]:
        columns = np.stack([np.full(len(n), float(not fixed)), (n / n[0]) ** -exponent], axis=1)
        return nnls(columns, error)

    found: Any = minimize_scalar(lambda e: solve(e)[1], bounds=(0.02, LARGEST_EXPONENT), method="bounded")
    limit, scale = solve(found.x)[0]
    return np.array([limit, scale * n[0] ** found.x, found.x])


def _value(law: np.ndarray, n: float) -> float:
    return float(np.clip(1 - law[0] - law[1] * n ** -law[2], 0, 1))


def _ends(values: Any) -> tuple[float, float]:
    low, high = np.quantile(np.asarray(values), [0.025, 0.975])
    return float(low), float(high)


def labels_to_match(target: float, curve: LabelCurve) -> dict[str, Any]:
    """How many labelled examples a curve needs for an accuracy.

    Between two sizes the curve is straight over the logarithm of the size, and never falls.

    Returns:
        n (None where more than were measured would be needed), more_than (the largest size, then), and ci95 of n,
        whose upper end is None where it lies beyond.

    Example:
        >>> from regraft.evidence.runs import Point
        >>> def run(n, right): return RawRun("scratch", 0, n, (Point(0, 1.0, np.arange(100) < right),))
        >>> curve = label_curve([run(50, 60), run(200, 80)])
        >>> labels_to_match(0.7, curve)["n"], labels_to_match(0.9, curve)["more_than"]
        (100, 200)
    """
    found = _crossing(target, curve.n_train, curve.accuracy)
    draws = np.array([_crossing(target, curve.n_train, row) for row in curve.draws])
    low, high = np.quantile(draws, [0.025, 0.975], method="inverted_cdf")
    largest = int(curve.n_train[-1])
    return {
        "target": target,
        "n": round(found) if np.isfinite(found) else None,
        "more_than": None if np.isfinite(found) else largest,
        "ci95": [round(end) if np.isfinite(end) else None for end in (low, high)],
    }


def _crossing(target: float, n: np.ndarray, accuracy: np.ndarray) -> float:
    rising = np.maximum.accumulate(accuracy)
    reached = np.flatnonzero(rising >= target)
    if not reached.size:
        return float("inf")
    i = int(reached[0])
    if i == 0:
        return float(n[0])
    share = (target - rising[i - 1]) / (rising[i] - rising[i - 1])
    return float(np.exp(np.log(n[i - 1]) + share * np.log(n[i] / n[i - 1])))
