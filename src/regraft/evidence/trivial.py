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
from regraft.probe.control import SIDE, raw_pixels, small_pixels
from regraft.probe.logistic import logistic
from regraft.search import Features, Trial
from regraft.spec import InputSpec

STRENGTHS, FOLDS = (1.0, 10.0, 100.0), 3  # of the penalty on word counts, the weakest last; and how it is chosen


def trivial_controls(chosen: Trial, seed: int) -> list[Control]:
    """What needs no network: always the commonest class, and a linear model on pixels, word counts or mel bands.

    Args:
        chosen: the delivered trial, whose training examples they learn from.
        seed: which examples share a fold where a penalty is chosen.
    """
    features = chosen.prospect.features
    name, what, linear = _LINEAR[features.data.modality]
    return [
        _timed("majority", "always the commonest class", lambda: _majority(features)),
        _timed(name, what, lambda: linear(chosen, seed)),
    ]


def _timed(name: str, what: str, run: Callable[[], np.ndarray]) -> Control:
    began = time.perf_counter()
    correct = run()[None]
    return Control(name, what, correct, time.perf_counter() - began)


def _majority(features: Features) -> np.ndarray:
    return features.labels("test") == np.bincount(features.labels("train")).argmax()


def _pixels(chosen: Trial, seed: int) -> np.ndarray:
    features, spec = chosen.prospect.features, chosen.prospect.source.input
    assert isinstance(spec, InputSpec)
    height, width = (min(side, SIDE) for side in spec.size[1:])
    transform = Transform(replace(spec, size=(spec.size[0], height, width)))  # no larger than the control looks at
    train, test = (load_pixels(features.data.split(split), transform) for split in ("train", "test"))
    y, truth = features.labels("train"), features.labels("test")
    _, fitted = raw_pixels(train, y, test, truth, chosen.plan.n_classes, seed=seed)
    with torch.no_grad():
        scores = fitted.head(torch.from_numpy(small_pixels(test)))
    return scores.argmax(1).numpy() == truth


def _words(chosen: Trial, seed: int) -> np.ndarray:
    data = chosen.prospect.features.data
    train, test = (data.split(split) for split in ("train", "test"))
    model = word_counts(_texts(train), train.labels, seed=seed)
    return model.predict(_texts(test)) == test.labels


def word_counts(texts: list[str], labels: np.ndarray, *, seed: int = 0) -> Any:
    """Logistic regression on TF-IDF of single words and pairs of neighbours; its penalty is cross-validated.

    Example:
        >>> texts = ["a good film", "so good", "a bad film", "so bad"]
        >>> word_counts(texts, np.array([1, 1, 0, 0])).predict(["good", "bad"]).tolist()
        [1, 0]

    References:
        S. Wang, C. Manning, Baselines and Bigrams, ACL 2012 (how far pairs of words go).
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline

    counts = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    model = make_pipeline(counts, LogisticRegression(C=STRENGTHS[1], max_iter=1000))
    folds = min(FOLDS, int(np.bincount(labels)[np.unique(labels)].min()))
    if folds < 2:
        return model.fit(texts, labels)
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return GridSearchCV(model, {"logisticregression__C": STRENGTHS}, cv=split).fit(texts, labels)


def _mel_bands(chosen: Trial, seed: int) -> np.ndarray:
    features = chosen.prospect.features
    train, test = (_bands(features.data.split(split)) for split in ("train", "test"))
    mean, deviation = train.mean(0), train.std(0) + 1e-6
    fitted = logistic((train - mean) / deviation, features.labels("train"), chosen.plan.n_classes, seed=seed)
    with torch.no_grad():
        scores = fitted.head(torch.from_numpy((test - mean) / deviation))
    return scores.argmax(1).numpy() == features.labels("test")


def _bands(recordings: Dataset) -> np.ndarray:
    return np.stack([mean_bands(recordings.open(i)) for i in range(len(recordings))])


def _texts(data: Dataset) -> list[str]:
    return [str(data.open(i)) for i in range(len(data))]


_LINEAR: dict[str, tuple[str, str, Callable[[Trial, int], np.ndarray]]] = {
    "image": ("raw pixels", "a linear model on raw pixels", _pixels),
    "text": ("word counts", "a linear model on word counts (TF-IDF)", _words),
    "audio": ("mel bands", "a linear model on mean log-mel bands", _mel_bands),
}
