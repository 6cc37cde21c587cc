"""What to know before trusting a model: doubtful labels, near duplicates, what is unlike the training data.

Everything rests on features that the cache has already, on the validation split, or on scores of training examples
that were held out; nothing here changes the model.

Letters: N examples, D features, K classes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from regraft.cache import Tap
from regraft.data import Dataset, plain
from regraft.data.audio import Sound
from regraft.evidence.predictions import Answer, answers
from regraft.evidence.sounds import spectrogram
from regraft.evidence.trust import calibration_error, suspected_labels
from regraft.probe import taps_wanted
from regraft.search import Trial

ALIKE = 0.8  # cosine of standardised features from which two examples are compared by what people perceive
SAME = 6  # of the 64 bits of two pictures' hashes that may differ
CLOSE = 0.03  # mean difference of grey values in 0..1 at 32×32; two hands' same digit hash alike, but differ by more
SHINGLE, SHINGLES_SHARED = 5, 0.8  # letters in a run of a text, and the share of them that two near copies have
LENGTHS = 0.05  # share by which the lengths of two near copies of a recording may differ
MOST_LOOKS = 500  # pairs that are compared so, the most alike first
SHOWN = 24


@dataclass(frozen=True)
class Findings:
    """What was found.

    Args:
        facts: the content of trust.json.
        suspects: training examples whose label a model that did not see them contradicts, the surest first.
    """

    facts: dict[str, Any]
    suspects: tuple[Answer, ...]


def examine(chosen: Trial, correct: np.ndarray) -> Findings:
    """Look at a delivered model's data through its features.

    Args:
        chosen: the delivered trial.
        correct: what it had right on the test split, bool (N,), or the merit of each answer, float.
    """
    data = chosen.prospect.features.data
    splits = {name: data.split(name) for name in ("train", "val", "test")}
    rows = _standardised({name: _features(chosen, name) for name in splits})
    facts = {"n": {name: len(split) for name, split in splits.items()}, **_temperature(chosen)}
    facts |= _duplicates(rows, splits) | _unlike(rows, splits["test"], correct)
    return Findings(facts, suspects(chosen, splits["train"]))


def suspects(chosen: Trial, train: Dataset) -> tuple[Answer, ...]:
    """Training examples whose label the best probe contradicts when it is fitted without them."""
    scores = chosen.prospect.profile.best.fitted.cv_scores
    if not chosen.plan.task.one_of:  # confident learning is about classes
        return ()
    if scores is None or len(scores) != len(train):
        return ()
    p = _softmax(scores)
    names = [example.name for example in train.examples]
    rows = answers(train.keys, names, train.labels, p, train.classes)
    return tuple(rows[i] for i in suspected_labels(p, train.labels))


def _temperature(chosen: Trial) -> dict[str, Any]:
    """Calibration on the validation split, as it is and with one temperature fitted to it.

    References:
        C. Guo et al., On Calibration of Modern Neural Networks, 2017, arXiv:1706.04599.
    """
    from scipy.optimize import minimize_scalar

    y = chosen.prospect.features.labels("val")
    if not len(y) or not chosen.plan.task.one_of:
        return {}
    logs = np.log(np.clip(chosen.probabilities("val"), 1e-12, 1))
    found: Any = minimize_scalar(lambda t: _log_loss(logs / np.exp(t), y), bounds=(-3, 3), method="bounded")
    t = float(np.exp(found.x))
    return {"temperature": t, "before": _calibration(logs, y), "after": _calibration(logs / t, y)}


def _calibration(logs: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    p = _softmax(logs)
    return {"log_loss": _log_loss(logs, y), "ece": calibration_error(p.max(1), p.argmax(1) == y), "n": len(y)}


def _log_loss(scores: np.ndarray, y: np.ndarray) -> float:
    return float(-np.log(np.clip(_softmax(scores)[np.arange(len(y)), y], 1e-12, 1)).mean())


def _softmax(scores: np.ndarray) -> np.ndarray:
    grown = np.exp(scores - scores.max(axis=1, keepdims=True))
    return grown / grown.sum(axis=1, keepdims=True)


def _features(chosen: Trial, split: str) -> np.ndarray:
    """The classifier's own input, which every depth profile has cached, (N, D)."""
    features, traced = chosen.prospect.features, chosen.prospect.traced
    wanted = taps_wanted(traced, len(features.labels("train")))
    tap = next((tap for tap in wanted if tap.cut == traced.feature.name), Tap(traced.feature.name))
    n = len(features.labels(split))
    return features(tap, split).reshape(n, -1).astype(np.float64) if n else np.zeros((0, 1))


