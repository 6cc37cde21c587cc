"""Transferability scores: how much a source's features, or its own answers, say about new labels, without training.

No score decides here: on real tasks their order agrees with that of fine-tuned accuracies by a rank correlation near
0.6, and cross-validated probes do better. They stand beside the probes in `regraft rank`, for people who know them.

Shape letters: N examples, D features, r rank, K classes, S classes of the source.
"""

from __future__ import annotations

import numpy as np

from regraft.probe.lda import ledoit_wolf
from regraft.probe.rows import RowSpace, row_space, width

_STEPS, _TOLERANCE = 100, 1e-6  # of LogME's fixed point
# Largest precision of the noise: with more features than examples targets are met exactly, and it would be infinite.
_SUREST = 1e4


def logme(X: np.ndarray | RowSpace, y: np.ndarray, n_classes: int) -> float:
    """LogME: the log evidence per example of Bayesian linear regression, averaged over one-vs-rest targets.

    Prior precision a and noise precision b are those of the largest evidence, found by MacKay's fixed point. Features
    are standardised, which makes the score independent of their units.

    Args:
        X: (N, D), or their row space.
        y: (N,), integers below n_classes.
        n_classes: K.

    Returns:
        In nats; higher is better. NaN of rows that are all alike.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(40, 3))
        >>> logme(X, (X[:, 0] > 0).astype(int), 2) > logme(X, np.arange(40) % 2, 2)
        True

    References: You, Liu, Wang and Long, 2021, arXiv:2102.11005.
    """
    space = row_space(X)
    if not space.singular.any():
        return float("nan")
    member = (np.arange(n_classes) == y[:, None]).astype(float)
    targets = member - member.mean(axis=0)  # centred, as the features are
    return float(np.mean([_evidence(space, target) for target in targets.T]))


def _evidence(space: RowSpace, target: np.ndarray) -> float:
    """The largest log evidence of one target (N,), over N."""
    n, n_features = len(target), width(space.blocks)
    squares = space.singular**2
    along = (space.left.T @ target) ** 2
    outside = max(float(target @ target - along.sum()), 0.0)
    ratio = 1.0  # a / b

    def fit(ratio: float) -> tuple[float, float, float, float]:
        """The precisions a and b that follow from their ratio, |w|² and the squared residual."""
        gamma = float(np.sum(squares / (squares + ratio)))  # effective number of parameters
        weights = float(np.sum(squares * along / (squares + ratio) ** 2))
        residual = float(np.sum(along * (ratio / (squares + ratio)) ** 2)) + outside
        return gamma / max(weights, 1e-12), min((n - gamma) / max(residual, 1e-12), _SUREST), weights, residual

    for _ in range(_STEPS):
        a, b, *_ = fit(ratio)
        before, ratio = ratio, a / b
        if abs(np.log(ratio / before)) < _TOLERANCE:
            break
    a, b, weights, residual = fit(ratio)
    volume = float(np.sum(np.log(a + b * squares))) + (n_features - len(squares)) * np.log(a)
    total = n_features * np.log(a) + n * np.log(b) - volume - b * residual - a * weights - n * np.log(2 * np.pi)
    return float(total) / (2 * n)


def h_score(X: np.ndarray | RowSpace, y: np.ndarray, n_classes: int) -> float:
    """The regularised H-score: variance between classes over the total variance, shrunk after Ledoit and Wolf.

    Args:
        X: (N, D), or their row space.
        y: (N,), integers below n_classes; each class has at least one row.
        n_classes: K.

    Returns:
        Between 0 and K - 1; higher is better.

    Example:
        >>> y = np.arange(60) % 3
        >>> h_score(np.eye(3)[y] + 0.01 * np.random.default_rng(0).normal(size=(60, 3)), y, 3) > 1.9
        True

    References: Ibrahim, Ponomareva and Mazumder, 2021, arXiv:2110.06893; Bao and others, 2019, "An
    information-theoretic approach to transferability in task transfer learning".
    """
    space = row_space(X)
    coords, n, n_features = space.coords, len(y), width(space.blocks)
    squares = space.singular**2
    s = ledoit_wolf(coords, n_features, np.diag(squares))
    member = (np.arange(n_classes) == y[:, None]).astype(float)
    means = (member.T @ coords) / np.maximum(member.sum(axis=0), 1)[:, None]
    # The total covariance is diagonal in the row coordinates.
    shrunk = (1 - s) * squares / n + s * squares.sum() / n / n_features
    between = (member.sum(axis=0) / n) @ means**2
    return float((1 - s) * np.sum(between / np.maximum(shrunk, 1e-12)))


def nce(source_labels: np.ndarray, y: np.ndarray) -> float:
    """NCE: minus the entropy of the new labels given the source's hard answers.

    Args:
        source_labels: (N,), the source's most likely class.
        y: (N,).

    Returns:
        In nats, at most 0; higher is better.

    Example:
        >>> nce(np.array([3, 3, 7, 7]), np.array([0, 0, 1, 1]))
        0.0

    References: Tran, Nguyen and Hassner, 2019, arXiv:1908.08142.
    """
    joint = _joint(np.eye(int(source_labels.max()) + 1)[source_labels], y)
    given = joint / np.maximum(joint.sum(axis=0), 1e-300)
    return float(np.sum(joint * np.log(np.where(joint > 0, given, 1.0)))) + 0.0


def leep(source_probabilities: np.ndarray, y: np.ndarray) -> float:
    """LEEP: the mean log-likelihood of the new labels when predicted through the source's soft answers.

    Args:
        source_probabilities: (N, S), rows sum to 1.
        y: (N,).

    Returns:
        In nats, at most 0; higher is better.

    Example:
        >>> round(leep(np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([0, 1])), 3)
        -0.198

    References: Nguyen, Hassner, Seeger and Archambeau, 2020, arXiv:2002.12462.
    """
    joint = _joint(source_probabilities, y)
    given = joint / np.maximum(joint.sum(axis=0), 1e-300)  # of each new label under each source class
    likelihood = np.sum(source_probabilities * given[y], axis=1)
    return float(np.mean(np.log(np.maximum(likelihood, 1e-300))))


def _joint(source: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The empirical joint distribution of new labels and source classes, (K, S)."""
    member = (np.arange(int(y.max()) + 1) == y[:, None]).astype(float)
    return member.T @ source / len(y)
