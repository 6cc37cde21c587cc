"""Constants of a graph as plain JSON: what is not learned, and belongs to the architecture."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np

from regraft.errors import SourceError

_MOST_CONSTANT = 1 << 24  # values of one


def packed(values: np.ndarray) -> list[Any]:
    """A constant as plain JSON: float32, int64 or bool, its shape, its bytes in base64."""
    kind = "bool" if values.dtype == bool else "int64" if values.dtype.kind in "iu" else "float32"
    plain = np.ascontiguousarray(values.astype(kind))
    return [kind, list(values.shape), base64.b64encode(plain.tobytes()).decode()]


def unpacked(name: str, constant: Any) -> np.ndarray:
    """The inverse of `packed`.

    Raises:
        SourceError: it is not what `packed` gives.

    Example:
        >>> unpacked("axes", packed(np.array([[1, 2]]))).tolist()
        [[1, 2]]
    """
    try:
        kind, shape, text = constant
        if kind not in ("bool", "int64", "float32") or len(text) > 8 * _MOST_CONSTANT:
            raise ValueError(f"type {kind!r}")
        return np.frombuffer(base64.b64decode(text, validate=True), dtype=kind).reshape([int(n) for n in shape])
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        raise SourceError(f"the constant {name!r} is damaged ({error}). Export or copy the network again") from error
