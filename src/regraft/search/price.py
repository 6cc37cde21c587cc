"""What a training is expected to take: its updates, and beside them frozen passes and looks at the validation split."""

from __future__ import annotations

import time

import torch

from regraft.search.features import Features
from regraft.source import example_rows
from regraft.tune import Plan, Recipe, epochs_between_evaluations, frozen_prefix

# Of its updates that a training from a probe's head makes until it is stopped early: of ten (cifar10, sign_digits, 50
# to 100 examples), eight ended after 42 to 66 % of them.
STOPS = 0.6
_TIMED = 8  # rows


def share_made(recipe: Recipe) -> float:
    """Of its updates that a training is expected to make."""
    return STOPS if recipe.patience and recipe.head == "probe" else 1.0


def seconds_of(plan: Plan, beside: float) -> float:
    """Of a full run, which early stopping shortens, with the seconds that it takes however short it is."""
    return share_made(plan.recipe) * plan.seconds + beside


def seconds_beside(plan: Plan, features: Features) -> float:
    """That a run takes however short it is."""
    return seconds_of_pass(plan, features) + seconds_of_views(plan, features) + seconds_of_evaluations(plan, features)


def seconds_of_pass(plan: Plan, features: Features) -> float:
    """Of the frozen pass to the plan's cut, over the training and validation examples as they are."""
    if plan.cut in ("input", "output"):  # pixels, and pooled features, are at hand
        return 0.0
    return (_count(features, "train") + _count(features, "val")) * seconds_an_example(plan, features)


def seconds_of_views(plan: Plan, features: Features) -> float:
    """Of the frozen passes over the recipe's further views: of training examples, and of those it averages over."""
    further = {"train": plan.recipe.views, "val": plan.recipe.most_averaged}
    rows = sum(max(0, views - 1) * _count(features, split) for split, views in further.items())
    return rows * seconds_an_example(plan, features) if rows else 0.0


def seconds_of_averaging(plan: Plan, features: Features) -> float:
    """Of the frozen passes over the validation and test splits in the views that predictions may be averaged over."""
    further = max(0, plan.recipe.most_averaged - 1)
    rows = further * (_count(features, "val") + _count(features, "test"))
    return rows * seconds_an_example(plan, features) if rows else 0.0


def seconds_of_evaluations(plan: Plan, features: Features) -> float:
    """Of two looks at the validation split at least; a few training texts may have many to validate on."""
    n_train, n_val = _count(features, "train"), _count(features, "val")
    looks = 2 + share_made(plan.recipe) * plan.n_epochs // epochs_between_evaluations(n_train, n_val)
    # A row's forward pass is a third of its share of an update.
    return looks * n_val * plan.seconds / max(1, plan.n_epochs * n_train) / 3


def seconds_an_example(plan: Plan, features: Features) -> float:
    """Of a frozen pass: as it was in this run or, where all rows were there already, as timed on a few examples."""
    if known := features.tally.seconds_each:
        return known
    rows = example_rows(features.source.input, _TIMED)
    prefix, began = frozen_prefix(plan, features.source, features.traced), time.perf_counter()
    with torch.no_grad():
        prefix(rows)
    return (time.perf_counter() - began) / len(rows)


def _count(features: Features, split: str) -> int:
    return len(features.labels(split))
