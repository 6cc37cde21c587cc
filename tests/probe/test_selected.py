"""Choosing features: what matters is found, what is held out is honest, and the head is LDA on what was kept.

Shape letters: N examples, D features, K classes.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from regraft.probe import lda, selected
from regraft.probe.ridge import one_vs_rest
from regraft.probe.rows import standardise
from regraft.probe.selected import most_relevant, relevance

N, D, K = 60, 4000, 3


def noise(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(seed).normal(size=(N, D)), np.arange(N) % K


def with_a_signal(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    X, y = noise()
    X[:, places] += 2.5 * np.random.default_rng(1).normal(size=(K, len(places)))[y]
    return X, y


def test_relevance_is_the_length_of_ridge_weights() -> None:
    X, y = noise()
    rows = standardise(X).rows
    penalty = float(np.sum(rows**2)) / N
    reference = Ridge(alpha=penalty).fit(rows, one_vs_rest(y, K)).coef_
    assert np.allclose(relevance(rows, y, K), np.linalg.norm(reference, axis=0), rtol=1e-4)


def test_it_keeps_the_features_that_tell_classes_apart_and_gains_by_it() -> None:
    places = np.arange(100, 140)
    X, y = with_a_signal(places)
    blocks = [standardise(X[:, :1000]), standardise(X[:, 1000:])]
    fitted = selected(blocks, y, K, seed=0)
    used = np.flatnonzero(np.abs(fitted.head.weight.detach().numpy()).sum(axis=0))
    assert len(used) == fitted.settings["kept"] < D // 2
    assert len(np.intersect1d(used, places)) >= 0.8 * len(places)
    assert fitted.cv_accuracy is not None
    assert fitted.cv_accuracy > (lda(X, y, K).cv_accuracy or 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_features_chosen_on_noise_promise_nothing(seed: int) -> None:
    """Chosen on all rows, forty of four thousand noisy features would look almost perfect on those rows."""
    X, y = noise(seed)
    block = standardise(X)
    kept = most_relevant(relevance(block.rows, y, K), 0.01)
    assert (lda(X[:, kept], y, K).cv_accuracy or 0.0) > 0.9  # the trap
    assert (selected([block], y, K, seed=seed).cv_accuracy or 1.0) < 0.55


def test_the_head_is_lda_on_the_kept_features() -> None:
    X, y = with_a_signal(np.arange(40))
    fitted = selected([standardise(X)], y, K, shares=(0.05,))
    kept = most_relevant(relevance(standardise(X).rows, y, K), 0.05)
    reference = lda(X[:, kept], y, K)
    with torch.no_grad():
        ours = fitted.head(torch.tensor(X, dtype=torch.float32)).numpy() / fitted.settings["temperature"]
        theirs = reference.head(torch.tensor(X[:, kept], dtype=torch.float32)).numpy()
    assert np.allclose(ours, theirs / reference.settings["temperature"], rtol=1e-3, atol=1e-3)
