"""Evidence is gathered once, kept when interrupted, and says what was compared with what."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import regraft.evidence.arms as arms
import regraft.evidence.controls as controls
import regraft.evidence.depth as depth
from regraft.cache import Tap
from regraft.cut import between, trace
from regraft.data import read
from regraft.evidence import Case, RunStore, measure
from regraft.evidence.arms import Pace
from regraft.evidence.conclude import Control, against_trivial
from regraft.evidence.runs import Point, RawRun
from regraft.head import LinearHead
from regraft.search import Means, look_at, probe_for, probe_trial, train_trial
from regraft.testing import tiny_images, tiny_source
from regraft.tune import RECIPES, network_above


@pytest.fixture(autouse=True)
def _short_scratch(monkeypatch) -> None:
    """Training from scratch to its end would take most of the time of these tests."""
    monkeypatch.setitem(RECIPES._entries, "scratch", RECIPES["scratch"].with_(epochs=4, min_updates=20))


@pytest.fixture
def case(tmp_path: Path, shapes) -> Case:
    means = Means(root=tmp_path / "cache", runtime="torch")
    chosen = probe_trial(look_at(shapes, tiny_source(), means), RECIPES["probe"], 3)
    return _case(chosen, means, shapes)


def _case(chosen, means, pool) -> Case:
    correct = chosen.probabilities("test").argmax(1) == chosen.prospect.features.labels("test")
    return Case(chosen, correct, 60.0, means, pool)  # enough on any machine


def test_a_quick_measurement_has_both_controls_and_all_raw_runs(case: Case):
    found = measure(case, "quick")
    assert json.loads(json.dumps(found)) == found
    assert [c["name"] for c in found["controls"] if c["matched"]] == ["fresh weights", "scratch"]
    runs = [RawRun.from_dict(values) for values in found["runs"]]
    fresh = np.stack([run.correct for run in runs if run.arm == "fresh weights"])
    shown = {c["name"]: c for c in found["controls"]}
    assert shown["fresh weights"]["accuracy"] == pytest.approx(fresh.mean())
    assert shown["fresh weights"]["runs"] == len(fresh) <= controls.DRAWS
    assert len({run.seed for run in runs if run.arm == "fresh weights"}) == len(fresh)
    assert found["benefits"]["asymptote"]["difference"] == found["difference"]
    scratch = next(run for run in runs if run.arm == "scratch")
    assert scratch.points[0].updates == 0 and len(scratch.points) > 1
    assert found["parts"]["over_scratch"] == pytest.approx(found["parts"]["procedure"] + found["parts"]["weights"])


def test_an_interrupted_measurement_goes_on_after_the_last_run_that_ended(case: Case, tmp_path: Path, monkeypatch):
    store = RunStore(tmp_path / "controls", ["x"])

    def stop(*arguments: object, **named: object) -> RawRun:
        raise KeyboardInterrupt

    scratch = controls.from_scratch
    monkeypatch.setattr(controls, "from_scratch", stop)
    with pytest.raises(KeyboardInterrupt):
        measure(case, "quick", store)
    kept = len(list((tmp_path / "controls").iterdir()))
    assert kept >= 1
    monkeypatch.setattr(controls, "from_scratch", scratch)
    made = []
    monkeypatch.setattr(controls, "on_fresh_weights", lambda *arguments: made.append(1) or stop())
    monkeypatch.setattr(controls, "DRAWS", kept)
    found = measure(case, "quick", store)
    assert not made
    assert sum(run["arm"] == "fresh weights" for run in found["runs"]) == kept


def test_a_full_measurement_has_curves_over_labels_and_an_answer_for_them(case: Case, monkeypatch):
    monkeypatch.setattr(controls, "SEEDS", 2)
    monkeypatch.setattr(controls, "SMALLER", 2)
    monkeypatch.setattr(depth, "RECIPE", depth.RECIPE.with_(min_updates=4))
    monkeypatch.setattr(depth, "CUTS", 1)
    found = measure(case, "full")
    sizes = found["label_curves"]["transfer"]["n_train"]
    assert len(sizes) == 3 and sizes[-1] == case.n_train
    assert {run["seed"] for run in found["runs"]} == {0, 1}
    answer = found["labels_to_match"]["scratch"]
    assert (answer["n"] is None) == (answer["more_than"] == case.n_train)
    assert found["power_laws"]["transfer"]["fixed_limit"]
    assert [row["variant"] for row in found["depth"][:3]] == ["kept", "parted", "tuned"]


def test_parted_layers_are_fresh_above_the_cut_and_the_sources_below(case: Case):
    traced = case.chosen.prospect.traced
    cut = depth.chosen_cuts(case)[0]
    network = network_above(traced, "input", [Tap(traced.feature.name)], LinearHead.zeros(32, 3), source=case.source)
    # The tiny source itself is made with seed 0.
    depth.refresh_above(network, replace(case, means=case.with_seed(5)), cut)
    above = between(traced, cut, [traced.feature.name]).state_dict().keys()
    source = case.source.model.state_dict()
    for name, tensor in network.state_dict().items():
        if name.startswith("body.") and tensor.ndim > 1:
            inner = name.removeprefix("body.")
            assert torch.equal(tensor, source[inner]) == (inner not in above)


def test_a_trained_model_is_compared_with_trained_ones(tmp_path: Path, shapes):
    means = Means(root=tmp_path / "cache", runtime="torch")
    prospect = look_at(shapes, tiny_source(), means)
    recipe = RECIPES["finetune"].with_(min_updates=0, epochs=4)
    chosen = train_trial(prospect, recipe, 3, means, probe=prospect.profile.single)
    found = measure(_case(chosen, means, shapes), "quick")
    fresh = next(run for run in found["runs"] if run["arm"] == "fresh weights")
    assert fresh["points"][-1]["updates"] > 0
    transfer = next(run for run in found["runs"] if run["arm"] == "transfer")
    assert transfer["points"][0]["updates"] == 0


@pytest.mark.parametrize(
    "changes", [{}, {"interpolate": 0.5}, {"interpolate": 0.5, "unfreeze": 0}, {"average": "ema", "unfreeze": 0}]
)
def test_the_delivered_procedure_is_repeated_step_by_step(tmp_path: Path, shapes, changes: dict):
    means = Means(root=tmp_path / "cache", runtime="torch")
    settings = {"head": "fresh", "taps": "feature", "epochs": 9, "min_updates": 0, "lr": 1e-2, "keep": "last"}
    recipe = RECIPES["gradual"].with_(unfreeze=3, patience=0, batch_size=8).with_(**settings | changes)
    chosen = train_trial(look_at(shapes, tiny_source(), means), recipe, 3, means)
    assert chosen.history
    case = _case(chosen, means, shapes)
    again, fresh = arms.transferred(case, shapes, 0), arms.on_fresh_weights(case, shapes, 5)
    expected = [row.updates for row in chosen.history.rows]
    for run in (again, fresh):
        assert [point.updates for point in run.points][: len(expected)] == expected
        seconds = [point.seconds for point in run.points]
        assert seconds == sorted(seconds)
    assert np.array_equal(again.correct, case.correct)
    assert 0.4 < again.correct.mean() < 1.0


@pytest.mark.parametrize("n_train", [17, 33, 48])
def test_scratch_makes_the_updates_that_it_was_asked_for(case: Case, n_train: int):
    """A lone row joins the batch before, so that 17 rows are one batch of 16, and 33 are two."""
    run = arms.from_scratch(case, read(tiny_images(40)).train_size(n_train, 0), 0, updates=12)
    assert (run.n_train, run.updates) == (n_train, 12)


def test_where_fresh_weights_leave_fewer_stages_all_of_them_are_unfrozen(tmp_path: Path, shapes):
    means = Means(root=tmp_path / "cache", runtime="torch")
    recipe = RECIPES["gradual"].with_(unfreeze=3, epochs=3, min_updates=0, cut="input")
    prospect = look_at(shapes, tiny_source(), means)
    probe = probe_for(prospect, recipe.with_(taps="feature"))
    chosen = train_trial(prospect, recipe.with_(taps="feature"), 3, means, probe=probe)
    low = replace(chosen, plan=replace(chosen.plan, recipe=recipe.with_(taps="stem@1")))
    run = arms.on_fresh_weights(_case(low, means, shapes), shapes, 1)
    assert len(run.points) == 4  # one step of three epochs


def test_without_controls_only_trivial_ones_are_compared(case: Case):
    found = measure(case, "off")
    assert {c["name"] for c in found["controls"]} == {"majority", "raw pixels"}
    assert "no control with the same network was run" in found["sentence"]


def test_scratch_without_time_is_left_out_and_that_is_said(case: Case, monkeypatch):
    found = measure(replace(case, seconds=1e-3), "quick")
    assert [c["name"] for c in found["controls"] if c["matched"]] == ["fresh weights"]
    assert "Training from scratch was left out for want of time" in found["sentence"]
    assert found["parts"] == {}


def test_random_weights_are_never_praised_for_beating_a_linear_model():
    """Without a matched control the verdict cannot be "helps", however far above raw pixels the model is."""
    raw = Control("raw pixels", "a linear model on raw pixels", np.arange(200)[None] < 100, 0.1)
    found = against_trivial(np.arange(200) < 190, [raw])
    assert found["ci95"][0] > 0.3
    assert found["verdict"] == "no difference" and found["rests_on"] == ["raw pixels"]
    assert found["sentence"].startswith("Transfer was not measured: no control with the same network was run. Against")
    assert "the model has +45.0 points" in found["sentence"]
    assert against_trivial(np.arange(200) < 60, [raw])["verdict"] == "hurts"
    untaught = against_trivial(np.arange(200) < 60, [raw], pretrained=False)
    assert untaught["verdict"] == "no difference" and "no pretrained weights" in untaught["sentence"]


class _Clock:
    """Time that passes only where a run says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("seconds", "limit", "draw"),
    [(10.0, None, 0.5), (10.0, None, 1.9), (10.0, None, 3.0), (10.0, None, 6.0), (10.0, None, 9.4), (30.0, 10.0, 1.9)],
)
@pytest.mark.parametrize("slower", [1.0, 3.0])
def test_controls_take_no_longer_than_the_fit_did_nor_than_a_limit_leaves(
    seconds: float, limit: float | None, draw: float, slower: float, case: Case, monkeypatch
):
    """Ten seconds for everything, whatever a draw costs, and even if updates take thrice the time foreseen."""
    clock, evaluation, step, made = _Clock(), 0.2, 0.05, []
    monkeypatch.setattr(controls, "time", clock)
    monkeypatch.setattr(controls, "scratch_pace", lambda case: Pace(800, step, evaluation))
    point = Point(0, 0.0, case.correct)

    def fresh(case: Case, data: object, seed: int, *, time_limit: float) -> RawRun:
        clock.passes(draw)
        return RawRun("", seed, 0, (point,), seconds=draw)

    def scratch(case: Case, data: object, seed: int, *, updates: int, time_limit: float) -> RawRun:
        done = min(updates, int(time_limit / (slower * step)))
        made.append(done)
        clock.passes(slower * done * step + evaluation)
        return RawRun("", seed, 0, (point, Point(done, 1.0, case.correct)), seconds=1.0)

    monkeypatch.setattr(controls, "on_fresh_weights", fresh)
    monkeypatch.setattr(controls, "from_scratch", scratch)
    found = measure(replace(case, seconds=seconds, time_limit=limit), "quick")
    assert clock.now <= 10.0 + 1e-9
    draws = next(c["runs"] for c in found["controls"] if c["name"] == "fresh weights")
    assert draws == {0.5: 5, 1.9: 2, 3.0: 1, 6.0: 1, 9.4: 1}[draw]
    assert ("scratch" in found["rests_on"]) == any(done >= controls.LEAST_SHARE * 800 for done in made)
    assert bool(made) == (draw < 9)


