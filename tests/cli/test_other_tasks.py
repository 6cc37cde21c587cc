"""Numbers and sets of labels through the commands, in the words of a person."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sklearn.base import clone

from conftest import Answer  # type: ignore[import-not-found]
from regraft import TransferRegressor
from regraft.testing import tiny_images

Run = Callable[..., Answer]


def _table(pictures: Path, cells: dict[str, str]) -> Path:
    rows = [f"{p.relative_to(pictures.parent)},{cells[p.parent.name]}" for p in sorted(pictures.rglob("*.png"))]
    path = pictures.parent / "table.csv"
    path.write_text("\n".join(["path,labels", *rows]))
    return path


@pytest.fixture
def sizes(pictures: Path) -> Path:
    return _table(pictures, {"disc": "10.5", "square": "20", "cross": "30"})


def test_fit_says_what_it_predicts_and_predict_gives_numbers(run: Run, sizes: Path, pictures: Path, tmp_path: Path):
    words = ("--task", "regression", "--evidence", "off", "--recipe", "probe", "--cache", tmp_path / "cache")
    fitted = run("fit", sizes, *words, "--out", tmp_path / "run", "--json")
    assert fitted.status == 0 and "Task: regression" in fitted.err
    metrics = json.loads(fitted.out)
    assert metrics["test"].keys() >= {"r2", "mae", "rmse", "score", "n", "ci95"}
    said = json.loads(run("predict", tmp_path / "run" / "model", pictures / "cross", "--json").out)
    assert sum(abs(row["values"]["labels"] - 30) < 8 for row in said) > 15


def test_a_set_of_labels_is_predicted_as_one(run: Run, pictures: Path, tmp_path: Path):
    table = _table(pictures, {"disc": "round|closed", "square": "closed", "cross": "open"})
    words = ("--evidence", "off", "--recipe", "probe", "--cache", tmp_path / "cache", "--out", tmp_path / "run")
    fitted = run("fit", table, *words)
    assert fitted.status == 0 and "multilabel" in fitted.err and "F1" in fitted.out
    said = json.loads(run("predict", tmp_path / "run" / "model", pictures / "disc", "--json").out)
    assert sum(row["labels"] == ["closed", "round"] for row in said) > 12
    assert set(said[0]["probabilities"]) == {"closed", "open", "round"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--task", "regression", "--per-class", 5), "--train-size 50"),
        (("--task", "regression", "--train-size", 1), "--train-size 100"),
        (("--task", "ranking"), "'ranking'"),
    ],
)
def test_what_cannot_be_ends_in_one_message(run: Run, sizes: Path, words: tuple, said: str):
    answer = run("probe", sizes, *words)
    assert answer.status == 2 and said in answer.err and "Traceback" not in answer.err


def test_words_are_no_numbers(run: Run, pictures: Path):
    answer = run("probe", pictures, "--task", "regression")
    assert answer.status == 2 and "'cross' is none" in answer.err


def test_inspect_tells_the_numbers(run: Run, sizes: Path):
    facts = json.loads(run("inspect", sizes, "--task", "regression", "--json").out)
    assert facts["task"] == "regression" and facts["values"] == {"labels": [10.5, 20.0, 30.0]}


def test_the_estimator_predicts_in_the_shape_it_learned():
    X, y = tiny_images(12)
    asked = TransferRegressor(recipe="probe")
    assert asked.get_params()["recipe"] == "probe" and isinstance(clone(asked), TransferRegressor)
    assert asked.fit(X, 2.5 * y).predict(X[:3]).shape == (3,)
