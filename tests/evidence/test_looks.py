"""Pictures of what was learned show what they say they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from regraft.evidence import render
from regraft.evidence.looks import WINDOWS, beside_heat, first_filters, occlusion, write_looks, write_where
from regraft.search import Means, look_at, probe_trial
from regraft.source import make_source
from regraft.testing import tiny_source
from regraft.tune import RECIPES


class _Corner(nn.Module):
    """Says class 1 by what is in the upper left corner, and sees nothing else."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        corner = (batch[:, :, :4, :4] - 128).mean((1, 2, 3)) / 10
        return torch.stack([torch.zeros_like(corner), corner], 1)


def test_occlusion_finds_the_one_place_that_matters():
    heat = occlusion(_Corner(), np.full((3, 32, 32), 255, dtype=np.uint8))
    assert heat.shape == (WINDOWS, WINDOWS)
    assert heat.argmax() == 0 and heat[0, 0] > 0.2
    assert np.abs(heat[2:, 2:]).max() < 1e-6
    shown = np.asarray(beside_heat(np.full((3, 32, 32), 255, dtype=np.uint8), heat))
    assert shown[4, 196].mean() > 200 > 100 > shown[-4, -4].mean()


def test_filters_are_stretched_and_networks_without_any_are_told():
    conv = nn.Conv2d(3, 20, 3)
    picture = first_filters(nn.Sequential(conv))
    assert picture is not None
    shown = np.asarray(picture)
    assert shown.min() == 0 and shown.max() == 255
    assert first_filters(nn.Linear(3, 3)) is None
    assert first_filters(nn.Conv2d(3, 4, 1)) is None


class _Places(nn.Module):
    """Two channels, as tokens behind a class token, or as squares with channels last."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.patches = nn.Conv2d(3, 2, 4, stride=4)
        self.first, self.second, self.fc = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x)
        if self.kind == "tokens":
            x = x.flatten(2).transpose(1, 2)
            x = torch.cat([x.mean(1, keepdim=True), x], 1)
        else:
            x = x.permute(0, 2, 3, 1)
        x = self.second(torch.relu(self.first(x)).tanh()).tanh()
        return self.fc(x.flatten(1, -2).mean(1))


@pytest.mark.parametrize("kind", ["tokens", "channels last"])
def test_each_channel_has_a_strip_wherever_a_network_keeps_its_channels(kind: str, shapes, tmp_path: Path):
    source = make_source("places", "python:places", {}, _Places(kind), tiny_source().input)
    chosen = probe_trial(look_at(shapes, source, Means(root=tmp_path, runtime="torch")), RECIPES["probe"], 3)
    write_looks(tmp_path, chosen)
    assert len(list((tmp_path / "looks").glob("channel-*.jpg"))) == 2


def test_all_kinds_are_written_and_shown(run: Path, shapes, tmp_path: Path):
    means = Means(root=tmp_path / "cache", runtime="torch")
    chosen = probe_trial(look_at(shapes, tiny_source(), means), RECIPES["probe"], 3)
    write_looks(run, chosen)
    write_where(run, chosen)
    names = {path.name for path in (run / "looks").iterdir()}
    assert {"filters.png", "channel-0.jpg", "where-0.jpg"} <= names
    with Image.open(run / "looks" / "channel-0.jpg") as strip:
        assert strip.width > strip.height
    page = render(run).read_text()
    assert '<section id="looks"' in page and page.count('class="where"') == 3
    assert len(page) < 3_000_000
