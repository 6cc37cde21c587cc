"""A source of every reader can be sent to another process, and is the same network there."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from readers import READERS
from regraft.digest import digest_state
from regraft.source import example_inputs


@pytest.mark.parametrize("name", READERS)
def test_it_arrives_whole(name: str, tmp_path: Path) -> None:
    sample = READERS[name]()
    source = sample.open(sample.files, tmp_path)
    arrived = pickle.loads(pickle.dumps(source))
    inputs = example_inputs(source.input, 2)
    with torch.no_grad():
        expected, found = (_tensors(each.model(*inputs)) for each in (source, arrived))
    assert all(map(torch.equal, expected, found)) and len(expected) == len(found) > 0
    assert digest_state(arrived.model.state_dict()) == arrived.weights_digest == source.weights_digest
    assert arrived.input == source.input and arrived.classes == source.classes


def _tensors(output: object) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    values = output.values() if isinstance(output, dict) else output
    return [tensor for value in values for tensor in _tensors(value)]  # type: ignore[attr-defined]
