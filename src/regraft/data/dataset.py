"""Labelled examples as values: what was found, where it lies, and what a person should know about it.

Shape letters: N examples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from regraft.data.bad import broken
from regraft.data.locate import Locator, printable
from regraft.data.medium import MEDIA
from regraft.data.task import CLASSIFICATION, Task
from regraft.digest import digest_bytes
from regraft.errors import DataError, RegraftError
from regraft.spec import Modality

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled picture, text or recording. Its bytes stay where they are.

    Args:
        key: SHA-256 of the encoded bytes, of a text of its UTF-8: content only, never the file name.
        label: index into the dataset's classes.
        split: one of `SPLITS`.
        name: for people: the path below the root, or "train.parquet#17".
        locator: how to get the bytes again.
        width: pixels, as the header says; characters; samples.
        height: pixels, as the header says; 0; samples per second.
        mode: Pillow's name for the kind of pixels ("RGB", "L", "CMYK"); encoding of the text; "clean", "silent" or
            "clipped".
        target: of other tasks than classification: 0 or 1 for each label, or the numbers to predict; `label` is then
            0.
    """

    key: str
    label: int
    split: str
    name: str
    locator: Locator
    width: int = 0
    height: int = 0
    mode: str = ""
    target: tuple[float, ...] = ()


@dataclass(frozen=True)
class Problem:
    """Something that a person should know about the examples.

    Args:
        kind: "unreadable", "truncated", "empty file", "too large", "missing", "no label", "ignored",
            "duplicate across splits", "conflicting labels", "small class", "imbalanced classes",
            "class missing in split", ...
        name: the example or class that it is about.
        detail: what is the matter, in words.
    """

    kind: str
    name: str
    detail: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))

    def __str__(self) -> str:
        return f"{self.name}: {self.kind}: {self.detail}"


@dataclass(frozen=True)
class Sizes:
    """How large the examples are, and of what kind; see `Example` for what that is in each modality.

    Args:
        n: number of examples.
        width: (smallest, median, largest).
        height: (smallest, median, largest).
        modes: mode -> number of examples, most frequent first.
    """

    n: int
    width: tuple[int, int, int]
    height: tuple[int, int, int]
    modes: dict[str, int]


