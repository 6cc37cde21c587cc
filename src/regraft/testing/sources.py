"""A source and pictures small enough for every test.

N examples, B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from regraft.source import Source, build, expects, make_source
from regraft.spec import InputSpec

TINY_ARCH = "python:regraft.testing.sources:tiny_net"
_COLOURS = np.array([[220, 60, 50], [50, 200, 70], [60, 80, 220], [220, 200, 40], [200, 60, 200], [60, 200, 200]])
_SHAPES = 3  # disc, square, cross


class TinyBlock(nn.Module):
    """Convolution, batch norm, ReLU; a residual sum where the shape stays."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outside)
        self.residual = stride == 1 and inside == outside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inside, H, W) to (B, outside, H / stride, W / stride)."""
        y = F.relu(self.bn(self.conv(x)))
        return x + y if self.residual else y


class TinyNet(nn.Module):
    """Four blocks, global average pooling, dropout, a linear classifier."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = TinyBlock(3, 8, 1)
        self.block1 = TinyBlock(8, 16, 2)
        self.block2 = TinyBlock(16, 16, 1)
        self.block3 = TinyBlock(16, 32, 2)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(32, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) to logits (B, K)."""
        x = self.block3(self.block2(self.block1(self.stem(x))))
        return self.classifier(self.dropout(x.mean((2, 3))))


@expects(InputSpec(size=(3, 32, 32), interpolation="bilinear", crop_mode="squash"))
def tiny_net(num_classes: int = 10) -> TinyNet:
    """The architecture of `tiny_source`, importable as `regraft.testing.sources:tiny_net`."""
    return TinyNet(num_classes)


def tiny_source(seed: int = 0) -> Source:
    """A small convolutional source with random weights and lived-in batch-norm statistics.

    Args:
        seed: of weights and statistics; the same seed gives the same digest.

    Example:
        >>> tiny_source().input.size, tiny_source().n_params
        ((3, 32, 32), 8754)
    """
    model, spec = build(TINY_ARCH, seed=seed)
    assert spec is not None
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            _age(module, generator)
    return make_source(f"testing:tiny-{seed}", TINY_ARCH, {}, model, spec)


def _age(norm: nn.BatchNorm2d, generator: torch.Generator) -> None:
    """Give a batch norm statistics unlike its fresh ones, so that forgetting them shows."""
    shape = (norm.num_features,)
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    mean.copy_(0.1 * torch.randn(shape, generator=generator))
    variance.copy_(0.5 + torch.rand(shape, generator=generator))


def tiny_images(n_per_class: int, classes: int = 3, size: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Coloured shapes on a noisy ground: learnable from a handful of examples, yet not trivial.

    Args:
        n_per_class: pictures of each class.
        classes: at most 18 (six colours, each in three shapes).
        size: height and width in pixels.
        seed: the same seed gives the same pictures.

    Returns:
        X uint8 (N, H, W, C) and y int64 (N,), classes in turn.

    Example:
        >>> X, y = tiny_images(2)
        >>> X.shape, y.tolist()
        ((6, 32, 32, 3), [0, 1, 2, 0, 1, 2])
    """
    if not 1 <= classes <= _SHAPES * len(_COLOURS):
        raise ValueError(f"classes must be 1 to {_SHAPES * len(_COLOURS)}: {classes}")
    random = np.random.default_rng(seed)
    y = np.tile(np.arange(classes), n_per_class)
    X = np.stack([_picture(int(label), size, random) for label in y])
    return X, y


def _picture(label: int, size: int, random: np.random.Generator) -> np.ndarray:
    ground = random.integers(40, 160) + random.normal(0, 25, (size, size, 3))
    colour = _COLOURS[label % len(_COLOURS)] + random.normal(0, 25, 3)
    inside = _mask((label + label // len(_COLOURS)) % _SHAPES, size, random)[:, :, None]
    noisy = np.where(inside, colour + random.normal(0, 20, (size, size, 3)), ground)
    return noisy.clip(0, 255).astype(np.uint8)


def _mask(shape: int, size: int, random: np.random.Generator) -> np.ndarray:
    """(H, W) truth values of a disc, a square or a cross, somewhere, of some radius."""
    radius = size * random.uniform(0.2, 0.35)
    row, column = random.uniform(radius, size - radius, 2)
    down, across = np.abs(np.mgrid[:size, :size] - np.array([row, column])[:, None, None])
    if shape == 0:
        return np.hypot(down, across) < radius
    if shape == 1:
        return np.maximum(down, across) < radius * 0.85
    arm = radius * 0.3
    return (np.minimum(down, across) < arm) & (np.maximum(down, across) < radius)
