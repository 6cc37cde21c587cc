"""How to get an example's bytes again: from a file or from an array.

Parquet rows are in `parquet.py`, texts in `text/`. What encoded bytes hold is a matter of the modality (`medium.py`);
what is in memory is opened by its locator.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import numpy as np
from PIL import Image


class Locator(Protocol):
    """A place that holds one example."""

    def content(self) -> bytes:
        """The bytes that make the example what it is; their hash is its key."""
        ...


class Decoded(Locator, Protocol):
    """A place of an example that is not encoded."""

    def opened(self, content: bytes) -> Any:
        """The picture, text or recording whose content this is."""
        ...


def printable(path: str | Path) -> str:
    r"""A path that any file of text can hold: bytes that are no UTF-8, which Linux allows, as Python spells them.

    Example:
        >>> import os
        >>> print(printable(os.fsdecode(b"caf\xe9.png")), printable("café.png"))
        caf\udce9.png café.png
    """
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def is_decoded(locator: Locator) -> TypeGuard[Decoded]:
    """Whether a locator opens its own content."""
    return hasattr(locator, "opened")  # a tenth of the time of isinstance, and asked for every row of a table


@dataclass(frozen=True, slots=True)
class FileLocator:
    """An example in a file of its own."""

    path: str  # text, not Path: a fifth of the memory, and there is one per example

    def content(self) -> bytes:
        return Path(self.path).read_bytes()


@dataclass(frozen=True, slots=True, eq=False)
class BytesLocator:
    """An encoded example that is in memory anyway."""

    encoded: bytes

    def content(self) -> bytes:
        return self.encoded


@dataclass(frozen=True, slots=True, eq=False)
class ArrayLocator:
    """A row of an array that is in memory anyway: uint8 (N, H, W) or (N, H, W, C)."""

    array: np.ndarray
    index: int

    def content(self) -> bytes:
        row = self.array[self.index]
        return f"{row.dtype.str}{row.shape}".encode() + row.tobytes()

    def opened(self, content: bytes) -> Image.Image:
        row = self.array[self.index]
        return Image.fromarray(row[..., 0] if row.ndim == 3 and row.shape[-1] == 1 else row)
