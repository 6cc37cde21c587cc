"""Answers on a split, one row per example: `predictions.csv`, and what is shown of the most confident mistakes.

Letters: N examples, K classes.
"""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from regraft.data import CLASSIFICATION, Task, plain
from regraft.data.audio import Sound
from regraft.data.task import BETWEEN
from regraft.errors import RunError
from regraft.evidence.sounds import spectrogram

PICTURES = "pictures"
PICTURE_SIDE = 128  # sharp at the size the report shows them, about 4 kB each
MOST_PICTURES = 24
MOST_LETTERS = 400  # of a text that is shown


@dataclass(frozen=True)
class Answer:
    """What a model said about one example.

    Args:
        key: content hash of the example.
        name: for people, such as its path.
        truth: the label it came with; several have "|" between them, and numbers are written out.
        predicted: the class the model chose, likewise.
        probability: of the class it chose, in [0, 1]; of several labels that of the least sure yes or no. NaN where
            numbers are predicted.
    """

    key: str
    name: str
    truth: str
    predicted: str
    probability: float

    @property
    def correct(self) -> bool:
        """Whether the model agrees with the label."""
        return self.truth == self.predicted


def answers(
    keys: Sequence[str],
    names: Sequence[str],
    labels: ArrayLike,
    probabilities: ArrayLike,
    classes: Sequence[str],
    task: Task = CLASSIFICATION,
) -> tuple[Answer, ...]:
    """Pair every example with what the model said about it.

    Args:
        keys: content hash of each example, N of them.
        names: name of each example, N of them.
        labels: class indices, (N,); or labels or numbers as they are learned, (N, K).
        probabilities: rows that sum to one, (N, K); of labels each in [0, 1]; or numbers as they are learned.
        classes: names of the K classes.
        task: what they are.

    Example:
        >>> answers(["9f"], ["a.jpg"], [0], [[0.2, 0.8]], ["ant", "bee"])[0].predicted
        'bee'
    """
    p, y, known = np.asarray(probabilities, dtype=np.float64), np.asarray(labels), tuple(classes)
    sure = p.max(axis=1) if task.one_of else np.maximum(p, 1 - p).min(axis=1)
    stated = np.full(len(p), np.nan) if task.numeric else sure
    return tuple(map(Answer, keys, names, task.truth(y, known), task.said(p, known), stated.tolist()))


def write_answers(path: Path, rows: Iterable[Answer]) -> None:
    """Write answers as CSV with the header key,name,truth,predicted,probability."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Answer))
        writer.writerows((r.key, r.name, r.truth, r.predicted, _stated(r.probability)) for r in rows)


def _stated(probability: float) -> str:
    return "" if probability != probability else f"{probability:.6f}"  # NaN is not itself


def read_answers(path: Path) -> tuple[Answer, ...]:
    """Read what `write_answers` wrote.

    Raises:
        RunError: a column is missing or a probability is not a number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return tuple(
                Answer(r["key"], r["name"], r["truth"], r["predicted"], float(r["probability"] or "nan"))
                for r in csv.DictReader(file)
            )
    except (KeyError, ValueError, TypeError) as error:
        wanted = ",".join(field.name for field in fields(Answer))
        raise RunError(f"{path} cannot be read ({error}); its columns must be {wanted}.") from error


def confident_mistakes(rows: Iterable[Answer], most: int = MOST_PICTURES) -> tuple[Answer, ...]:
    """The wrong answers that the model was most certain of, the most certain first.

    Example:
        >>> rows = answers("ab", "ab", [0, 0], [[0.1, 0.9], [0.4, 0.6]], ["ant", "bee"])
        >>> [row.name for row in confident_mistakes(rows)]
        ['a', 'b']
    """
    wrong = [row for row in rows if not row.correct]
    return tuple(sorted(wrong, key=lambda row: (-row.probability, row.name, row.key))[:most])


def largest_errors(rows: Iterable[Answer], most: int = MOST_PICTURES) -> tuple[Answer, ...]:
    """Where numbers were predicted, the answers that are farthest off, in the scale of what is true.

    Example:
        >>> rows = [Answer(k, k, "1", said, float("nan")) for k, said in (("a", "1.5"), ("b", "7"))]
        >>> [row.name for row in largest_errors(rows, 1)]
        ['b']
    """
    kept = list(rows)
    if not kept:
        return ()
    truth, said = numbers(kept)
    off = (np.abs(said - truth) / np.where(truth.std(0) > 0, truth.std(0), 1.0)).mean(1)
    return tuple(kept[i] for i in np.argsort(-off, kind="stable")[:most])


def numbers(rows: Sequence[Answer]) -> tuple[np.ndarray, np.ndarray]:
    """What is true and what was predicted, (N, K) each.

    Raises:
        RunError: something is no number.
    """
    try:
        truth, said = ([list(map(float, text.split(BETWEEN))) for text in texts] for texts in _sides(rows))
        return np.array(truth), np.array(said)
    except ValueError as error:
        raise RunError(f"predictions.csv of a regression holds something else than numbers ({error}).") from error


def _sides(rows: Sequence[Answer]) -> tuple[list[str], list[str]]:
    return [row.truth for row in rows], [row.predicted for row in rows]


def save_examples(run: Path, rows: Iterable[Answer], open_example: Callable[[str], Any]) -> int:
    """Keep what the report shows of each given example in the run folder: pictures/KEY.jpg, or KEY.txt of a text.

    Args:
        run: the run folder.
        rows: whose examples to keep, such as `confident_mistakes(...)`.
        open_example: gives the picture, text or recording with a key.

    Returns:
        How many were written.
    """
    folder = run / PICTURES
    folder.mkdir(exist_ok=True)
    kept = list(rows)
    for row in kept:
        _save(open_example(row.key), folder / row.key)
    return len(kept)


def _save(opened: Any, path: Path) -> None:
    if isinstance(opened, Image.Image):
        _thumbnail(opened).save(path.with_suffix(".jpg"), quality=85)
    elif isinstance(opened, Sound):
        spectrogram(opened, PICTURE_SIDE, PICTURE_SIDE).save(path.with_suffix(".jpg"), quality=85)
    else:
        text = " ".join(str(opened).split())
        path.with_suffix(".txt").write_text(textwrap.shorten(text, MOST_LETTERS, placeholder=" …"), encoding="utf-8")


def _thumbnail(picture: Image.Image) -> Image.Image:
    """At most PICTURE_SIDE on the long side; small pictures grow by whole factors, their pixels square."""
    small = plain(picture).convert("RGB")
    small.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    factor = max(1, PICTURE_SIDE // max(small.size))
    return small.resize((small.width * factor, small.height * factor), Image.Resampling.NEAREST)
