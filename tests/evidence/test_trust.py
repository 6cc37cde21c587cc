"""Figures about answers agree with scikit-learn and with their definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from regraft.errors import RunError
from regraft.evidence import (
    Answer,
    answers,
    calibration_error,
    confident_mistakes,
    confusion,
    per_class,
    read_answers,
    save_examples,
    suspected_labels,
    write_answers,
)


def test_confusion_and_class_figures_agree_with_sklearn():
    random = np.random.default_rng(0)
    truth, predicted = random.integers(0, 4, 200), random.integers(0, 4, 200)
    counts = confusion(truth, predicted, 4)
    assert np.array_equal(counts, confusion_matrix(truth, predicted))
    reference = precision_recall_fscore_support(truth, predicted)
    found = per_class(counts, "abcd")
    assert np.allclose([[f.precision, f.recall, f.f1, f.n] for f in found], np.transpose(reference))


def test_a_class_without_examples_has_no_figures():
    absent = per_class(confusion([0, 0], [0, 0], 2), "ab")[1]
    assert (absent.n, absent.precision, absent.recall, absent.f1) == (0, None, None, None)


def test_calibration_error_by_its_definition():
    random = np.random.default_rng(1)
    p = random.random(500)
    right = random.random(500) < p**2
    expected = 0.0
    for low in np.arange(10) / 10:
        inside = (p >= low) & (p < low + 0.1)
        expected += inside.mean() * abs(right[inside].mean() - p[inside].mean())
    assert calibration_error(p, right, bins=10) == pytest.approx(expected)
    assert calibration_error([1.0, 1.0], [1, 1]) == 0.0


def test_swapped_labels_are_suspected():
    """Labels of ten examples are swapped: all are found, few others are."""
    random = np.random.default_rng(2)
    truth = np.arange(300) % 3
    scores = random.normal(0, 1, (300, 3))
    scores[np.arange(300), truth] += 5
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    given = truth.copy()
    given[:10] = (given[:10] + 1) % 3
    found = suspected_labels(p, given).tolist()
    assert len(set(range(10)) & set(found)) >= 7
    assert len(found) <= 13
    top = p.max(1)[found]
    assert np.all(np.diff(top) <= 0)


def test_answers_survive_a_file(tmp_path: Path):
    rows = (Answer("9f", 'odd, "name"\nof a file.jpg', "a,b", "c", 0.75), Answer("a0", "", "c", "c", 1.0))
    write_answers(tmp_path / "predictions.csv", rows)
    assert read_answers(tmp_path / "predictions.csv") == rows


@pytest.mark.parametrize("text", ["key,name\n1,2\n", "key,name,truth,predicted,probability\n1,2,3,4,high\n"])
def test_a_file_of_another_shape_is_refused(text: str, tmp_path: Path):
    (tmp_path / "predictions.csv").write_text(text)
    with pytest.raises(RunError, match="key,name,truth,predicted,probability"):
        read_answers(tmp_path / "predictions.csv")


def test_mistakes_come_most_confident_first_and_no_more_than_asked():
    rows = answers("abcd", "abcd", [0, 0, 0, 1], [[0.4, 0.6], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], "xy")
    assert [row.name for row in confident_mistakes(rows)] == ["b", "a"]
    assert [row.name for row in confident_mistakes(rows, most=1)] == ["b"]


@pytest.mark.parametrize(("size", "expected"), [((8, 8), (128, 128)), ((640, 320), (128, 64)), ((100, 50), (100, 50))])
def test_pictures_are_kept_small_and_small_ones_grow(size: tuple, expected: tuple, tmp_path: Path):
    row = Answer("9f", "", "a", "b", 1.0)
    assert save_examples(tmp_path, [row], lambda key: Image.new("P", size)) == 1
    with Image.open(tmp_path / "pictures" / "9f.jpg") as kept:
        assert kept.size == expected
