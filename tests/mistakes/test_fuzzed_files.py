"""Attack: a model file that was damaged on purpose, at random, in every format that is read.

Some open all the same (a flipped bit among the weights is another weight); the rest is refused in one message. Nothing
that they carry runs. benchmarks/fuzz.py does this with thousands of files and measures time and memory.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from readers import MARK, READERS
from regraft.errors import RegraftError
from regraft.source import example_inputs, hdf5


@pytest.mark.parametrize("reader", READERS)
def test_one_message_or_a_network_and_nothing_runs(
    reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "PATIENCE_S", 3.0)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)
    sample = READERS[reader]()
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            source = sample.open(sample.case(reader, number), folder)
            source.model(*example_inputs(source.input))
        except RegraftError as error:
            assert str(error)
    assert not list(tmp_path.rglob(MARK))


@pytest.mark.parametrize("reader", READERS)
def test_the_whole_file_opens(reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its damage would prove nothing."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "files").mkdir()
    sample = READERS[reader]()
    assert sample.open(sample.files, tmp_path / "files").n_params > 0
