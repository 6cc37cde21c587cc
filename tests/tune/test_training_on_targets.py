"""Losses and training for labels of which any number may hold, and for numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from regraft.cut import trace
from regraft.data import Task
from regraft.errors import RecipeError
from regraft.testing import tiny_images, tiny_source
from regraft.tune import ArrayRows, Recipe, resolve, starting_head, train, upper_network
from regraft.tune.objective import Objective

NUMBERS, LABELS = Task("regression", (0.0,), (1.0,)), Task("multilabel")


def test_losses_are_the_usual_ones():
    scores, y = torch.randn(8, 3), torch.randint(0, 2, (8, 3)).float()
    labels = Objective(Recipe("r"), y.numpy(), 3, LABELS)
    assert torch.equal(labels(scores, labels.prepared(scores, y)[1]), F.binary_cross_entropy_with_logits(scores, y))
    numbers = Objective(Recipe("r"), y.numpy(), 3, NUMBERS)
    assert torch.equal(numbers(scores, y), F.mse_loss(scores, y))
    for task in (LABELS, NUMBERS):
        ours = task.losses(scores.double().numpy(), y.double().numpy()).mean()
        assert ours == pytest.approx(float(Objective(Recipe("r"), y.numpy(), 3, task)(scores, y)), rel=1e-5)


def test_balanced_labels_count_a_rare_one_more():
    y = np.zeros((10, 1), np.float32)
    y[0] = 1
    assert Objective(Recipe("r", class_weights="balanced"), y, 1, LABELS).weights == torch.tensor([9.0])


@pytest.mark.parametrize("task", [LABELS, NUMBERS])
def test_training_learns_them(task: Task):
    source = tiny_source()
    traced = trace(source.model, torch.zeros(2, *source.input.size))
    X, label = tiny_images(20)
    y = (label == 0).astype(np.float32)[:, None]
    y = task.standardised(y) if task.numeric else y
    rows = ArrayRows(X.transpose(0, 3, 1, 2), y)
    assert rows.labels.dtype == np.float32
    recipe = Recipe("r", head="fresh", taps="feature", epochs=15, lr=3e-3, head_lr=1e-2, cut="input")
    plan = resolve(recipe, source, traced, 1, n_train=60, task=task)
    network = upper_network(plan, source, traced, starting_head(plan, traced, None))
    history = train(plan, network, rows, rows, seed=0)
    first, last = history.rows[0], history.kept
    assert last.val_accuracy is not None and first.val_accuracy is not None
    assert last.val_accuracy > first.val_accuracy + 0.15
    assert last.val_loss is not None and first.val_loss is not None and last.val_loss < 0.8 * first.val_loss
    if task.numeric:
        assert last.val_accuracy == pytest.approx(1 - last.val_loss)


def test_numbers_are_not_smoothed_or_weighted():
    source = tiny_source()
    traced = trace(source.model, torch.zeros(2, *source.input.size))
    with pytest.raises(RecipeError, match="label_smoothing"):
        resolve(Recipe("r", head="fresh", label_smoothing=0.1), source, traced, 1, n_train=60, task=NUMBERS)
    for task in (NUMBERS, LABELS):
        with pytest.raises(RecipeError, match="contrastive"):
            resolve(Recipe("r", head="fresh", contrastive=0.5), source, traced, 1, n_train=60, task=task)
