"""The benefits follow from raw runs as they are defined, and their intervals hold what they promise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regraft.evidence.benefits import benefits, common_point, parts, slope, speed, time_to
from regraft.evidence.conclude import evidence, sentence
from regraft.evidence.interval import USUAL_DF, USUAL_SD, difference
from regraft.evidence.labels import label_curve, labels_to_match, power_law
from regraft.evidence.runs import Point, RawRun, RunStore

N = 400


def _answers(accuracy: float, n: int = N) -> np.ndarray:
    return np.arange(n) < round(accuracy * n)


def _run(arm: str, *curve: tuple[int, float], n_train: int = 50, seed: int = 0) -> RawRun:
    points = tuple(Point(updates, updates / 10, _answers(accuracy)) for updates, accuracy in curve)
    return RawRun(arm, seed, n_train, points, seconds=curve[-1][0] / 10)


def _simulated(random: np.random.Generator, n: int, transfers: int, controls: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs whose true difference is 5 points: examples of all difficulties, half of the luck shared, and runs that
    differ by an amount that is itself drawn."""
    sd = USUAL_SD * np.sqrt(USUAL_DF / random.chisquare(USUAL_DF))
    ease, shared = 0.15 + 0.7 * np.sqrt(random.random(n)), random.random(n)

    def draw(mean: float, effects: np.ndarray) -> np.ndarray:
        luck = np.where(random.random((len(effects), n)) < 0.5, shared, random.random((len(effects), n)))
        return luck < np.clip(ease + mean + effects[:, None], 0, 1)

    return draw(0.05, np.full(transfers, random.normal(0, sd))), draw(0.0, random.normal(0, sd, controls))


@pytest.mark.parametrize(("transfers", "controls"), [(1, 1), (1, 3), (1, 5), (3, 3), (5, 5)])
def test_intervals_contain_the_truth_in_93_to_97_of_100_repetitions(transfers: int, controls: int):
    random = np.random.default_rng(4)
    inside = 0
    for _ in range(1000):
        low, high = difference(*_simulated(random, 365, transfers, controls)).ends()
        inside += low <= 0.05 <= high
    assert 930 <= inside <= 970


def test_p_is_the_level_at_which_the_interval_reaches_zero():
    found = difference([_answers(0.9)], [_answers(0.8)] * 3)
    low, _ = found.ends()
    assert (low > 0) == (found.p < 0.05)
    assert found.ends(looks=2)[0] < low
    same = difference([_answers(0.9)], [_answers(0.9)])
    assert same.difference == 0 and same.p == pytest.approx(1)


def test_a_difference_of_shares_ends_at_100_points_and_one_of_merits_without_a_lower_end_does_not():
    ours, theirs = [[True, True]], [[True, False]]
    assert difference(ours, theirs).ends() == (-1.0, 1.0)
    low, high = difference(ours, theirs, bounded=False).ends()
    assert low < -1 and high > 1


def test_runs_that_differ_more_make_the_interval_wider():
    near = difference([_answers(0.9)], [_answers(a) for a in (0.79, 0.80, 0.81)])
    far = difference([_answers(0.9)], [_answers(a) for a in (0.70, 0.80, 0.90)])
    assert far.ends()[0] < near.ends()[0]


def test_other_examples_are_refused():
    with pytest.raises(ValueError, match="the same examples"):
        difference(np.ones((1, 5)), np.ones((1, 6)))


def test_the_three_benefits_by_hand():
    transfer = [_run("transfer", (0, 0.8), (200, 0.9))]
    scratch = [_run("scratch", (0, 0.1), (100, 0.5), (200, 0.8))]
    found = benefits(transfer, {"scratch": scratch})
    assert {name: round(b.difference, 3) for name, b in found.items()} == {
        "start": 0.7,
        "slope": round(0.85 - (0.3 + 0.65) / 2, 3),
        "asymptote": 0.1,
    }
    assert {b.finding for b in found.values()} == {"helps"}


def test_a_head_in_closed_form_is_a_level_curve():
    probe, scratch = _run("transfer", (0, 0.9)), _run("scratch", (0, 0.1), (400, 0.9))
    assert common_point([probe, scratch]) == 400
    assert slope(probe, 400).mean() == pytest.approx(0.9)
    assert slope(scratch, 400).mean() == pytest.approx(0.5)
    assert slope(scratch, 200).mean() == pytest.approx(0.3)
    assert slope(scratch, 0).mean() == pytest.approx(0.1)


def test_a_curve_that_ended_goes_on_with_the_weights_it_kept():
    fallen = RawRun("scratch", 0, 50, (Point(0, 0, _answers(0.5)), Point(10, 1, _answers(0.3))), kept=0)
    assert slope(fallen, 20).mean() == pytest.approx((0.4 * 10 + (0.3 + 0.5) / 2 * 10) / 20)


def test_every_control_must_be_beaten_and_the_better_one_is_named():
    transfer = [_run("transfer", (0, 0.9))]
    weak, strong = [_run("scratch", (0, 0.3))], [_run("fresh weights", (0, 0.9))]
    found = benefits(transfer, {"scratch": weak, "fresh weights": strong})["asymptote"]
    assert (found.finding, found.control) == ("no difference", "fresh weights")
    assert found.against["scratch"]["ci95"][0] > 0.5
    worse = benefits([_run("transfer", (0, 0.4))], {"scratch": weak, "fresh weights": strong})["asymptote"]
    assert worse.finding == "hurts"


