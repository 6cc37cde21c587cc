"""Bundles that predict numbers or labels, and those of before there was a choice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from conftest import Delivered  # type: ignore[import-not-found]
from regraft.artifact import load
from regraft.data import Task
from regraft.errors import BundleError, DataError

NUMBERS = Task("regression", (10.0, 20.0, 30.0), (1.0, 2.0, 3.0))


def _changed(folder: Path, **task: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["task"] |= task
    (folder / "config.json").write_text(json.dumps(config))


def test_a_bundle_without_a_task_tells_classes(delivered: Delivered, tmp_path: Path):
    folder = delivered.save(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    del config["task"]
    before = load(folder).predict_proba(delivered.pixels.transpose(0, 2, 3, 1))
    (folder / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(load(folder).predict_proba(delivered.pixels.transpose(0, 2, 3, 1)), before)


def test_numbers_come_in_their_own_units(delivered: Delivered, tmp_path: Path):
    model = load(delivered.save(tmp_path / "model", task=NUMBERS))
    pictures = delivered.pixels.transpose(0, 2, 3, 1)
    values = model.predict_values(pictures)
    learned = (values - NUMBERS.mean) / NUMBERS.std
    scores = load(delivered.save(tmp_path / "classes")).predict_proba(pictures)
    np.testing.assert_allclose(np.exp(learned) / np.exp(learned).sum(1, keepdims=True), scores, atol=1e-5)
    np.testing.assert_allclose([one.values for one in model.predict(pictures)], values)
    with pytest.raises(DataError, match="predict_values"):
        model.predict_proba(pictures)


@pytest.mark.parametrize("wrong", [{"std": [1, 2, 0]}, {"kind": "ranking"}, {"mean": [1.0], "std": [1.0]}])
def test_a_scale_that_is_none_is_refused(delivered: Delivered, tmp_path: Path, wrong: dict):
    folder = delivered.save(tmp_path / "model", task=NUMBERS)
    _changed(folder, **wrong)
    with pytest.raises(BundleError):
        load(folder)


def test_another_task_fails_the_self_test(delivered: Delivered, tmp_path: Path):
    folder = delivered.save(tmp_path / "model", task=Task("multilabel"))
    _changed(folder, kind="classification")
    with pytest.raises(BundleError, match="self-test"):
        load(folder)
