"""Recordings come in through the same door as pictures and texts, and go through the same decoder.

N examples, B batch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("soundfile")
pytest.importorskip("soxr")

from sounds import encoded, tone

from regraft.data import Dataset, decode, read, transform_for
from regraft.data.audio import Sound
from regraft.errors import DataError
from regraft.spec import AudioSpec

SPEC = AudioSpec(rate=8000, samples=2000)


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """root/CLASS/*: two classes with 20 recordings each, of four formats."""
    root = tmp_path / "words"
    for label, name in enumerate(("no", "yes")):
        (root / name).mkdir(parents=True)
        for i in range(20):
            format = ("WAV", "FLAC", "OGG", "MP3")[i % 4]
            sound = tone(300 + 40 * i + 20 * label, seconds=0.1 + 0.01 * i)
            (root / name / f"{i:02}.{format.lower()}").write_bytes(encoded(sound.samples, format=format))
    return root


def test_a_folder_of_recordings(words: Path) -> None:
    data = read(str(words))
    assert data.modality == "audio" and data.classes == ("no", "yes") and len(data) == 40
    assert data.sizes().height == (8000, 8000, 8000) and data.sizes().width[0] == 800
    assert data.lengths.tolist() == [len(data.open(i).samples) for i in range(40)]
    assert isinstance(data.open(0), Sound) and data.problems == ()


def test_a_manifest_of_recordings(words: Path) -> None:
    lines = [f"{path.relative_to(words.parent)},{path.parent.name}" for path in sorted(words.rglob("*.*"))]
    table = words.parent / "manifest.csv"
    table.write_text("\n".join(["audio,label", *lines]))
    data = read(str(table))
    assert data.modality == "audio" and set(data.keys) == set(read(str(words)).keys)


def test_every_bad_file_is_named_once_and_nothing_else_is_lost(words: Path) -> None:
    bad = {
        "film.wav": b"\0\0\0\x18ftypmp42" + bytes(2000),
        "note.wav": b"once upon a time",
        "empty.flac": b"",
        "nothing.wav": encoded(np.zeros(0)),
        "cut.wav": encoded(tone().samples)[:-100],
        "nan.wav": encoded(np.full(100, np.nan), subtype="FLOAT"),
    }
    for name, content in bad.items():
        (words / "no" / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{len(bad)} of 46 recordings cannot be used") as raised:
        read(str(words))
    assert all(str(raised.value).count(f"no/{name}") == 1 for name in bad) and "skip_bad=True" in str(raised.value)
    left = read(str(words), skip_bad=True)
    assert len(left) == 40 and {problem.name for problem in left.problems} == {f"no/{name}" for name in bad}


def test_silence_and_clipping_are_noted(words: Path) -> None:
    (words / "no" / "silent.wav").write_bytes(encoded(np.zeros(800)))
    (words / "no" / "driven.wav").write_bytes(encoded(np.clip(5 * tone().samples, -1, 1)))
    found = {problem.kind: problem.name for problem in read(str(words)).problems}
    assert found == {"silent": "no/silent.wav", "clipped": "no/driven.wav"}


def rows(data: Dataset, view: int = 0) -> np.ndarray:
    return np.concatenate([batch for _, batch in decode(data, transform_for(SPEC, view), batch_size=7)])


def test_batches_are_the_prepared_recordings(words: Path) -> None:
    data = read(str(words))
    prepare = transform_for(SPEC, 2)
    wanted = np.stack([prepare(data.open(i), data.keys[i]) for i in range(40)])
    assert rows(data).shape == (40, 2000) and rows(data).dtype == np.float32
    assert np.array_equal(rows(data, 2), wanted)


def test_a_recording_that_changed_after_reading_is_left_out(words: Path) -> None:
    data = read(str(words))
    (words / "yes" / "00.wav").write_bytes(encoded(tone(2000).samples))
    heard: list[str] = []
    found = [
        i for indices, _ in decode(data, transform_for(SPEC), on_bad=lambda p: heard.append(p.name)) for i in indices
    ]
    assert heard == ["yes/00.wav"] and len(found) == 39


@pytest.mark.parametrize("rate", [8000, 96000])
def test_rates_far_apart_in_one_folder(rate: int, words: Path) -> None:
    (words / "yes" / "other.wav").write_bytes(encoded(tone(440, 0.2, rate).samples, rate))
    data = read(str(words))
    place = [example.name for example in data.examples].index("yes/other.wav")
    row = rows(data)[place]
    assert np.abs(np.fft.rfft(row[:1600])).argmax() * 5 == 440
