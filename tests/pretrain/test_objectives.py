"""Objectives without labels: what is asked of a picture, and that a source comes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.data import Dataset, Task, read, read_unlabelled
from regraft.errors import DataError, RunError
from regraft.pretrain import OBJECTIVES, ONE_CYCLE, Training, pretrain
from regraft.source import load_source
from regraft.spec import InputSpec
from regraft.testing import tiny_images
from regraft.testing.sources import TINY_ARCH

QUICK = ONE_CYCLE.with_(epochs=6, batch_size=16, lr=0.05)


def bright_above(n: int) -> np.ndarray:
    """Pictures (N, H, W, C) whose upper half is the brighter one: which way up they are can be seen."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 60, (n, 32, 32, 3), dtype=np.uint8)
    pixels[:, :16] += 120
    return pixels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures in no class folder, some of them in a folder of a split."""
    root = tmp_path / "photos"
    for i, pixels in enumerate(bright_above(60)):
        path = root / ("val" if i % 6 == 0 else "trip/day one") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


def as_pixels(n: int = 5) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, 3, 12, 12), dtype=np.uint8)


def test_every_picture_is_shown_in_each_of_four_turns() -> None:
    pixels = as_pixels()
    rows = OBJECTIVES["rotation"].rows(pixels, np.zeros(5), augment="none", seed=0)
    assert len(rows) == 20 and rows.labels.tolist() == [0, 1, 2, 3] * 5
    shown = rows.batch(np.array([6, 0, 19]), epoch=1).numpy()
    for found, (picture, quarters) in zip(shown, ((1, 2), (0, 0), (4, 3)), strict=True):
        np.testing.assert_array_equal(found, np.rot90(pixels[picture], quarters, axes=(1, 2)))


def test_corrupted_pictures_hold_the_same_tiles_in_another_order() -> None:
    pixels = as_pixels()
    rows = OBJECTIVES["corrupted"].rows(pixels, np.zeros(5), augment="none", seed=0)
    shown = rows.batch(np.arange(10), epoch=1).numpy()
    np.testing.assert_array_equal(shown[::2], pixels)

    def tiles(picture: np.ndarray) -> list[bytes]:
        return sorted(
            np.ascontiguousarray(picture[:, y : y + 4, x : x + 4]).astype(np.uint8).tobytes()
            for y in (0, 4, 8)
            for x in (0, 4, 8)
        )

    for whole, corrupted in zip(shown[::2], shown[1::2], strict=True):
        assert tiles(whole) == tiles(corrupted) and not np.array_equal(whole, corrupted)


@pytest.mark.parametrize("name", ["rotation", "corrupted"])
def test_what_is_shown_is_a_function_of_seed_epoch_and_row(name: str) -> None:
    made = [OBJECTIVES[name].rows(as_pixels(), np.zeros(5), augment="flip-crop", seed=seed) for seed in (3, 3, 4)]
    alone = made[1].batch(np.array([7]), epoch=2)[0]
    assert (made[0].batch(np.arange(10), epoch=2)[7] == alone).all()
    assert not (made[0].batch(np.arange(10), epoch=3)[7] == alone).all()
    assert not (made[2].batch(np.arange(10), epoch=2)[7] == alone).all()


def test_a_source_comes_of_pictures_that_nobody_labelled(folder: Path, tmp_path: Path) -> None:
    data = read_unlabelled(folder, test_fraction=0.2)
    assert (len(data), len(data.split("val")), data.classes) == (60, 10, ())
    out = pretrain(data, Training(TINY_ARCH, "rotation", recipe=QUICK), out=tmp_path / "out")
    source = load_source(str(out))
    assert source.classes == ("upright", "quarter turn", "half turn", "three quarters")
    assert source.origin == "regraft pretrain, rotation, on photos"
    card = (out / "README.md").read_text()
    assert "It learnt which way up a picture is" in card
    accuracy = float(card.split("test accuracy")[1].split("|")[1].strip().rstrip("%"))
    assert accuracy > 90


def test_labels_are_not_looked_at() -> None:
    X, y = tiny_images(10)
    data = read_unlabelled((X, y))
    assert data.classes == () and set(data.labels.tolist()) == {0} and len(data) == 30
    assert len(read_unlabelled((X, y), val_fraction=0.0, test_fraction=0.0).split("train")) == 30


def test_what_cannot_be_read_is_named_and_can_be_left_out(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        read_unlabelled(folder)
    assert len(read_unlabelled(folder, skip_bad=True)) == 60
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no pictures"):
        read_unlabelled(tmp_path / "empty")


def test_an_objective_refuses_what_it_cannot_learn_from(tmp_path: Path) -> None:
    data = read(tiny_images(10))
    wide = InputSpec((3, 24, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(RunError, match=r"as high as wide.*--input-size 32$"):
        pretrain(data, Training(TINY_ARCH, "rotation", input=wide), out=tmp_path / "out")
    several: Dataset = replace(data, task=Task("multilabel"))
    with pytest.raises(DataError, match=r"--objective rotation$"):
        pretrain(several, Training(TINY_ARCH), out=tmp_path / "out")
    with pytest.raises(RunError, match=r"unknown objective 'rotations'.*'rotation'"):
        pretrain(data, Training(TINY_ARCH, "rotations"), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
