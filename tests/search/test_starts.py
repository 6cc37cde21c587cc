"""A recipe that starts from a probe finds one that reads where the recipe lets its head read."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from regraft.cache import Tap
from regraft.data import load_rows, read, transform_for
from regraft.errors import CutError, RecipeError
from regraft.search import Clock, Means, Prospect, Trial, decide, forecast, look_at, probe_for
from regraft.search.trial import right
from regraft.testing import tiny_images, tiny_source
from regraft.tune import RECIPES, Recipe

SHORT = RECIPES["finetune"].with_(epochs=1, min_updates=0)


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Means:
    return Means(tmp_path_factory.mktemp("cache"), runtime="torch")


@pytest.fixture(scope="module")
def prospect(means: Means) -> Prospect:
    X, y = tiny_images(12)
    return look_at(read((X, y)), tiny_source(), means)


def carried_out(prospect: Prospect, recipe: Recipe, means: Means, folder: Path) -> Trial:
    return decide(prospect, recipe, 3, means, folder=folder, clock=Clock(time.monotonic())).chosen


def places(prospect: Prospect, trial: Trial) -> list[int]:
    return [prospect.traced.cut(tap.cut).index for tap in trial.plan.taps]


@pytest.mark.parametrize(
    "changes",
    [
        {"drop_above": "block2"},
        {"drop_above": "block1", "cut": "stem"},
        {"taps": "block2@2"},
        {"taps": "block1+block3"},  # which no candidate of the profile reads
        {"taps": "block2@3"},
        {"taps": "feature"},
        {"cut": "block3"},
        {"cut": "block2", "unfreeze": 1},
        {"taps": "block2@2", "epochs": 0},
        {"drop_above": "block2", "epochs": 0},
    ],
    ids=lambda changes: " ".join(f"{name}={value}" for name, value in changes.items()),
)
def test_training_starts_from_a_probe_that_fits_the_recipe(
    prospect: Prospect, means: Means, tmp_path: Path, changes: dict
) -> None:
    recipe = SHORT.with_(**changes)
    trial = carried_out(prospect, recipe, means, tmp_path)
    assert trial.probe is not None and trial.plan.taps == tuple(trial.probe.candidate.taps)
    assert trial.plan.taps == forecast(prospect.features.data, prospect.source, recipe, means, Clock(0.0)).plan.taps
    assert trial.probe.fitted.head.weight.detach().abs().max() > 0
    if recipe.drop_above:
        assert max(places(prospect, trial)) <= prospect.traced.cut(recipe.drop_above).index
    if recipe.cut != "auto":
        assert min(places(prospect, trial)) >= prospect.traced.cut(recipe.cut).index


def test_the_best_probe_is_taken_wherever_it_fits(prospect: Prospect) -> None:
    assert probe_for(prospect, SHORT) is prospect.profile.best
    assert probe_for(prospect, SHORT.with_(cut="input")) is prospect.profile.best
    assert probe_for(prospect, SHORT.with_(head="fresh")) is None


def test_training_above_the_lowest_place_of_an_average_starts_from_the_single_probe(prospect: Prospect) -> None:
    """The average of heads reads low stages too; what is trained above them has to leave it."""
    low, high = (
        next(r for r in prospect.profile.results if [t.cut for t in r.candidate.taps] == [cut])
        for cut in ("stem", "block3")
    )
    profile = replace(prospect.profile, best=low, single=high)
    lifted = probe_for(replace(prospect, profile=profile), SHORT.with_(cut="block2"))
    assert lifted is not None and lifted.candidate == high.candidate


def test_a_probe_fitted_for_the_recipe_is_the_start_of_training(prospect: Prospect, means: Means, tmp_path: Path):
    """Epoch 0 scores as the probe does, whose weights were dropped from the profile or never fitted."""
    for taps in ("block2@2", "block1+block3"):
        trial = carried_out(prospect, SHORT.with_(taps=taps), means, tmp_path / taps)
        assert trial.history is not None and trial.probe is not None
        assert trial.history.rows[0].val_accuracy == pytest.approx(trial.probe.val_accuracy)


def test_what_is_misspelt_is_refused(prospect: Prospect, means: Means, tmp_path: Path) -> None:
    with pytest.raises(CutError, match="block2"):
        carried_out(prospect, SHORT.with_(taps="blok2@2"), means, tmp_path)
    with pytest.raises(RecipeError, match="lies below"):
        carried_out(prospect, SHORT.with_(taps="block1", cut="block3"), means, tmp_path)


def test_the_probe_of_a_recipe_agrees_with_one_of_the_profile(prospect: Prospect) -> None:
    found = probe_for(prospect, SHORT.with_(taps="block2@2"))
    assert found is not None and found.candidate.taps == (Tap("block2", 2),)
    again = next(r for r in prospect.profile.results if r.candidate == found.candidate)
    assert found.score == again.score and not torch.equal(found.fitted.head.weight, torch.zeros(1))
    assert np.isfinite(found.log_loss)


def delivered_score(prospect: Prospect, trial: Trial, split: str) -> float:
    """Of the whole network that is delivered, from the pictures themselves."""
    part = prospect.features.data.split(split)
    rows = torch.from_numpy(load_rows(part, transform_for(prospect.source.input)))
    with torch.no_grad():
        return float((trial.delivered()(rows).argmax(1).numpy() == part.labels).mean())


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"epochs": 0, "taps": "feature"},
        {"epochs": 0, "cut": "block1", "batch_norm": "reestimate"},
        {"head": "fresh", "replace": {"block3": "drop"}},
        {"head": "fresh", "replace": {"block1": "drop"}},
        {"head": "fresh", "replace": {"block2": "conv:16"}},
        {"head": "fresh", "restore": "stem|block1"},
        {"train": "block3"},
    ],
    ids=lambda changes: " ".join(f"{name}={value}" for name, value in changes.items()),
)
def test_what_is_judged_is_what_is_delivered(prospect: Prospect, means: Means, tmp_path: Path, changes: dict) -> None:
    trial = carried_out(prospect, SHORT.with_(**changes), means, tmp_path)
    assert trial.val_accuracy == pytest.approx(delivered_score(prospect, trial, "val"))
    assert right(trial, "test").mean() == pytest.approx(delivered_score(prospect, trial, "test"))


def test_without_epochs_nothing_counts_as_trained(prospect: Prospect, means: Means, tmp_path: Path) -> None:
    trial = carried_out(prospect, SHORT.with_(epochs=0), means, tmp_path)
    assert trial.plan.n_params("trained") == 0 and trial.plan.n_params("frozen") == prospect.source.n_params - 330


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"epochs": 0, "head": "fresh"}, "head must be 'probe'"),
        ({"replace": {"block3": "conv:8"}}, "head must be 'fresh'"),
        ({"restore": "stem"}, "head='fresh'"),
        ({"replace": {"block2": "drop"}, "head": "fresh", "cut": "block3"}, "cut='block1'"),
        ({"replace": {"block3": "drop"}, "head": "fresh", "cut": "output"}, "cut='block2'"),
        ({"augment": "flip-crop", "cut": "block2"}, "views=4"),
        ({"name": " "}, "something in it"),
    ],
    ids=str,
)
def test_what_would_be_a_head_on_other_features_is_refused(
    prospect: Prospect, means: Means, tmp_path: Path, changes: dict, remedy: str
) -> None:
    with pytest.raises(RecipeError, match=remedy):
        carried_out(prospect, SHORT.with_(**changes), means, tmp_path)


def test_a_recipes_name_is_no_path(prospect: Prospect, means: Means, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    carried_out(prospect, SHORT.with_(name="../../evil"), means, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
