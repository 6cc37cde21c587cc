"""Recordings that are longer than what a network hears: several windows of each are learnt from and averaged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("soxr")
pytest.importorskip("soundfile")

import soundfile

from regraft.artifact import Delivery, load, save
from regraft.data import Dataset, load_rows, read, transform_for
from regraft.data.audio import WINDOWS, AudioTransform, Sound, share_of_long
from regraft.evidence.arms import Case, delivered, on_fresh_weights
from regraft.search import Clock, Decision, Means, Prospect, check, decide, explore, ideas, look_at, traced_source
from regraft.source.spectrogram import mel_for
from regraft.spec import AudioSpec, InputSpec
from regraft.testing import tiny_source
from regraft.tune import RECIPES

RATE, WINDOW = 2000, 1000
PICTURE = InputSpec((3, 16, 16), mean=(0.5,) * 3, std=(0.25,) * 3)
SPEC = AudioSpec(RATE, WINDOW, picture=PICTURE, mel=mel_for(RATE, WINDOW, PICTURE))
SAMPLES = AudioSpec(RATE, WINDOW)


def test_the_views_of_a_long_recording_are_its_windows_without_noise() -> None:
    steps = Sound(np.repeat(np.arange(1, 6, dtype=np.float32) / 10, WINDOW), RATE)  # 0.1 … 0.5, each for one window
    rows = [AudioTransform(SAMPLES, view)(steps, "k") for view in range(WINDOWS)]
    assert [set(row.tolist()) for row in rows] == [{np.float32(n / 10)} for n in (3, 1, 5, 2, 4)]
    assert all(np.array_equal(row, AudioTransform(SAMPLES, view)(steps, "other")) for view, row in enumerate(rows))
    assert not np.array_equal(
        AudioTransform(SAMPLES, WINDOWS)(steps, "k"), AudioTransform(SAMPLES, WINDOWS)(steps, "l")
    )


@pytest.mark.parametrize(("samples", "windows"), [(WINDOW, False), (WINDOW + 50, False), (WINDOW + 200, True)])
def test_what_every_window_would_hear_is_augmented_instead(samples: int, windows: bool) -> None:
    noise = Sound(np.random.default_rng(0).standard_normal(samples).astype(np.float32), RATE)
    plain, first = (AudioTransform(SAMPLES, view)(noise, "k") for view in (0, 1))
    middle = (samples - WINDOW) // 2
    assert np.array_equal(plain, noise.samples[middle : middle + WINDOW])
    assert np.array_equal(first, noise.samples[:WINDOW]) == windows


def recordings(root: Path, *, long: bool = True) -> Dataset:
    """Three windows of a hum; in the first one a tone, low or high."""
    random = np.random.default_rng(0)
    for i in range(72):
        label, hertz = ("low", 250) if i % 2 else ("high", 700)
        hum = np.sin(2 * np.pi * 100 * (np.arange(3 * WINDOW) / RATE + random.random()))
        samples = 0.2 * hum + 0.005 * random.standard_normal(3 * WINDOW)
        samples[:WINDOW] += 0.5 * np.sin(2 * np.pi * (hertz + i) * np.arange(WINDOW) / RATE)
        (root / label).mkdir(parents=True, exist_ok=True)
        soundfile.write(root / label / f"{i}.wav", samples if long else samples[:WINDOW], RATE)
    return read(root)


@pytest.fixture(autouse=True, scope="module")
def time_enough() -> Iterator[None]:
    """What fits the time must not depend on how busy the machine is."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(explore, "LEAST_SECONDS", 1e6)
        patched.setattr(ideas, "_RATE", 1e-2)
        patched.setattr(ideas, "_FASTER", 2e-2)
        patched.setattr(ideas, "_DEPTHS", (2,))
        yield


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Means:
    return Means(tmp_path_factory.mktemp("cache"), runtime="torch")


@pytest.fixture(scope="module")
def prospect(means: Means, tmp_path_factory: pytest.TempPathFactory) -> Prospect:
    return look_at(recordings(tmp_path_factory.mktemp("long")), replace(tiny_source(), input=SPEC), means)


@pytest.fixture(scope="module")
def decided(prospect: Prospect, means: Means, tmp_path_factory: pytest.TempPathFactory) -> Decision:
    return decide(prospect, None, 2, means, folder=tmp_path_factory.mktemp("run"), clock=Clock(time.monotonic()))


def test_auto_finds_what_the_middle_does_not_hold(decided: Decision) -> None:
    probe, *_, last = decided.trials
    assert last.name.endswith(f"{WINDOWS} windows")
    assert decided.chosen is last and last.views == WINDOWS
    assert probe.val_accuracy < 0.8 and last.val_accuracy > 0.9
    labels = last.prospect.features.labels("test")
    assert (last.probabilities("test").argmax(1) == labels).mean() > 0.9
    alone = replace(last, views=1).probabilities("test").argmax(1)
    assert (alone == labels).mean() < 0.8


def test_the_delivered_model_hears_the_windows(decided: Decision, tmp_path: Path) -> None:
    trial = decided.chosen
    test = trial.prospect.features.data.split("test")
    delivery = Delivery(
        network=trial.delivered(),
        source=trial.prospect.source,
        taps=trial.plan.taps,
        classes=test.classes,
        rows=load_rows(test, transform_for(SPEC)),
        views=trial.views,
    )
    save(tmp_path / "model", delivery)
    model = load(tmp_path / "model")
    np.testing.assert_allclose(model.predict_proba(test), trial.probabilities("test"), atol=1e-4)
    network, row = trial.delivered(), test.open(0)
    windows = np.stack([AudioTransform(SPEC, view)(row) for view in range(WINDOWS)])
    with torch.no_grad():
        by_hand = network(torch.from_numpy(windows)).softmax(1).mean(0).numpy()
    np.testing.assert_allclose(model.predict_proba(test)[0], by_hand, atol=1e-4)
    assert f"the mean over {WINDOWS} windows of longer ones" in (tmp_path / "model" / "README.md").read_text()


def test_the_controls_hear_the_windows_too(decided: Decision, means: Means) -> None:
    trial = decided.chosen
    right = trial.probabilities("test").argmax(1) == trial.prospect.features.labels("test")
    case = Case(trial, right, 60.0, means, trial.prospect.features.data)
    control = on_fresh_weights(case, case.data, 5)
    assert control.points[-1].correct.mean() > 0.8  # of as many windows; of the middle it would be chance
    assert delivered(case).points[-1].correct.mean() == right.mean()


def test_a_warning_says_what_is_heard(prospect: Prospect, means: Means, tmp_path: Path) -> None:
    source, data = prospect.source, prospect.features.data
    assert share_of_long(data, SPEC) == 1.0
    (reason,) = check(data, source, traced_source(source), means).reasons
    assert "100 % of the recordings are longer" in reason and f"--set views={WINDOWS}" in reason
    short = recordings(tmp_path / "short", long=False)
    assert share_of_long(short, SPEC) == 0.0 and not check(short, source, traced_source(source), means).reasons


def test_short_recordings_are_augmented_as_before(prospect: Prospect, means: Means, tmp_path: Path) -> None:
    short = look_at(recordings(tmp_path / "short", long=False), prospect.source, means)
    idea, learnt = next(iter(ideas.ideas(short, 2)))
    assert learnt.recipe.views == ideas.VIEWS and not learnt.recipe.average_views
    tried = ideas.viewed(idea, short).recipe
    assert (tried.views, tried.average_views, tried.keep) == (ideas.VIEWS, "auto", RECIPES["finetune"].keep)
