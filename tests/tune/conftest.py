"""A tiny traced source and pictures that are learnt in seconds."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from regraft.cut import trace
from regraft.testing import tiny_images, tiny_source


@pytest.fixture(autouse=True, scope="package")
def _one_thread():
    """Small batches are slower on several threads, and sums then depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def tiny():
    """source, traced, and pictures (N, C, H, W) with labels, the first 24 for training."""
    source = tiny_source()
    traced = trace(source.model, torch.zeros(2, *source.input.size))
    pixels, labels = tiny_images(12)
    return SimpleNamespace(
        source=source, traced=traced, pixels=np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), labels=labels
    )