@dataclass(frozen=True)
class Dataset:
    """Labelled examples of one task.

    Args:
        name: for people.
        classes: class names; an example's label is an index into them. Of other tasks, the names of the labels or
            of the numbers, in the order of an example's target.
        examples: the examples, in the order they were found.
        problems: what a person should know.
        modality: the kind of input.
        task: what is to be predicted.

    Example:
        >>> from regraft.data import read
        >>> digits = read("digits")
        >>> digits.classes[3], len(digits.split("train").per_class(5, seed=0).examples)
        ('3', 50)
    """

    name: str
    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    problems: tuple[Problem, ...] = ()
    modality: Modality = "image"
    task: Task = CLASSIFICATION

    def __len__(self) -> int:
        return len(self.examples)

    @cached_property
    def labels(self) -> np.ndarray:
        """Labels as int64 (N,)."""
        return np.fromiter((e.label for e in self.examples), np.int64, len(self.examples))

    @cached_property
    def targets(self) -> np.ndarray:
        """Labels as 0 and 1, or numbers in their own units, float32 (N, K); (N, 0) for classification."""
        width = 0 if self.task.one_of else len(self.classes)
        return np.array([e.target for e in self.examples], np.float32).reshape(len(self.examples), width)

    @cached_property
    def y(self) -> np.ndarray:
        """What heads learn: class indices int64 (N,), labels as 0 and 1, or standardised numbers, float32 (N, K)."""
        if self.task.one_of:
            return self.labels
        return self.task.standardised(self.targets) if self.task.numeric else self.targets

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Content keys, in order (N)."""
        return tuple(e.key for e in self.examples)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Widths as int64 (N,): characters, samples, pixels; to put examples of like length into one batch."""
        return np.fromiter((e.width for e in self.examples), np.int64, len(self.examples))

    def split(self, name: str) -> Dataset:
        """The examples of one split.

        Args:
            name: one of `SPLITS`.
        """
        if name not in SPLITS:
            raise ValueError(f"unknown split {name!r}; there are {', '.join(SPLITS)}: dataset.split('train')")
        return replace(self, examples=tuple(e for e in self.examples if e.split == name))

    def per_class(self, k: int | None, seed: int) -> Dataset:
        """At most k training examples of each class; validation and test stay as they are.

        The k with the lowest hash of (seed, key), so subsets of one seed are nested over k and depend on
        content alone. None keeps everything. Of a multilabel task, k examples with each label and k without any, so
        that some labels have more.

        Args:
            k: training examples to keep of each class.
            seed: which subset.

        Raises:
            DataError: k is no count, or targets are numbers, which have no classes.
        """
        if k is None:
            return self
        if k < 1:
            raise DataError(
                f"{k} training examples of each class are none. Keep one or more: data.per_class(10, seed=0)"
            )
        if self.task.numeric:
            raise DataError(
                f"{self.name} has numbers to predict and no classes, so --per-class {k} means nothing. Say how many "
                f"training examples to keep in all: --train-size {10 * k}"
            )
        kept = {index for members in self._train_members() for index in self._lowest(members, k, seed)}
        chosen = (e for i, e in enumerate(self.examples) if e.split != "train" or i in kept)
        return replace(self, examples=tuple(chosen))

    def train_size(self, n: int | None, seed: int) -> Dataset:
        """At most n training examples, whatever their class; nested over n as `per_class` is over k. None keeps all.

        Args:
            n: training examples to keep.
            seed: which subset.

        Raises:
            DataError: so few leave nothing to learn from, or nothing of some class.
        """
        if n is None:
            return self
        if n < 2:
            raise DataError(
                f"{n} training examples leave nothing to learn from. Two or more: data.train_size(100, seed=0)"
            )
        train = [i for i, example in enumerate(self.examples) if example.split == "train"]
        in_order = self._lowest(train, len(train), seed)
        if self.task.one_of:
            self._check_classes_are_kept(in_order, n, seed)
        kept = set(in_order[:n])
        return replace(self, examples=tuple(e for i, e in enumerate(self.examples) if e.split != "train" or i in kept))

    def rescaled(self) -> Dataset:
        """The same examples; numbers are standardised by those among them that are for training."""
        train = self.split("train").targets
        return replace(self, task=self.task.scaled_to(train)) if self.task.numeric and len(train) else self

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of examples: split -> class -> n, for splits that have any; of numbers, how many there are."""
        found = Counter((e.split, i) for e in self.examples for i in self._held(e))
        present = [split for split in SPLITS if any(key[0] == split for key in found)]
        return {split: {c: found[split, i] for i, c in enumerate(self.classes)} for split in present}

    def open(self, i: int) -> Any:
        """The i-th example, decoded now: a Pillow image, a text (`str` or `Pair`), or a `Sound`.

        Raises:
            DataError: it is no longer there, or does not decode.
        """
        example = self.examples[i]
        try:
            opened = MEDIA[self.modality].open(example.locator, example.locator.content())
            if isinstance(opened, Image.Image):
                opened.load()
        except RegraftError:
            raise
        except Exception as error:  # decoders of untrusted bytes raise anything
            raise DataError(f"{example.name}: {broken(error)}. Read the data again with read()") from error
        return opened

    def sizes(self) -> Sizes:
        """Widths, heights and kinds, as they were when the data was read."""
        modes = Counter(e.mode for e in self.examples)
        return Sizes(
            n=len(self.examples),
            width=_spread(e.width for e in self.examples),
            height=_spread(e.height for e in self.examples),
            modes=dict(modes.most_common()),
        )

    def _check_classes_are_kept(self, in_order: Sequence[int], n: int, seed: int) -> None:
        """Refuses n training examples in which a class is lost that the others hold."""
        labels = [self.examples[i].label for i in in_order]
        needed = {label: labels.index(label) + 1 for label in set(labels)}
        lost = [name for label, name in enumerate(self.classes) if needed.get(label, 0) > n]
        if lost:
            raise DataError(
                f"{n} training examples hold none of {', '.join(map(repr, lost[:10]))}. Keep more: "
                f"data.train_size({max(needed.values())}, seed={seed}), "
                f"or some of each class: data.per_class(2, seed={seed})"
            )

    def _train_members(self) -> list[list[int]]:
        members: list[list[int]] = [[] for _ in (*self.classes, None)]  # the last: of none of the labels
        for index, example in enumerate(self.examples):
            if example.split == "train":
                for held in self._held(example) or [len(self.classes)]:
                    members[held].append(index)
        return members

    def _held(self, example: Example) -> list[int]:
        """Which of the classes, labels or numbers an example has."""
        if self.task.one_of:
            return [example.label]
        return [i for i, value in enumerate(example.target) if self.task.numeric or value]

    def _lowest(self, members: Sequence[int], k: int, seed: int) -> list[int]:
        return sorted(members, key=lambda i: digest_bytes(f"subset:{seed}:{self.examples[i].key}".encode()))[:k]


def _spread(values: Iterable[int]) -> tuple[int, int, int]:
    found = sorted(values)
    return (found[0], int(median(found)), found[-1]) if found else (0, 0, 0)
