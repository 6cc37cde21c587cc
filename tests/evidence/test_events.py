"""TensorBoard's own reader finds the training curves as curves.csv has them."""

from __future__ import annotations

import builtins
import csv
from pathlib import Path

import pytest

from regraft.evidence.events import EVENTS, TAGS, write_events
from regraft.evidence.record import write_curves
from regraft.run import RunFolder
from regraft.search import Means, Trial, look_at, probe_trial, train_trial
from regraft.testing import tiny_source
from regraft.tune import RECIPES


@pytest.fixture
def trials(tmp_path: Path, shapes) -> list[Trial]:
    means = Means(root=tmp_path / "cache", runtime="torch")
    prospect = look_at(shapes, tiny_source(), means)
    recipes = [RECIPES["finetune"].with_(min_updates=0, epochs=epochs, name=f"try/{epochs}") for epochs in (2, 3)]
    trained = [train_trial(prospect, recipe, 3, means, probe=prospect.profile.single) for recipe in recipes]
    return [probe_trial(prospect, RECIPES["probe"], 3), *trained]


def test_the_events_are_the_curves(trials: list[Trial], tmp_path: Path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = tmp_path / "run"
    run.mkdir()
    assert write_events(run, trials) == write_events(run, trials) == 2
    write_curves(RunFolder(run), trials)
    with (run / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {path.name for path in (run / EVENTS).iterdir()} == {"0-try-2", "1-try-3"}
    for folder, name in (("0-try-2", "try/2"), ("1-try-3", "try/3")):
        events = reader.EventAccumulator(str(run / EVENTS / folder)).Reload()
        for tag, column in TAGS.items():
            ours = [(int(r["updates"]), float(r[column])) for r in rows if r["run"] == name and r[column]]
            found = events.Scalars(tag)
            assert found
            assert [event.step for event in found] == [step for step, _ in ours]
            assert [event.value for event in found] == pytest.approx([value for _, value in ours], rel=1e-6)


def test_without_the_extra_nothing_is_written(trials: list[Trial], tmp_path: Path, monkeypatch):
    real = builtins.__import__

    def absent(name: str, *arguments: object, **named: object) -> object:
        if "tensorboard" in name:
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    assert write_events(tmp_path, trials) == 0
    assert not (tmp_path / EVENTS).exists()
