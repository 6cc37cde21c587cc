"""ResNets for 32x32 images: ResNet-20, 32, 44, 56.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2015, arXiv 1512.03385, section 4.2.
Parameter names are those of github.com/akamaster/pytorch_resnet_cifar10, so its checkpoints load.

B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from regraft.source.arch import expects
from regraft.spec import InputSpec

CIFAR_INPUT = InputSpec(size=(3, 32, 32), interpolation="bilinear", crop_mode="squash")
_WIDTHS = (16, 32, 64)


class Shortcut(nn.Module):
    """The paper's option A: every second pixel, zero channels added on both sides; no parameters."""

    def __init__(self, stride: int, extra_channels: int) -> None:
        super().__init__()
        self.stride = stride
        self.side = extra_channels // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, C + extra, H / stride, W / stride)."""
        picked = x[:, :, :: self.stride, :: self.stride]
        return F.pad(picked, (0, 0, 0, 0, self.side, self.side))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        plain = stride == 1 and inside == outside
        self.shortcut = nn.Identity() if plain else Shortcut(stride, outside - inside)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inside, H, W) to (B, outside, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """A 3x3 stem and three stages of `depth` blocks with 16, 32 and 64 channels.

    Args:
        depth: blocks per stage; the network has 6 * depth + 2 layers with weights.
        num_classes: outputs of the classifier `linear`.
    """

    def __init__(self, depth: int, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.layer1 = _stage(_WIDTHS[0], _WIDTHS[0], 1, depth)
        self.layer2 = _stage(_WIDTHS[0], _WIDTHS[1], 2, depth)
        self.layer3 = _stage(_WIDTHS[1], _WIDTHS[2], 2, depth)
        self.linear = nn.Linear(_WIDTHS[2], num_classes)
        self.apply(_he_init)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) to logits (B, K)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


def _stage(inside: int, outside: int, stride: int, depth: int) -> nn.Sequential:
    rest = [BasicBlock(outside, outside, 1) for _ in range(depth - 1)]
    return nn.Sequential(BasicBlock(inside, outside, stride), *rest)


def _he_init(module: nn.Module) -> None:
    """He et al. 2015, arXiv 1502.01852: variance kept through ReLUs."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


@expects(CIFAR_INPUT)
def resnet20(num_classes: int = 10) -> CifarResNet:
    """ResNet-20: 0.27 M parameters.

    Example:
        >>> import torch
        >>> resnet20().eval()(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    return CifarResNet(3, num_classes)


@expects(CIFAR_INPUT)
def resnet32(num_classes: int = 10) -> CifarResNet:
    """ResNet-32: 0.46 M parameters."""
    return CifarResNet(5, num_classes)


@expects(CIFAR_INPUT)
def resnet44(num_classes: int = 10) -> CifarResNet:
    """ResNet-44: 0.66 M parameters."""
    return CifarResNet(7, num_classes)


@expects(CIFAR_INPUT)
def resnet56(num_classes: int = 10) -> CifarResNet:
    """ResNet-56: 0.85 M parameters."""
    return CifarResNet(9, num_classes)
