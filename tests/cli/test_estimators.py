"""The scikit-learn estimators: what they are told wrongly, and what they take beside arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from regraft import TransferClassifier, TransferRegressor
from regraft.data import read
from regraft.errors import DataError


@pytest.mark.parametrize("estimator", [TransferClassifier(), TransferRegressor()])
def test_what_was_not_fitted_says_so(estimator):
    X = np.zeros((2, 8, 8), np.uint8)
    with pytest.raises(NotFittedError):
        estimator.predict(X)
    with pytest.raises(DataError):
        estimator.fit(X, np.zeros(2))
    with pytest.raises(NotFittedError):  # not even after a fit that failed
        estimator.predict(X)


def test_paths_of_pictures_are_pictures(pictures: Path):
    paths = sorted(pictures.rglob("*.png"))
    labels = [path.parent.name for path in paths]
    model = TransferClassifier(recipe="probe").fit([str(path) for path in paths], labels)
    assert model.score(paths, labels) > 0.8
    np.testing.assert_array_equal(model.predict_proba([str(p) for p in paths[:3]]), model.predict_proba(paths[:3]))


def test_files_have_the_content_that_a_folder_reads(pictures: Path):
    paths = sorted(pictures.rglob("*.png"))
    listed = read((paths, [path.parent.name for path in paths]))
    assert set(listed.keys) == set(read(pictures).keys) and listed.classes == read(pictures).classes
    assert listed.examples[0].name in map(str, paths) and listed.modality == "image"


def test_a_text_that_speaks_of_a_picture_is_a_text():
    texts = [*(f"look at {i}.jpg" for i in range(20)), "no picture at all"]
    assert read((texts, [i % 2 for i in range(21)])).modality == "text"


def test_a_file_that_is_not_there_is_named(pictures: Path):
    paths = [*sorted(pictures.rglob("*.png")), pictures / "gone.png"]
    with pytest.raises(DataError, match=r"gone\.png"):
        read((paths, [path.parent.name for path in paths]))
