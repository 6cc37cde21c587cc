"""Views: cached versions of each training picture, drawn for each epoch, averaged at prediction where that helps."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from regraft.artifact import Delivery, load, save
from regraft.cache import Tap
from regraft.data import Dataset, Transform, load_pixels, read
from regraft.errors import BundleError, RecipeError
from regraft.search import Clock, Means, Prospect, Tally, Trial, decide, look_at, train_trial
from regraft.search.trial import rows_at, view_at
from regraft.testing import tiny_images, tiny_source
from regraft.tune import (
    RECIPES,
    LiveRows,
    Recipe,
    ViewRows,
    frozen_prefix,
    resolve,
    starting_head,
    train,
    upper_network,
)

RECIPE = RECIPES["finetune"].with_(name="views", cut="stem", epochs=4, min_updates=0, batch_size=8, views=3, lr=1e-2)


@pytest.fixture(scope="module")
def pictures() -> Dataset:
    X, y = tiny_images(12)
    return read((X, np.where(np.arange(len(y)) % 6 == 0, (y + 1) % 3, y)))


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Means:
    return Means(tmp_path_factory.mktemp("cache"), runtime="torch")


@pytest.fixture(scope="module")
def prospect(pictures: Dataset, means: Means) -> Prospect:
    return look_at(pictures, tiny_source(), means)


def carried_out(prospect: Prospect, recipe: Recipe, means: Means, checkpoint: Path | None = None) -> Trial:
    return train_trial(prospect, recipe, 3, means, probe=prospect.profile.single, checkpoint=checkpoint)


def plan_for(prospect: Prospect, recipe: Recipe):
    n_train = len(prospect.features.labels("train"))
    return resolve(recipe, prospect.source, prospect.traced, 3, probe=prospect.profile.single, n_train=n_train)


def test_each_epoch_draws_its_views_and_an_epoch_repeats_them(prospect: Prospect) -> None:
    plan, indices = plan_for(prospect, RECIPE), np.arange(16)
    rows = rows_at(prospect, plan, "train", augment_seed=0)
    each = torch.stack([view_at(prospect, plan, "train", k).batch(indices, 0) for k in range(3)])
    first, again, second = (rows.batch(indices, epoch) for epoch in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, second)
    drawn = (first == each).flatten(2).all(2)  # view, row
    assert (drawn.sum(0) == 1).all() and (drawn.sum(1) > 0).all()
    assert torch.equal(rows.batch(indices[5:9], 1), first[5:9])  # whatever else is in the batch
    assert torch.equal(rows.batch(indices, 0), each[0])  # epoch 0 is plain


@pytest.mark.parametrize("cut", ["stem", "input", "output"])
def test_one_view_is_no_views(prospect: Prospect, means: Means, cut: str) -> None:
    none, one = (carried_out(prospect, RECIPE.with_(cut=cut, views=views), means) for views in (0, 1))
    assert none.history is not None and one.history is not None
    assert none.history.metrics() == one.history.metrics()


@pytest.mark.parametrize("cut", ["stem", "input", "output"])
def test_views_are_trained_on_at_every_cut(prospect: Prospect, means: Means, cut: str) -> None:
    none, some = (carried_out(prospect, RECIPE.with_(cut=cut, views=views), means) for views in (0, 3))
    assert none.history is not None and some.history is not None
    assert none.history.rows[0].val_loss == some.history.rows[0].val_loss
    assert none.history.rows[1].train_loss != some.history.rows[1].train_loss


def test_cached_views_and_live_views_give_the_same_history(prospect: Prospect, means: Means) -> None:
    cached = carried_out(prospect, RECIPE, means).history
    plan = plan_for(prospect, RECIPE)
    prefix = frozen_prefix(plan, prospect.source, prospect.traced)
    data, spec = prospect.features.data, prospect.source.input
    views = [LiveRows(data.split("train"), Transform(spec, view), prefix) for view in range(3)]
    val = LiveRows(data.split("val"), Transform(spec), prefix)
    head = starting_head(plan, prospect.traced, prospect.profile.single)
    network = upper_network(plan, prospect.source, prospect.traced, head)
    live = train(plan, network, ViewRows(views, seed=means.seed), val, seed=means.seed)
    assert cached is not None
    for ours, theirs in zip(cached.metrics(), live.metrics(), strict=True):
        assert ours[:2] == theirs[:2]
        np.testing.assert_allclose(
            np.array(ours[2:], dtype=float), np.array(theirs[2:], dtype=float), rtol=1e-3, atol=1e-5
        )


def test_killed_and_resumed_is_uninterrupted(
    prospect: Prospect, means: Means, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = carried_out(prospect, RECIPE, means, tmp_path / "whole.pt")
    batch = ViewRows.batch

    def dying(self: ViewRows, indices: np.ndarray, epoch: int) -> torch.Tensor:
        if epoch == 3:
            raise KeyboardInterrupt
        return batch(self, indices, epoch)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(ViewRows, "batch", dying)
        carried_out(prospect, RECIPE, means, tmp_path / "killed.pt")
    again = carried_out(prospect, RECIPE, means, tmp_path / "killed.pt")
    assert whole.history is not None and again.history is not None
    assert again.history.metrics() == whole.history.metrics()
    assert np.array_equal(again.probabilities("test"), whole.probabilities("test"))


def test_only_training_pictures_are_passed_in_views_and_the_plan_counts_them(
    pictures: Dataset, means: Means, tmp_path: Path
) -> None:
    prospect = look_at(pictures, tiny_source(), replace(means, root=tmp_path))
    n_train = len(prospect.features.labels("train"))
    before = prospect.features.tally.computed
    plain, viewed = (plan_for(prospect, RECIPE.with_(views=views)) for views in (0, 3))
    assert viewed.bytes == 3 * plain.bytes == 3 * n_train * 4 * int(np.prod(prospect.traced.cut("stem").shape))
    assert "3 views" in str(viewed.table().caption)
    carried_out(prospect, RECIPE, replace(means, root=tmp_path))
    plain_rows = n_train + len(prospect.features.labels("val"))
    assert prospect.features.tally.computed - before == plain_rows + 2 * n_train


@pytest.mark.parametrize("views", [0, 2])
def test_training_from_the_input_caches_nothing_and_the_plan_says_so(
    pictures: Dataset, means: Means, tmp_path: Path, views: int
) -> None:
    prospect = look_at(pictures, tiny_source(), replace(means, root=tmp_path))
    before = prospect.features.tally
    recipe = RECIPE.with_(cut="input", views=views)
    plan = plan_for(prospect, recipe)
    assert plan.bytes == 0 and "nothing more to cache" in str(plan.table().caption)
    carried_out(prospect, recipe, replace(means, root=tmp_path))
    assert prospect.features.tally == before


def test_predictions_are_averaged_over_views_if_asked(prospect: Prospect, means: Means) -> None:
    trial = carried_out(prospect, RECIPE.with_(average_views=4), means)
    assert trial.views == 4
    pixels = [
        load_pixels(prospect.features.data.split("test"), Transform(prospect.source.input, view)) for view in range(4)
    ]
    network = trial.delivered()
    with torch.no_grad():
        each = [network(torch.from_numpy(view)).double().softmax(1).numpy() for view in pixels]
    np.testing.assert_allclose(trial.probabilities("test"), np.mean(each, axis=0), atol=1e-5)
    right = trial.probabilities("val").argmax(1) == prospect.features.labels("val")
    assert trial.val_accuracy == pytest.approx(right.mean())


def test_a_time_limit_holds_the_views_to_average_over(
    prospect: Prospect, means: Means, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prospect.features, "tally", Tally(computed=1, seconds=1e6))
    for views, trains in ((0, True), (2, False)):
        trial = train_trial(
            prospect, RECIPE.with_(average_views=views), 3, means, probe=prospect.profile.single, time_limit=1e3
        )
        assert trial.history is not None and bool(trial.history.rows[-1].updates) == trains


@pytest.mark.parametrize("helps", [True, False])
def test_auto_averages_only_where_validation_gains(
    prospect: Prospect, means: Means, monkeypatch: pytest.MonkeyPatch, helps: bool
) -> None:
    from regraft.search import trial as module

    labels = prospect.features.labels("val")

    def right(trial: Trial, split: str) -> np.ndarray:
        return np.ones(len(labels), bool) if helps == (trial.views > 1) else np.arange(len(labels)) % 3 > 0

    monkeypatch.setattr(module, "right", right)
    assert carried_out(prospect, RECIPE.with_(average_views="auto"), means).views == (3 if helps else 1)


def test_a_bundle_keeps_the_number_and_predicts_alike(
    prospect: Prospect, means: Means, pictures: Dataset, tmp_path: Path
) -> None:
    trial = carried_out(prospect, RECIPE.with_(average_views=3), means)
    test = prospect.features.data.split("test")
    delivery = Delivery(
        network=trial.delivered(),
        source=prospect.source,
        taps=trial.plan.taps,
        classes=pictures.classes,
        rows=load_pixels(test, Transform(prospect.source.input)),
        recipe=trial.plan.recipe.to_dict(),
        views=trial.views,
    )
    folder = save(tmp_path / "model", delivery)
    model = load(folder)
    assert model.bundle.views == 3
    answers = model.predict_proba(test)
    np.testing.assert_allclose(answers, trial.probabilities("test"), atol=1e-5)
    shown = [Image.fromarray(x) for x in tiny_images(1)[0]]
    alone = [model.predict_proba([image])[0] for image in shown]
    np.testing.assert_allclose(model.predict_proba(shown), alone, atol=1e-6)  # seeded by content, not by place
    config = (folder / "config.json").read_text()
    for wrong in ("0", "1000000", '"many"', "true"):
        (folder / "config.json").write_text(config.replace('"views": 3,\n  "recipe"', f'"views": {wrong},\n  "recipe"'))
        with pytest.raises(BundleError, match="views"):
            load(folder)


def test_a_recipe_with_views_goes_through_the_door(prospect: Prospect, means: Means, tmp_path: Path) -> None:
    recipe = RECIPE.with_(unfreeze=2, cut="auto", average_views=2)
    decision = decide(prospect, recipe, 3, means, folder=tmp_path, clock=Clock(time.monotonic()))
    assert "averaged over 2 views" in decision.why[-1]


def test_impossible_views_are_refused() -> None:
    for wrong in ({"views": -1}, {"views": 65}, {"average_views": "some"}, {"views": 0, "average_views": "auto"}):
        with pytest.raises(RecipeError, match="views"):
            RECIPE.with_(**wrong)
    assert Recipe.from_toml(RECIPE.with_(average_views="auto").to_toml()).average_views == "auto"


def test_views_have_caches_of_their_own(prospect: Prospect, means: Means) -> None:
    plan = plan_for(prospect, RECIPE)
    rows = [prospect.features.activations(Tap(plan.cut), "train", view).batch(np.arange(8), 0) for view in (0, 1, 2)]
    assert not torch.equal(rows[0], rows[1]) and not torch.equal(rows[1], rows[2])
