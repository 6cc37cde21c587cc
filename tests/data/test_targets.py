"""Which task labels are of, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from regraft.data import Dataset, Task, read
from regraft.errors import DataError

TEXTS = [f"text number {i}" for i in range(60)]
SETS = [[n for n, every in (("even", 2), ("third", 3)) if i % every == 0] for i in range(60)]


def _jsonl(path: Path, labels: list, column: str = "label") -> Path:
    path.write_text("\n".join(json.dumps({"text": t, column: v}) for t, v in zip(TEXTS, labels, strict=True)))
    return path


def _csv(path: Path, labels: list, column: str = "label") -> Path:
    path.write_text(f"text,{column}\n" + "".join(f"{t},{v}\n" for t, v in zip(TEXTS, labels, strict=True)))
    return path


def test_lists_are_sets_of_labels(tmp_path: Path):
    data = read(_jsonl(tmp_path / "a.jsonl", SETS))
    assert (data.task.kind, data.classes) == ("multilabel", ("even", "third"))
    assert data.targets.tolist() == [[float(i % 2 == 0), float(i % 3 == 0)] for i in range(60)]
    assert {p.kind for p in data.problems} == {"task", "no labels"}


@pytest.mark.parametrize("between", ["|", ";"])
def test_separated_labels_are_sets_in_a_column_of_labels(tmp_path: Path, between: str):
    cells = [between.join(held) or "other" for held in SETS]
    data = read(_csv(tmp_path / "a.csv", cells, "labels"))
    assert (data.task.kind, data.classes) == ("multilabel", ("even", "other", "third"))
    assert read(_csv(tmp_path / "b.csv", [str(i % 3) for i in range(60)], "labels")).task.kind == "classification"


def test_a_class_may_have_a_separator_in_its_name(tmp_path: Path):
    assert read(_csv(tmp_path / "a.csv", ["cat|dog", "cow"] * 30)).classes == ("cat|dog", "cow")


def test_an_empty_cell_is_no_label_only_where_that_was_said(tmp_path: Path):
    path = _csv(tmp_path / "a.csv", ["|".join(held) for held in SETS], "labels")
    with pytest.raises(DataError, match="--task multilabel"):
        read(path)
    assert read(path, task="multilabel").targets.sum(1).min() == 0


def test_fractions_are_numbers_to_predict_unless_they_are_few(tmp_path: Path):
    many, few = [i / 7 for i in range(60)], [(i % 3) / 2 for i in range(60)]
    data = read(_csv(tmp_path / "a.csv", many))
    assert data.task.kind == "regression" and data.classes == ("label",)
    np.testing.assert_allclose(data.targets[:, 0], many, rtol=1e-6)
    assert any(p.kind == "task" and "--task classification" in p.detail for p in data.problems)
    assert read(_csv(tmp_path / "b.csv", few)).task.kind == "classification"
    assert read(_csv(tmp_path / "b.csv", few), task="regression").task.kind == "regression"
    assert read(_csv(tmp_path / "c.csv", [i % 30 for i in range(60)])).task.kind == "classification"


def _tasks(data: Dataset) -> str:
    return " ".join(p.detail for p in data.problems if p.kind == "task")


@pytest.mark.parametrize("column", ["label", "labels"])
@pytest.mark.parametrize("between", ["|", ";", None])
def test_several_numbers_with_fractions_are_predicted(tmp_path: Path, between: str | None, column: str):
    values = np.random.default_rng(0).normal(0, 10, (60, 2)).round(3)
    values[0] = 0.5  # the same number twice is two numbers
    if between:
        path = _csv(tmp_path / "a.csv", [between.join(map(str, row)) for row in values.tolist()], column)
    else:
        path = _jsonl(tmp_path / "a.jsonl", values.tolist(), column)
    data = read(path)
    assert (data.task.kind, data.classes) == ("regression", (f"{column} 0", f"{column} 1"))
    np.testing.assert_allclose(data.targets, values, rtol=1e-6)
    assert f"--task {'classification' if between else 'multilabel'}" in _tasks(data)


def test_lists_of_few_numbers_are_labels_with_a_hint(tmp_path: Path):
    few = read(_jsonl(tmp_path / "a.jsonl", [[0.5, 1.5] if i % 2 else [2.5] for i in range(60)]))
    assert few.task.kind == "multilabel" and _tasks(few).endswith("--task regression")
    assert "regression" not in _tasks(read(_jsonl(tmp_path / "a.jsonl", [[i % 3, 3] for i in range(60)])))
    assert "regression" not in _tasks(read(_jsonl(tmp_path / "a.jsonl", SETS)))


def test_numbers_taken_for_classes_are_said_where_they_may_be_measurements(tmp_path: Path):
    assert _tasks(read(_csv(tmp_path / "a.csv", [(i % 3) / 2 for i in range(60)]))).endswith("--task regression")
    assert _tasks(read(_csv(tmp_path / "b.csv", [i % 30 * 7 for i in range(60)]))).endswith("--task regression")
    assert not _tasks(read(_csv(tmp_path / "c.csv", [i % 30 for i in range(60)])))  # they count up: names of classes
    with pytest.raises(DataError, match=r"only one text .* If they are numbers to predict: --task regression"):
        read(_csv(tmp_path / "d.csv", [3 * i for i in range(60)]))


def test_rows_of_differing_numbers_are_refused_with_a_task_that_takes_them(tmp_path: Path):
    path = _jsonl(tmp_path / "a.jsonl", [[i / 7, i / 3][: 1 + i % 2] for i in range(60)])
    with pytest.raises(DataError, match=r"1 to 2 of them\. Take --task multilabel"):
        read(path)
    assert read(path, task="multilabel", val_fraction=0, test_fraction=0).task.kind == "multilabel"
    with pytest.raises(DataError, match="Take --task regression"):
        read(_jsonl(tmp_path / "b.jsonl", [[i / 7, i / 3] for i in range(60)]), task="classification")


def test_numbers_are_learned_on_the_scale_of_the_training_examples(tmp_path: Path):
    data = read(_csv(tmp_path / "a.csv", [100 + i / 7 for i in range(60)]))
    train = data.split("train").y
    np.testing.assert_allclose([train.mean(), train.std()], [0, 1], atol=1e-5)
    np.testing.assert_allclose(data.task.natural(data.y), data.targets, rtol=1e-5)
    few = data.train_size(10, seed=0).rescaled()
    assert len(few.split("train")) == 10 and few.task != data.task
    assert len(few.split("test")) == len(data.split("test"))


def test_train_sizes_are_nested_and_numbers_have_no_classes(tmp_path: Path):
    data = read(_csv(tmp_path / "a.csv", [i / 7 for i in range(60)]))
    small, large = (set(data.train_size(n, seed=1).split("train").keys) for n in (5, 20))
    assert small < large
    with pytest.raises(DataError, match="--train-size 50"):
        data.per_class(5, seed=0)


def test_per_class_keeps_so_many_of_each_label(tmp_path: Path):
    data = read(_jsonl(tmp_path / "a.jsonl", SETS)).per_class(4, seed=0)
    train = data.split("train").targets
    assert (train.sum(0) >= 4).all() and (train.sum(1) == 0).sum() == 4 and len(train) <= 12


def test_arrays_of_numbers_and_of_labels():
    X = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    y = np.random.default_rng(1).normal(size=(40, 2))
    assert read((X, y)).classes == ("value 0", "value 1")
    np.testing.assert_allclose(read((X, y)).targets, y, rtol=1e-5)
    there = (y > 0).astype(int)
    data = read((X, there))
    assert (data.task.kind, data.classes) == ("multilabel", ("0", "1"))
    np.testing.assert_array_equal(data.targets, there)


@pytest.mark.parametrize(
    ("labels", "task", "said"),
    [
        (["red", "blue"] * 30, "regression", "'red' is none"),
        ([[1.0], [1.0, 2.0]] * 30, "regression", "1 to 2"),
        ([2.5] * 60, "regression", "the same number"),
        (["nan", 1.0] * 30, "regression", "'nan' is none"),
        (["17,43", "19,0"] * 30, "regression", "written with a point: write 17.43"),
        (SETS, "classification", "lists of labels"),
        ([["a|b"], ["c"]] * 30, "multilabel", "'a|b'"),
        ([0, 1] * 30, "ranking", "no task 'ranking'"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, labels: list, task, said: str):
    with pytest.raises(DataError) as error:
        read(_jsonl(tmp_path / "a.jsonl", labels), task=task)
    assert said in str(error.value) and "..." not in str(error.value)


def test_one_value_that_is_unknown_leaves_the_hint_at_numbers(tmp_path: Path):
    path = _jsonl(tmp_path / "a.jsonl", [*(i % 28 / 7 for i in range(56)), "nan", "nan", "inf", "inf"])
    (note,) = (problem for problem in read(path).problems if problem.kind == "task")
    assert "--task regression" in note.detail
    with pytest.raises(DataError, match=r"only one text.*--task regression"):
        read(_jsonl(tmp_path / "b.jsonl", [*(i / 7 for i in range(59)), "nan"]))
    with pytest.raises(DataError, match=r"only one text.*--task regression"):
        read(_jsonl(tmp_path / "c.jsonl", [f"{i},5" for i in range(60)]))


def test_f1_of_each_example_is_scikit_learns():
    from sklearn.metrics import f1_score

    random = np.random.default_rng(0)
    scores, y = random.normal(size=(200, 4)), (random.random((200, 4)) < 0.3).astype(np.float32)
    ours = Task("multilabel").merits(scores, y).mean()
    assert ours == pytest.approx(f1_score(y, scores > 0, average="samples", zero_division=1.0))  # pyright: ignore


def test_the_merit_of_numbers_is_r2_with_the_training_variance():
    from sklearn.metrics import r2_score

    random = np.random.default_rng(0)
    truth = random.normal(3, 2, size=(100, 1))
    task = Task("regression").scaled_to(truth)
    said = truth + random.normal(size=(100, 1))
    merit = task.merits(task.standardised(said), task.standardised(truth)).mean()
    assert merit == pytest.approx(r2_score(truth, said), rel=1e-4)
