"""The neutral graph: from plain JSON to a network, and what a stranger's JSON may not do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from regraft.cut import trace
from regraft.errors import SourceError
from regraft.source import build
from regraft.source.graph import Builder, escaped, original

NAMES = ["a/b:0", "fc.1", "training", "100%", "x@y#z", "forward", "größe", "with space"]


def small() -> dict[str, Any]:
    return {
        "input": "x",
        "shape": [3, 4, 4],
        "nodes": [
            ["conv.1", "conv", ["x", "conv.1/w"], {"stride": [1, 1], "padding": [0, 1, 0, 1]}],
            ["flat", "reshape", ["conv.1"], {"shape": [64], "channels_last": True}],
        ],
        "tensors": [["conv.1/w", [4, 3, 2, 2], "weight", None]],
        "output": "flat",
    }


@pytest.mark.parametrize("name", NAMES)
def test_names_are_reversible_and_what_pytorch_allows(name: str) -> None:
    assert original(escaped(name)) == name
    builder = Builder("data", (1, 2, 2))
    end = builder.add("end", "relu", [builder.add(name, "relu", [builder.input])])
    network, _ = build("graph:test", {"graph": builder.graph(end).to_dict()})
    assert [cut.name for cut in trace(network, torch.zeros(2, 1, 2, 2)).cuts][1].startswith(escaped(name)[:3])


def test_fresh_weights_are_drawn_by_fan_in() -> None:
    network, _ = build("graph:test", {"graph": small()}, seed=1)
    weight = network.get_parameter(escaped("conv.1/w")).detach()
    bound = 1 / 12**0.5
    assert bound * 0.8 < float(weight.abs().max()) <= bound
    other, _ = build("graph:test", {"graph": small()}, seed=2)
    assert not torch.equal(other.get_parameter(escaped("conv.1/w")), weight)


def changed(**parts: Any) -> dict[str, Any]:
    return {**small(), **parts}


HUGE = [["conv.1/w", [1 << 20, 1 << 20], "weight", None]]
CIRCLE = [["a", "relu", ["b"], {}], ["b", "relu", ["a"], {}]]
BAD = {
    "no graph": {},
    "a number": 3,
    "huge weights": changed(tensors=HUGE),
    "negative sizes": changed(tensors=[["conv.1/w", [-1, 3, 2, 2], "weight", None]]),
    "a circle": changed(nodes=CIRCLE, output="b"),
    "an unknown operation": changed(nodes=[["a", "system", ["x"], {}]], output="a"),
    "an unknown argument": changed(nodes=[["a", "relu", ["x"], {"command": 1}]], output="a"),
    "wrong shapes": changed(shape=[5, 4, 4]),
    "a picture of petabytes": changed(
        nodes=[["a", "pad", ["x"], {"padding": [1 << 30, 1 << 30, 1 << 30, 0]}]], output="a", tensors=[]
    ),
    "the same name twice": changed(nodes=[["a", "relu", ["x"], {}], ["a", "relu", ["x"], {}]], output="a"),
    "no such output": changed(output="nothing"),
    "a value of another shape": changed(tensors=[["conv.1/w", [4, 3, 2, 2], "constant", [1, 2]]]),
    "a value of text": changed(tensors=[["conv.1/w", [4, 3, 2, 2], "constant", "pickle"]]),
}


@pytest.mark.parametrize("what", BAD)
def test_a_graph_that_is_none_is_refused(what: str) -> None:
    with pytest.raises(SourceError):
        build("graph:test", {"graph": BAD[what]})
