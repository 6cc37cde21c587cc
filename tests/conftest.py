"""Fixtures for the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real weights and datasets, which are not part of the repository; skips where they are absent."""
    folder = Path(os.environ.get("REGRAFT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "weights").is_dir():
        pytest.skip(f"real data not found at {folder}; set REGRAFT_DATA to its folder")
    return folder


@pytest.fixture(autouse=True)
def _same_seed() -> None:
    torch.manual_seed(0)
