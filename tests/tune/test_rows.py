"""Rows: functions of (seed, epoch, index) and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from regraft.tune import ArrayRows, batches, row_lengths
from regraft.tune.rows import epoch_order, n_batches


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


def of_lengths(lengths: np.ndarray) -> ArrayRows:
    """Token ids, as many as each length says."""
    ids = np.where(np.arange(lengths.max()) < lengths[:, None], 7, -1).astype(np.int32)
    return ArrayRows(ids, np.zeros(len(ids)), lengths=row_lengths(ids))


def wasted(rows: ArrayRows, size: int, order: np.ndarray | None) -> float:
    """Share of padding in all batches, as they are served."""
    served = [rows.batch(indices, 1) for indices in batches(rows, size, order)]
    return sum((batch < 0).sum().item() for batch in served) / sum(batch.numel() for batch in served)


def test_little_of_a_batch_is_padding() -> None:
    lengths = np.random.default_rng(0).lognormal(3, 0.5, 4000).astype(int) + 2
    rows, order = of_lengths(lengths), epoch_order(len(lengths), 0, 1)
    assert np.array_equal(rows.lengths, lengths)
    assert wasted(rows, 32, order) < 0.1 and wasted(rows, 256, None) < 0.2
    in_any_order = ArrayRows(rows.values, rows.labels)
    assert wasted(in_any_order, 32, order) > 0.4


@pytest.mark.parametrize("n", [5, 100, 4000])
def test_rows_of_all_lengths_are_served_once_and_with_others_in_each_epoch(n: int) -> None:
    rows = of_lengths(np.random.default_rng(1).integers(1, 40, n))
    epochs = [batches(rows, 32, epoch_order(n, 0, epoch)) for epoch in (1, 2)]
    for served in (*epochs, batches(rows, 32)):
        assert sorted(np.concatenate(served)) == list(range(n))
        assert all(len(batch) <= 32 for batch in served)
    if n > 32:
        first, second = ({frozenset(batch.tolist()) for batch in epoch} for epoch in epochs)
        assert not first & second
        lengths = [rows.lengths[batch].mean() for batch in epochs[0]]
        assert lengths != sorted(lengths) and lengths != sorted(lengths, reverse=True)


def test_rows_of_one_shape_come_in_the_order_that_was_asked_for() -> None:
    rows, order = ArrayRows(pictures(), np.zeros(20)), epoch_order(20, 0, 1)
    assert np.array_equal(np.concatenate(batches(rows, 8, order)), order)
    assert np.array_equal(np.concatenate(batches(rows, 8)), np.arange(20))


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 64, 65, 1601, 1633])
@pytest.mark.parametrize("size", [1, 2, 32])
@pytest.mark.parametrize("ragged", [False, True])
def test_no_row_is_a_batch_of_its_own(n: int, size: int, ragged: bool) -> None:
    """A batch norm has no variance of one value."""
    rows = of_lengths(2 + np.arange(n) % 7) if ragged else ArrayRows(np.zeros((n, 3)), np.zeros(n, np.int64))
    for order in (None, epoch_order(n, 0, 1)):
        found = batches(rows, size, order)
        assert len(found) == n_batches(n, size)
        assert sorted(np.concatenate(found)) == list(range(n))
        assert min(map(len, found)) > 1 or 1 in (n, size)
        assert max(map(len, found)) <= size + 1
