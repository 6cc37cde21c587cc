"""The depth profile finds the depth that holds the answer, reads only what it may, and stays within its limits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from regraft.cache import Tap
from regraft.cache.pool import Pool
from regraft.cut import Cut
from regraft.errors import DataError
from regraft.head import LinearHead
from regraft.probe import candidates, depth_profile, derived, limits, profile, raw_pixels, refit, select, taps_wanted
from regraft.probe.average import mean_head

K = 3
SHAPES = {"early": (4, 8, 8), "middle": (6, 8, 8), "late": (8, 4, 4), "feature": (8,)}
LAYOUT = {3: "NCHW", 2: "NLC", 1: "NC"}


def network(shapes: dict[str, tuple[int, ...]] = SHAPES) -> Any:
    """What the profile reads of a traced network: its stages."""
    stages = tuple(
        Cut(name, name, shape, i, i, LAYOUT[len(shape)], 0) for i, (name, shape) in enumerate(shapes.items())
    )
    return SimpleNamespace(stages=stages, feature=stages[-1])


class Rows:
    """Pooled activations that are noise, but for a pattern in one corner of the middle stage."""

    def __init__(self, n_train: int = 45, n_val: int = 30) -> None:
        self.y = {"train": np.arange(n_train) % K, "val": np.arange(n_val) % K}
        self.read: set[tuple[Tap, str]] = set()
        rng = np.random.default_rng(0)
        self.rows = {}
        for split, y in self.y.items():
            for cut in network().stages:
                x = rng.normal(size=(len(y), *cut.shape)).astype(np.float32)
                if cut.name == "middle":
                    x[np.arange(len(y)), y, :2, :2] += 2.0
                    x[np.arange(len(y)), y, -2:, -2:] -= 2.0  # the mean over all places says nothing
                self.rows[cut.name, split] = Pool(cut.shape, cut.layout, 4)(torch.tensor(x)).numpy()

    def __call__(self, tap: Tap, split: str) -> np.ndarray:
        assert tap in taps_wanted(network())
        self.read.add((tap, split))
        return self.rows[tap.cut, split]

    def profile(self, **options: Any) -> profile.DepthProfile:
        return depth_profile(self, self.y["train"], self.y["val"], network(), K, **options)


@pytest.fixture(scope="module")
def rows() -> Rows:
    return Rows()


@pytest.fixture(scope="module")
def found(rows: Rows) -> profile.DepthProfile:
    return rows.profile()


def test_it_finds_the_stage_and_the_grid(found: profile.DepthProfile) -> None:
    best = {result.candidate.taps[0].cut: result for result in found.per_stage()}
    assert list(best) == list(SHAPES)
    assert best["middle"].candidate.taps[0].grid > 1
    assert best["middle"].score > max(best[name].score for name in ("early", "late", "feature")) + 0.2
    assert any(tap.cut == "middle" for tap in found.best.candidate.taps)
    assert found.best.val_accuracy > 0.9


def test_every_split_but_test_is_read(rows: Rows, found: profile.DepthProfile) -> None:
    assert {split for _, split in rows.read} == {"train", "val"}


def test_the_same_input_gives_the_same_profile(rows: Rows, found: profile.DepthProfile) -> None:
    again = rows.profile()
    assert [r.score for r in again.results] == [r.score for r in found.results]
    assert torch.equal(again.best.fitted.head.weight, found.best.fitted.head.weight)


def test_scores_are_those_of_the_delivered_head(rows: Rows, found: profile.DepthProfile) -> None:
    for result in (found.best, found.single):
        X = side_by_side(rows, result.candidate.taps, "val")
        scores = result.fitted.head(torch.tensor(X)).detach().numpy()
        assert result.val_accuracy == np.mean(scores.argmax(axis=1) == rows.y["val"])
        assert np.allclose(scores, result.val_scores, atol=1e-3)


def test_an_average_reads_stages_in_the_order_of_the_flow(found: profile.DepthProfile) -> None:
    averages = [result.candidate for result in found.results if result.candidate.members]
    assert averages
    for candidate in averages:
        places = [(found.stages.index(tap.cut), tap.grid) for tap in candidate.taps]
        assert places == sorted(places)


def test_score_counts_every_example_once(found: profile.DepthProfile) -> None:
    for result in found.results:
        assert result.cv_accuracy is not None
        expected = (45 * result.cv_accuracy + 30 * result.val_accuracy) / 75
        assert result.score == pytest.approx(expected)


def test_only_heads_to_deliver_have_values(found: profile.DepthProfile) -> None:
    real = [r for r in found.results if not r.fitted.head.weight.is_meta]
    assert {id(r) for r in real} == {id(found.best), id(found.single)}


def test_refit_on_the_same_rows_gives_the_same_head(rows: Rows, found: profile.DepthProfile) -> None:
    for result in (found.best, found.single):
        X = side_by_side(rows, result.candidate.taps, "train")
        again = refit(result.candidate, X, rows.y["train"], K)
        assert torch.allclose(again.head.weight, result.fitted.head.weight, atol=1e-5)
        assert again.cv_accuracy == result.fitted.cv_accuracy


def test_mean_head_scores_the_mean_of_its_members() -> None:
    rng = np.random.default_rng(0)
    mean, scale = torch.randn(5), torch.rand(5) + 0.5
    columns = [np.array([0, 1, 2]), np.array([2, 3, 4])]
    heads = [
        LinearHead.from_arrays(rng.normal(size=(K, 3)), rng.normal(size=K), mean[places].numpy(), scale[places].numpy())
        for places in columns
    ]
    x = torch.randn(7, 5)
    expected = sum(head(x[:, places]) for head, places in zip(heads, columns, strict=True))
    assert torch.allclose(mean_head(heads, columns, factor=2.0)(x), torch.as_tensor(expected), atol=1e-5)


def test_without_validation_the_held_out_training_scores_decide() -> None:
    found = Rows(n_val=0).profile()
    assert np.isnan(found.best.val_accuracy)
    assert found.best.score == found.best.cv_accuracy
    assert any(tap.cut == "middle" for tap in found.best.candidate.taps)


def test_a_time_limit_still_leaves_an_answer(rows: Rows) -> None:
    found = rows.profile(time_limit=0.0)
    assert [r.candidate.taps for r in found.results] == [(Tap("feature"),)]
    assert found.best is found.single
    assert "Stopped after 0 seconds" in found.notes[0]


def test_wide_sets_are_left_out_and_named(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_NUMBERS", 45 * 30)
    found = rows.profile()
    singles = [r for r in found.results if not r.candidate.members]
    assert max(r.n_features for r in singles) <= 30
    assert "sets of features were not tried" in found.notes[0]


def test_many_rows_ask_for_coarser_grids_and_read_no_finer_ones() -> None:
    per_row = limits.MOST_NUMBERS // (6 * 16)  # the middle stage no longer fits on 4x4, the early one does
    wanted = taps_wanted(network(), per_row + 1)
    assert wanted == (Tap("early", 4), Tap("middle", 2), Tap("late", 2), Tap("feature", 0))
    assert taps_wanted(network(), 10**9)[0] == Tap("early", 1)
    read: list[Tap] = []
    features = derived(lambda tap, split: (read.append(tap), np.ones((2, 24)))[1], network(), per_row + 1)
    assert features(Tap("middle", 1), "train").shape == (2, 6)
    assert read == [Tap("middle", 2)]


def test_a_class_without_examples_is_an_error(rows: Rows) -> None:
    with pytest.raises(DataError, match=r"counts are \[15, 15, 15, 0\].*np.unique"):
        depth_profile(rows, rows.y["train"], rows.y["val"], network(), K + 1)


def test_candidates_are_the_narrowest_first_and_none_twice() -> None:
    traced = network()
    widths = [sum(_width(tap) for tap in candidate.taps) for candidate in candidates(traced)]
    assert widths == sorted(widths)
    assert len(set(candidates(traced))) == len(candidates(traced))
    joined = [c.taps for c in candidates(traced) if len(c.taps) > 1]
    # The feature is the late stage, pooled: joined with it, everything would count twice.
    assert not any(tap.cut == "feature" for taps in joined for tap in taps)


def _width(tap: Tap) -> int:
    shape = SHAPES[tap.cut]
    return shape[0] * (tap.grid**2 if len(shape) == 3 else 1)


def test_taps_wanted_are_the_finest_grids() -> None:
    assert taps_wanted(network()) == (Tap("early", 4), Tap("middle", 4), Tap("late", 4), Tap("feature", 0))


@pytest.mark.parametrize(("shape", "layout"), [((3, 7, 7), "NCHW"), ((3, 2, 2), "NCHW"), ((50, 4), "NLC")])
@pytest.mark.parametrize("grid", [1, 2, 4])
def test_derived_rows_equal_pooling_to_that_grid(shape: tuple[int, ...], layout: str, grid: int) -> None:
    cut = Cut("a", "a", shape, 0, 0, layout, 0)
    traced: Any = SimpleNamespace(stages=(cut,), feature=cut)
    x = torch.randn(5, *shape)
    features = derived(lambda tap, split: Pool(shape, layout, tap.grid)(x).numpy(), traced)
    assert np.allclose(features(Tap("a", grid), "train"), Pool(shape, layout, grid)(x).numpy(), atol=1e-6)


def test_selection_prefers_log_loss_among_equals(found: profile.DepthProfile) -> None:
    top = max(found.results, key=lambda r: r.score)
    near = [r for r in found.results if r.score >= top.score - top.se]
    assert select(found.results).log_loss == pytest.approx(min(r.log_loss for r in near), abs=1e-4)


def test_raw_pixels_see_a_brighter_class() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = (rng.integers(0, 100, size=(60, 3, 48, 40)) + 60 * y[:, None, None, None]).astype(np.uint8)
    accuracy, fitted = raw_pixels(X[:40], y[:40], X[40:], y[40:], 2)
    assert accuracy == 1.0
    assert fitted.head.weight.shape == (2, 3 * 32 * 32)


def side_by_side(rows: Rows, taps: tuple[Tap, ...], split: str) -> np.ndarray:
    features = derived(rows, network())
    return np.concatenate([features(tap, split) for tap in taps], axis=1)


def test_many_rows_are_screened_on_a_few_that_hold_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.repeat(np.arange(K), [60, 30, 10])
    monkeypatch.setattr(limits, "_FEW", 30)
    monkeypatch.setattr(limits, "_FEW_PER_CLASS", 1)
    few = limits.few_rows(y, K, seed=0)
    assert few is not None
    assert np.bincount(y[few]).tolist() == [10, 10, 10]
    assert limits.few_rows(y[few], K, seed=0) is None


def test_screening_drops_sets_but_finds_the_same_stage(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_FEW", 20)
    monkeypatch.setattr(limits, "_FEW_PER_CLASS", 1)
    monkeypatch.setattr(limits, "_BEST_OF_FEW", 2)
    found = rows.profile()
    tried = {result.candidate.taps for result in found.results if not result.candidate.members}
    assert len(tried) < len({candidate.taps for candidate in candidates(network())})
    assert [result.candidate.taps[0].cut for result in found.per_stage()] == list(SHAPES)
    assert any(tap.cut == "middle" for tap in found.best.candidate.taps)
    assert "judged on 20 training examples first" in found.notes[0]
