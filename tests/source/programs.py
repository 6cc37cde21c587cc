"""Small networks whose programs are read, each with what readers tend to get wrong."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F


class Convolutions(nn.Module):
    """Convolution, batch norm, in-place ReLU called twice, pooling, a buffer, dropout, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.act, self.pool, self.drop = nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Dropout(0.5)
        self.more = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.register_buffer("scale", torch.rand(8, 1, 1))
        self.register_buffer("shift", torch.rand(8, 1, 1), persistent=False)
        self.l = nn.Linear(8 * 64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.act(self.bn(self.c(x)))) * self.scale + self.shift
        x = self.act(x + self.more(x))
        return self.l(self.drop(x.flatten(1)))


class Attention(nn.Module):
    """Patches, a class token, attention by hand and by PyTorch's own layer, a constant made on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 17, 16))
        self.norm, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.mha = nn.MultiheadAttention(16, 2)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        n, length, width = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, length, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, width))
        y = x.transpose(0, 1)
        x = x + self.mha(y, y, y, need_weights=False)[0].transpose(0, 1)
        return self.head((x + torch.arange(length, device=x.device)[None, :, None] * 0.01)[:, 0])


class Windows(nn.Module):
    """Pictures that are mixed into the other axes and out again, as networks with windows do."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.mix, self.l = nn.Conv2d(3, 4, 1), nn.Linear(16, 16), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[0]
        x = self.c(x).reshape(n, 4, 4, 4, 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(n * 16, 4, 16)
        x = self.mix(x).view(n, 16, 4, 16).mean((1, 3))
        return self.l(x)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convolutions": Convolutions,
    "attention": Attention,
    "windows": Windows,
}


def made(name: str) -> nn.Module:
    torch.manual_seed(1)
    model = NETWORKS[name]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.running_mean, module.running_var, module.weight, module.bias):
                nn.init.uniform_(value, 0.5, 1.5)  # type: ignore[arg-type]
    return model.eval()


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).detach().abs().max() / wanted.detach().abs().max())