@pytest.mark.parametrize("level", ["quick", "full"])
def test_where_a_limit_is_all_but_over_nothing_more_is_begun(level: controls.Level, case: Case, monkeypatch):
    monkeypatch.setattr(controls, "on_fresh_weights", None)
    features = replace(case.chosen.prospect.features.tally, seconds=2.0)
    monkeypatch.setattr(case.chosen.prospect.features, "tally", features)
    short = replace(case, time_limit=1.0)
    assert controls.expected_seconds(short, level) == 0.0
    found = measure(short, level)
    assert (found["level"], found["rests_on"]) == ("off", measure(case, "off")["rests_on"])
    assert "no control with the same network was run" in found["sentence"]


@pytest.mark.parametrize(("limit", "expected"), [(1e9, 9 * 2 - 1 + 9), (40.0, 17 + 1), (12.0, 9)])
def test_a_full_measurement_leaves_out_what_would_not_end_in_time(limit: float, expected: int, case: Case, monkeypatch):
    """Heads first, then as many whole networks as the rest of the time has room for; the last one cut short."""
    clock = _Clock()
    monkeypatch.setattr(controls, "time", clock)
    monkeypatch.setattr(controls, "scratch_pace", lambda case: Pace(800, 0.05, 0.0))
    monkeypatch.setattr(controls, "SMALLER", 2)
    monkeypatch.setattr(controls, "depth_effects", lambda case, store, until: [{"until": until}])

    def made(seconds: float, updates: int):
        def make(case: Case, data: object, seed: int, **named: object) -> RawRun:
            clock.passes(seconds)
            points = tuple(Point(u, 0.0, case.correct) for u in range(0, updates + 1, max(1, updates)))
            return RawRun("", seed, 0, points, seconds=seconds)

        return make

    for name, seconds, updates in (("transferred", 1, 0), ("on_fresh_weights", 1, 0), ("from_scratch", 10, 800)):
        monkeypatch.setattr(controls, name, made(seconds, updates))
    found = measure(replace(case, time_limit=limit), "full")
    assert len(found["runs"]) - 1 == expected
    assert clock.now <= limit
    assert found["depth"] == [{"until": limit}]


