"""Rows: functions of (seed, epoch, index) and nothing else."""

from __future__ import annotations

import numpy as np

from regraft.tune import ArrayRows
from regraft.tune.rows import epoch_order


def pictures(n: int = 20, side: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (n, 3, side, side), np.uint8)


def test_augmentation_depends_on_seed_epoch_and_index_only() -> None:
    rows = ArrayRows(pictures(), np.zeros(20), augment="flip-crop", seed=5)
    alone = rows.batch(np.array([7]), epoch=3)[0]
    among = rows.batch(np.array([1, 7, 19]), epoch=3)[1]
    assert (alone == among).all()
    assert not (alone == rows.batch(np.array([7]), epoch=4)[0]).all()


def test_crops_are_shifts_and_flips_of_the_picture() -> None:
    values = pictures(400)
    batch = ArrayRows(values, np.zeros(400), augment="flip-crop").batch(np.arange(400), epoch=1).numpy()
    padded = np.pad(values, ((0, 0), (0, 0), (2, 2), (2, 2)))
    seen = set()
    for i in range(400):
        options = {
            (top, left, flip): padded[i, :, top : top + 16, left : left + 16][:, :, :: -1 if flip else 1]
            for top in range(5)
            for left in range(5)
            for flip in (False, True)
        }
        seen |= {how for how, option in options.items() if (option == batch[i]).all()}
    assert len(seen) == 50


def test_every_epoch_visits_every_row_in_its_own_order() -> None:
    first, second = epoch_order(50, 0, 1), epoch_order(50, 0, 2)
    assert sorted(first) == sorted(second) == list(range(50))
    assert (first != second).any() and (first == epoch_order(50, 0, 1)).all()
