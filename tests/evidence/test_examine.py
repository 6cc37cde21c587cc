"""Doubtful labels, near duplicates and strangers are found where they were put, and only there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from regraft.data import read
from regraft.evidence.examine import examine, nearly_same, suspects
from regraft.evidence.trust import reliability
from regraft.search import Means, Trial, look_at, probe_trial
from regraft.testing import tiny_images, tiny_source
from regraft.tune import RECIPES


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """Shapes in given splits; one test picture is a training picture stored again, and one is noise."""
    X, y = tiny_images(30)
    root = tmp_path / "shapes"
    for i, (pixels, label) in enumerate(zip(X, y, strict=True)):
        split = "test" if i % 5 == 0 else "val" if i % 5 == 1 else "train"
        folder = root / split / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    Image.fromarray(X[2]).save(root / "test" / str(y[2]) / "copy.jpg", quality=95)
    noise = np.random.default_rng(0).integers(0, 255, X[0].shape, dtype=np.uint8)
    Image.fromarray(noise).save(root / "test" / "0" / "noise.png")
    means = Means(root=tmp_path / "cache", runtime="torch")
    return probe_trial(look_at(read(str(root)), tiny_source(), means), RECIPES["probe"], 3)


def test_a_copy_in_another_split_and_a_stranger_are_named(trial: Trial):
    test = trial.prospect.features.data.split("test")
    correct = trial.probabilities("test").argmax(1) == test.labels
    facts = examine(trial, correct).facts
    assert "test/" in facts["duplicates"][0]["name"] and "copy" in facts["duplicates"][0]["name"]
    assert facts["duplicates"][0]["train"].endswith("2.png")
    assert any("noise" in found["name"] for found in facts["unlike"])
    assert facts["n"]["test"] == len(test) and facts["n_unlike"] < len(test) / 2
    assert facts["after"]["log_loss"] <= facts["before"]["log_loss"] + 1e-6
    assert facts["before"]["n"] == facts["n"]["val"]


def test_a_swapped_label_is_suspected(trial: Trial):
    train = trial.prospect.features.data.split("train")
    wrong = range(0, len(train), 9)
    swapped = [replace(e, label=(e.label + 1) % 3) if i in wrong else e for i, e in enumerate(train.examples)]
    found = suspects(trial, replace(train, examples=tuple(swapped)))
    assert len(found) >= len(wrong) / 2
    assert {row.name for row in found} <= {train.examples[i].name for i in wrong}
    assert suspects(trial, replace(train, examples=train.examples[:5])) == ()


def test_copies_are_nearly_the_same_and_strangers_are_not():
    random = np.random.default_rng(1)
    blots = [Image.fromarray(random.integers(0, 255, (8, 8), dtype=np.uint8)) for _ in range(2)]
    one, other = (blot.resize((200, 200)) for blot in blots)
    assert nearly_same(one, one.resize((80, 80)))
    assert not nearly_same(one, other)


def test_two_hands_write_a_digit_differently():
    """Small pictures of one class hash alike: grey values tell them apart."""
    digits = read("digits")
    zeros = [i for i, example in enumerate(digits.examples) if example.label == 0]
    first, *others = [digits.open(i) for i in zeros[:40]]
    assert sum(nearly_same(first, other) for other in others) <= 1


def test_reliability_by_its_definition():
    bins = reliability([0.95] * 10 + [0.15] * 4, [1] * 9 + [0] + [0] * 4)
    assert [(b["n"], b["accuracy"]) for b in bins] == [(4, 0.0), (10, 0.9)]
    assert bins[1]["ci95"][0] < 0.9 < bins[1]["ci95"][1]


def test_pictures_of_every_mode_are_compared():
    picture = Image.fromarray(tiny_images(1)[0][0])
    lab = ImageCms.profileToProfile(
        picture, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    deep = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    assert nearly_same(lab, picture) and nearly_same(deep, picture.convert("L"))
