"""Pretraining: what comes out is a source with its card, whatever was learnt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from regraft.data import Dataset, Transform, load_pixels, read
from regraft.digest import digest_file
from regraft.errors import RecipeError, RunError
from regraft.pretrain import ONE_CYCLE, Training, pretrain
from regraft.source import load_source
from regraft.testing import tiny_images, tiny_source
from regraft.testing.sources import TINY_ARCH

QUICK = Training(TINY_ARCH, recipe=ONE_CYCLE.with_(epochs=6, batch_size=16, lr=0.05))


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    return read(tiny_images(40), test_fraction=0.2)


@pytest.fixture(scope="module")
def made(shapes: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "shapes"
    command = "regraft pretrain shapes --objective supervised"
    return pretrain(shapes, replace(QUICK, licence="CC0-1.0", command=command), out=out)


def test_the_folder_opens_as_a_source(made: Path, shapes: Dataset) -> None:
    source = load_source(str(made))
    assert source.report is not None and source.report.complete
    assert (source.arch, source.classes, source.licence) == (TINY_ARCH, shapes.classes, "CC0-1.0")
    assert source.input == tiny_source().input


def test_its_figures_are_those_of_the_loaded_network(made: Path, shapes: Dataset) -> None:
    source, test = load_source(str(made)), shapes.split("test")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (source.input.mean, source.input.std))
    pixels = torch.from_numpy(load_pixels(test, Transform(source.input)))
    with torch.no_grad():
        right = source.model((pixels / 255 - mean) / std).argmax(1).numpy() == test.labels
    metrics = json.loads((made / "config.json").read_text())["metrics"]
    assert metrics["test_accuracy"] == pytest.approx(right.mean()) and metrics["n_test"] == len(test)
    assert right.mean() > 0.6


def test_the_card_says_how_it_was_made(made: Path) -> None:
    card = (made / "README.md").read_text()
    assert card.startswith("---\nlicense: CC0-1.0\n")
    assert "regraft pretrain shapes --objective supervised" in card
    assert "test accuracy" in card and "lr = 0.05" in card and "| 6 |" in card
    assert not (made / "checkpoint.pt").exists()


def test_stopped_and_resumed_gives_the_same_weights(made: Path, shapes: Dataset, tmp_path: Path) -> None:
    def stop(event) -> None:
        if event.kind == "epoch" and event.epoch == 3:
            raise KeyboardInterrupt

    out = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        pretrain(shapes, QUICK, out=out, on_event=stop)
    with pytest.raises(RunError, match="resume=True"):
        pretrain(shapes, QUICK, out=out)
    pretrain(shapes, QUICK, out=out, resume=True)
    assert digest_file(out / "model.safetensors") == digest_file(made / "model.safetensors")


def test_a_folder_with_something_in_it_is_left_alone(made: Path, shapes: Dataset) -> None:
    with pytest.raises(RunError, match="not empty"):
        pretrain(shapes, Training(TINY_ARCH, epochs=1), out=made, resume=True)


def test_an_architecture_that_does_not_say_its_input_is_asked_for_it(
    shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mute_nets.py").write_text(
        "from torch import nn\n"
        "def mute(num_classes) -> nn.Module:\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3072, num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RunError, match="input=InputSpec"):
        pretrain(shapes, Training("mute_nets:mute"), out=tmp_path / "out")
    spec = tiny_source().input
    out = pretrain(shapes, Training("mute_nets:mute", input=spec, epochs=1), out=tmp_path / "out")
    assert load_source(str(out)).input == spec


def test_impossible_epochs_are_refused(shapes: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="epochs"):
        pretrain(shapes, Training(TINY_ARCH, epochs=-1), out=tmp_path / "out")


def test_pixels_are_read_once(shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from regraft.pretrain import training

    loads: list[int] = []
    real = training.load_pixels
    monkeypatch.setattr(training, "load_pixels", lambda *a: loads.append(len(a[0])) or real(*a))
    pretrain(shapes, Training(TINY_ARCH, epochs=2), out=tmp_path / "out")
    assert np.sum(loads) == len(shapes)
