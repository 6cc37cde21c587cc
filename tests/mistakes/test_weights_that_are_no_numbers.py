"""Mistake: the training that made a file diverged, so that some of its weights are NaN or infinite.

Loaded in silence they make every prediction the same. Each reader refuses them; files with checksums say that.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from readers import READERS, Sample
from regraft.errors import SourceError

# What holds its weights as plain floats; archives hold the same files, 8-bit weights cannot be NaN, and word vectors
# that are written out are in tests/source/test_vectors.py.
PLAIN = [name for name in READERS if not any(word in name for word in ("archive", "8 bit", "vectors, text"))]


def a_value(sample: Sample, state: dict[str, torch.Tensor]) -> bytes:
    """Of a tensor, as its file holds it."""
    first = [tensor.flatten()[0].numpy() for tensor in state.values() if tensor.is_floating_point()]
    inside = b"".join(sample.files.values())
    return next(value.tobytes() for value in first if abs(value) not in (0, 1) and value.tobytes() in inside)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("reader", PLAIN)
def test_nan_and_infinity_are_refused(reader: str, wrong: float, tmp_path: Path) -> None:
    sample = READERS[reader]()
    (tmp_path / "whole").mkdir()
    value = a_value(sample, sample.open(sample.files, tmp_path / "whole").model.state_dict())
    poisoned = {name: file.replace(value, np.float32(wrong).tobytes()) for name, file in sample.files.items()}
    (tmp_path / "poisoned").mkdir()
    with pytest.raises(SourceError, match=r"NaN|checksum|CRC"):
        sample.open(poisoned, tmp_path / "poisoned")
