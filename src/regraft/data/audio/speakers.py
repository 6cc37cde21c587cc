"""Who speaks, where the names of files reveal it: the same voice in training and in test flatters a model."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from regraft.data.dataset import SPLITS, Dataset, Example, Problem
from regraft.data.listing import SPLIT_NAMES

_LEAST = 3  # recordings of each speaker, on average: a part of a name that hardly repeats is a number or a date
_SEVERAL = 0.8  # of the recordings are of speakers of more than one class
_SHOWN = 5


@dataclass(frozen=True)
class Speakers:
    """What the names of recordings say about who made them.

    Args:
        names: of the speakers, in alphabetical order; empty where file names do not reveal them.
        splits: for each speaker, in which splits they are heard.
    """

    names: tuple[str, ...] = ()
    splits: tuple[tuple[str, ...], ...] = ()

    @property
    def shared(self) -> tuple[str, ...]:
        """Speakers that are heard in more than one split."""
        return tuple(name for name, splits in zip(self.names, self.splits, strict=True) if len(splits) > 1)


def speakers(dataset: Dataset) -> Speakers:
    """Finds the part of the file names that tells speakers.

    It holds a letter, takes few values, and nearly all of them occur in several classes: `7_george_12.wav`,
    `yes/spk03-take2.wav`, `yes/anna/0001.wav`.

    Args:
        dataset: recordings; nothing of them is opened.

    Returns:
        The speakers; none where the names are not built alike, or no part of them fits.
    """
    return _speakers_of(dataset.classes, dataset.examples)


def speaker_problems(name: str, classes: tuple[str, ...], examples: Sequence[Example]) -> list[Problem]:
    """A warning, if speakers are heard in more than one split; empty otherwise.

    Args:
        name: of the dataset, for people.
        classes: class names.
        examples: recordings.
    """
    found = _speakers_of(classes, examples)
    if not found.shared:
        return []
    shown = ", ".join(found.shared[:_SHOWN]) + (", …" if len(found.shared) > _SHOWN else "")
    where = [split for split in SPLITS if any(split in heard for heard in found.splits if len(heard) > 1)]
    detail = (
        f"by the file names, {len(found.shared)} of {len(found.names)} speakers ({shown}) are heard in "
        f"{', '.join(where)}; the accuracy says little about new voices. Put each speaker into one split"
    )
    return [Problem("speakers in several splits", name, detail)]


def _speakers_of(classes: tuple[str, ...], examples: Sequence[Example]) -> Speakers:
    parts = [_parts(example, classes) for example in examples]
    if len({len(words) for words in parts}) != 1:
        return Speakers()
    found = [words for words in zip(*parts, strict=True) if _tells_speakers(words, examples)]
    return _speakers(min(found, key=lambda words: len(set(words))), examples) if found else Speakers()


def _parts(example: Example, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The words of a file's path below the folders of its split and class."""
    *folders, stem = PurePosixPath(example.name).with_suffix("").parts or ("",)
    below = [f for f in folders if f.lower() not in SPLIT_NAMES and f != classes[example.label]]
    return tuple(re.split(r"[_\-. ]+", "_".join([*below, stem])))


def _tells_speakers(words: Sequence[str], examples: Sequence[Example]) -> bool:
    labels: dict[str, set[int]] = defaultdict(set)
    for word, example in zip(words, examples, strict=True):
        labels[word].add(example.label)
    named = all(len(word) > 1 and re.search(r"[^\W\d]", word) for word in labels)
    several = sum(len(labels[word]) > 1 for word in words) >= _SEVERAL * len(words)
    return named and several and 2 <= len(labels) <= len(words) / _LEAST


def _speakers(words: Sequence[str], examples: Sequence[Example]) -> Speakers:
    heard: dict[str, set[str]] = defaultdict(set)
    for word, example in zip(words, examples, strict=True):
        heard[word].add(example.split)
    names = tuple(sorted(heard))
    return Speakers(names, tuple(tuple(_ordered(heard[name])) for name in names))


def _ordered(splits: set[str]) -> Iterator[str]:
    return (split for split in SPLITS if split in splits)
