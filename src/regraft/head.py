"""The linear head: what a probe fits, what fine-tuning starts from, what a delivered model ends in.

Shape letters: N examples, D features, K classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class LinearHead(nn.Module):
    """A linear classifier that standardises its features first: `((x - mean) / scale) @ weight.T + bias`.

    Mean and scale are buffers, so that they travel with the weights and are never trained.

    Args:
        n_features: D.
        n_classes: K.

    Example:
        >>> head = LinearHead.zeros(3, 2)
        >>> head(torch.ones(4, 3)).shape
        torch.Size([4, 2])
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.weight = nn.Parameter(torch.zeros(n_classes, n_features))
        self.bias = nn.Parameter(torch.zeros(n_classes))

    @classmethod
    def zeros(cls, n_features: int, n_classes: int) -> LinearHead:
        """A head that gives every class the same score."""
        return cls(n_features, n_classes)

    @classmethod
    def from_arrays(cls, weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> LinearHead:
        """A head with these values, as float32.

        Args:
            weight: (K, D), for standardised features.
            bias: (K,).
            mean: (D,), subtracted from the features.
            scale: (D,), divides the centred features; no zeros.
        """
        head = cls(weight.shape[1], weight.shape[0])
        values = {"weight": weight, "bias": bias, "mean": mean, "scale": scale}
        head.load_state_dict({name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()})
        return head

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Class scores (N, K) of features (N, D)."""
        return ((features - self.mean) / self.scale) @ self.weight.T + self.bias

    def extra_repr(self) -> str:
        """Sizes, for `print`."""
        return f"n_features={self.weight.shape[1]}, n_classes={self.weight.shape[0]}"
