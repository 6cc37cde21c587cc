"""Where channels stand in an activation, also where pictures are not square and sizes happen to be equal."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regraft.cut import trace


class ChannelsLast(nn.Module):
    """Patches, then a residual MLP on (N, H, W, C) by way of tokens (N, H·W, C), as in a Swin transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, stride=4)
        self.norm = nn.LayerNorm(6)
        self.mlp = nn.Linear(6, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        places = self.patches(x).permute(0, 2, 3, 1)
        tokens = self.mlp(self.norm(places).flatten(1, 2))
        return self.head((places + tokens.unflatten(1, places.shape[1:3])).mean((1, 2)))


def layouts(network: nn.Module, height: int, width: int) -> dict[str, str]:
    traced = trace(network.eval(), torch.zeros(2, 3, height, width))
    return {cut.name: cut.layout for cut in traced.cuts if len(cut.shape) == 3}


def test_channels_are_last_whatever_the_form_of_a_picture() -> None:
    square, wide = (layouts(ChannelsLast(), 32, width) for width in (32, 64))
    assert square == wide
    assert list(wide.values()).count("NHWC") == len(wide) - 2  # the picture, and its patches


def test_channels_that_are_as_many_as_rows_stay_first() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    )
    assert set(layouts(network, 16, 24).values()) == {"NCHW"}
