"""What a network learns before there is a task: labels that people gave, or ones made of the pictures themselves.

Shape letters: N pictures, V versions of each, B rows of a batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import nn

from regraft.data import Dataset
from regraft.errors import DataError, RunError
from regraft.registry import Registry
from regraft.spec import InputSpec
from regraft.tune.rows import ArrayRows, Rows, flip_crop

Augment = Literal["none", "flip-crop"]
_CORRUPTION = 4  # a stream of random numbers beside those of the rows' order, augmentation and views
_TILES = 3  # along each side


class Objective(Protocol):
    """A task for pretraining."""

    @property
    def labelled(self) -> bool:
        """Whether it reads the labels of the data."""
        ...

    @property
    def about(self) -> str:
        """What is learnt, for the card."""
        ...

    def classes(self, data: Dataset) -> tuple[str, ...]:
        """Names of the network's outputs."""
        ...

    def check(self, data: Dataset, spec: InputSpec) -> None:
        """Refuse what it cannot learn from."""
        ...

    def rows(self, pixels: np.ndarray, labels: np.ndarray, *, augment: Augment, seed: int) -> Rows:
        """The rows of one split, of pixels uint8 (N, C, H, W) and labels (N,)."""
        ...


class Supervised:
    """The classes that people told apart."""

    labelled = True
    about = "the classes of its labels"

    def classes(self, data: Dataset) -> tuple[str, ...]:
        """Those of the data."""
        return data.classes

    def check(self, data: Dataset, spec: InputSpec) -> None:
        """Labels and numbers are no classes.

        Raises:
            DataError: the task is another one than classification.
        """
        if not data.task.one_of:
            raise DataError(
                f"{data.name} is a {data.task.kind} task, and supervised pretraining needs classes. An "
                "objective without labels takes them: --objective rotation"
            )

    def rows(self, pixels: np.ndarray, labels: np.ndarray, *, augment: Augment, seed: int) -> Rows:
        """Each picture once."""
        return ArrayRows(pixels, labels, augment=augment, seed=seed)


@dataclass(frozen=True)
class Pretext:
    """Which of several versions of a picture is shown; nobody has to label anything.

    Args:
        about: what is learnt, for the card.
        versions: their names.
        change: pixels (B, C, H, W), all to become one version, that version, and a generator for each, made when
            it is asked for, to pixels of the same shape.
        square: whether height and width must be the same.
    """

    about: str
    versions: tuple[str, ...]
    change: Callable[[np.ndarray, int, Iterable[np.random.Generator]], np.ndarray]
    square: bool = False
    labelled = False

    def classes(self, data: Dataset) -> tuple[str, ...]:
        """The versions, whatever the data are of."""
        return self.versions

    def check(self, data: Dataset, spec: InputSpec) -> None:
        """A quarter turn of a picture that is wider than high has another size.

        Raises:
            RunError: sides differ.
        """
        _, height, width = spec.size
        if self.square and height != width:
            raise RunError(
                f"this objective turns pictures, which must be as high as wide, and {height} x {width} is asked for: "
                f"--input-size {max(height, width)}"
            )

    def rows(self, pixels: np.ndarray, labels: np.ndarray, *, augment: Augment, seed: int) -> Rows:
        """Each picture in every version."""
        return VersionRows(pixels, self, augment=augment, seed=seed)


class VersionRows:
    """All versions of all pictures: row V * i + v is picture i in version v.

    Args:
        pixels: uint8 (N, C, H, W).
        pretext: the versions.
        augment: of the picture, before it is changed.
        seed: of augmentation and change, which are functions of (seed, epoch, row) and nothing else.
    """

    prefix: nn.Module | None = None
    lengths: np.ndarray | None = None

    def __init__(self, pixels: np.ndarray, pretext: Pretext, *, augment: Augment = "none", seed: int = 0) -> None:
        self._pixels = pixels
        self._pretext = pretext
        self._augment = augment
        self._seed = seed
        self._labels = np.tile(np.arange(len(pretext.versions)), len(pixels))

    @property
    def labels(self) -> np.ndarray:
        """The version of each row, int64 (N * V,)."""
        return self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, indices: np.ndarray, epoch: int) -> torch.Tensor:
        """The rows at some indices, float32 (B, C, H, W)."""
        pictures, versions = np.divmod(indices, len(self._pretext.versions))
        pixels = self._pixels[pictures]
        if self._augment == "flip-crop":
            pixels = flip_crop(pixels, pictures, n=len(self._pixels), seed=self._seed, epoch=epoch)
        changed = pixels.copy()
        for version in np.unique(versions):
            chosen = np.flatnonzero(versions == version)
            draws = (np.random.default_rng([_CORRUPTION, self._seed, epoch, int(row)]) for row in indices[chosen])
            changed[chosen] = self._pretext.change(pixels[chosen], int(version), draws)
        return torch.from_numpy(changed).float()


def turned(pixels: np.ndarray, quarters: int, draws: Iterable[np.random.Generator]) -> np.ndarray:
    """Pictures (B, C, S, S) turned by so many quarters."""
    return np.rot90(pixels, quarters, axes=(2, 3))


def corrupted(pixels: np.ndarray, version: int, draws: Iterable[np.random.Generator]) -> np.ndarray:
    """Pictures (B, C, H, W) as they are (version 0), or with tiles of a grid in another order (1).

    What is left over beside whole tiles, at the right and below, stays.
    """
    if version == 0:
        return pixels
    height, width = (side // _TILES for side in pixels.shape[2:])
    corners = [(height * row, width * column) for row in range(_TILES) for column in range(_TILES)]
    changed = pixels.copy()
    for picture, (before, draw) in enumerate(zip(pixels, draws, strict=True)):
        for (top, left), source in zip(corners, _other_order(len(corners), draw), strict=True):
            y, x = corners[source]
            changed[picture, :, top : top + height, left : left + width] = before[:, y : y + height, x : x + width]
    return changed


def _other_order(n: int, draw: np.random.Generator) -> np.ndarray:
    """A permutation that is not the identity."""
    while (order := draw.permutation(n)).tolist() == list(range(n)):
        pass
    return order


OBJECTIVES: Registry[Objective] = Registry("objective", RunError)
OBJECTIVES.add("supervised", Supervised())
# Gidaris and others, 2018, arXiv:1803.07728.
OBJECTIVES.add(
    "rotation",
    Pretext("which way up a picture is", ("upright", "quarter turn", "half turn", "three quarters"), turned, True),
)
# Whole against corrupted examples, which Collobert and Weston (2008) told apart in sentences; tiles in another order,
# after Noroozi and Favaro, 2016, arXiv:1603.09246.
OBJECTIVES.add("corrupted", Pretext("whether a picture's tiles are in order", ("whole", "corrupted"), corrupted))
