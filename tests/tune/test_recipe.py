"""Recipes: what they refuse, and that their file says all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from regraft.errors import RecipeError
from regraft.tune import RECIPES, Recipe


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_survives_its_toml_file(name: str) -> None:
    assert Recipe.from_toml(RECIPES[name].to_toml()) == RECIPES[name]


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_named_recipe_is_in_the_table_of_the_guide(name: str) -> None:
    guide = (Path(__file__).parents[2] / "docs/tune.md").read_text(encoding="utf-8")
    assert RECIPES[name].name == name and f"\n| `{name}` |" in guide


def test_a_file_names_its_recipe(tmp_path) -> None:
    (tmp_path / "gentle.toml").write_text("lr = 1e-5\nepochs = 3\n")
    assert Recipe.from_file(tmp_path / "gentle.toml") == Recipe("gentle", lr=1e-5, epochs=3)


def test_all_wrong_values_are_reported_together() -> None:
    with pytest.raises(RecipeError, match=r"optimizer = 'adan' .*adamw, adam, sgd.*lr = -1.*warmup = 1\.5"):
        Recipe.from_dict({"optimizer": "adan", "lr": -1, "warmup": 1.5})


def test_numbers_are_not_truth_values() -> None:
    with pytest.raises(RecipeError, match=r"dropout = 1 .*epochs = True"):
        Recipe.from_dict({"epochs": True, "dropout": 1})


def test_misspelt_names_show_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'weight_decay'"):
        Recipe.from_toml("weigth_decay = 0.1")
    with pytest.raises(RecipeError, match="Did you mean 'finetune'"):
        RECIPES["finetnue"]


def test_a_broken_file_is_one_message(tmp_path) -> None:
    with pytest.raises(RecipeError, match="not TOML"):
        Recipe.from_toml("lr: 0.1")
    with pytest.raises(RecipeError, match="no recipe file"):
        Recipe.from_file(tmp_path / "absent.toml")


NESTED = Recipe(
    "nested",
    head="fresh",
    train=r"layer[34]\.|^head",
    rates={r"layer4\.\d": 1e-4, 'a "b"': 0.0, "ä 😀\x7f": 2},
    replace={"layer4": "linear:64"},
    interpolate="auto",
    keep_source_head=False,
)


def test_tables_survive_the_toml_file_in_their_order() -> None:
    again = Recipe.from_toml(NESTED.to_toml())
    assert again == NESTED and list(again.rates) == list(NESTED.rates) and hash(again) == hash(NESTED)
    assert Recipe.from_toml("[rates]\n'layer4' = 1e-4\nhead = 1e-3\n").rates == {"layer4": 1e-4, "head": 1e-3}


def test_a_command_line_overrules_any_field() -> None:
    changed = RECIPES["finetune"].overruled(
        ["lr=1e-4", "train = layer[34]|head", "dropout=true", 'rates={"layer4" = 1e-4}', "interpolate=auto", "freeze="]
    )
    assert (changed.lr, changed.train, changed.dropout) == (1e-4, "layer[34]|head", True)
    assert (changed.rates, changed.interpolate, changed.freeze) == ({"layer4": 1e-4}, "auto", "")
    with pytest.raises(RecipeError, match="gives no value"):
        Recipe("r").overruled(["dropout"])
    with pytest.raises(RecipeError, match="Did you mean 'freeze'"):
        Recipe("r").overruled(["freze=conv"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": "layer["}, "regular expression"),
        ({"rates": {"layer4": -1}}, "table of patterns and rates"),
        ({"replace": {"layer4": "lstm:3"}}, "table of blocks"),
        ({"head_layers": "mpl:3"}, "one of linear, mlp"),
        ({"interpolate": 2}, r"share in \[0, 1\]"),
        ({"lr": float("inf")}, "lr = inf"),
        ({"weights": "random", "restore": "layer1"}, "need the source's values, so weights must be 'pretrained'"),
        ({"weights": "random", "l2_sp": 0.1}, "need the source's values"),
        ({"weights": "random", "interpolate": 0.5}, "need the source's values"),
        ({"weights": "random", "interpolate": "auto"}, "need the source's values"),
        ({"drop_above": "layer3", "taps": "feature"}, "taps must be 'auto'"),
    ],
)
def test_what_cannot_be_is_refused(values: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict(values)


def test_a_number_can_be_the_name_of_a_cut() -> None:
    """As the layers of an `nn.Sequential` are called."""
    recipe = Recipe("mine").overruled(["cut=1", "drop_above='4'", "lr=1e-2", "unfreeze=2"])
    assert (recipe.cut, recipe.drop_above, recipe.lr, recipe.unfreeze) == ("1", "4", 0.01, 2)
