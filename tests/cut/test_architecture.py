"""A graph's digest: the same for equal exports everywhere, another for whatever computes something else."""

from __future__ import annotations

import os
import subprocess
import sys

import torch
from torch import nn

from regraft.cut import Traced, trace, trace_source
from regraft.source import load_source
from regraft.testing import tiny_source, tiny_text_source

_ELSEWHERE = """
from regraft.cut import trace_source
from regraft.source import load_source
from regraft.testing import tiny_source, tiny_text_source
sources = tiny_text_source(), load_source("regraft:cifar10-resnet20"), tiny_source(seed=1)
print(*reversed([trace_source(source).architecture for source in sources]))
"""


def test_equal_exports_are_equal_in_every_process_whatever_the_weights() -> None:
    sources = tiny_source(), load_source("regraft:cifar10-resnet20"), tiny_text_source()
    ours = [trace_source(source).architecture for source in sources]
    assert len(set(ours)) == 3
    assert trace_source(tiny_source(seed=1)).architecture == ours[0]
    env = os.environ | {"PYTHONHASHSEED": "7"}
    run = subprocess.run([sys.executable, "-c", _ELSEWHERE], env=env, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ours


class Scaled(nn.Module):
    """A layer with a constant that is in no state dict, and a number."""

    scale: torch.Tensor

    def __init__(self, scale: float = 1.0, power: int = 2, branch: bool = False) -> None:
        super().__init__()
        self.register_buffer("scale", torch.full((3,), scale), persistent=False)
        self.power, self.branch = power, branch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.branch and x.sum() > 0:
            return x
        return (x * self.scale) ** self.power


def traced(*layers: nn.Module) -> Traced:
    return trace(nn.Sequential(*layers), torch.zeros(2, 3))


def test_whatever_computes_something_else_is_another_architecture() -> None:
    found = {traced(layer).architecture for layer in (nn.ReLU(), nn.Tanh(), Scaled(), Scaled(scale=2), Scaled(power=3))}
    assert len(found) == 5
    assert traced(Scaled()).architecture in found


def test_of_a_graph_of_whole_layers_their_settings_and_code_count() -> None:
    layers = Scaled(branch=True), Scaled(branch=True, scale=2)
    one, other = (traced(layer, nn.LeakyReLU(0.1)) for layer in layers)
    steep = traced(layers[0], nn.LeakyReLU(0.2))
    assert one.fallback_reason
    assert len({graph.architecture for graph in (one, other, steep)}) == 3
    assert traced(Scaled(branch=True), nn.LeakyReLU(0.1)).architecture == one.architecture
