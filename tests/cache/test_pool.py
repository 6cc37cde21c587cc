"""Pooling: exact means over the cells of a grid, coarser grids from finer ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from regraft.cache import Pool, coarsen, pooled


@pytest.mark.parametrize("side", [4, 5, 7, 8, 14, 33])
def test_the_mean_of_the_cells_is_the_global_mean(side: int) -> None:
    x = torch.randn(3, 6, side, side, dtype=torch.float64)
    rows = Pool((6, side, side), "NCHW", 4)(x).reshape(3, 6, 16)
    torch.testing.assert_close(rows.mean(2), x.mean((2, 3)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 7, 7), (5, 8, 12), (5, 9, 4)])
@pytest.mark.parametrize("to", [1, 2])
def test_a_coarser_grid_follows_from_a_finer_one(shape: tuple[int, ...], to: int) -> None:
    x = torch.randn(3, *shape)
    fine, coarse = (Pool(shape, "NCHW", grid)(x).numpy() for grid in (4, to))
    np.testing.assert_allclose(coarsen(fine, to), coarse, atol=1e-6)


def test_where_the_cells_are_whole_it_is_average_pooling() -> None:
    x = torch.randn(2, 3, 8, 12)
    torch.testing.assert_close(Pool((3, 8, 12), "NCHW", 4)(x), F.avg_pool2d(x, (2, 3)).flatten(1))


def test_channels_last_shapes_give_the_same_rows() -> None:
    x = torch.randn(2, 3, 7, 9)
    there = Pool((7, 9, 3), "NHWC", 2)(x.permute(0, 2, 3, 1))
    torch.testing.assert_close(there, Pool((3, 7, 9), "NCHW", 2)(x))


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
def test_prefix_tokens_are_kept_beside_the_grid(prefix: int) -> None:
    x = torch.randn(2, prefix + 49, 8)
    rows = Pool((prefix + 49, 8), "NLC", 4)(x)
    grid = Pool((8, 7, 7), "NCHW", 4)(x[:, prefix:].transpose(1, 2).reshape(2, 8, 7, 7))
    torch.testing.assert_close(rows, torch.cat([grid, x[:, :prefix].flatten(1)], 1))
    plan = pooled((prefix + 49, 8), "NLC", 4)
    coarse = Pool((prefix + 49, 8), "NLC", 2)(x).numpy()
    np.testing.assert_allclose(plan.coarsen(rows.numpy(), 2), coarse, atol=1e-6)


def test_tokens_that_form_no_square_are_averaged_beside_the_first() -> None:
    x = torch.randn(2, 12, 8)
    torch.testing.assert_close(Pool((12, 8), "NLC", 4)(x), torch.cat([x.mean(1), x[:, 0]], 1))


@pytest.mark.parametrize(("side", "grid"), [(1, 1), (2, 2), (3, 2), (4, 4)])
def test_an_activation_smaller_than_the_grid_halves_it(side: int, grid: int) -> None:
    assert pooled((3, side, side), "NCHW", 4).grid == grid


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((6,), "NC"),
        ((6, 7, 7), "NCHW"),
        ((7, 7, 6), "NHWC"),
        ((50, 6), "NLC"),
        ((12, 6), "NLC"),
        ((6, 5), "other"),
    ],
)
@pytest.mark.parametrize("grid", [1, 2, 4])
def test_the_plan_states_the_width(shape: tuple[int, ...], layout: str, grid: int) -> None:
    pool = Pool(shape, layout, grid)
    assert pool(torch.randn(3, *shape)).shape == (3, pooled(shape, layout, grid).width)
    assert not pool.state_dict()


def test_features_without_a_place_pass_unchanged() -> None:
    x = torch.randn(3, 6)
    assert Pool((6,), "NC", 4)(x) is x


def test_a_grid_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="does not follow"):
        coarsen(np.zeros((1, 16)), to=3)
