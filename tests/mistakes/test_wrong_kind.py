"""Mistake: data of one kind are offered to a network for another, or to one that hardly knows them."""

from __future__ import annotations

import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regraft.cli import main
from regraft.data import read
from regraft.search import Means, check, traced_source
from regraft.spec import AudioSpec, TextSpec
from regraft.testing import tiny_source

FILMS = ["a good film", "a bad film", "good", "bad", "such a good one", "such a bad one"] * 4


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What `regraft fit` says when it ends with status 2."""
    with pytest.raises(SystemExit) as ended:
        main(["fit", *map(str, words)])
    assert ended.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "films.csv"
    rows = [f"{text} {i},{'bad' not in text}" for i, text in enumerate(FILMS)]
    path.write_text("\n".join(["text,label", *rows]))
    return path


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Tones of two heights, 8,000 samples a second, 0.5 s each."""
    for i in range(24):
        path = tmp_path / "tones" / ("high" if i % 2 else "low") / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        tone = 0.3 * np.sin(2 * np.pi * (600 if i % 2 else 300) * (1 + i / 100) * np.arange(4000) / 8000)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes((tone * 32767).astype("<i2").tobytes())
    return tmp_path / "tones"


def test_numbers_in_a_table_are_for_other_methods(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No pretrained network has anything to transfer to age and income."""
    path = tmp_path / "table.csv"
    path.write_text("age,income,label\n31,2000,yes\n47,3100,no\n25,1800,yes\n62,2500,no\n")
    said = refused(capsys, path, "--out", tmp_path / "run")
    assert "gradient-boosted trees or a linear model" in said and "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_texts_for_a_network_that_sees(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, texts, "--source", "regraft:cifar10-resnet20", "--out", tmp_path / "run")
    assert "expects image, and films holds text. Take a source for text" in said


def test_pictures_for_a_network_that_reads(tmp_path: Path) -> None:
    source = replace(tiny_source(), input=TextSpec("a\ngood\nfilm", kind="words", length=8))
    found = check(read("digits"), source, traced_source(tiny_source()), Means(tmp_path))
    assert found.verdict == "refuses" and "expects text, and digits holds image" in found.reasons[0]


def test_words_that_the_vocabulary_does_not_hold(texts: Path, tmp_path: Path) -> None:
    source = replace(tiny_source(), input=TextSpec("a\ngood\nfilm", kind="words", length=8))
    found = check(read(texts), source, traced_source(tiny_source()), Means(tmp_path))
    assert found.verdict == "warns" and "'bad'" in found.reasons[0]
    known = "\n".join([*["a", "good", "bad", "film", "such", "one"], *map(str, range(len(FILMS)))])
    right = replace(source, input=TextSpec(known, kind="words", length=8))
    assert check(read(texts), right, traced_source(tiny_source()), Means(tmp_path)).verdict == "fits"


@pytest.mark.parametrize(
    ("rate", "seconds", "said"),
    [(8000, 1.0, ""), (16000, 1.0, "hold nothing above 4,000 Hz"), (8000, 0.2, "Of those only the middle counts")],
)
def test_recordings_at_another_rate_or_too_long(
    rate: int, seconds: float, said: str, sounds: Path, tmp_path: Path
) -> None:
    pytest.importorskip("soundfile")
    source = replace(tiny_source(), input=AudioSpec(rate, int(seconds * rate)))
    found = check(read(sounds), source, traced_source(tiny_source()), Means(tmp_path))
    assert (found.verdict == "warns") == bool(said)
    assert said in " ".join(found.reasons)
