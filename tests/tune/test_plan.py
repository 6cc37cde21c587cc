"""Plans: every tensor once, rates by depth, refusals."""

from __future__ import annotations

import io
import json

import pytest
import torch
from rich.console import Console
from torch import nn

from regraft.cache import Tap
from regraft.cut import trace
from regraft.errors import CutError, RecipeError
from regraft.source import make_source
from regraft.spec import InputSpec
from regraft.tune import RECIPES, Plan, PlanRow, Recipe, resolve, starting_head, upper_network

CUTS = ["auto", "input", "stem", "block2", "block3", "output"]


def every_tensor(source) -> list[str]:
    head = ["head.bias", "head.mean", "head.scale", "head.weight"]
    return sorted([f"body.{name}" for name in source.model.state_dict()] + head)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("taps", ["feature", "block3@2", "block2@4+block3@2"])
def test_every_tensor_is_in_exactly_one_row(tiny, cut: str, taps: str) -> None:
    if cut == "block3" and "block2" in taps:
        pytest.skip("its head reads below its cut")
    plan = resolve(Recipe("r", cut=cut, taps=taps), tiny.source, tiny.traced, 3, n_train=24)
    assert sorted(name for row in plan.rows for name in row.names) == every_tensor(tiny.source)


@pytest.mark.parametrize("cut", CUTS)
def test_what_a_plan_trains_is_what_its_network_has(tiny, cut: str) -> None:
    plan = resolve(Recipe("r", cut=cut, head="fresh"), tiny.source, tiny.traced, 3, n_train=24)
    network = upper_network(plan, tiny.source, tiny.traced, starting_head(plan, tiny.traced, None))
    trained = {name for row in plan.rows if row.state == "trained" for name in row.names}
    assert trained == {name for name, _ in network.named_parameters()}
    assert plan.n_params("trained") == sum(p.numel() for p in network.parameters())


def test_rates_fall_with_depth_and_spare_norms_from_decay(tiny) -> None:
    recipe = Recipe("r", cut="input", lr=1.0, head_lr=8.0, layer_decay=0.5, weight_decay=0.1)
    plan = resolve(recipe, tiny.source, tiny.traced, 3, n_train=24)
    rate = {name: (row.lr, row.weight_decay) for row in plan.rows for name in row.names}
    assert rate["body.block3.conv.weight"] == (1.0, 0.1)
    assert rate["body.block2.conv.weight"] == (0.5, 0.1)
    assert rate["body.stem.conv.weight"] == (0.25, 0.1)
    assert rate["body.stem.bn.weight"] == (0.25, 0.0)
    assert (rate["head.weight"], rate["head.bias"]) == ((8.0, 0.1), (8.0, 0.0))


def test_more_examples_train_more_stages(tiny) -> None:
    cuts = [resolve(RECIPES["finetune"], tiny.source, tiny.traced, 3, n_train=n).cut for n in (60, 600, 6000)]
    assert cuts == ["block2", "stem", "input"]


def test_the_cut_stays_below_the_lowest_tap(tiny) -> None:
    plan = resolve(Recipe("r", taps="stem@4+block3@2"), tiny.source, tiny.traced, 3, n_train=60)
    assert plan.cut in ("input", "stem")
    with pytest.raises(RecipeError, match=r"with_\(cut='stem'\)"):
        resolve(Recipe("r", cut="block3", taps="stem@4"), tiny.source, tiny.traced, 3, n_train=60)


def test_unknown_cuts_are_refused_with_their_neighbours(tiny) -> None:
    with pytest.raises(CutError, match="block2"):
        resolve(Recipe("r", cut="blok2"), tiny.source, tiny.traced, 3, n_train=60)
    with pytest.raises(RecipeError, match="block3@4"):
        resolve(Recipe("r", taps="block3@four"), tiny.source, tiny.traced, 3, n_train=60)


def test_few_examples_get_enough_updates(tiny) -> None:
    plan = resolve(RECIPES["finetune"], tiny.source, tiny.traced, 3, n_train=10)
    assert (plan.n_epochs, plan.updates) == (200, 200)
    assert resolve(RECIPES["probe"], tiny.source, tiny.traced, 3, n_train=10).updates == 0


def test_the_probes_head_is_asked_for(tiny) -> None:
    plan = resolve(RECIPES["finetune"], tiny.source, tiny.traced, 3, n_train=10)
    with pytest.raises(RecipeError, match="depth_profile"):
        starting_head(plan, tiny.traced, None)


def test_a_plan_is_printed_and_saved(tiny) -> None:
    plan = resolve(Recipe("mine", cut="block2"), tiny.source, tiny.traced, 3, n_train=24)
    saved = json.loads(json.dumps(plan.to_dict()))
    assert saved["cut"] == "block2" and saved["taps"] == [{"cut": "mean", "grid": 0}]
    assert plan.bytes == 24 * 16 * 16 * 16 * 4 and plan.seconds > 0
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(plan.table())
    text = console.export_text()
    assert "block3 · weights" in text and "frozen" in text and "dropped" in text


def test_a_tensor_in_two_rows_is_refused() -> None:
    row = PlanRow("a", ("body.x",), 1, "frozen")
    with pytest.raises(RecipeError, match=r"body\.x"):
        Plan(Recipe("r"), "s", "input", (Tap("a"),), (row, row), 2, 1, 1, 1)


def test_zero_biases_are_told_apart_by_name() -> None:
    """Two biases that are equal in value are two parameters (a peer compares them by value)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
    source = make_source("test:mlp", "python:none:none", {}, model, InputSpec(size=(3, 2, 2)))
    plan = resolve(Recipe("r", cut="input"), source, trace(model, torch.zeros(2, 3, 2, 2)), 2, n_train=8)
    trained = [name for row in plan.rows if row.state == "trained" for name in row.names]
    assert trained.count("body.1.bias") == trained.count("body.3.bias") == trained.count("head.bias") == 1
