"""Speakers are told from file names, where these reveal them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest

pytest.importorskip("soundfile")

from sounds import encoded, tone

from regraft.data import Dataset, Example, Problem, read
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


def problems(data: Dataset) -> list[Problem]:
    return speaker_problems(data.name, data.classes, data.examples)


def test_names_of_several_kinds_reveal_speakers() -> None:
    for pattern in ("{label}_{who}_{i}.wav", "{who}-take{i}.flac", "{i:03}.{who}.{label}.ogg", "{who}/{i}.wav"):
        found = speakers(dataset(files(pattern)))
        assert found.names == WHO == found.shared, pattern
        assert set(found.splits) == {("train", "test")}


def test_speakers_in_one_split_each_are_no_problem() -> None:
    apart = dataset(files("{label}_{who}_{i}.wav", train=WHO[:2], test=WHO[2:]))
    assert speakers(apart).names == WHO and speakers(apart).shared == () and problems(apart) == []


def test_those_in_several_are_named_with_their_splits() -> None:
    (problem,) = problems(dataset(files("{label}_{who}_{i}.wav", train=WHO, test=WHO[2:])))
    assert problem.kind == "speakers in several splits" and problem.name == "words"
    assert "1 of 3 speakers (carl) are heard in train, test;" in problem.detail


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


def test_reading_warns_of_them(tmp_path: Path) -> None:
    for i, name in enumerate(files("{label}_{who}_{i}.wav")):
        path = tmp_path / "words" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(tone(300 + i).samples))
    kinds = [problem.kind for problem in read(str(tmp_path / "words")).problems]
    assert kinds.count("speakers in several splits") == 1


def test_spoken_digits(shared_data: Path) -> None:
    data = read(shared_data / "datasets" / "spoken_digits")
    found = speakers(data)
    assert found.names == found.shared == ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    (problem,) = data.problems
    assert "6 of 6 speakers (george, jackson, lucas, nicolas, theo, …) are heard in train, val, test;" in str(problem)