def test_a_fresh_draw_uses_the_graph_that_is_there(case: Case, monkeypatch):
    monkeypatch.setattr("regraft.evidence.arms.traced_source", lambda source: pytest.fail("exported again"))
    again = arms.on_fresh_weights(case, case.data, 3)
    monkeypatch.undo()
    monkeypatch.setattr(
        arms, "with_weights_of", lambda traced, model: trace(model, torch.zeros(2, *case.source.input.size))
    )
    assert np.array_equal(again.correct, arms.on_fresh_weights(case, case.data, 3).correct)


def test_a_case_that_was_sent_to_another_process_gives_the_same_runs(tmp_path: Path, shapes):
    means = Means(root=tmp_path / "cache", runtime="torch")
    prospect = look_at(shapes, tiny_source(), means)
    recipe = RECIPES["finetune"].with_(epochs=2, min_updates=0)
    trained = train_trial(prospect, recipe, 3, means, probe=prospect.profile.best)
    case = _case(trained, means, shapes)
    again = pickle.loads(pickle.dumps(case))
    for run in (arms.transferred, arms.on_fresh_weights):
        here, there = run(case, case.data, 1), run(again, again.data, 1)
        assert [(p.updates, p.correct.tolist()) for p in here.points] == [
            (p.updates, p.correct.tolist()) for p in there.points
        ]
