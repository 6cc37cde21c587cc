"""Each score equals its paper's formula written naively."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf_shrinkage

from regraft.probe import h_score, leep, logme, nce
from regraft.probe.rows import standardise

K = 3


@pytest.fixture(params=[(60, 5), (40, 90)], ids=["more examples", "more features"])
def task(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    n, d = request.param
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(n) % K)
    return rng.normal(size=(K, d))[y] + 2 * rng.normal(size=(n, d)), y


def test_logme_is_the_largest_evidence() -> None:
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(60) % K)
    X = rng.normal(size=(K, 5))[y] + 2 * rng.normal(size=(60, 5))
    Z = standardise(X).rows
    outer = Z @ Z.T

    def largest(target: np.ndarray) -> float:
        def minus(logs: np.ndarray) -> float:
            a, b = np.exp(logs)
            covariance = np.eye(len(y)) / b + outer / a
            return -float(multivariate_normal(cov=covariance).logpdf(target)) / len(y)  # type: ignore[arg-type]

        starts = ([0.0, 0.0], [4.0, 2.0], [6.0, 3.0])
        return -min(float(minimize(minus, start, method="Nelder-Mead").fun) for start in starts)

    expected = np.mean([largest((y == k) - np.mean(y == k)) for k in range(K)])
    assert logme(X, y, K) == pytest.approx(expected, abs=1e-4)


def test_logme_tells_signal_from_noise_with_more_features_than_examples() -> None:
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(40) % K)
    noise = rng.normal(size=(40, 90))
    told, untold = logme(noise + 2 * rng.normal(size=(K, 90))[y], y, K), logme(noise, y, K)
    assert np.isfinite([told, untold]).all()
    assert told > untold


def test_h_score_is_the_trace_of_the_papers(task: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = task
    Z = standardise(X).rows
    s = ledoit_wolf_shrinkage(Z, assume_centered=True)
    total = Z.T @ Z / len(Z)
    shrunk = (1 - s) * total + s * np.trace(total) / Z.shape[1] * np.eye(Z.shape[1])
    means = np.stack([Z[y == k].mean(axis=0) for k in range(K)])[y]
    expected = (1 - s) * np.trace(np.linalg.pinv(shrunk) @ (means.T @ means / len(Z)))
    assert h_score(X, y, K) == pytest.approx(expected, rel=1e-6)


def test_nce_is_minus_the_conditional_entropy() -> None:
    rng = np.random.default_rng(1)
    z, y = rng.integers(0, 4, 200), rng.integers(0, K, 200)
    expected = 0.0
    for a in range(4):
        for b in range(K):
            both, given = np.mean((z == a) & (y == b)), np.mean(z == a)
            expected += both * np.log(both / given)
    assert nce(z, y) == pytest.approx(expected)
    assert nce(y, y) == pytest.approx(0.0)


def test_leep_is_the_expected_log_likelihood() -> None:
    rng = np.random.default_rng(2)
    theta, y = rng.dirichlet(np.ones(5), 100), rng.integers(0, K, 100)
    joint = np.zeros((K, 5))
    for row, label in zip(theta, y, strict=True):
        joint[label] += row / 100
    expected = np.mean([np.log(sum(joint[label, z] / joint[:, z].sum() * row[z] for z in range(5)))
                        for row, label in zip(theta, y, strict=True)])  # fmt: skip
    assert leep(theta, y) == pytest.approx(expected)


@pytest.mark.parametrize("score", [logme, h_score])
def test_units_of_features_do_not_matter(score, task: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = task
    assert score(X * np.linspace(0.1, 50, X.shape[1]) + 7, y, K) == pytest.approx(score(X, y, K), rel=1e-6)


def test_rows_that_are_all_alike_have_no_evidence() -> None:
    assert np.isnan(logme(np.ones((20, 3)), np.arange(20) % 2, 2))
