"""Intervals and tests for accuracies measured on one test split.

Letters: N test examples, k of them right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, stdtr, stdtrit  # scipy.stats has them too, and takes 0.6 s to import

Finding = Literal["helps", "no difference", "hurts"]


def wilson(k: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share: k right out of n.

    Unlike accuracy ± 2 standard errors it stays inside [0, 1] and holds its confidence at small n and near
    100 %.

    Args:
        k: number right, 0..n; of several runs on the same examples their mean, which need not be whole.
        n: number of examples, at least 1.
        confidence: share of repetitions whose interval covers the truth.

    Returns:
        Lower and upper end, fractions in [0, 1].

    Raises:
        ValueError: k is not in 0..n, or n is 0.

    Example:
        >>> low, high = wilson(93, 100)
        >>> round(low, 3), round(high, 3)
        (0.863, 0.966)

    References:
        E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.
    """
    if not 0 <= k <= n or n == 0:
        raise ValueError(f"wilson needs 0 <= k <= n and n >= 1, got k={k}, n={n}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p, z2n = k / n, z * z / n
    centre = (p + z2n / 2) / (1 + z2n)
    half = z / (1 + z2n) * math.sqrt(p * (1 - p) / n + z2n / (4 * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(scores: ArrayLike) -> tuple[float, float] | None:
    """The 95 % interval of a mean score on N examples: Wilson's for right or wrong, else Student's.

    Args:
        scores: bool or float per example, (N,), or per run and example, (M, N); the interval is that of one run.

    Returns:
        Lower and upper end; None of a single float, which does not tell how much others differ from it.

    Example:
        >>> mean_interval(np.array([True] * 93 + [False] * 7)) == wilson(93, 100)
        True
        >>> [round(end, 3) for end in mean_interval(np.array([0.2, 0.4, 0.6, 0.8]))]
        [0.089, 0.911]

    References:
        Student, The probable error of a mean, 1908.
    """
    values = np.atleast_2d(np.asarray(scores))
    n = values.shape[1]
    if values.dtype == bool:
        return wilson(float(values.sum()) / len(values), n)
    if n < 2:
        return None
    error = math.sqrt(float(values.var(axis=1, ddof=1).mean()) / n)
    half = float(stdtrit(n - 1, 0.975)) * error
    return float(values.mean()) - half, float(values.mean()) + half


def ci95(scores: ArrayLike) -> list[float] | None:
    """`mean_interval` as files hold it."""
    ends = mean_interval(scores)
    return list(ends) if ends else None


def paired_bootstrap(
    first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95, repeats: int = 20_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of accuracy(first) - accuracy(second) on the same examples.

    Pairing matters: what is easy or hard for both cancels, so the interval is narrower than that of two
    independent accuracies. Only the examples on which the two differ carry information, so drawing N examples
    with replacement is drawing three counts (first only, second only, neither or both) from a multinomial.

    A bootstrap knows nothing of what did not happen: where the two never differ, all its samples are alike. N examples
    without an event leave room for 3 / N of them (the rule of three), so the interval reaches as far to either side.

    Args:
        first: right or wrong per example, (N,).
        second: right or wrong for the same examples in the same order, (N,).
        confidence: share of repetitions whose interval covers the truth.
        repeats: bootstrap samples.
        seed: of the bootstrap samples.

    Returns:
        Lower and upper end of the difference, fractions in [-1, 1].

    Raises:
        ValueError: the two are empty or not of one length.

    Example:
        >>> low, high = paired_bootstrap([1] * 90 + [0] * 10, [1] * 70 + [0] * 30)
        >>> round(low, 2), round(high, 2)
        (0.12, 0.28)

    References:
        B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    only_first, only_second, n = _discordant(first, second)
    shares = [only_first / n, only_second / n, (n - only_first - only_second) / n]
    draws = np.random.default_rng(seed).multinomial(n, shares, size=repeats)
    tail = (1 - confidence) / 2
    low, high = np.quantile((draws[:, 0] - draws[:, 1]) / n, [tail, 1 - tail])
    difference, room = (only_first - only_second) / n, 1 - (1 - confidence) ** (1 / n)
    return max(-1.0, min(float(low), difference - room)), min(1.0, max(float(high), difference + room))


def mcnemar(first: ArrayLike, second: ArrayLike) -> float:
    """Exact McNemar test: two-sided p that two classifiers err equally often on the same examples.

    Args:
        first: right or wrong per example, (N,).
        second: the same examples in the same order, (N,).

    Returns:
        p in (0, 1]; 1 where the two agree on every example.

    Raises:
        ValueError: the two are empty or not of one length.

    Example:
        >>> mcnemar([1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0])
        0.03125

    References:
        Q. McNemar, Note on the sampling error of the difference between correlated proportions, 1947.
    """
    only_first, only_second, _ = _discordant(first, second)
    if only_first + only_second == 0:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))


@dataclass(frozen=True)
class Verdict:
    """Whether transfer paid off against one control, with the numbers behind it.

    Args:
        verdict: "helps", "no difference" or "hurts".
        control: name of the control it was measured against.
        difference: accuracy of the delivered model minus that of the control.
        ci95: paired 95 % interval of the difference; None where one score is all there is.
        p: exact McNemar p.
        n: test examples that both were measured on.
    """

    verdict: Finding
    control: str
    difference: float
    ci95: tuple[float, float] | None
    p: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they go into evidence.json."""
        return asdict(self) | {"ci95": list(self.ci95) if self.ci95 else None}


def verdict(
    delivered_correct: ArrayLike, control_correct: ArrayLike, *, control: str = "control", seed: int = 0
) -> Verdict:
    """Whether the delivered model is better than a control on the same test examples.

    It helps (hurts) when the paired 95 % interval lies wholly above (below) zero and the exact McNemar test
    agrees at 5 %. The test is asked as well because the bootstrap is too sure of itself when the two models
    differ on a handful of examples: 4 to 0 gives an interval above zero, and p = 0.125.

    Scores that are no right or wrong are compared by a paired t test alone.

    Args:
        delivered_correct: right or wrong per test example, or a score of each as float, (N,).
        control_correct: the control on the same examples in the same order, (N,).
        control: its name.
        seed: of the bootstrap.

    Raises:
        ValueError: the two are empty or not of one length.

    Example:
        >>> verdict([1] * 90 + [0] * 10, [1] * 70 + [0] * 30, control="scratch").verdict
        'helps'
        >>> verdict([1, 1, 1, 1, 0], [0, 0, 0, 0, 0]).verdict
        'no difference'
    """
    if np.asarray(delivered_correct).dtype.kind == "f":
        return _verdict_on_scores(np.asarray(delivered_correct), np.asarray(control_correct), control)
    only_first, only_second, n = _discordant(delivered_correct, control_correct)
    low, high = paired_bootstrap(delivered_correct, control_correct, seed=seed)
    p = mcnemar(delivered_correct, control_correct)
    finding: Finding = "no difference"
    if p <= 0.05 and (low > 0 or high < 0):
        finding = "helps" if low > 0 else "hurts"
    return Verdict(finding, control, (only_first - only_second) / n, (low, high), p, n)


def _verdict_on_scores(ours: np.ndarray, theirs: np.ndarray, control: str) -> Verdict:
    gaps = ours - theirs
    n, mean, ends = len(gaps), float(gaps.mean()), mean_interval(gaps)
    if ends is None:
        return Verdict("no difference", control, mean, None, 1.0, n)
    error = (ends[1] - ends[0]) / 2 / float(stdtrit(n - 1, 0.975))
    p = 2 * float(stdtr(n - 1, -abs(mean) / error)) if error else float(not mean)
    finding: Finding = "helps" if ends[0] > 0 else "hurts" if ends[1] < 0 else "no difference"
    return Verdict(finding, control, mean, ends, p, n)


def verdict_against_best(delivered_correct: ArrayLike, controls: Mapping[str, ArrayLike], *, seed: int = 0) -> Verdict:
    """The verdict against whichever control got most test examples right, or the best score (the first of equals).

    Args:
        delivered_correct: right or wrong per test example, or a score of each as float, (N,).
        controls: likewise, by name of the control.
        seed: of the bootstrap.

    Raises:
        ValueError: there is no control, or lengths differ.

    Example:
        >>> verdict_against_best([1, 1, 0], {"scratch": [1, 0, 0], "random weights": [1, 1, 0]}).control
        'random weights'
    """
    if not controls:
        raise ValueError("a verdict needs at least one control: verdict_against_best(correct, {'scratch': ...})")
    best = max(controls, key=lambda name: float(np.sum(np.asarray(controls[name]))))
    return verdict(delivered_correct, controls[best], control=best, seed=seed)


def _discordant(first: ArrayLike, second: ArrayLike) -> tuple[int, int, int]:
    """How many only the first has right, how many only the second, and N."""
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise ValueError(f"two rows of right/wrong over the same examples are needed, got {a.shape} and {b.shape}")
    return int(np.sum(a & ~b)), int(np.sum(b & ~a)), a.size
