"""Gradual unfreezing: every step trains its own stages, from the cache at its own cut, and a kill changes nothing."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from regraft.cut import trace
from regraft.errors import RecipeError
from regraft.source import make_source
from regraft.spec import InputSpec
from regraft.tune import (
    RECIPES,
    ArrayRows,
    Event,
    History,
    Network,
    Plan,
    Recipe,
    Rows,
    frozen_prefix,
    full_network,
    starting_head,
    steps,
    train_steps,
    upper_network,
    whole,
)

RECIPE = Recipe("mine", head="fresh", unfreeze=3, epochs=6, lr=1e-2, head_lr=1e-2, keep="last", batch_size=8)
N_TRAIN = 24


class Computed:
    """Rows whose frozen layers run again for every batch."""

    lengths = None

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, prefix: torch.nn.Module) -> None:
        self.labels, self.prefix, self._pixels = labels, prefix, pixels

    def __len__(self) -> int:
        return len(self.labels)

    @torch.no_grad()
    def batch(self, indices: np.ndarray, epoch: int) -> torch.Tensor:
        return self.prefix(torch.from_numpy(self._pixels[indices]))


def plans_of(tiny, recipe: Recipe = RECIPE) -> tuple[Plan, ...]:
    return steps(recipe, tiny.source, tiny.traced, 3, n_train=N_TRAIN)


def run(tiny, *, cached: bool = True, recipe: Recipe = RECIPE, **options) -> tuple[Network, History]:
    def network_of(plan: Plan) -> Network:
        return upper_network(plan, tiny.source, tiny.traced, starting_head(plan, tiny.traced, None))

    def rows_of(plan: Plan, split: str) -> Rows:
        part = slice(0, N_TRAIN) if split == "train" else slice(N_TRAIN, None)
        pixels, labels = tiny.pixels[part], tiny.labels[part]
        if plan.cut == "input":
            return ArrayRows(pixels, labels)
        prefix = frozen_prefix(plan, tiny.source, tiny.traced)
        if not cached:
            return Computed(pixels, labels, prefix)
        with torch.no_grad():
            return ArrayRows(prefix(torch.from_numpy(pixels)).numpy(), labels)

    return train_steps(plans_of(tiny, recipe), network_of, rows_of, seed=0, **options)


def check_alike(one: History, other: History) -> None:
    for ours, theirs in zip(one.metrics(), other.metrics(), strict=True):
        assert ours[:2] == theirs[:2]
        assert [n or 0.0 for n in ours[2:]] == pytest.approx([n or 0.0 for n in theirs[2:]], rel=1e-3, abs=1e-5)


def test_steps_go_down_and_each_has_its_share_of_the_epochs(tiny) -> None:
    plans = plans_of(tiny)
    places = [tiny.traced.cut(plan.cut).index for plan in plans]
    assert places == sorted(places, reverse=True)
    assert [plan.n_epochs for plan in plans] == [2, 2, 2]
    for above, below in pairwise(plans):
        assert above.trained < below.trained


def test_fewer_epochs_than_steps_still_reach_the_last_stage(tiny) -> None:
    plans = plans_of(tiny, RECIPE.with_(epochs=1))
    assert [plan.n_epochs for plan in plans] == [1, 1, 1]
    assert plans[-1].cut == plans_of(tiny)[-1].cut


def test_it_ends_at_the_cut_that_is_named(tiny) -> None:
    assert [plan.cut for plan in plans_of(tiny, RECIPE.with_(unfreeze=2, cut="input"))] == ["block2", "input"]
    assert [plan.cut for plan in plans_of(tiny, RECIPE.with_(unfreeze="auto", cut="stem"))] == ["block2", "stem"]
    with pytest.raises(RecipeError, match=r"unfreeze = 3, .* 'block2', then 'stem' here.*unfreeze=2\)"):
        plans_of(tiny, RECIPE.with_(cut="stem"))


def test_an_unfrozen_stage_does_not_get_the_heads_rate(tiny) -> None:
    *_, last = plans_of(tiny, RECIPE.with_(lr=1e-4, head_lr=1e-2))
    rates = {(row.names[0].partition(".")[0], row.lr) for row in last.rows if row.state == "trained" and row.lr}
    assert {lr for part, lr in rates if part == "head"} == {1e-2}
    assert max(lr for part, lr in rates if part == "body") == 1e-4


def test_every_stage_changes_and_nothing_below_the_last_cut(tiny) -> None:
    network, history = run(tiny)
    before = tiny.source.model.state_dict()
    trained = plans_of(tiny)[-1].trained
    for name, value in network.state_dict().items():
        if name.startswith("body."):
            same = torch.equal(value, before[name.removeprefix("body.")])
            assert same == (name not in trained), name
    assert history.rows[-1].updates == sum(plan.updates for plan in plans_of(tiny))


def test_the_cache_and_the_pictures_give_the_same_history(tiny) -> None:
    check_alike(run(tiny)[1], run(tiny, cached=False)[1])


@pytest.mark.parametrize("moment", [1, 4, 6])
def test_killed_after_unfreezing_resumes_to_the_same_end(tiny, tmp_path: Path, moment: int) -> None:
    whole_network, whole = run(tiny)
    epochs = 0

    def dies(event: Event) -> None:
        nonlocal epochs
        epochs += event.kind == "epoch"
        if epochs == moment:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny, checkpoint=tmp_path / "run.pt", on_event=dies)
    network, history = run(tiny, checkpoint=tmp_path / "run.pt")
    assert history.metrics() == whole.metrics()
    state = whole_network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_a_step_that_diverges_is_told_and_the_next_starts_from_numbers(tiny) -> None:
    network, history = run(tiny, recipe=RECIPE.with_(lr=1e30, head_lr=1e30, clip=0.0, optimizer="sgd"))
    assert history.diverged == 1
    assert all(values.isfinite().all() for values in network.state_dict().values())


def test_a_time_limit_counts_the_making_of_rows(tiny) -> None:
    def network_of(plan: Plan) -> Network:
        return upper_network(plan, tiny.source, tiny.traced, starting_head(plan, tiny.traced, None))

    def rows_of(plan: Plan, split: str) -> Rows:
        time.sleep(0.6)
        with torch.no_grad():
            values = frozen_prefix(plan, tiny.source, tiny.traced)(torch.from_numpy(tiny.pixels))
        return ArrayRows(values.numpy(), tiny.labels)

    _, history = train_steps(plans_of(tiny)[:1], network_of, rows_of, seed=0, time_limit=1.0)
    assert history.rows[-1].updates == 0


def test_it_cannot_be_told_twice_what_trains() -> None:
    with pytest.raises(RecipeError, match="unfreeze goes down stage by stage"):
        RECIPES["gradual"].with_(train="layer4")
    with pytest.raises(RecipeError, match="so unfreeze must be 0"):
        RECIPES["gradual"].with_(augment="flip-crop", cut="input")


def test_a_rate_is_for_what_any_step_trains(tiny) -> None:
    first, middle, last = plans_of(tiny, RECIPE.with_(rates={"stem": 1e-5, r"block3\.conv": 1e-4}, layer_decay=1.0))
    for plan in (first, middle, last):
        rate = {name: row.lr for row in plan.rows for name in row.names if row.state == "trained"}
        assert rate["body.block3.conv.weight"] == 1e-4 and rate["body.block3.bn.weight"] == RECIPE.lr
        assert rate.get("body.stem.conv.weight") == (1e-5 if plan is last else None)


@pytest.mark.parametrize(
    ("pattern", "told"), [("stam", "matches no tensor"), ("stem", "are not trained"), ("classifier", "are not trained")]
)
def test_a_rate_for_what_no_step_trains_is_refused(tiny, pattern: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        plans_of(tiny, RECIPE.with_(rates={pattern: 1e-5}, unfreeze=2, cut="stem"))


def test_statistics_are_measured_in_the_steps_that_have_some() -> None:
    layers = [nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for _ in range(3)]
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.BatchNorm1d(6), *layers, nn.Linear(6, 2)).eval()
    source = make_source("test:low", "python:none:none", {}, model, InputSpec(size=(3, 2, 2)))
    recipe = RECIPE.with_(batch_norm="reestimate")
    *above, last = steps(recipe.with_(cut="input"), source, trace(model, torch.zeros(2, 3, 2, 2)), 2, n_train=8)
    measured = [any(row.batch_norm == "reestimate" for row in plan.rows) for plan in (*above, last)]
    assert measured == [False, False, True]
    with pytest.raises(RecipeError, match="there are none"):
        steps(recipe.with_(unfreeze=2), source, trace(model, torch.zeros(2, 3, 2, 2)), 2, n_train=8)


ANEW = [
    ({"restore": "stem|block[12]"}, ["block2", "stem", "input"]),
    ({"restore": r"block|stem\.conv"}, ["stem.conv", "input"]),
    ({"replace": {"block2": "conv:16"}}, ["block1", "stem", "input"]),
    ({"replace": {"block3": "drop"}}, ["stem", "input"]),
    ({"replace": {"block3": "conv:20"}, "restore": "stem|block1"}, ["block1", "stem", "input"]),
]


@pytest.mark.parametrize(
    ("changes", "cuts"), ANEW, ids=lambda value: " ".join(value) if isinstance(value, dict) else ""
)
def test_what_starts_anew_trains_from_the_first_step_on(tiny, changes: dict, cuts: list[str]) -> None:
    recipe = RECIPE.with_(unfreeze=len(cuts), **changes)
    plans = plans_of(tiny, recipe)
    assert [plan.cut for plan in plans] == cuts
    fresh = {
        n for row in plans[-1].rows if row.start == "fresh" for n in row.names if n not in ("head.mean", "head.scale")
    }
    assert fresh <= plans[0].trained
    first = upper_network(plans[0], tiny.source, tiny.traced, starting_head(plans[0], tiny.traced, None)).state_dict()
    network, history = run(tiny, recipe=recipe)
    state = network.state_dict()
    assert all(not torch.equal(state[name], first[name]) for name in plans[0].trained)
    check_alike(history, run(tiny, recipe=recipe, cached=False)[1])
    delivered = full_network(tiny.source, tiny.traced, plans[-1].taps, network.head, state, recipe=recipe)
    torch.testing.assert_close(delivered(torch.from_numpy(tiny.pixels)), network(torch.from_numpy(tiny.pixels)))


@pytest.mark.parametrize(
    ("changes", "highest"),
    [
        ({"cut": "output"}, "block2"),
        ({"cut": "block3", "taps": "feature"}, "block2"),
        ({"cut": "block2", "restore": "stem|block1"}, "block1"),
        ({"cut": "block2", "replace": {"block2": "conv:16"}}, "block1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_cut_above_which_no_step_can_train_is_refused(tiny, changes: dict, highest: str) -> None:
    recipe = RECIPE.with_(**changes)
    with pytest.raises(RecipeError, match=rf"'{highest}' or lower.*recipe\.with_\(cut='auto'\)"):
        plans_of(tiny, recipe)
    assert plans_of(tiny, recipe.with_(cut="auto"))[0].cut == highest


def test_a_head_below_which_nothing_has_parameters_is_told_so(tiny) -> None:
    recipe = RECIPE.with_(taps="input@4")
    with pytest.raises(RecipeError, match=r"unfreeze=0, cut='output'"):
        plans_of(tiny, recipe)
    assert plans_of(tiny, recipe.with_(unfreeze=0, cut="output"))[0].cut == "output"


def test_every_step_is_pulled_back_to_the_source_and_the_last_alone_interpolated(tiny) -> None:
    recipe = RECIPE.with_(l2_sp=1.0, interpolate=1.0, lr=0.1)
    first, *_, last = plans_of(tiny, recipe)
    assert (first.recipe.interpolate, last.recipe.interpolate) == (0.0, 1.0)
    network, _ = run(tiny, recipe=recipe)
    state, source = network.state_dict(), tiny.source.model.state_dict()
    for name in (name for name in last.trained if name.startswith("body.")):  # all the way back is the source itself
        torch.testing.assert_close(state[name], source[name.removeprefix("body.")], rtol=0, atol=1e-6)


def test_a_plan_tells_its_steps(tiny) -> None:
    plan = whole(RECIPE, plans_of(tiny))
    assert [cut for cut, _ in plan.steps] == ["block2", "stem", "input"]
    assert sum(updates for _, updates in plan.steps) == plan.updates
    assert "'block2' (6 updates), then 'stem'" in plan.where
