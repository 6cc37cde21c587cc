"""Arrays and texts in memory, and scikit-learn's handwritten digits.

Shape letters: N examples, C channels (1, 3 or 4), H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from regraft.data.listing import Listing, Row
from regraft.data.locate import ArrayLocator, FileLocator, Locator
from regraft.data.medium import MEDIA, modality_of_files
from regraft.data.task import Kind
from regraft.data.text.opening import PairLocator, TextLocator
from regraft.errors import DataError
from regraft.spec import Modality

_CHANNELS = (1, 3, 4)
_SHOWN = 5  # numbers of pictures in a message


def list_arrays(X: Any, y: Any, name: str = "array", kind: Kind | None = None) -> Listing:
    """One row per example.

    Args:
        X: pictures, uint8 0..255 or float 0..1; (N, H, W), (N, H, W, C) or (N, C, H, W); or N texts, or N pairs
            of texts; or N files, as `Path` or as names that all end as those of pictures or recordings do.
        y: labels (N,), numbers or words; labels as 0 and 1, or several numbers for each, (N, K); or lists of words.
        name: of the dataset.
        kind: of task, where it is known: 0 and 1 may be numbers too.
    """
    modality, locators = _located(X, name)
    shape = _shape(y)
    if shape[0] != len(locators) or len(shape) > 2:
        raise DataError(
            f"X has {len(locators)} {MEDIA[modality].noun}s and y has the shape {shape}. "
            f"Expected one label for each, ({len(locators)},): read((X, y))"
        )
    labels, declared = _labels(y, shape, kind)
    pairs = enumerate(zip(locators, labels, strict=True))
    rows = [Row(_called(locator, f"{name}#{i}"), locator, label, None) for i, (locator, label) in pairs]
    return Listing(name, modality, rows, **declared)


def list_digits() -> Listing:
    """scikit-learn's 1,797 handwritten digits, 8x8 grey, scaled from 0..16 to 0..255."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return list_arrays(np.rint(X.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), y, "digits")


def _located(X: Any, name: str) -> tuple[Modality, Sequence[Locator]]:
    files = _files(X)
    if files is not None:
        return modality_of_files((file.path for file in files), name), files
    texts = _texts(X)
    return ("image", _pictures(X)) if texts is None else ("text", texts)


def _called(locator: Locator, otherwise: str) -> str:
    return locator.path if isinstance(locator, FileLocator) else otherwise


def _files(X: Any) -> list[FileLocator] | None:
    """A locator for each file; None if X holds something else. No collection of texts ends in .jpg every time."""
    if isinstance(X, np.ndarray) and X.dtype.kind not in "OU":
        return None
    named = [one for one in X if isinstance(one, Path) or (isinstance(one, str) and _names_a_file(one))]
    return [FileLocator(str(one)) for one in named] if len(named) == len(X) and named else None


def _names_a_file(text: str) -> bool:
    return PurePath(text).suffix.lower() in MEDIA["image"].suffixes | MEDIA["audio"].suffixes


def _pictures(X: Any) -> list[Locator]:
    X = np.asarray(X)
    _check_shape(X)
    pictures = _channels_last(_to_uint8(X))
    return [ArrayLocator(pictures, i) for i in range(len(pictures))]


def _texts(X: Any) -> list[Locator] | None:
    """A locator for each text or pair of texts; None if X holds something else."""
    first = next(iter(X), None)
    if isinstance(first, str):
        return [TextLocator(str(text)) for text in X]
    if isinstance(first, tuple | list) and len(first) == 2 and isinstance(first[0], str):
        return [PairLocator(*pair) for pair in X]
    return None


def _to_uint8(X: np.ndarray) -> np.ndarray:
    if X.dtype == np.uint8:
        return X
    if X.dtype.kind == "f" and not np.isfinite(X).all():
        raise _not_finite(X)
    top = 1 if X.dtype.kind in "fb" else 255
    if X.dtype.kind not in "fiub" or (X.size and not (X.min() >= 0 and X.max() <= top)):
        found = f"values from {X.min()} to {X.max()}" if X.size and X.dtype.kind in "fiu" else "other values"
        raise DataError(
            f"X has the type {X.dtype} and {found}. Expected whole numbers 0 to 255 or floats 0 to 1: "
            "read(((X - X.min()) / (X.max() - X.min()), y))"
        )
    return np.rint(X * (255 / top)).astype(np.uint8)


def _not_finite(X: np.ndarray) -> DataError:
    """How many values are no numbers, and where; scaling would make all of them so."""
    wrong = ~np.isfinite(X)
    hit = np.flatnonzero(wrong.any(axis=tuple(range(1, X.ndim))))
    kinds = " or ".join(name for name, has in (("NaN", np.isnan), ("infinite", np.isinf)) if has(X).any())
    shown = ", ".join(map(str, hit[:_SHOWN])) + (", ..." if len(hit) > _SHOWN else "")
    axes = ", ".join(map(str, range(1, X.ndim)))
    way_out = (
        "as black: read((np.nan_to_num(X, posinf=0, neginf=0), y))"
        if len(hit) == len(X)
        else f"without these pictures: ok = np.isfinite(X).all(axis=({axes})); read((X[ok], y[ok]))"
    )
    return DataError(
        f"{wrong.sum()} of {X.size} values of X are {kinds}, in {len(hit)} of {len(X)} pictures (number {shown}). "
        f"Expected floats 0 to 1; {way_out}"
    )


def _check_shape(X: np.ndarray) -> None:
    if X.ndim == 3 or (X.ndim == 4 and (X.shape[-1] in _CHANNELS or X.shape[1] in _CHANNELS)):
        return
    side = math.isqrt(X.shape[1]) if X.ndim == 2 else 0
    sides = f"{side}, {side}" if side and side**2 == X.shape[1] else "height, width"
    raise DataError(
        f"X has the shape {X.shape}. Expected (N, H, W), (N, H, W, C) or (N, C, H, W) "
        f"with 1, 3 or 4 channels: read((X.reshape(len(X), {sides}), y))"
    )


def _channels_last(X: np.ndarray) -> np.ndarray:
    return X if X.ndim == 3 or X.shape[-1] in _CHANNELS else np.moveaxis(X, 1, -1)


def _shape(y: Any) -> tuple[int, ...]:
    """Of labels; lists of words have one axis, however long each list is."""
    return (len(y),) if _are_lists(y) else np.asarray(y).shape


def _labels(y: Any, shape: tuple[int, ...], kind: Kind | None) -> tuple[list[str | tuple[str, ...]], dict[str, Any]]:
    """The label of each row, and what the labels' type declares of their task, for a `Listing`."""
    if _are_lists(y):
        return [tuple(map(str, one)) for one in y], {"kind": "multilabel"}
    values = np.asarray(y)
    if len(shape) == 1:
        return [str(label) for label in values.tolist()], {}
    if kind != "regression" and values.dtype.kind in "biuf" and np.isin(values, (0, 1)).all():
        names = tuple(map(str, range(shape[1])))
        return [tuple(names[k] for k in np.flatnonzero(row)) for row in values], {
            "classes": names,
            "kind": "multilabel",
        }
    return [tuple(map(str, row)) for row in values.tolist()], {"kind": "regression"}


def _are_lists(y: Any) -> bool:
    return any(isinstance(one, list | tuple) and all(isinstance(word, str) for word in one) for one in y)
