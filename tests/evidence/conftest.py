"""A run folder as a finished run leaves it, and a small dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from folders import write_proof, write_run
from PIL import Image

from regraft.data import Dataset, read
from regraft.testing import tiny_images


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A complete run folder."""
    return write_run(tmp_path / "run")


@pytest.fixture
def proven(run: Path) -> Path:
    """The same with everything that a full measurement leaves beside it."""
    write_proof(run)
    return run


@pytest.fixture
def make_run() -> Callable[[Path], Path]:
    """Makes a complete run folder at a path."""
    return write_run


@pytest.fixture
def shapes(tmp_path: Path) -> Dataset:
    """60 pictures of three classes, as a dataset with drawn splits."""
    X, y = tiny_images(20)
    for i, (pixels, label) in enumerate(zip(X, y, strict=True)):
        folder = tmp_path / "shapes" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return read(str(tmp_path / "shapes"))
