"""Forward passes take as many rows at once as stay in memory that is kept, and say the same of each row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from regraft.artifact.bundle import probabilities
from regraft.cache import Tap, TapModel
from regraft.cache.runtime import TorchRuntime
from regraft.cut import at_once, rows_at_once, trace_source
from regraft.head import LinearHead
from regraft.search.trial import scores
from regraft.source import Source
from regraft.testing import tiny_source
from regraft.tune import ArrayRows, Network, full_network, network_above


def delivered(source: Source) -> Network:
    traced = trace_source(source)
    torch.manual_seed(0)
    head = LinearHead.zeros(64, 3)
    nn.init.normal_(head.weight)
    return full_network(source, traced, [Tap("block2", 2)], head).eval()


def test_the_larger_the_activations_the_fewer_rows() -> None:
    small, source = tiny_source(), tiny_source()
    large = replace(source, input=replace(source.input, size=(3, 256, 256)))
    assert rows_at_once(delivered(small)) == at_once.MOST
    found = rows_at_once(delivered(large))
    assert at_once.LEAST <= found < at_once.MOST
    above = network_above(trace_source(large), "block2", [Tap("block2", 2)], LinearHead.zeros(64, 3))
    assert found < rows_at_once(above) <= at_once.MOST  # what lies below the cut does not count
    assert rows_at_once(network_above(trace_source(large), "output", [], LinearHead.zeros(4, 3))) == at_once.MOST


def test_rows_have_the_same_answers_in_whatever_company(monkeypatch: pytest.MonkeyPatch) -> None:
    source, sizes = tiny_source(), []
    network, rows = delivered(source), np.random.default_rng(0).integers(0, 256, (37, 3, 32, 32), dtype=np.uint8)
    taps = TapModel(trace_source(source), [Tap("block1", 4), Tap("block2", 2)], source.input)
    together = (
        probabilities(network, rows),
        scores(network, ArrayRows(rows, np.zeros(37))),
        *TorchRuntime(taps).run(rows),
    )
    monkeypatch.setattr(at_once, "VALUES", 1)
    network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    parted = probabilities(network, rows), scores(network, ArrayRows(rows, np.zeros(37))), *TorchRuntime(taps).run(rows)
    assert max(sizes) == at_once.LEAST and sum(sizes) == 2 * 37
    for one, other in zip(together, parted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
