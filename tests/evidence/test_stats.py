"""Intervals cover what they promise; a verdict is not given away."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from regraft.evidence import mcnemar, paired_bootstrap, verdict, verdict_against_best, wilson
from regraft.evidence.stats import mean_interval


def _pair(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Two rows of right or wrong with these counts."""
    a = np.repeat([1, 1, 0, 0], [both, first, second, neither])
    b = np.repeat([1, 0, 1, 0], [both, first, second, neither])
    return a, b


@pytest.mark.parametrize("n", [20, 100, 400])
def test_wilson_covers_95_percent(n: int):
    """Exactly, over all outcomes: 95 % on average over p, and nowhere far below."""
    ends = np.array([wilson(k, n) for k in range(n + 1)])
    shares = np.linspace(0.05, 0.95, 91)
    weights = binom.pmf(np.arange(n + 1)[:, None], n, shares)
    inside = (ends[:, :1] <= shares) & (shares <= ends[:, 1:])
    coverage = (weights * inside).sum(0)
    assert coverage.mean() == pytest.approx(0.95, abs=0.012)
    assert coverage.min() > 0.90


def test_wilson_agrees_with_scipy():
    from scipy.stats import binomtest

    for k, n in ((0, 10), (5, 10), (10, 10), (337, 360)):
        reference = binomtest(k, n).proportion_ci(method="wilson")
        assert wilson(k, n) == pytest.approx((reference.low, reference.high))


def test_several_runs_that_are_not_all_right_have_another_interval_than_runs_that_are():
    runs = np.ones((5, 13), dtype=bool)
    runs[0, 0] = False
    assert mean_interval(runs) == wilson(12.8, 13)
    assert mean_interval(runs)[0] < mean_interval(runs[1:])[0]


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_nonsense(k: int, n: int):
    with pytest.raises(ValueError, match="0 <= k <= n"):
        wilson(k, n)


def test_paired_bootstrap_covers_95_percent():
    random = np.random.default_rng(0)
    n, shares = 300, [0.75, 0.10, 0.05, 0.10]
    draws = random.multinomial(n, shares, size=400)
    ends = np.array([paired_bootstrap(*_pair(*counts), repeats=2000) for counts in draws])
    coverage = np.mean((ends[:, 0] <= 0.05) & (ends[:, 1] >= 0.05))
    assert 0.91 <= coverage <= 0.98


def test_paired_bootstrap_agrees_with_resampling_examples():
    a, b = _pair(60, 25, 5, 10)
    random = np.random.default_rng(1)
    picks = random.integers(0, 100, (4000, 100))
    direct = np.quantile((a - b)[picks].mean(1), [0.025, 0.975])
    assert paired_bootstrap(a, b) == pytest.approx(tuple(direct), abs=0.011)


def test_pairing_narrows_the_interval():
    a, b = _pair(85, 8, 2, 5)
    low, high = paired_bootstrap(a, b)
    independent = 2 * 1.96 * ((a.var() + b.var()) / 100) ** 0.5
    assert high - low < 0.8 * independent


def test_mcnemar_is_exact_and_symmetric():
    a, b = _pair(10, 6, 0, 3)
    assert mcnemar(a, b) == mcnemar(b, a) == pytest.approx(2 * 0.5**6)
    assert mcnemar(a, a) == 1.0


def test_without_a_difference_a_verdict_is_rare():
    """Two models that are equally good: at most one verdict in twenty, at any share of disagreement."""
    random = np.random.default_rng(2)
    for apart in (0.01, 0.05, 0.2):
        draws = random.multinomial(200, [0.8 - apart, apart, apart, 0.2 - apart], size=100)
        found = [verdict(*_pair(*counts)).verdict for counts in draws]
        assert np.mean([answer != "no difference" for answer in found]) <= 0.08


def test_verdicts():
    better, worse = _pair(70, 25, 2, 3)
    helps, hurts, same = verdict(better, worse), verdict(worse, better), verdict(better, better)
    assert (helps.verdict, hurts.verdict, same.verdict) == ("helps", "hurts", "no difference")
    assert helps.difference == pytest.approx(0.23)
    assert helps.ci95[0] > 0 > hurts.ci95[1]
    assert (same.difference, same.p) == (0.0, 1.0)


def test_two_models_that_never_differ_are_not_known_to_be_equal():
    """The room that is left is what would go unseen on so many examples in one of twenty tests."""
    right = np.ones(13)
    low, high = paired_bootstrap(right, right)
    assert (1 - high) ** 13 == pytest.approx(0.05) and low == -high
    assert verdict(right > 0, right > 0).ci95 == (low, high)
    assert paired_bootstrap([1, 1], [0, 0])[0] < 0.5


def test_a_handful_of_examples_is_no_verdict():
    """The bootstrap alone would say that 4 to 0 is certain."""
    found = verdict(*_pair(96, 4, 0, 0))
    assert found.ci95[0] > 0
    assert found.verdict == "no difference"


def test_the_best_control_counts():
    delivered, scratch = _pair(70, 25, 2, 3)
    found = verdict_against_best(delivered, {"scratch": scratch, "random weights": delivered})
    assert (found.control, found.verdict) == ("random weights", "no difference")
    assert found.to_dict()["ci95"] == list(found.ci95)


@pytest.mark.parametrize("control", [[1, 0], [], [[1, 0, 1]]])
def test_other_examples_are_refused(control: list):
    with pytest.raises(ValueError, match="the same examples"):
        verdict([1, 0, 1], control)


def test_no_control_is_refused():
    with pytest.raises(ValueError, match="at least one control"):
        verdict_against_best([1], {})
