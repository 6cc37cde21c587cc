"""Trivial controls: the commonest class, and a linear model on the examples as they came.

Letters: N examples, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from regraft.data import Dataset, Transform, load_pixels
from regraft.evidence.conclude import Control
from regraft.evidence.sounds import mean_bands
from regraft.probe.bench import fit
from regraft.probe.candidates import HEADS_OF
from regraft.probe.control import SIDE, small_pixels
from regraft.search import Features, Trial
from regraft.spec import InputSpec

STRENGTHS, FOLDS = (1.0, 10.0, 100.0), 3  # of the penalty on word counts, the weakest last; and how it is chosen
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # the same for ridge, where labels or numbers are predicted


def trivial_controls(chosen: Trial, seed: int) -> list[Control]:
    """What needs no network: always the commonest class, and a linear model on pixels, word counts or mel bands.

    Args:
        chosen: the delivered trial, whose training examples they learn from.
        seed: which examples share a fold where a penalty is chosen.
    """
    features = chosen.prospect.features
    name, what, linear = _LINEAR[features.data.modality]
    kind = features.data.task.kind
    blind, blindly, answer = _BLIND[kind]
    return [
        _timed(blind, blindly, lambda: answer(features)),
        _timed(name, what, lambda: linear(chosen, seed)),
    ]


def _timed(name: str, what: str, run: Callable[[], np.ndarray]) -> Control:
    began = time.perf_counter()
    correct = run()[None]
    return Control(name, what, correct, time.perf_counter() - began)


def _majority(features: Features) -> np.ndarray:
    return features.labels("test") == np.bincount(features.labels("train")).argmax()


def _commonest_labels(features: Features) -> np.ndarray:
    """As many of the commonest labels as do best on the training examples."""
    task, y, test = features.data.task, features.labels("train"), features.labels("test")
    order = np.argsort(-y.mean(axis=0), kind="stable")
    answers = [np.isin(np.arange(y.shape[1]), order[:n]).astype(float) for n in range(y.shape[1] + 1)]
    best = max(answers, key=lambda one: task.merits_of_outputs(np.broadcast_to(one, y.shape), y).mean())
    return task.merits_of_outputs(np.broadcast_to(best, test.shape), test)


def _mean(features: Features) -> np.ndarray:
    """The mean of the training examples, which is 0 as numbers are learned."""
    test = features.labels("test")
    return features.data.task.merits(np.zeros(test.shape), test)


def _linear(train: np.ndarray, test: np.ndarray, chosen: Trial, seed: int) -> np.ndarray:
    """Merits (N,) of a linear model on rows (N, D): logistic regression, or ridge where numbers are predicted."""
    features, task = chosen.prospect.features, chosen.plan.task
    fitted = fit(HEADS_OF[task.kind][-1], train, features.labels("train"), chosen.plan.n_classes, seed, task)
    with torch.no_grad():
        scores = fitted.head(torch.from_numpy(test))
    return task.merits(scores.numpy(), features.labels("test"))


def _pixels(chosen: Trial, seed: int) -> np.ndarray:
    features, spec = chosen.prospect.features, chosen.prospect.source.input
    assert isinstance(spec, InputSpec)
    height, width = (min(side, SIDE) for side in spec.size[1:])
    transform = Transform(replace(spec, size=(spec.size[0], height, width)))  # no larger than the control looks at
    train, test = (load_pixels(features.data.split(split), transform) for split in ("train", "test"))
    return _linear(small_pixels(train), small_pixels(test), chosen, seed)


def _words(chosen: Trial, seed: int) -> np.ndarray:
    data = chosen.prospect.features.data
    train, test = (data.split(split) for split in ("train", "test"))
    task = data.task
    if task.one_of:
        return word_counts(_texts(train), train.labels, seed=seed).predict(_texts(test)) == test.labels
    vectors = _vectorizer()
    return _linear_on_words(vectors.fit_transform(_texts(train)), vectors.transform(_texts(test)), chosen)


def _linear_on_words(train: Any, test: Any, chosen: Trial) -> np.ndarray:
    """Merits (N,) of ridge regression on word counts; its penalty is the best by leave-one-out.

    Many more words than rows make the dual form, on the rows' products, the cheap one.
    """
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.model_selection import GridSearchCV

    task, features = chosen.plan.task, chosen.prospect.features
    y = features.labels("train")
    targets = y if task.numeric else 2 * y - 1
    folds = min(FOLDS, len(y))
    model = GridSearchCV(KernelRidge(), {"alpha": PENALTIES}, cv=folds).fit(train, targets - targets.mean(0))
    scores = model.predict(test).reshape(test.shape[0], -1) + targets.mean(0)
    return task.merits(scores, features.labels("test"))


def word_counts(texts: list[str], labels: np.ndarray, *, seed: int = 0) -> Any:
    """Logistic regression on TF-IDF of single words and pairs of neighbours; its penalty is cross-validated.

    Example:
        >>> texts = ["a good film", "so good", "a bad film", "so bad"]
        >>> word_counts(texts, np.array([1, 1, 0, 0])).predict(["good", "bad"]).tolist()
        [1, 0]

    References:
        S. Wang, C. Manning, Baselines and Bigrams, ACL 2012 (how far pairs of words go).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(_vectorizer(), LogisticRegression(C=STRENGTHS[1], max_iter=1000))
    folds = min(FOLDS, int(np.bincount(labels)[np.unique(labels)].min()))
    if folds < 2:
        return model.fit(texts, labels)
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return GridSearchCV(model, {"logisticregression__C": STRENGTHS}, cv=split).fit(texts, labels)


def _vectorizer() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")


def _mel_bands(chosen: Trial, seed: int) -> np.ndarray:
    features = chosen.prospect.features
    train, test = (_bands(features.data.split(split)) for split in ("train", "test"))
    mean, deviation = train.mean(0), train.std(0) + 1e-6
    return _linear((train - mean) / deviation, (test - mean) / deviation, chosen, seed)


def _bands(recordings: Dataset) -> np.ndarray:
    return np.stack([mean_bands(recordings.open(i)) for i in range(len(recordings))])


def _texts(data: Dataset) -> list[str]:
    return [str(data.open(i)) for i in range(len(data))]


_BLIND: dict[str, tuple[str, str, Callable[[Features], np.ndarray]]] = {
    "classification": ("majority", "always the commonest class", _majority),
    "multilabel": ("commonest labels", "always the commonest labels", _commonest_labels),
    "regression": ("mean", "always the mean of the training examples", _mean),
}
_LINEAR: dict[str, tuple[str, str, Callable[[Trial, int], np.ndarray]]] = {
    "image": ("raw pixels", "a linear model on raw pixels", _pixels),
    "text": ("word counts", "a linear model on word counts (TF-IDF)", _words),
    "audio": ("mel bands", "a linear model on mean log-mel bands", _mel_bands),
}
