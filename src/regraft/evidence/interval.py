"""The interval of a difference that was measured on a few runs and on some hundred test examples.

Two things vary: which examples happened to be in the test split, and which run happened to be drawn (fresh weights,
training subset, order). Their variances are estimated separately, each gets its own quantile of Student's t, and
the two half widths add up as squares:

    v_examples   variance over examples of the mean difference, over N
    v_runs       s² (1 + 1/M), s² the variance between runs beyond what N examples explain

The 1 in 1 + 1/M is the source itself: one set of weights, however many seeds are run with it. A source with random
weights is one more draw from the control's own runs, and must look like one.

A few runs do not tell how much runs differ, so s² is drawn toward what was measured elsewhere (`USUAL_SD`), with the
weight of `USUAL_DF` runs. Resampling a handful of runs, the percentile bootstrap's way, varies too little;
docs/evidence.md has the coverage of both.

Letters: M runs, N test examples.

References:
    A. Owen, The pigeonhole bootstrap, 2007, arXiv:0706.2283 (two crossed causes of chance).
    G. Smyth, Linear models and empirical Bayes methods, 2004 (variances drawn toward a common one).
    G. Zou, A. Donner, Construction of confidence limits about effect measures, 2008 (half widths as squares).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

# Between runs of one procedure on fresh weights: digits at 5 per class, ResNet-20, two subsets, 8 draws each.
USUAL_SD = 0.015
USUAL_DF = 3


@dataclass(frozen=True)
class Interval:
    """A difference of two mean scores, and how sure it is.

    Args:
        difference: transfer minus control, in the scores' unit.
        se_examples: standard error from the choice of test examples.
        se_runs: standard error from the choice of runs.
        df: degrees of freedom of `se_runs`.
        n: test examples.
        runs: of the control.
        bounded: whether scores lie in [0, 1], so that no difference is beyond 1.
    """

    difference: float
    se_examples: float
    se_runs: float
    df: float
    n: int
    runs: int
    bounded: bool = True

    def ends(self, looks: int = 1) -> tuple[float, float]:
        """Lower and upper end of the 95 % interval.

        Args:
            looks: with k, the interval holds for k comparisons at once (Bonferroni).
        """
        half, most = self._half(0.05 / looks), 1.0 if self.bounded else math.inf
        return max(-most, self.difference - half), min(most, self.difference + half)

    @property
    def p(self) -> float:
        """Two-sided, that there is no difference: the level at which the interval just reaches zero."""
        from scipy.optimize import brentq

        least = 1e-12
        if self._half(least) <= abs(self.difference):
            return least if self.difference else 1.0
        root: Any = brentq(lambda level: self._half(level) - abs(self.difference), least, 1.0)
        return float(root)

    def _half(self, level: float) -> float:
        of_examples, of_runs = stdtrit([max(1, self.n - 1), self.df], 1 - level / 2)
        return math.hypot(of_examples * self.se_examples, of_runs * self.se_runs)


def difference(
    transfer: ArrayLike,
    control: ArrayLike,
    *,
    bounded: bool = True,
    usual_sd: float = USUAL_SD,
    usual_df: int = USUAL_DF,
) -> Interval:
    """How much better transfer is than a control, on the same test examples.

    Runs are paired where there are as many of both: run i of both then shares its training subset and order.

    Args:
        transfer: score of every run on every example, (M, N); right or wrong is 0 or 1.
        control: likewise, on the same examples in the same order; the numbers of runs may differ.
        bounded: whether scores lie in [0, 1]; those of numbers have no lower end.
        usual_sd: what runs differ by elsewhere, in the scores' unit.
        usual_df: how many runs' worth that is believed.

    Raises:
        ValueError: the two are empty, or are not about the same examples.

    Example:
        >>> ours, theirs = [[1] * 90 + [0] * 10], [[1] * 70 + [0] * 30] * 3
        >>> found = difference(ours, theirs)
        >>> round(found.difference, 2), found.ends()[0] > 0
        (0.2, True)
    """
    first, second = (np.atleast_2d(np.asarray(scores, dtype=np.float64)) for scores in (transfer, control))
    if first.shape[1] != second.shape[1] or first.size == 0 or second.size == 0:
        raise ValueError(f"scores of the same examples are needed, (M, N) each; got {first.shape} and {second.shape}")
    paired = len(first) == len(second) > 1
    spread, runs = _between_runs(first - second if paired else second), len(second)
    n = first.shape[1]
    s2 = (usual_df * usual_sd**2 + (runs - 1) * spread) / (usual_df + runs - 1)
    # What runs differ by is seen through the noise of the examples, so a run tells less than it would without it: half,
    # by the coverage in simulations (docs/evidence.md).
    df = usual_df + (runs - 1) / 2
    gaps = first.mean(0) - second.mean(0)
    # On a few examples the gaps may happen to be equal, which says little: N examples without a discordant one leave
    # room for 3 / N of them (the rule of three).
    se_examples = math.sqrt(max(gaps.var(ddof=1), 1 / n) / n) if n > 1 else 0.5
    return Interval(float(gaps.mean()), se_examples, math.sqrt(s2 * (1 + 1 / runs)), df, n, runs, bounded)


def _between_runs(scores: np.ndarray) -> float:
    """Variance of the runs' true means: that of the measured ones less the noise of N examples. (M, N) -> number."""
    runs, n = scores.shape
    if runs == 1 or n == 1:
        return 0.0
    means = scores.mean(1)
    rest = scores - means[:, None] - scores.mean(0) + scores.mean()
    noise = float((rest**2).sum()) / ((runs - 1) * (n - 1)) / n
    return max(0.0, float(means.var(ddof=1)) - noise)
