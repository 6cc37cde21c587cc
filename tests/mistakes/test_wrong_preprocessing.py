"""Mistake: pictures are prepared otherwise than the network was trained with; it still answers, only worse.

Networks with batch norms (tests/search/test_rank.py has more of them) remember what they saw; of the others a probe
tells.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from regraft.data import Dataset, Transform, load_pixels, read
from regraft.search import Fitness, Means, check, traced_source
from regraft.source import Source, load_source, make_source
from regraft.spec import InputSpec

GREY = InputSpec((1, 16, 16), (0.5,), (0.5,))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return read("digits")


@pytest.fixture(scope="module")
def without_batch_norm(digits: Dataset) -> Source:
    """A small network trained on pixels from -1 to 1, with few features, which saturate."""
    torch.manual_seed(0)
    body = [nn.Conv2d(1, 16, 3, 2), nn.Tanh(), nn.Conv2d(16, 32, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(288, 8)]
    network = nn.Sequential(*body, nn.Tanh(), nn.Linear(8, 10))
    train = digits.split("train")
    x = torch.from_numpy(load_pixels(train, Transform(GREY))) / 127.5 - 1
    y = torch.from_numpy(train.labels)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for batch in torch.randint(len(x), (200, 128)):
        loss = nn.functional.cross_entropy(network(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return make_source("small", "python:small", {}, network, GREY)


def fitness(data: Dataset, source: Source, root: Path) -> Fitness:
    return check(data, source, traced_source(source), Means(root, runtime="torch"))


def test_a_network_without_batch_norm_is_probed(digits: Dataset, without_batch_norm: Source, tmp_path: Path) -> None:
    right = fitness(digits, without_batch_norm, tmp_path)
    assert right.verdict == "fits" and right.reading.by == "probe"
    assert dict(right.reading.values)["as declared"] > 0.9


def test_pixels_from_0_to_255_are_caught(digits: Dataset, without_batch_norm: Source, tmp_path: Path) -> None:
    wrong = replace(without_batch_norm, input=replace(GREY, mean=(0.0,), std=(1 / 255,)))
    found = fitness(digits, wrong, tmp_path)
    assert found.verdict == "warns"
    assert "linear probe gets" in found.reasons[0] and found.reasons[0].endswith("say so: --mean 0.485 --std 0.229")
    assert fitness(digits, wrong, tmp_path) == found  # from memory


def test_too_few_examples_say_nothing(digits: Dataset, without_batch_norm: Source, tmp_path: Path) -> None:
    wrong = replace(without_batch_norm, input=replace(GREY, mean=(0.0,), std=(1 / 255,)))
    assert fitness(digits.per_class(2, seed=0), wrong, tmp_path) == Fitness("fits")


def test_blue_and_red_the_wrong_way_round(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "weights" / "resnet56-4bfd9763.th"
    source = load_source(str(path), arch="regraft.source.cifar_resnet:resnet56")
    photos = read(shared_data / "datasets" / "cifar10_small").per_class(16, seed=0)
    assert fitness(photos, source, tmp_path).verdict == "fits"
    found = fitness(photos, replace(source, input=replace(source.input, channel_order="BGR")), tmp_path)
    assert found.verdict == "warns" and found.reasons[0].endswith("--channel-order RGB")
