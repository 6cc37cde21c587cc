"""The key: what changes it, and what does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from regraft.cache import CacheKey, Tap, cache_key
from regraft.data import Transform
from regraft.spec import InputSpec
from regraft.testing import tiny_source

KEY = CacheKey("t" * 64, "w" * 64, Tap("layer3", 4), "float32", "float32")
CHANGES = {
    "transform": "u" * 64,
    "weights": "v" * 64,
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
    assert cache_key(SOURCE, Tap("stem"), changed) != cache_key(SOURCE, Tap("stem"), PLAIN)


def test_the_network_is_in_the_key_and_its_address_is_not() -> None:
    key = cache_key(SOURCE, Tap("stem"), PLAIN)
    moved = replace(SOURCE, uri="elsewhere", origin="somebody", classes=("a", "b"))
    assert cache_key(moved, Tap("stem"), PLAIN) == key
    assert cache_key(tiny_source(seed=1), Tap("stem"), PLAIN) != key
    assert cache_key(replace(SOURCE, arch_args={"stride": 2}), Tap("stem"), PLAIN) != key


def test_a_gpus_arithmetic_has_rows_of_its_own(tmp_path: Path) -> None:
    there = cache_key(SOURCE, Tap("stem"), PLAIN, device="cuda")
    assert there.differs(cache_key(SOURCE, Tap("stem"), PLAIN)) == ["runtime (float32, here bfloat16)"]
    assert torch.device("cuda").type == "cuda"
