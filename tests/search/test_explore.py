"""The search beyond the probe: it keeps what it tried, resumes to the same end, and delivers nothing unsure."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from regraft.data import Dataset, read, standard_error
from regraft.search import Clock, Decision, Means, Prospect, decide, explore, forecast, ideas, look_at, price, validate
from regraft.search.explain import describe_probe, percent
from regraft.search.price import STOPS
from regraft.search.trial import Trial, probe_trial, train_trial
from regraft.testing import tiny_images, tiny_source, tiny_text_source, tiny_texts
from regraft.tune import RECIPES

decide_module = sys.modules["regraft.search.decide"]  # its function has its name in the package
merit = explore.merit


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    """With labels so wrong that a probe has something left to win."""
    X, y = tiny_images(16)
    return read((X, np.where(np.arange(len(y)) % 7 == 0, (y + 1) % 3, y)))


def plain_first(trial: Trial) -> tuple[bool, tuple[float, float]]:
    """Who goes on here: one without views, so that the last round is made."""
    return not trial.plan.recipe.views, merit(trial)


@pytest.fixture(autouse=True, scope="module")
def time_enough() -> Iterator[None]:
    """What fits the time must not depend on how busy the machine is."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(explore, "LEAST_SECONDS", 1e6)
        patched.setattr(ideas, "_RATE", 1e-3)
        patched.setattr(explore, "merit", plain_first)
        yield


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Means:
    return Means(tmp_path_factory.mktemp("cache"), runtime="torch")


@pytest.fixture(scope="module")
def prospect(shapes: Dataset, means: Means) -> Prospect:
    return look_at(shapes, tiny_source(), means)


@pytest.fixture(scope="module")
def searched(prospect: Prospect, means: Means, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Decision]:
    folder = tmp_path_factory.mktemp("run")
    return folder, search(prospect, means, folder)


def search(prospect: Prospect, means: Means, folder: Path, limit: float | None = None) -> Decision:
    return decide(prospect, None, 3, means, folder=folder, clock=Clock(time.monotonic(), limit))


def study(folder: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(folder / "study.log")))
    return optuna.load_study(study_name="regraft", storage=storage)


def outcome(trial: Trial) -> tuple[str, float, list[float]]:
    return trial.name, trial.val_accuracy, trial.probabilities("test").ravel().tolist()


def test_every_trial_is_in_a_study_that_optuna_opens(searched: tuple[Path, Decision]) -> None:
    folder, decision = searched
    stored = study(folder).trials
    assert [trial.user_attrs["name"] for trial in stored] == [trial.name for trial in decision.trials]
    assert [trial.value for trial in stored] == [trial.val_accuracy for trial in decision.trials]
    tuned = stored[1]
    assert set(tuned.params) == {"cut", "reads", "lr"}
    assert next(iter(tuned.intermediate_values)) == 0


def test_a_forecast_names_the_first_round_that_a_search_then_has(
    shapes: Dataset, means: Means, searched: tuple[Path, Decision]
) -> None:
    seen = forecast(shapes, tiny_source(), None, means, Clock(time.monotonic()))
    assert seen.search is not None and len(seen.search.first_round) > 1
    short = [trial.name for trial in searched[1].trials if trial.name.endswith("short")]
    assert [f"{idea.name}, short" for idea in seen.search.first_round] == short
    limited = forecast(shapes, tiny_source(), None, means, Clock(time.monotonic(), limit=0.0))
    assert limited.search is not None and not limited.search.first_round


