"""How to get an example's bytes again: from a file or from an array. Parquet rows are in `parquet.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from regraft.data.picture import open_encoded


class Locator(Protocol):
    """A place that holds one picture."""

    def content(self) -> bytes:
        """The bytes that make the example what it is; their hash is its key."""
        ...

    def image(self, content: bytes) -> Image.Image:
        """The picture that these bytes hold; pixels are decoded on use."""
        ...


@dataclass(frozen=True, slots=True)
class FileLocator:
    """A picture in a file of its own."""

    path: str  # text, not Path: a fifth of the memory, and there is one per example

    def content(self) -> bytes:
        return Path(self.path).read_bytes()

    def image(self, content: bytes) -> Image.Image:
        return open_encoded(content)


@dataclass(frozen=True, slots=True, eq=False)
class ArrayLocator:
    """A row of an array that is in memory anyway: uint8 (N, H, W) or (N, H, W, C)."""

    array: np.ndarray
    index: int

    def content(self) -> bytes:
        row = self.array[self.index]
        return f"{row.dtype.str}{row.shape}".encode() + row.tobytes()

    def image(self, content: bytes) -> Image.Image:
        row = self.array[self.index]
        return Image.fromarray(row[..., 0] if row.ndim == 3 and row.shape[-1] == 1 else row)
