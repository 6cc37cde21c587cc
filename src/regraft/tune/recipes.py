"""The named recipes."""

from __future__ import annotations

from regraft.errors import RecipeError
from regraft.registry import Registry
from regraft.tune.recipe import Recipe

RECIPES: Registry[Recipe] = Registry("recipe", RecipeError)

# The head alone, in closed form: nothing is trained by gradient.
RECIPES.add("probe", Recipe("probe", cut="output", epochs=0))

# For 50 to 2,000 examples. The head starts at the probe's solution and low stages hardly move, because
# large early steps distort features that few examples cannot rebuild; 200 updates because an epoch of
# 50 examples is two.
RECIPES.add("finetune", Recipe("finetune", min_updates=200, patience=5))

# For texts, in the place of SetFit's two stages: contrast first of all, and a fresh head on the last layer that learns
# beside it. Few updates, one low rate for all layers and the network's own dropout, because transformers overfit a few
# hundred sentences soon (benchmarks/texts/contrastive.py has the figures).
RECIPES.add(
    "contrastive",
    Recipe(
        "contrastive",
        head="fresh",
        taps="feature",
        epochs=6,
        min_updates=96,
        patience=3,
        lr=5e-5,
        layer_decay=1.0,
        dropout=True,
        contrastive=0.9,
    ),
)

# Freeze all, then unfreeze from the top: up to five steps, each from the cache at its own cut.
RECIPES.add("gradual", Recipe("gradual", unfreeze="auto", epochs=20, min_updates=300, patience=3))

# The control: every layer from fresh weights, with rates that suit them. Measured on the digits at 5 per class with
# ResNet-20: this reaches 85 %, AdamW at 2e-3 for 400 updates 73 %; a weak control would flatter transfer.
RECIPES.add(
    "scratch",
    Recipe(
        "scratch",
        weights="random",
        head="fresh",
        cut="input",
        taps="feature",
        epochs=40,
        min_updates=800,
        batch_size=16,
        optimizer="sgd",
        lr=0.05,
        head_lr=0.05,
        layer_decay=1.0,
        weight_decay=5e-4,
        batch_norm="train",
        dropout=True,
    ),
)

# What tutorials do: a fresh head on the last layer, the whole network, Adam at 1e-3 throughout.
RECIPES.add(
    "naive",
    Recipe(
        "naive",
        head="fresh",
        cut="input",
        taps="feature",
        epochs=25,
        min_updates=200,
        lr=1e-3,
        head_lr=1e-3,
        layer_decay=1.0,
        weight_decay=0.0,
        schedule="constant",
        warmup=0.0,
        batch_norm="train",
        dropout=True,
        clip=0.0,
        keep="last",
    ),
)
