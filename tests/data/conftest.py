"""Small folders of pictures, each picture different."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (24, 20), mode: str = "RGB") -> Image.Image:
    """A noise picture of its own for each seed; size is (width, height)."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).convert(mode)


@pytest.fixture
def paint() -> Callable[..., Image.Image]:
    return picture


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """root/CLASS/*: two classes with 30 pictures each."""
    root = tmp_path / "photos"
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for i in range(30):
            picture(100 * label + i).save(root / name / f"{i:02}.{'jpg' if i % 2 else 'png'}")
    return root
