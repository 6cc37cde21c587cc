"""A graph with other tensors is the other network, to the bit, and shares what it holds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from regraft.cut import split, trace
from regraft.cut.reuse import with_weights_of
from regraft.errors import CutError
from regraft.source import build


@pytest.mark.parametrize("arch", ["timm:resnet10t", "timm:mobilenetv2_035", "timm:test_vit"])
def test_the_same_architecture_with_other_weights(arch: str):
    pytest.importorskip("timm")
    one, other = (build(arch, {}, seed=seed)[0].eval() for seed in (0, 1))
    size = getattr(one, "default_cfg", {}).get("input_size", (3, 64, 64))
    x = torch.randn(3, *size)
    before = trace(one, torch.zeros(2, *size))
    after = with_weights_of(before, other)
    with torch.no_grad():
        assert torch.equal(after.graph(x), other(x))
        assert torch.equal(before.graph(x), one(x))
        prefix, suffix = split(after, after.stages[1])
        assert torch.equal(suffix(prefix(x)), other(x))
    assert after.graph.state_dict().keys() == before.graph.state_dict().keys()
    assert [cut.name for cut in after.cuts] == [cut.name for cut in before.cuts]


def test_tensors_are_shared_with_the_other_network():
    one, other = (nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)) for _ in range(2))
    after = with_weights_of(trace(one, torch.zeros(2, 3)), other)
    assert after.graph.get_parameter("0.weight") is other[0].weight
    assert after.graph.get_buffer("1.running_mean") is other[1].running_mean


def test_another_architecture_is_refused():
    traced = trace(nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)), torch.zeros(2, 3))
    with pytest.raises(CutError, match=r"'0.bias' of shape \(5,\), the other network has one of shape \(4,\)"):
        with_weights_of(traced, nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))
    with pytest.raises(CutError, match="has none"):
        with_weights_of(traced, nn.Sequential(nn.Linear(3, 5)))
