"""A head on the features of joined stages that matter most, in the manner of Head2Toe.

All stages side by side hold thousands of features, most of them about something else than the new task. A ridge
regression on all of them shows which ones it leans on: the relevance of a feature is the length of its weights, one
for each class. The best share is kept, and LDA fitted on it; every other weight of the head is zero.

What looks at labels, the choice of features too, is done again in each fold, so that held-out scores belong to rows
that neither chose the features nor fitted the head. The paper finds relevance with a group lasso; ridge needs one
solution in the row coordinates where the lasso needs thousands of steps over D features.

References:
    Evci, Dumoulin, Larochelle, Mozer (2022), "Head2Toe: utilizing intermediate representations for better transfer
    learning", arXiv:2201.03529.

Shape letters: N examples, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.linalg import solve

from regraft.head import LinearHead
from regraft.probe.fitted import Fitted, accuracy, log_loss, temperature
from regraft.probe.lda import lda
from regraft.probe.logistic import N_FOLDS, folds
from regraft.probe.ridge import one_vs_rest
from regraft.probe.rows import Block, quick_space

# Of the D features; the paper's range without its lowest end, which left fewer features than classes here.
SHARES = (0.01, 0.03, 0.1, 0.3)
_LEAST = 32  # features that are kept at least


def selected(
    blocks: Sequence[Block], y: np.ndarray, n_classes: int, shares: Sequence[float] = SHARES, *, seed: int = 0
) -> Fitted:
    """LDA on the most relevant share of standardised features; the share is cross-validated.

    Args:
        blocks: features of each tap; D in all.
        y: (N,), integers below n_classes.
        n_classes: K.
        shares: of the D features, to choose from.
        seed: which rows share a fold.

    Returns:
        A head on all D features, most of whose weights are zero.
    """
    whole = _side_by_side(blocks)
    scores = _held_out(whole, y, n_classes, shares, folds(y, min(N_FOLDS, len(y)), seed))
    factors = [temperature(held_out, y) for held_out in scores]
    calibrated = [factor * held_out for factor, held_out in zip(factors, scores, strict=True)]
    best = min(range(len(shares)), key=lambda i: log_loss(calibrated[i], y))
    kept = most_relevant(relevance(whole.rows, y, n_classes), shares[best])
    weight, bias = _lda(whole, kept, y, n_classes)
    everywhere = np.zeros((n_classes, len(whole.mean)), dtype=weight.dtype)
    everywhere[:, kept] = weight * factors[best]
    head = LinearHead.from_arrays(everywhere, bias * factors[best], whole.mean, whole.scale)
    settings = {"share": shares[best], "kept": len(kept), "temperature": factors[best]}
    held_out = calibrated[best]
    return Fitted(head, "selected", settings, accuracy(held_out, y), log_loss(held_out, y), held_out)


def relevance(rows: np.ndarray, y: np.ndarray, n_classes: int) -> np.ndarray:
    """The length (D,) of each feature's weights in a ridge regression of the classes on all features.

    The penalty is the mean squared length of a direction, whatever the labels.

    Args:
        rows: (N, D), standardised.
        y: (N,).
        n_classes: K.
    """
    centred = rows - rows.mean(axis=0)
    outer = (centred @ centred.T).astype(np.float64)
    outer[np.diag_indices_from(outer)] += max(float(np.trace(outer)) / len(y), 1e-12)
    targets = one_vs_rest(y, n_classes)
    dual = solve(outer, targets - targets.mean(axis=0), assume_a="pos")
    return np.linalg.norm(centred.T @ dual.astype(rows.dtype), axis=1)


def most_relevant(relevances: np.ndarray, share: float) -> np.ndarray:
    """Places of the best share of the features, in order."""
    n = min(len(relevances), max(_LEAST, round(share * len(relevances))))
    return np.sort(np.argpartition(-relevances, n - 1)[:n])


def _side_by_side(blocks: Sequence[Block]) -> Block:
    rows, means, scales = zip(*((block.rows, block.mean, block.scale) for block in blocks), strict=True)
    return Block(np.concatenate(rows, axis=1), np.concatenate(means), np.concatenate(scales))


def _held_out(
    whole: Block, y: np.ndarray, n_classes: int, shares: Sequence[float], fold: np.ndarray
) -> list[np.ndarray]:
    """For each share the scores (N, K) of rows, each under a choice and a head that never saw it."""
    scores = [np.empty((len(y), n_classes)) for _ in shares]
    for number in np.unique(fold):
        test = fold == number
        others, labels = replace(whole, rows=whole.rows[~test]), y[~test]
        relevances = relevance(others.rows, labels, n_classes)
        for share, held_out in zip(shares, scores, strict=True):
            kept = most_relevant(relevances, share)
            weight, bias = _lda(others, kept, labels, n_classes)
            held_out[test] = whole.rows[test][:, kept] @ weight.T + bias
    return scores


def _lda(block: Block, kept: np.ndarray, y: np.ndarray, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K, D') and bias (K,) of LDA on some of the features, not calibrated: folds would differ in scale."""
    fitted = lda(quick_space([Block(block.rows[:, kept], block.mean[kept], block.scale[kept])]), y, n_classes)
    factor = fitted.settings["temperature"]
    return fitted.head.weight.detach().numpy() / factor, fitted.head.bias.detach().numpy() / factor
