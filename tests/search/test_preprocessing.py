"""Which preprocessing a network was trained with is read off whatever batch norms it has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from regraft.data import Dataset, Task, Transform, load_pixels, read
from regraft.search import Fitness, Means, check, traced_source
from regraft.search.preprocessing import Reading
from regraft.source import Source, front, load_source, make_source
from regraft.spec import InputSpec
from regraft.testing import tiny_images

KERAS = Path(__file__).parents[1] / "source" / "fixtures" / "keras"


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    return read(tiny_images(n_per_class=10))


def fitness(data: Dataset, source: Source, root: Path) -> Fitness:
    return check(data, source, traced_source(source), Means(root, runtime="torch"))


@pytest.mark.parametrize("name", ["branched.keras", "branched.h5"])
def test_parameters_that_are_named_like_a_batch_norm_are_none(shapes: Dataset, name: str, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    source = load_source(str(KERAS / name), input=InputSpec((3, 32, 32)))
    assert any("batch_norm" in own for own in source.model.state_dict())
    assert fitness(shapes, source, tmp_path).reading.by == "batch norm"


def test_other_labels_and_another_task_are_measured_anew(shapes: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3))
    source = make_source("net", "python:net", {}, net, InputSpec((3, 32, 32)))
    others = tuple(replace(e, label=(e.label + i % 2) % 3) for i, e in enumerate(shapes.examples))
    swapped = replace(shapes, examples=others)
    measured = tuple(replace(e, label=0, target=(float(e.label),)) for e in shapes.examples)
    numbers = replace(shapes, examples=measured, classes=("size",), task=Task("regression", (0.0,), (1.0,)))
    readings = {}
    for name, data in {"numbers": numbers, "shapes": shapes, "swapped": swapped}.items():
        readings[name] = fitness(data, source, tmp_path).reading
        assert fitness(data, source, tmp_path / "alone" / name).reading == readings[name]
    assert [each.by for each in readings.values()] == ["", "probe", "probe"]
    assert readings["shapes"] != readings["swapped"]


class Places(nn.Module):
    """Adds what stands for each place of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.rand(8, 32, 32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.places


class Mixing(nn.Module):
    """Flattens maps by the number of their values, whatever the number of maps then is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(-1, 8 * 32 * 32)


def network(*between: nn.Module, head: tuple[nn.Module, ...] = ()) -> nn.Module:
    """A small network for pictures of 128 pixels; the same weights for the same layers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4, padding=1), *between, nn.Linear(8 * 32 * 32, 4), *head)


OF_ONE_SIZE = {
    "a linear layer above": lambda: network(nn.BatchNorm2d(8), nn.Flatten()),
    "places are added": lambda: network(Places(), nn.BatchNorm2d(8), nn.Flatten()),
    "a batch norm above the linear layer": lambda: network(nn.Flatten(), head=(nn.BatchNorm1d(4),)),
}


@pytest.mark.parametrize("make", OF_ONE_SIZE.values(), ids=OF_ONE_SIZE)
def test_large_pictures_of_a_network_of_one_size(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    found = large_pictures(make(), tmp_path)
    assert found.by == "batch norm" and dict(found.values)["as declared"] < 0.1


def test_parts_of_pictures_are_never_mixed(tmp_path: Path) -> None:
    norm = (nn.BatchNorm1d(4),)
    assert large_pictures(network(Mixing(), head=norm), tmp_path / "a") == large_pictures(
        network(nn.Flatten(), head=norm), tmp_path / "b"
    )


def large_pictures(net: nn.Module, root: Path) -> Reading:
    """What a network that has seen the training pictures makes of them."""
    data, spec = read(tiny_images(n_per_class=10, size=128)), InputSpec((3, 128, 128))
    remember(net, front(spec)(torch.from_numpy(load_pixels(data.split("train"), Transform(spec))))[0])
    return fitness(data, make_source("net", "python:net", {}, net, spec), root).reading


@torch.no_grad()
def remember(net: nn.Module, x: torch.Tensor) -> None:
    """Leave one batch (N, C, H, W) in a network's batch norms."""
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = 1.0
    net.train()(x)
