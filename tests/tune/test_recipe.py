"""Recipes: what they refuse, and that their file says all of them."""

from __future__ import annotations

import pytest

from regraft.errors import RecipeError
from regraft.tune import RECIPES, Recipe


@pytest.mark.parametrize("name", ["probe", "finetune", "scratch", "naive"])
def test_a_recipe_survives_its_toml_file(name: str) -> None:
    assert Recipe.from_toml(RECIPES[name].to_toml()) == RECIPES[name]


def test_a_file_names_its_recipe(tmp_path) -> None:
    (tmp_path / "gentle.toml").write_text("lr = 1e-5\nepochs = 3\n")
    assert Recipe.from_file(tmp_path / "gentle.toml") == Recipe("gentle", lr=1e-5, epochs=3)


def test_all_wrong_values_are_reported_together() -> None:
    with pytest.raises(RecipeError, match=r"optimizer = 'adan' .*'adamw'.*lr = -1.*warmup = 1\.5"):
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
