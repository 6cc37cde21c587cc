"""How one example of any modality becomes one row of numbers."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from regraft.data.audio import AudioTransform
from regraft.data.text import TextTransform
from regraft.data.transform import Transform
from regraft.spec import AudioSpec, Spec, TextSpec


class Preparation(Protocol):
    """Opens nothing and knows no files: an opened example in, one row out, always the same."""

    @property
    def spec(self) -> Spec:
        """What the network expects."""
        ...

    @property
    def view(self) -> int:
        """0 plain, k > 0 the k-th augmented version."""
        ...

    @property
    def digest(self) -> str:
        """Changes when anything changes that the network's input depends on."""
        ...

    @property
    def ragged(self) -> bool:
        """Whether the first axis of a row is as long as the example; batches of such rows are padded with -1."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Of a row."""
        ...

    @property
    def size(self) -> tuple[int, ...]:
        """Shape of a row; of the longest one, if they are ragged."""
        ...

    def __call__(self, opened: Any, key: str = "", /) -> np.ndarray:
        """One row of an opened example; views above 0 depend on its content key."""
        ...


def transform_for(spec: Spec, view: int = 0) -> Preparation:
    """The preparation that a network's input asks for.

    Args:
        spec: what the network expects.
        view: 0 plain, k > 0 the k-th augmented version.

    Example:
        >>> transform_for(TextSpec("the\\na", kind="words"))("a the").tolist()
        [1, 0]
    """
    if isinstance(spec, TextSpec):
        return TextTransform(spec, view)
    return AudioTransform(spec, view) if isinstance(spec, AudioSpec) else Transform(spec, view)
