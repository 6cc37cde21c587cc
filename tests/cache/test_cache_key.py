"""The key: what changes it, and what does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from regraft.cache import CacheKey, Tap, cache_key, frozen_pass
from regraft.cut import trace_source
from regraft.data import Transform, load_pixels, read
from regraft.source import front, make_source
from regraft.spec import InputSpec
from regraft.testing import tiny_images, tiny_source

KEY = CacheKey("t" * 64, "w" * 64, "a" * 64, Tap("layer3", 4), "float32", "float32")
CHANGES = {
    "transform": "u" * 64,
    "weights": "v" * 64,
    "architecture": "b" * 64,
    "tap": Tap("layer3", 2),
    "dtype": "float16",
    "runtime": "bfloat16",
}


@pytest.mark.parametrize("part", CHANGES)
def test_changing_any_one_part_changes_the_key_and_is_named(part: str) -> None:
    other = replace(KEY, **{part: CHANGES[part]})
    assert other.digest != KEY.digest
    assert [text.split()[0] for text in KEY.differs(other)] == [part]


def test_the_same_parts_give_the_same_key() -> None:
    same = CacheKey.from_dict(json.loads(json.dumps(KEY.to_dict())))
    assert same == KEY
    assert same.digest == KEY.digest
    assert KEY.differs(same) == []


SOURCE = tiny_source()
TRACED = trace_source(SOURCE)
PLAIN = Transform(SOURCE.input)


@pytest.mark.parametrize(
    "changed",
    [
        Transform(SOURCE.input, view=1),
        Transform(replace(SOURCE.input, size=(3, 64, 64))),
        Transform(replace(SOURCE.input, mean=(0.5, 0.5, 0.5))),
        Transform(replace(SOURCE.input, crop_pct=0.9)),
        Transform(InputSpec(size=(3, 32, 32), interpolation="nearest", crop_mode="squash")),
    ],
)
def test_whatever_changes_the_networks_input_changes_the_key(changed: Transform) -> None:
    assert cache_key(SOURCE, TRACED, Tap("stem"), changed) != cache_key(SOURCE, TRACED, Tap("stem"), PLAIN)


def test_the_network_is_in_the_key_and_its_address_is_not() -> None:
    key = cache_key(SOURCE, TRACED, Tap("stem"), PLAIN)
    moved = replace(SOURCE, uri="elsewhere", origin="somebody", classes=("a", "b"))
    assert cache_key(moved, TRACED, Tap("stem"), PLAIN) == key
    assert cache_key(tiny_source(seed=1), TRACED, Tap("stem"), PLAIN) != key
    assert cache_key(replace(SOURCE, arch_args={"stride": 2}), TRACED, Tap("stem"), PLAIN) != key


class Edited(nn.Module):
    """A user's network before and after an edit that leaves its tensors as they were."""

    def __init__(self, activation: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.activation = nn.Conv2d(3, 4, 3), activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.layer(x)).mean((2, 3))


def test_rows_of_a_network_before_an_edit_are_not_its_rows_after(tmp_path: Path) -> None:
    before, same, after = Edited(torch.relu), Edited(torch.relu), Edited(torch.tanh)
    data, computed = read(tiny_images(4)), []
    for network in (before, same, after):
        network.load_state_dict(before.state_dict())
        source = make_source("mine", "python:my_nets:net", {}, network, SOURCE.input)
        caches, report = frozen_pass(data, source, trace_source(source), [Tap("output")], root=tmp_path)
        computed.append(report.computed)
        x = torch.from_numpy(caches[Tap("output")].rows(data.keys))
        x0 = front(SOURCE.input)(torch.from_numpy(load_pixels(data, PLAIN)))[0]
        torch.testing.assert_close(x, network(x0).detach(), atol=1e-4, rtol=1e-4)
    assert computed == [12, 0, 12]


def test_a_gpus_arithmetic_has_rows_of_its_own(tmp_path: Path) -> None:
    there = cache_key(SOURCE, TRACED, Tap("stem"), PLAIN, device="cuda")
    assert there.differs(cache_key(SOURCE, TRACED, Tap("stem"), PLAIN)) == ["runtime (float32, here bfloat16)"]
    assert torch.device("cuda").type == "cuda"
