"""Speakers are told from file names, where these reveal them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

from regraft.data import Dataset, Example
from regraft.data.audio.speakers import speaker_problems, speakers
from regraft.data.locate import FileLocator

WHO = ("anna", "bert", "carl")


def dataset(names: Iterable[str], classes: tuple[str, ...] = ("no", "yes")) -> Dataset:
    """Files by their names, SPLIT/CLASS/…."""
    examples = []
    for name in names:
        split, label, *_ = Path(name).parts
        examples.append(Example(name, classes.index(label), split, name, FileLocator(name)))
    return Dataset("words", classes, tuple(examples), modality="audio")


def files(pattern: str, *, test: Iterable[str] = WHO, train: Iterable[str] = WHO) -> list[str]:
    heard = {"train": tuple(train), "test": tuple(test)}
    return [
        f"{split}/{label}/" + pattern.format(label=label, who=who, i=i)
        for split, label, i in itertools.product(heard, ("no", "yes"), range(4))
        for who in heard[split]
    ]


def test_names_of_several_kinds_reveal_speakers() -> None:
    for pattern in ("{label}_{who}_{i}.wav", "{who}-take{i}.flac", "{i:03}.{who}.{label}.ogg", "{who}/{i}.wav"):
        found = speakers(dataset(files(pattern)))
        assert found.names == WHO == found.shared, pattern
        assert set(found.splits) == {("train", "test")}


def test_speakers_in_one_split_each_are_no_problem() -> None:
    apart = dataset(files("{label}_{who}_{i}.wav", train=WHO[:2], test=WHO[2:]))
    assert speakers(apart).names == WHO and speakers(apart).shared == () and speaker_problems(apart) == []


def test_those_in_several_are_named_with_their_splits() -> None:
    (problem,) = speaker_problems(dataset(files("{label}_{who}_{i}.wav", train=WHO, test=WHO[2:])))
    assert problem.kind == "speakers in several splits" and problem.name == "words"
    assert "1 of 3 speakers (carl) are heard in train and test" in problem.detail


def test_numbers_classes_and_what_hardly_repeats_are_no_speakers() -> None:
    for pattern in ("{label}_{i}.wav", "{i}.wav", "{label}/{i}.wav", "rec_{i}.wav"):
        assert speakers(dataset(files(pattern))).names == (), pattern
    names = [f"train/{label}/take{i}x{label}_{i}.wav" for label in ("no", "yes") for i in range(20)]
    assert speakers(dataset(names)).names == ()


def test_names_that_are_not_built_alike_say_nothing() -> None:
    assert speakers(dataset([*files("{who}_{i}.wav"), "train/no/extra.wav"])).names == ()


def test_one_speaker_of_one_word_does_not_hide_the_others() -> None:
    once = "train/no/dora_0.wav"
    assert speakers(dataset([*files("{who}_{i}.wav"), once])).names == (*WHO, "dora")


def test_spoken_digits(shared_data: Path) -> None:
    root = shared_data / "datasets" / "spoken_digits"
    names = [path.relative_to(root).as_posix() for path in sorted(root.glob("*/*/*.wav"))]
    found = speakers(dataset(names, tuple("0123456789")))
    assert found.names == found.shared == ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