def test_one_more_draw_of_the_control_seldom_gets_a_verdict():
    """The law for random weights: the source is one draw, compared with five others."""
    random = np.random.default_rng(7)
    verdicts = []
    for _ in range(300):
        ease, shared = 0.8 + 0.3 * (random.random(365) - 0.5), random.random(365)
        effects = random.normal(0, 0.015, 6)
        luck = np.where(random.random((6, 365)) < 0.5, shared, random.random((6, 365)))
        right = luck < ease + effects[:, None]
        runs = [RawRun("x", 0, 50, (Point(0, 1.0, row),)) for row in right]
        verdicts.append(benefits(runs[:1], {"fresh weights": runs[1:]})["asymptote"].finding)
    assert np.mean([verdict == "no difference" for verdict in verdicts]) >= 0.95


def test_how_soon():
    transfer, scratch = [_run("transfer", (0, 0.9))], [_run("scratch", (0, 0.1), (400, 0.8))]
    found = speed(transfer, {"scratch": scratch})
    assert found["level"] == pytest.approx(0.76)
    assert found["reached"]["transfer"]["updates"] == 0
    assert found["reached"]["scratch"]["updates"] == pytest.approx(400 * 0.66 / 0.7)
    assert time_to(scratch, 0.9) is None


def test_the_gain_over_scratch_is_split():
    found = parts(
        [_run("transfer", (0, 0.93))],
        {"fresh weights": [_run("fresh weights", (0, 0.9))], "scratch": [_run("scratch", (0, 0.85))]},
    )
    assert {name: round(value, 3) for name, value in found.items()} == {
        "over_scratch": 0.08,
        "procedure": 0.05,
        "weights": 0.03,
    }
    assert parts([_run("transfer", (0, 0.93))], {"scratch": [_run("scratch", (0, 0.85))]}) == {}


def test_nothing_is_not_split_and_has_no_sign():
    def arms(*accuracies: float) -> list[RawRun]:
        names = ("transfer", "fresh weights", "scratch")
        return [_run(name, (0, a), (1000, a)) for name, a in zip(names, accuracies, strict=True)]

    said = evidence(arms(0.9, 0.9, 0.9), 50)["sentence"]
    assert "against" in said and "belong to the procedure" not in said
    assert "belong to the procedure" in evidence(arms(0.9, 0.85, 0.9), 50)["sentence"]
    same = benefits(arms(0.9, 0.9, 0.9)[:1], {"scratch": arms(0.9, 0.9, 0.9)[2:]})["asymptote"]
    assert "+0.0 points" in sentence(replace(same, difference=-1e-5), {})


def _curve(accuracy, sizes, n: int = 4000):
    return label_curve(
        [
            RawRun("scratch", seed, size, (Point(0, 0, _answers(accuracy(size), n)),))
            for size in sizes
            for seed in (0, 1)
        ]
    )


def test_a_power_law_is_found_again():
    law = power_law(_curve(lambda n: 1 - 0.05 - 2.0 * n**-0.6, (20, 40, 80, 160, 320)))
    assert law is not None and not law.fixed_limit
    assert law.limit == pytest.approx(0.95, abs=0.01)
    assert law.exponent == pytest.approx(0.6, abs=0.06)
    value, low, high = law.at[3200]
    assert low <= value <= high and value == pytest.approx(0.95 - 2.0 * 3200**-0.6, abs=0.01)


def test_three_sizes_tell_no_limit_and_two_tell_nothing():
    law = power_law(_curve(lambda n: 1 - 2.0 * n**-0.5, (20, 80, 320)))
    assert law is not None and law.fixed_limit and law.limit == 1
    assert power_law(_curve(lambda n: 0.5, (20, 80))) is None


def test_labels_that_scratch_would_need():
    curve = _curve(lambda n: {50: 0.6, 100: 0.7, 200: 0.8}[n], (50, 100, 200))
    assert labels_to_match(0.75, curve)["n"] == 141
    low, high = labels_to_match(0.75, curve)["ci95"]
    assert low < 141 < high
    beyond = labels_to_match(0.9, curve)
    assert (beyond["n"], beyond["more_than"]) == (None, 200)


def test_runs_are_kept_and_taken_up_again(tmp_path: Path):
    made = []

    def make() -> RawRun:
        made.append(1)
        return _run("scratch", (0, 0.1), (400, 0.8))

    first = RunStore(tmp_path / "evidence", ["a"]).get("scratch, same updates", 3, 50, make)
    again = RunStore(tmp_path / "evidence", ["a"]).get("scratch, same updates", 3, 50, make)
    assert len(made) == 1
    assert first.to_dict() == again.to_dict() and (again.arm, again.seed) == ("scratch, same updates", 3)
    RunStore(tmp_path / "evidence", ["other examples"]).get("scratch, same updates", 3, 50, make)
    RunStore(None).get("scratch, same updates", 3, 50, make)
    assert len(made) == 3


def test_a_handful_of_examples_proves_nothing_however_alike() -> None:
    """All gaps are equal, so that the examples seem not to vary at all."""
    for n in (2, 5):
        low, high = difference([[1] * n], [[0.4] * n] * 3).ends()
        assert high - low > 0.6 and (n == 5 or low < 0)
    low, high = difference(np.ones((2, 400)), np.ones((2, 400))).ends()
    assert high - low < 0.15
