"""Fixtures for the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

# Workers side by side share the cores: threads beyond them would wait for each other. Set before PyTorch starts,
# and in the environment, so that the commands that tests start keep to it too.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // int(workers)))

import pytest
import torch

from regraft.cli.process import prepare

prepare()  # the suite is a process of regraft's own, as a command is


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
