"""What a step minimises, and what is done to its rows before.

Shape letters: B rows of one batch, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regraft.data import CLASSIFICATION, Task
from regraft.tune.recipe import Recipe

TEMPERATURE = 0.3  # of `contrast`, as Gunel and others found best


class Objective:
    """The loss of a task as a recipe wants it: smoothed labels, balanced classes, mixed and noisy rows, contrast.

    Cross-entropy for classes, its binary kind for labels of which any number may hold, the squared error for numbers.

    All chance comes from PyTorch's generator, which the loop seeds for each epoch.

    Args:
        recipe: label_smoothing, class_weights, mixup, noise, contrastive.
        labels: of all training rows; "balanced" counts them.
        n_classes: K.
        task: what the labels are.

    Example:
        >>> Objective(Recipe("r", class_weights="balanced"), [0, 0, 0, 1], 2).weights
        tensor([0.6667, 2.0000])
    """

    def __init__(
        self,
        recipe: Recipe,
        labels: Sequence[int] | np.ndarray,
        n_classes: int,
        task: Task = CLASSIFICATION,
    ) -> None:
        self.recipe = recipe
        self.n_classes = n_classes
        self.task = task
        self.weights = None
        if recipe.class_weights == "balanced":
            self.weights = balanced(labels, n_classes) if task.one_of else balanced_labels(np.asarray(labels))

    def prepared(self, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (B, ...) as they are learnt from, and their labels (B,) as shares of each class (B, K).

        What is (B, K) already, labels or numbers, stays.
        """
        shares = F.one_hot(labels, self.n_classes).float() if self.task.one_of else labels
        if self.recipe.noise:
            rows = noisy(rows, self.recipe.noise)
        return mixed(rows, shares, self.recipe.mixup) if self.recipe.mixup else (rows, shares)

    def __call__(self, logits: Tensor, shares: Tensor, features: Tensor | None = None) -> Tensor:
        """Mean over the batch of the loss between scores (B, K) and class shares, labels or numbers (B, K).

        With features (B, D), the recipe's contrastive share of it is their `contrast`.
        """
        loss = self._loss(logits, shares)
        if features is None:
            return loss
        return torch.lerp(loss, contrast(features, shares.argmax(1)), self.recipe.contrastive)

    def _loss(self, logits: Tensor, shares: Tensor) -> Tensor:
        if self.task.numeric:
            return F.mse_loss(logits, shares)
        weights = None if self.weights is None else self.weights.to(logits.device)
        if self.task.one_of:
            return F.cross_entropy(logits, shares, weight=weights, label_smoothing=self.recipe.label_smoothing)
        smooth = torch.lerp(shares, torch.full_like(shares, 0.5), self.recipe.label_smoothing)
        return F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=weights)


def balanced(labels: Sequence[int] | np.ndarray, n_classes: int) -> Tensor:
    """A weight for each class, (K,), with which all classes count alike and the mean row counts one."""
    counts = np.bincount(np.asarray(labels), minlength=n_classes)
    present = max(1, int((counts > 0).sum()))
    return torch.tensor(counts.sum() / (present * np.maximum(counts, 1)), dtype=torch.float32)


def balanced_labels(labels: np.ndarray) -> Tensor:
    """What a label that holds counts against one that does not, (K,), so that both count alike over all rows (N, K).

    Example:
        >>> balanced_labels(np.array([[1.0], [0.0], [0.0]]))
        tensor([2.])
    """
    held = labels.sum(axis=0)
    return torch.tensor((len(labels) - held) / np.maximum(held, 1), dtype=torch.float32)


def noisy(rows: Tensor, share: float) -> Tensor:
    """Rows (B, C, ...) with Gaussian noise of a share of each channel's standard deviation in the batch.

    Padding (NaN) counts for nothing, and stays.
    """
    axes = [axis for axis in range(rows.ndim) if axis != 1]
    away = rows - rows.nanmean(axes, keepdim=True)
    return rows + share * away.square().nanmean(axes, keepdim=True).sqrt() * torch.randn_like(rows)


def contrast(features: Tensor, labels: Tensor) -> Tensor:
    """How little rows resemble those of their own class among all others; 0 where no class occurs twice.

    References: Khosla and others, 2020, arXiv:2004.11362, the loss with the sum outside the logarithm.

    Args:
        features: (B, D).
        labels: (B,).
    """
    alike = F.normalize(features, dim=1)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    chances = (alike @ alike.T / TEMPERATURE).masked_fill(itself, -torch.inf).log_softmax(1)
    friends = (labels[:, None] == labels) & ~itself
    number = friends.sum(1)
    mean = chances.masked_fill(~friends, 0.0).sum(1)[number > 0] / number[number > 0]
    return -mean.mean() if len(mean) else features.sum() * 0.0


def mixed(rows: Tensor, shares: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Each row and its shares mixed with another row of the batch, all by one weight from Beta(alpha, alpha)."""
    weight = float(torch.distributions.Beta(alpha, alpha).sample())
    other = torch.randperm(len(rows)).to(rows.device)
    return torch.lerp(rows[other], rows, weight), torch.lerp(shares[other], shares, weight)


class Pull:
    """L2-SP: adds to the gradient of some parameters that of strength / 2 · ‖w − w₀‖² (Li and others, 2018).

    Args:
        parameters: by name.
        strengths: of each of them that is pulled.
        origin: their values w₀.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], strengths: Mapping[str, float], origin: Mapping[str, Tensor]
    ) -> None:
        self._pulled = [(parameters[n], origin[n].to(parameters[n].device), s) for n, s in strengths.items()]

    @torch.no_grad()
    def __call__(self) -> None:
        """Add to the gradients."""
        for parameter, start, strength in self._pulled:
            if parameter.grad is not None:
                parameter.grad.add_(parameter - start, alpha=strength)


def clip_gradients(parameters: Iterable[Tensor], recipe: Recipe) -> None:
    """Limit each number of the gradient, then its norm, as the recipe says."""
    parameters = list(parameters)
    if recipe.clip_value:
        nn.utils.clip_grad_value_(parameters, recipe.clip_value)
    if recipe.clip:
        nn.utils.clip_grad_norm_(parameters, recipe.clip)
