"""Heads for labels of which any number may hold, and for numbers, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from regraft.data import Task
from regraft.probe import folds, logistic, ridge

NUMBERS, LABELS = Task("regression"), Task("multilabel")


def _features(n: int = 60, d: int = 12) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    X = random.normal(size=(n, d))
    y = X[:, :2] @ random.normal(size=(2, 2)) + 0.3 * random.normal(size=(n, 2))
    return X, ((y - y.mean(0)) / y.std(0)).astype(np.float32)


def _scores(head: torch.nn.Module, X: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return head(torch.from_numpy(X.astype(np.float32))).numpy()


@pytest.mark.parametrize("shape", [(60, 12), (30, 100)])
def test_ridge_on_numbers_is_scikit_learns(shape: tuple[int, int]):
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    X, y = _features(*shape)
    lambdas = np.logspace(-2, 4, 7).tolist()
    Z = StandardScaler().fit_transform(X)
    theirs = RidgeCV(lambdas).fit(Z, y)
    ours = ridge(X, y, 2, lambdas, task=NUMBERS)
    assert ours.settings == {"lambda": theirs.alpha_, "temperature": 1.0}
    np.testing.assert_allclose(_scores(ours.head, X), theirs.predict(Z), atol=1e-5)
    assert ours.cv_log_loss == pytest.approx(abs(theirs.best_score_ or 0.0), rel=1e-6)


def test_leave_one_out_of_numbers_is_fitting_again_without_the_row():
    X, y = _features(25)
    ours = ridge(X, y, 2, [3.0], task=NUMBERS)
    Z = (X - X.mean(0)) / X.std(0)
    for i in (0, 7):
        others = np.arange(25) != i
        A, b = Z[others] - Z[others].mean(0), y[others] - y[others].mean(0)
        w = np.linalg.solve(A.T @ A + 3.0 * np.eye(12), A.T @ b)
        assert ours.cv_scores is not None
        np.testing.assert_allclose(ours.cv_scores[i], (Z[i] - Z[others].mean(0)) @ w + y[others].mean(0), atol=1e-6)


def test_logistic_on_labels_is_one_of_scikit_learns_for_each():
    from sklearn.linear_model import LogisticRegression

    X, values = _features(80)
    y = (values > 0.2).astype(np.float32)
    ours = logistic(X, y, 2, [0.05], task=LABELS)
    Z, factor = (X - X.mean(0)) / X.std(0), ours.settings["temperature"]
    for k in range(2):
        theirs = LogisticRegression(C=0.05, tol=1e-8, max_iter=1000).fit(Z, y[:, k])
        np.testing.assert_allclose(_scores(ours.head, X)[:, k] / factor, theirs.decision_function(Z), atol=2e-3)


@pytest.mark.parametrize("fit", [ridge, logistic])
def test_labels_get_probabilities_that_held_out_rows_agree_with(fit):
    X, values = _features(300, 5)
    y = (values > 0.2).astype(np.float32)
    fitted = fit(X, y, 2, task=LABELS)
    p = LABELS.outputs(fitted.cv_scores)
    assert fitted.cv_log_loss < 0.5 and abs(p.mean() - y.mean()) < 0.05
    for factor in (0.5, 2.0):  # no other temperature is better
        assert LABELS.losses(factor * fitted.cv_scores, y).mean() > fitted.cv_log_loss


def test_folds_hold_numbers_and_sets_alike():
    y = np.arange(50, dtype=np.float32)[:, None]
    number = folds(y, 5, seed=0)
    means = [y[number == k].mean() for k in range(5)]
    assert np.ptp(means) <= 5
    sets = np.array([[1, 0], [0, 1], [1, 1]] * 10, np.float32)
    assert {tuple(np.unique(sets[folds(sets, 5, 0) == k], axis=0).ravel()) for k in range(5)} == {(0, 1, 1, 0, 1, 1)}
