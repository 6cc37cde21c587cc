"""The laws of the linear heads: they agree with reference solvers, and held-out scores with fitting again.

Shape letters: N examples, D features, K classes.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf as reference_ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from regraft.head import LinearHead
from regraft.probe import Fitted, lda, logistic, ridge
from regraft.probe.fitted import log_loss, temperature
from regraft.probe.lda import ledoit_wolf
from regraft.probe.ridge import one_vs_rest
from regraft.probe.rows import moderated, quick_space, row_space, standardise

K = 3
SHAPES = [(40, 6), (24, 150)]  # primal and dual


def make(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % K
    centres = rng.normal(size=(K, d))
    return 3 * rng.normal(size=d) + centres[y] + 1.5 * rng.normal(size=(n, d)), y


def scores(fitted: Fitted, X: np.ndarray) -> np.ndarray:
    """The head's scores without its temperature."""
    with torch.no_grad():
        return fitted.head(torch.tensor(X, dtype=torch.float32)).numpy() / fitted.settings["temperature"]


def scaled(X: np.ndarray) -> np.ndarray:
    return StandardScaler().fit_transform(X)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_ridge_equals_scikit_learn(n: int, d: int) -> None:
    X, y = make(n, d)
    fitted = ridge(X, y, K, lambdas=[2.5])
    reference = Ridge(alpha=2.5).fit(scaled(X), one_vs_rest(y, K))
    assert np.allclose(scores(fitted, X), reference.predict(scaled(X)), atol=1e-4)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_ridge_leave_one_out_equals_fitting_again_without_the_row(n: int, d: int) -> None:
    X, y = make(n, d)
    Z, Y = scaled(X), one_vs_rest(y, K)
    rest = [np.delete(np.arange(n), i) for i in range(n)]
    naive = [Ridge(alpha=4.0).fit(Z[r], Y[r]).predict(Z[[i]])[0] for i, r in enumerate(rest)]
    fitted = ridge(X, y, K, lambdas=[4.0])
    assert fitted.cv_scores is not None
    assert np.allclose(fitted.cv_scores / fitted.settings["temperature"], naive, atol=1e-8)
    assert fitted.cv_accuracy == np.mean(np.argmax(naive, axis=1) == y)


def test_ridge_takes_the_lambda_with_the_best_leave_one_out() -> None:
    X, y = make(24, 150)
    lambdas = [1e-3, 1.0, 1e2, 1e4, 1e9]
    alone = [ridge(X, y, K, lambdas=[value]).cv_accuracy or 0.0 for value in lambdas]
    chosen = ridge(X, y, K, lambdas=lambdas)
    assert chosen.cv_accuracy == max(alone)
    assert alone[lambdas.index(chosen.settings["lambda"])] == max(alone)


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("C", [0.003, 0.3])
def test_logistic_equals_scikit_learn(n: int, d: int, C: float) -> None:
    X, y = make(n, d)
    reference = LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(scaled(X), y)
    got = torch.softmax(torch.tensor(scores(logistic(X, y, K, Cs=[C]), X)), dim=1).numpy()
    assert np.allclose(got, reference.predict_proba(scaled(X)), atol=3e-4)


def test_logistic_takes_the_penalty_with_the_least_held_out_loss() -> None:
    X, y = make(40, 6)
    Cs = [1e-5, 1e-1, 1e4]
    alone = [logistic(X, y, K, Cs=[C]) for C in Cs]
    losses = [log_loss(f.cv_scores / f.settings["temperature"], y) for f in alone if f.cv_scores is not None]
    assert logistic(X, y, K, Cs=Cs).settings["C"] == Cs[int(np.argmin(losses))]


@pytest.mark.parametrize("shrinkage", [0.1, 0.7])
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_lda_equals_scikit_learn_at_the_same_shrinkage(n: int, d: int, shrinkage: float) -> None:
    X, y = make(n, d)
    # Two rows less of one class, so that the priors differ.
    X, y = X[:-2], y[:-2]
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(scaled(X), y)
    expected = reference.decision_function(scaled(X))
    got = scores(lda(X, y, K, shrinkage=shrinkage), X)
    assert np.allclose(got, expected, atol=2e-3 * np.abs(expected).max())


