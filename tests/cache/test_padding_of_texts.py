"""The frozen pass puts texts of the same number of tokens into one batch, whatever their number of characters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from regraft.cache import Tap, frozen, frozen_pass
from regraft.cache.runtime import TorchRuntime
from regraft.cut import split, trace_source
from regraft.data import read, transform_for
from regraft.source import front
from regraft.testing import tiny_text_source
from regraft.testing.texts import WORDS


@pytest.mark.parametrize("sorted_together", [2, 64])
def test_little_of_a_batch_is_padding(sorted_together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    texts = []
    for i in range(300):  # words that the vocabulary does not know have characters and no tokens
        known = " ".join(random.choice(WORDS, random.integers(1, 30)))
        texts.append(f"{known} {i} {'unheard-of ' * int(random.integers(0, 30))}")
    data, source = read((texts, [i % 2 for i in range(300)])), tiny_text_source()
    traced, tap = trace_source(source), Tap("blocks.0")
    batches: list[np.ndarray] = []
    run = TorchRuntime.run

    def noted(self: TorchRuntime, rows: np.ndarray) -> list[np.ndarray]:
        batches.append(rows)
        return run(self, rows)

    monkeypatch.setattr(frozen, "_SORTED", sorted_together)
    with monkeypatch.context() as patched:
        patched.setattr(TorchRuntime, "run", noted)
        caches, report = frozen_pass(data, source, traced, [tap], root=tmp_path, batch_size=16)
    assert report.computed == sum(map(len, batches)) == 300 and max(map(len, batches)) == 16
    wasted = np.mean(np.concatenate([(rows < 0).ravel() for rows in batches]))
    assert wasted < (0.15 if sorted_together == 64 else 0.5)
    if sorted_together == 64:
        assert batches[0].shape[1] == max(rows.shape[1] for rows in batches)  # the peak of memory comes first
    prefix, _ = split(traced, "blocks.0")
    for i in range(0, 300, 30):
        ids = transform_for(source.input)(data.open(i))
        with torch.no_grad():
            live = prefix(*front(source.input)(torch.from_numpy(ids[None])))
        np.testing.assert_allclose(caches[tap].rows([data.keys[i]]), live.numpy(), atol=1e-5)