def _standardised(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns of mean 0 and deviation 1 on training, rows of length 1: products are then cosines."""
    mean, deviation = rows["train"].mean(0), rows["train"].std(0) + 1e-9
    scaled = {name: (part - mean) / deviation for name, part in rows.items() if len(part)}
    return {name: part / np.linalg.norm(part, axis=1, keepdims=True).clip(1e-12) for name, part in scaled.items()}


def _nearest(rows: np.ndarray, train: np.ndarray, *, own: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """For each row the cosine to its nearest training row, and which one that is; `own` leaves itself out."""
    cosines, places = [], []
    for first in range(0, len(rows), 1024):
        near = rows[first : first + 1024] @ train.T
        if own:
            near[np.arange(len(near)), first + np.arange(len(near))] = -2
        places.append(near.argmax(1))
        cosines.append(near.max(1))
    return np.concatenate(cosines), np.concatenate(places)


def _duplicates(rows: dict[str, np.ndarray], splits: dict[str, Dataset]) -> dict[str, Any]:
    """Examples of validation and test that nearly are one of training: by features, then by what people perceive."""
    pairs = []
    for split in (name for name in ("val", "test") if name in rows):
        cosines, places = _nearest(rows[split], rows["train"])
        pairs += [(cosines[i], split, int(i), int(places[i])) for i in np.flatnonzero(cosines >= ALIKE)]
    train, found = splits["train"], []
    for cosine, split, i, j in sorted(pairs, reverse=True)[:MOST_LOOKS]:
        if nearly_same(splits[split].open(i), train.open(j)):
            names = {"name": splits[split].examples[i].name, "train": train.examples[j].name}
            found.append({"split": split, **names, "cosine": float(cosine)})
    return {"duplicates": found}


def nearly_same(one: Any, other: Any) -> bool:
    """Whether two examples are one, stored at another size or quality, or with a few letters changed.

    Example:
        >>> ramp = Image.linear_gradient("L")
        >>> nearly_same(ramp, ramp.resize((50, 50))), nearly_same(ramp, ramp.rotate(90))
        (True, False)
        >>> nearly_same("A fine film, and funny.", "a fine film and funny"), nearly_same("a fine film", "a film")
        (True, False)
    """
    if isinstance(one, Image.Image):
        return _same_picture(one, other)
    return _same_sound(one, other) if isinstance(one, Sound) else _same_text(str(one), str(other))


def _same_picture(one: Image.Image, other: Image.Image) -> bool:
    """By a difference hash, then by grey values.

    References:
        N. Krawetz, Kind of Like That, 2013 (the difference hash).
    """
    if int((_hash(one) != _hash(other)).sum()) > SAME:
        return False
    return float(np.abs(_grey(one, (32, 32)) - _grey(other, (32, 32))).mean()) <= CLOSE


def _same_text(one: str, other: str) -> bool:
    """By the share of runs of letters that they have in common.

    References:
        A. Broder, On the resemblance and containment of documents, 1997.
    """
    first, second = _shingles(one), _shingles(other)
    return len(first & second) >= SHINGLES_SHARED * len(first | second)


def _shingles(text: str) -> set[str]:
    letters = " ".join(re.findall(r"\w+", text.lower()))
    return {letters[i : i + SHINGLE] for i in range(max(1, len(letters) - SHINGLE + 1))}


def _same_sound(one: Sound, other: Sound) -> bool:
    """By their lengths, then by their spectrograms."""
    if abs(one.seconds - other.seconds) > LENGTHS * max(one.seconds, other.seconds):
        return False
    first, second = (np.asarray(spectrogram(sound, 32, 32), dtype=np.float64) / 255 for sound in (one, other))
    return float(np.abs(first - second).mean()) <= CLOSE


def _hash(picture: Image.Image) -> np.ndarray:
    return np.diff(_grey(picture, (9, 8)), axis=1) > 0


def _grey(picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(plain(picture, grey=True).resize(size, Image.Resampling.BOX), dtype=np.float64) / 255


def _unlike(rows: dict[str, np.ndarray], test: Dataset, correct: np.ndarray) -> dict[str, Any]:
    """Test examples farther from training than 99 % of the training examples are from one another."""
    among, _ = _nearest(rows["train"], rows["train"], own=True)
    cosines, _ = _nearest(rows["test"], rows["train"])
    far = np.flatnonzero(cosines < np.quantile(among, 0.01))
    order = far[np.argsort(cosines[far])]
    shown = [{"name": test.examples[i].name, "distance": float(1 - cosines[i])} for i in order[:SHOWN].tolist()]
    return {"unlike": shown, "n_unlike": len(far), "right_unlike": float(correct[far].mean()) if len(far) else None}