def test_lda_agrees_with_scikit_learn_on_the_shrinkage_chosen_automatically() -> None:
    # Not to the digit: scikit-learn shrinks each class by itself, this one the shared covariance.
    X, y = make(600, 6)
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(scaled(X), y)
    assert np.mean(scores(lda(X, y, K), X).argmax(axis=1) == reference.predict(scaled(X))) >= 0.97


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_ledoit_wolf_equals_scikit_learn_and_needs_no_features(n: int, d: int) -> None:
    X, y = make(n, d)
    Z = scaled(X)
    centred = Z - np.array([Z[y == k].mean(axis=0) for k in range(K)])[y]
    expected = reference_ledoit_wolf(centred, assume_centered=True)[1]
    assert ledoit_wolf(centred, d, centred.T @ centred) == pytest.approx(expected, rel=1e-9)
    assert lda(X, y, K).settings["shrinkage"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_lda_leave_one_out_equals_fitting_again_without_the_row(n: int, d: int) -> None:
    X, y = make(n, d)
    s = 0.3
    fitted = lda(X, y, K, shrinkage=s)
    assert fitted.cv_scores is not None
    got = fitted.cv_scores / fitted.settings["temperature"]
    Z = scaled(X)
    penalty = s * _within(Z, y) / d  # s t N, held fixed
    expected = np.array([_lda_scores(np.delete(Z, i, 0), np.delete(y, i), Z[i], 1 - s, penalty) for i in range(n)])
    assert np.allclose(got - got[:, :1], expected - expected[:, :1], atol=1e-6)


def _within(Z: np.ndarray, y: np.ndarray) -> float:
    return float(sum(((Z[y == k] - Z[y == k].mean(axis=0)) ** 2).sum() for k in range(K)))


def _lda_scores(Z: np.ndarray, y: np.ndarray, row: np.ndarray, share: float, penalty: float) -> np.ndarray:
    means = np.array([Z[y == k].mean(axis=0) for k in range(K)])
    centred = Z - means[y]
    # The row was one of N: its scatter had the weight 1/N, and the remaining scatter keeps it up to N/(N-1).
    inverse = np.linalg.inv((share * centred.T @ centred + penalty * np.eye(Z.shape[1])) / len(Z))
    offsets = row - means
    return np.log(np.bincount(y, minlength=K)) - 0.5 * np.einsum("kd,de,ke->k", offsets, inverse, offsets)


@pytest.mark.parametrize("head", [ridge, logistic, lda])
def test_heads_survive_what_real_features_hold(head) -> None:
    X, y = make(31, 12)
    X[:, 0] = 7.0  # constant
    X[:, 1] = X[:, 2]  # twice the same
    X[:, 3] *= 1e6
    X[:, 4] *= 1e-33  # dead, as in real sentence encoders
    y = y.copy()
    y[y == 2] = 0
    y[-1] = 2  # a class with one example
    fitted = head(X.astype(np.float32), y, K)
    assert np.isfinite(scores(fitted, X)).all()
    assert 0 < (fitted.cv_accuracy or 0) <= 1
    assert fitted.cv_log_loss is not None and np.isfinite(fitted.cv_log_loss)
    assert fitted.head.scale[0] == 1
    features = torch.from_numpy(X.astype(np.float32)).requires_grad_()
    fitted.head(features).square().sum().backward()
    assert features.grad is not None and features.grad.abs().max() < 1e3  # training below the head can begin


def test_quiet_features_are_stretched_less_while_rows_are_few() -> None:
    rng = np.random.default_rng(0)
    deviations = np.array([1.0] * 50 + [0.01, 1000.0, 0.0])
    for n, least, most in ((10, 0.0, 0.02), (100_000, 0.5, 0.6)):
        X = rng.normal(size=(n, len(deviations))) * deviations + 5
        block = moderated(X)
        quiet, loud, constant = block.rows[:, 50:].std(axis=0)
        assert least < quiet < most
        assert loud == pytest.approx(1.0, rel=1e-5)  # and does not make the usual ones quiet
        assert 0.5 < np.median(block.rows[:, :50].std(axis=0)) <= 1.0 + 1e-6
        assert constant == 0.0
        np.testing.assert_allclose(block.apply(X), block.rows, atol=1e-3)


@pytest.mark.parametrize("head", [ridge, logistic, lda])
def test_two_classes_have_two_scores(head) -> None:
    X, y = make(30, 50)
    assert head(X, y % 2, 2).head(torch.zeros(4, 50)).shape == (4, 2)


@pytest.mark.parametrize("space", [row_space, quick_space])
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_coordinates_keep_all_inner_products(space, n: int, d: int) -> None:
    X, _ = make(n, d)
    coords = space(X).coords
    assert np.allclose(coords @ coords.T, scaled(X) @ scaled(X).T, atol=1e-4 * d)


@pytest.mark.parametrize("space", [row_space, quick_space])
@pytest.mark.parametrize("d", [6, 150])
def test_joined_blocks_are_one_block(space, d: int) -> None:
    X, y = make(24, d)
    parts = [standardise(X[:, :4]), standardise(X[:, 4:])]
    joined, whole = (lda(space(blocks), y, K) for blocks in (parts, X))
    assert np.allclose(scores(joined, X), scores(whole, X), atol=1e-3)


def test_lifted_weights_score_as_their_coordinates() -> None:
    X, _ = make(24, 150)
    for space in (row_space(X), quick_space(X)):
        weights = space.coords.T @ np.random.default_rng(0).normal(size=(24, K))
        assert np.allclose(space.blocks[0].rows @ space.lift(weights), space.coords @ weights, atol=1e-3)


def test_temperature_undoes_a_factor_and_stays_finite_without_mistakes() -> None:
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(4000, K))
    y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    assert temperature(10 * logits, y) == pytest.approx(0.1, rel=0.1)
    certain = one_vs_rest(np.arange(20) % K, K)
    assert temperature(certain, np.arange(20) % K) < 10


def test_head_scores_what_its_arrays_say_and_travels_as_a_state() -> None:
    rng = np.random.default_rng(0)
    weight, bias, mean, scale = rng.normal(size=(K, 5)), rng.normal(size=K), rng.normal(size=5), np.full(5, 2.0)
    head = LinearHead.from_arrays(weight, bias, mean, scale)
    x = rng.normal(size=(4, 5))
    expected = ((x - mean) / scale) @ weight.T + bias
    copy = LinearHead.zeros(5, K)
    copy.load_state_dict(head.state_dict())
    assert np.allclose(copy(torch.tensor(x, dtype=torch.float32)).detach().numpy(), expected, atol=1e-5)
    assert {name for name, _ in head.named_parameters()} == {"weight", "bias"}