def test_short_runs_come_first_and_the_best_third_goes_on(searched: tuple[Path, Decision]) -> None:
    _, decision = searched
    _, *tuned, _ = decision.trials
    short = [trial for trial in tuned if trial.name.endswith("short")]
    full = [trial for trial in tuned if trial not in short]
    assert tuned == [*short, *full]
    assert len(full) == -(-len(short) // explore.KEPT)
    best = max(short, key=explore.merit)
    assert full[0].name == best.name.removesuffix(", short")


def test_the_best_of_the_second_round_is_tried_with_views(searched: tuple[Path, Decision]) -> None:
    folder, decision = searched
    _, *tuned, last = decision.trials
    best = max((t for t in tuned if not t.name.endswith("short")), key=explore.merit)
    assert last.name == f"{best.name}, {ideas.VIEWS} views" and last.plan.cut == best.plan.cut
    assert study(folder).trials[-1].params["views"] == ideas.VIEWS


def test_what_was_learnt_from_views_already_is_not_tried_with_views_again(
    prospect: Prospect, means: Means, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explore, "merit", lambda trial: (trial.plan.recipe.views, merit(trial)))
    _, *tuned = search(prospect, means, tmp_path).trials
    full = [trial for trial in tuned if not trial.name.endswith("short")]
    assert len(full) == -(-(len(tuned) - len(full)) // explore.KEPT)
    assert all(trial.name.endswith(f"learnt from {ideas.VIEWS} views") and trial.views == 1 for trial in full)


def test_views_are_left_out_where_their_frozen_passes_do_not_fit(
    prospect: Prospect, means: Means, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(price, "seconds_of_views", lambda plan, _: 1e6 if plan.recipe.views else 0.0)
    decision = search(prospect, means, tmp_path)
    assert not [trial for trial in decision.trials if trial.plan.recipe.views]
    every = [idea for deeper in ideas.ideas(prospect, 3) for idea in deeper]
    assert len(decision.trials[1:]) >= len([idea for idea in every if not idea.recipe.views])  # however deep


def test_evaluating_on_many_examples_is_reckoned_with(prospect: Prospect, means: Means, tmp_path: Path) -> None:
    (first, *_), *_ = (
        list(each) for each in ideas.ideas(prospect, prospect.profile.single.fitted.head.weight.shape[0])
    )
    assert first.fixed > 0 and first.seconds == STOPS * first.plan.seconds + first.fixed
    assert not explore._affordable([first], STOPS * first.plan.seconds)  # training alone would have been


def test_the_chosen_trial_is_the_probe_unless_it_is_surely_worse(searched: tuple[Path, Decision], means: Means) -> None:
    _, decision = searched
    probe, *tuned = decision.trials
    best = max(tuned, key=merit)
    sure = validate.sure_gain(best, probe, means)
    assert decision.chosen is (best if sure.points > sure.se else probe)
    assert f"{sure} over the probe on {sure.n} examples" in decision.why[-1]


@pytest.mark.parametrize("killed_in", [1, -1], ids=["first", "last, with views"])
def test_a_search_killed_at_any_trial_resumes_to_the_same_end(
    killed_in: int,
    searched: tuple[Path, Decision],
    prospect: Prospect,
    means: Means,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    killed_in %= len(searched[1].trials)

    def dying(*arguments: object, **options: object) -> Trial:
        calls.append(options)
        if len(calls) == killed_in:
            raise KeyboardInterrupt
        return train_trial(*arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(explore, "train_trial", dying)
        search(prospect, means, tmp_path)
    assert len(study(tmp_path).trials) == killed_in  # the probe, and those that ended
    again = search(prospect, means, tmp_path)
    assert [outcome(t) for t in again.trials] == [outcome(t) for t in searched[1].trials]
    assert len(study(tmp_path).trials) == len(again.trials)


def test_what_had_no_time_left_is_not_tried_when_a_search_is_resumed(
    prospect: Prospect, means: Means, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run has a new clock, and may have looked at the test split already."""

    def last(*arguments: object, **options: object) -> Trial:
        trial = train_trial(*arguments, **options)  # type: ignore[arg-type]
        patched.setattr(Clock, "left", 0.0)
        return trial

    with monkeypatch.context() as patched:
        patched.setattr(explore, "train_trial", last)
        ended = search(prospect, means, tmp_path, limit=1e6)
    again = search(prospect, means, tmp_path, limit=1e6)
    assert [trial.name for trial in again.trials] == [trial.name for trial in ended.trials]


def test_no_time_left_means_the_probe(prospect: Prospect, means: Means, tmp_path: Path) -> None:
    decision = search(prospect, means, tmp_path, limit=0.0)
    assert [trial.name for trial in decision.trials] == ["probe"]
    assert decision.chosen.history is None
    assert "no training was expected to fit the time: 0 s, what --time-limit leaves" in decision.why[-1]


def test_without_a_limit_the_search_says_how_long_it_gives_itself(
    prospect: Prospect, means: Means, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patience in ("PATIENCE", "PATIENCE_WITH_MANY", "LEAST_SECONDS"):
        monkeypatch.setattr(explore, patience, 0.0)
    decision = search(prospect, means, tmp_path)
    rows, held = len(prospect.features.labels("train")), percent(decision.chosen.val_accuracy)
    given = f"the search gives itself for {rows} training examples and a probe with {held} right on validation"
    assert decision.why[-1].endswith(f"the time: 0 s, which {given}. --time-limit 5m gives it more.")


def test_a_probe_that_was_asked_for_names_its_head_and_where_it_reads(
    prospect: Prospect, means: Means, tmp_path: Path
) -> None:
    decision = decide(prospect, RECIPES["probe"], 3, means, folder=tmp_path, clock=Clock(time.monotonic()))
    assert f"nothing trained by gradient, {describe_probe(prospect.profile.best)}, " in decision.why[0]


def test_the_standard_error_of_a_probe_stands_beside_the_accuracy_that_it_is_of(
    searched: tuple[Path, Decision], shapes: Dataset
) -> None:
    best, n = searched[1].chosen.prospect.profile.best, len(shapes.split("train")) + len(shapes.split("val"))
    assert best.se == pytest.approx(standard_error(np.arange(n) < round(best.score * n)))
    held = f"{percent(best.score)} ± {100 * best.se:.1f} held out of training and validation, N = {n}"
    assert held in searched[1].why[0]


def test_the_search_takes_less_time_where_there_is_less_to_win_or_to_learn_from() -> None:
    clock, all_of_it = Clock(time.monotonic()), 1e6  # LEAST_SECONDS of these tests
    assert explore.seconds_for(clock, wrong=0.5, rows=1000) == pytest.approx(all_of_it)
    assert explore.seconds_for(clock, wrong=0.125, rows=1000) == pytest.approx(all_of_it / 2)
    assert explore.seconds_for(clock, wrong=0.5, rows=48) == pytest.approx(all_of_it / 2)
    limited = Clock(time.monotonic(), limit=100.0)
    assert explore.seconds_for(limited, wrong=0.125, rows=16) == pytest.approx(100.0, abs=1.0)  # asked for, so taken


def test_ideas_are_legal_cheapest_depth_first_and_deeper_with_more_data(shapes: Dataset, prospect: Prospect) -> None:
    found = [idea for deeper in ideas.ideas(prospect, 3) for idea in deeper]
    assert len({idea.name for idea in found}) == len(found) > 0
    for idea in found:
        low = min(prospect.traced.cut(tap.cut).index for tap in idea.plan.taps)
        assert prospect.traced.cut(idea.plan.cut).index < low
        assert not idea.probe.fitted.head.weight.is_meta
    from_single = [idea.plan.cut for idea in found if idea.probe is prospect.profile.single]
    places = [prospect.traced.cut(cut).index for cut in from_single]
    assert places == sorted(places, reverse=True)


def test_a_poor_probe_with_plenty_of_examples_has_its_head_replaced(
    prospect: Prospect, means: Means, monkeypatch: pytest.MonkeyPatch
) -> None:
    def new_heads() -> dict[str, ideas.Idea]:
        found = [idea for deeper in ideas.ideas(prospect, 3) for idea in deeper]
        return {idea.recipe.head_layers: idea for idea in found if idea.recipe.head == "fresh"}

    monkeypatch.setattr(ideas, "_DEPTHS", (1,))
    assert not new_heads()
    monkeypatch.setattr(ideas, "POOR", 0.01)
    assert not new_heads()  # poor, with little data: layers are dropped instead
    monkeypatch.setattr(ideas, "MANY_PER_CLASS", 5)
    added = new_heads()
    assert set(added) == set(ideas.NEW_HEADS)
    recipe = added["mlp:256"].recipe.with_(epochs=3, min_updates=0)
    trained = train_trial(prospect, recipe, 3, means, probe=added["mlp:256"].probe)
    probe = probe_trial(prospect, RECIPES["probe"], 3)
    assert validate.sure_gain(trained, probe, means).n > len(prospect.features.labels("val"))  # held out too


def test_a_training_that_diverges_is_told_with_what_helps(prospect: Prospect, means: Means, tmp_path: Path) -> None:
    wild = RECIPES["finetune"].with_(lr=1e30, head_lr=1e30, clip=0.0, optimizer="sgd", keep="last")
    clock = Clock(time.monotonic())
    decision = decide(prospect, wild, 3, means, folder=tmp_path, clock=clock)
    assert "diverged by epoch" in decision.why[-1] and "lower lr" in decision.why[-1]
    assert np.isfinite(decision.chosen.probabilities("test")).all()


def test_few_validation_examples_bring_training_examples_in(prospect: Prospect, means: Means) -> None:
    probe = probe_trial(prospect, RECIPES["probe"], 3)
    recipe = RECIPES["finetune"].with_(min_updates=20, lr=1e-3, keep="last")
    tuned = train_trial(prospect, recipe, 3, means, probe=prospect.profile.single)
    y_train, y_val = (prospect.features.labels(split) for split in ("train", "val"))
    assert len(y_val) < validate.FEW
    assert validate.gain(tuned, probe).n == len(y_val)
    sure = validate.sure_gain(tuned, probe, means)
    assert sure.n == len(y_val) + len(y_train)
    assert validate.sure_gain(tuned, probe, means) == sure  # the same folds, the same answer
    assert validate.seconds_held_out(tuned) > 0
    assert validate.sure_gain(tuned, probe, means, held_out=False) == validate.gain(tuned, probe)


def test_training_examples_are_left_out_where_no_time_is_left_for_them(
    prospect: Prospect, means: Means, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_val = len(prospect.features.labels("val"))
    monkeypatch.setattr(decide_module, "seconds_held_out", lambda trial: 1e6)
    decision = search(prospect, means, tmp_path, limit=600.0)
    assert len(decision.trials) > 1 and f"over the probe on {n_val} examples" in decision.why[-1]


def test_a_trial_that_is_worse_gains_less_than_nothing(prospect: Prospect) -> None:
    probe = probe_trial(prospect, RECIPES["probe"], 3)
    network = copy.deepcopy(probe.network)
    torch.nn.init.zeros_(network.head.weight)  # scores every class alike but for the bias
    lost = validate.gain(replace(probe, network=network), probe)
    assert lost.points < 0
    assert not lost.convincing


def test_every_idea_trains_a_layer_of_the_source_and_none_twice(shapes: Dataset, prospect: Prospect) -> None:
    found = [idea for deeper in ideas.ideas(prospect, 3) for idea in deeper]
    assert found and all(any(name.startswith("body.") for name in idea.plan.trained) for idea in found)
    assert len({(frozenset(idea.plan.trained), idea.recipe.views, idea.plan.taps) for idea in found}) == len(found)


def test_a_resumed_search_tells_what_its_trials_took(
    searched: tuple[Path, Decision], prospect: Prospect, means: Means
) -> None:
    folder, first = searched
    again = search(prospect, means, folder)
    assert [trial.seconds for trial in again.trials[1:]] == [trial.seconds for trial in first.trials[1:]]


def test_texts_are_trained_once_as_deep_as_the_time_allows(means: Means, tmp_path: Path) -> None:
    texts = look_at(read(tiny_texts(12)), tiny_text_source(), means)
    n_classes = len(texts.features.data.classes)
    deeper = [idea.recipe.cut for each in ideas.ideas(texts, n_classes) for idea in each]
    for _ in ("first", "resumed"):
        found = decide(texts, None, n_classes, means, folder=tmp_path, clock=Clock(time.monotonic()))
        assert len(deeper) > 1 and [trial.plan.cut for trial in found.trials[1:]] == deeper[-1:]
