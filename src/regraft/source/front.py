"""What stands between prepared rows and a network: the only place that knows one modality's rows from another's.

Shape letters: B examples, C channels, H and W pixels, L tokens, T samples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regraft.spec import InputSpec, Spec, TextSpec

_LENGTH = 16  # tokens of an example to trace with; any other number fits as well


class PictureFront(nn.Module):
    """Pixels 0..255 to normalised pixels.

    Args:
        spec: whose mean and std.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1), persistent=False)

    def forward(self, rows: Tensor) -> tuple[Tensor]:
        """(B, C, H, W), uint8 or float, to the same as float32."""
        return ((rows.to(torch.float32) / 255 - self.mean) / self.std,)


class TokenFront(nn.Module):
    """Token ids padded with -1 to what encoders take: ids, and which of them count."""

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L) to int64 ids (B, L) and an int64 mask (B, L) of ones and zeros."""
        return rows.clamp(min=0).to(torch.int64), (rows >= 0).to(torch.int64)


class PlainFront(nn.Module):
    """Rows that are the network's input already."""

    def forward(self, rows: Tensor) -> tuple[Tensor]:
        """The rows as float32."""
        return (rows.to(torch.float32),)


def front(spec: Spec) -> nn.Module:
    """From a batch of prepared rows to the tuple of tensors that a network takes; it has nothing to train.

    Args:
        spec: the network's input.

    Example:
        >>> ids, mask = front(TextSpec("the\\na", kind="words", length=8))(torch.tensor([[1, 0, -1]]))
        >>> ids.tolist(), mask.tolist()
        ([[1, 0, 0]], [[1, 1, 0]])
    """
    if isinstance(spec, TextSpec):
        return TokenFront()
    picture = spec if isinstance(spec, InputSpec) else spec.picture
    return PictureFront(picture) if picture else PlainFront()


def example_rows(spec: Spec, n: int = 2) -> Tensor:
    """Rows such as a `Preparation` gives, with nothing in them, for tracing and timing.

    Args:
        spec: the network's input.
        n: of them.
    """
    if isinstance(spec, TextSpec):
        return torch.zeros(n, min(_LENGTH, spec.length), dtype=torch.int32)
    return torch.zeros(n, *spec.size)


def example_inputs(spec: Spec, n: int = 2) -> tuple[Tensor, ...]:
    """What a network takes, with nothing in it: `front` of `example_rows`."""
    return front(spec)(example_rows(spec, n))
