"""Attack: a model file that was damaged on purpose, at random, in every format that is read.

Some open all the same (a flipped bit among the weights is another weight); the rest is refused in one message. Nothing
that they carry runs. benchmarks/fuzz.py does this with thousands of files and measures time and memory.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from readers import MARK, READERS
from regraft.errors import RegraftError
from regraft.source import hdf5


@pytest.mark.parametrize("reader", READERS)
def test_one_message_or_a_network_and_nothing_runs(
    reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "PATIENCE_S", 3.0)
    monkeypatch.chdir(tmp_path)
    sample = READERS[reader]()
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            source = sample.open(sample.case(reader, number), folder)
            source.model(torch.zeros(2, *source.input.size))
        except RegraftError as error:
            assert str(error)
    assert not list(tmp_path.rglob(MARK))


def test_whole_files_open() -> None:
    """Else the damage would prove nothing."""
    for make in READERS.values():
        assert make().files
