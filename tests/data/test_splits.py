"""Laws of splits and subsets: they follow content and nothing else."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from regraft.data import Dataset, read
from regraft.data.splits import draw
from regraft.errors import DataError


def _by_key(data: Dataset) -> dict[str, str]:
    return {e.key: e.split for e in data.examples}


def test_splits_do_not_depend_on_names_or_order(photos: Path, tmp_path: Path):
    other = tmp_path / "renamed"
    for path in photos.glob("*/*.*"):
        target = other / ("z" + path.parent.name) / f"{hash(path.name) % 10**9}x{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    assert _by_key(read(other)) == _by_key(read(photos))


def test_splits_do_not_depend_on_what_else_is_there(photos: Path, paint):
    before = _by_key(read(photos))
    for i in range(10):
        paint(900 + i).save(photos / "cat" / f"new{i}.png")
    after = _by_key(read(photos))
    assert {key: after[key] for key in before} == before


def test_arrays_and_their_permutation():
    X = np.random.default_rng(0).integers(0, 256, (200, 6, 6), np.uint8)
    y = np.arange(200) % 4
    order = np.random.default_rng(1).permutation(200)
    assert _by_key(read((X[order], y[order]))) == _by_key(read((X, y)))


def test_fractions_are_met_on_average():
    counts = read("digits").counts()
    n = {split: sum(of.values()) / 1797 for split, of in counts.items()}
    assert n == pytest.approx({"train": 0.6, "val": 0.2, "test": 0.2}, abs=0.03)
    assert list(read("digits", val_fraction=0, test_fraction=0.5).counts()) == ["train", "test"]


@pytest.mark.parametrize("missing", ["val", "test"])
def test_a_missing_split_is_drawn_out_of_training(missing: str):
    keys, labels = [f"{i:064}" for i in range(400)], [i % 2 for i in range(400)]
    there = "test" if missing == "val" else "val"
    given = [there if i < 100 else "train" for i in range(400)]
    drawn = draw(keys, labels, given, 0.2, 0.2)
    assert drawn[:100] == given[:100]
    assert set(drawn[100:]) == {"train", missing}
    assert drawn.count(missing) == pytest.approx(60, abs=25)
    # What is given elsewhere does not move it.
    whole = draw(keys, labels, [None] * 400, 0.2, 0.2)
    assert [s == missing for s in drawn[100:]] == [s == missing for s in whole[100:]]


@pytest.mark.parametrize("n", [2, 3, 4, 7])
@pytest.mark.parametrize("trial", range(20))
def test_no_class_is_left_without_training_validation_or_test(n: int, trial: int):
    keys = [f"{trial}-{n}-{i}" for i in range(n)]
    drawn = draw(keys, [0] * n, [None] * n, 0.2, 0.2)
    assert "train" in drawn
    assert len(set(drawn)) == min(n, 3)


def test_equal_content_stays_together():
    drawn = draw(["a", "b", "a", "c", "b", "d"], [0] * 6, [None] * 6, 0.2, 0.2)
    assert drawn[0] == drawn[2] and drawn[1] == drawn[4]


@pytest.mark.parametrize("seed", [0, 1])
def test_subsets_are_nested_and_stratified(seed: int):
    data = read("digits")
    subsets = [data.per_class(k, seed) for k in (1, 5, 20)]
    for k, subset in zip((1, 5, 20), subsets, strict=True):
        assert set(subset.counts()["train"].values()) == {k}
        for split in ("val", "test"):
            assert subset.split(split).keys == data.split(split).keys
    small, middle, large = (set(s.split("train").keys) for s in subsets)
    assert small < middle < large


def test_seeds_choose_different_subsets_and_none_keeps_all():
    data = read("digits")
    assert set(data.per_class(5, 0).split("train").keys) != set(data.per_class(5, 1).split("train").keys)
    assert data.per_class(None, 0) is data


def test_subsets_do_not_depend_on_order():
    X = np.random.default_rng(0).integers(0, 256, (200, 6, 6), np.uint8)
    y = np.arange(200) % 4
    order = np.random.default_rng(1).permutation(200)
    a, b = (read(d).per_class(5, 3).split("train") for d in ((X, y), (X[order], y[order])))
    assert set(a.keys) == set(b.keys)


def test_labels_and_keys_follow_the_examples():
    data = read("digits").split("test")
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == [e.label for e in data.examples]
    assert data.keys == tuple(e.key for e in data.examples)
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        data.split("dev")


def test_a_subset_without_some_class_is_refused_with_one_that_holds_all():
    data = read("digits")
    with pytest.raises(DataError, match=r"12 training examples hold none of '") as error:
        data.train_size(12, seed=0)
    told = re.search(r"data\.train_size\((\d+), seed=0\), or .* data\.per_class\(2, seed=0\)$", str(error.value))
    assert told
    enough = int(told[1])
    assert all(data.train_size(enough, seed=0).counts()["train"].values())
    with pytest.raises(DataError, match="hold none of"):
        data.train_size(enough - 1, seed=0)
