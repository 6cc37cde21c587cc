"""Texts and recordings are proven as pictures are: their own linear model, their own mistakes, their own words."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from regraft.data.audio import Sound
from regraft.evidence import Answer, save_examples
from regraft.evidence.examine import nearly_same
from regraft.evidence.sounds import mean_bands, spectrogram
from regraft.evidence.trivial import word_counts
from regraft.job import Job
from regraft.testing import tiny_source, tiny_text_source, tiny_texts
from regraft.transfer import Outcome, transfer
from regraft.tune import RECIPES

RATE = 8000


def _tone(hertz: float, seconds: float, random: np.random.Generator) -> np.ndarray:
    """A tone that swells and fades, in noise."""
    time = np.arange(int(seconds * RATE)) / RATE
    loud = np.sin(np.pi * time / seconds) * np.sin(2 * np.pi * hertz * time + random.random() * 6)
    return (0.5 * loud + 0.02 * random.normal(size=len(time))).astype(np.float32)


def _fit(folder: Path, data: Path, source, arch: str, monkeypatch) -> Outcome:
    monkeypatch.setitem(RECIPES._entries, "scratch", RECIPES["scratch"].with_(epochs=1, min_updates=4))
    torch.save(source.model.state_dict(), folder / "tiny.pt")
    places = {"cache": folder / "cache", "out": folder / "run"}
    return transfer(
        Job(data=str(data), source=(str(folder / "tiny.pt"),), arch=(arch,), recipe="probe", runtime="torch", **places)
    )


def test_a_run_on_texts(tmp_path: Path, monkeypatch):
    texts, labels = tiny_texts(30)
    with (tmp_path / "topics.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        # Every ninth label is wrong, so that there are mistakes to show.
        rows.writerows((text, labels[(i + (i % 9 == 0)) % len(labels)]) for i, text in enumerate(texts))
    done = _fit(
        tmp_path, tmp_path / "topics.csv", tiny_text_source(), "regraft.testing.texts:tiny_text_net", monkeypatch
    )
    run, names = done.folder, [control["name"] for control in done.evidence["controls"]]
    assert names[:3] == ["majority", "word counts", "fresh weights"]
    assert next(c for c in done.evidence["controls"] if c["name"] == "word counts")["accuracy"] > 0.5
    page, card = (run / "report.html").read_text().replace("\xa0", " "), (run / "model/README.md").read_text()
    kept = [path.read_text() for path in (run / "pictures").glob("*.txt")]
    assert kept and all(f"<blockquote>{text}</blockquote>" in page for text in kept)
    assert f"of {done.metrics['test']['n']} test texts right" in page and "picture" not in page.split("<main")[1]
    assert "pipeline_tag: text-classification" in card and "classes of texts apart" in card
    assert "image" not in card.split("---")[1] and "pixels" not in card
    assert not (run / "looks").exists()


def test_a_run_on_recordings(tmp_path: Path, monkeypatch):
    soundfile = pytest.importorskip("soundfile", reason="the extra audio reads recordings")
    random = np.random.default_rng(0)
    for label, hertz in (("low", 300), ("middle", 420), ("high", 600)):
        (tmp_path / "tones" / label).mkdir(parents=True)
        for i in range(20):
            samples = _tone(hertz * random.uniform(0.75, 1.3), random.uniform(0.3, 0.5), random)
            soundfile.write(tmp_path / "tones" / label / f"{i}.wav", samples, RATE)
    done = _fit(tmp_path, tmp_path / "tones", tiny_source(), "regraft.testing.sources:tiny_net", monkeypatch)
    run, found = done.folder, {control["name"]: control for control in done.evidence["controls"]}
    assert found["mel bands"]["accuracy"] > 0.5
    assert {"majority", "mel bands", "fresh weights"} <= found.keys()
    page, card = (run / "report.html").read_text().replace("\xa0", " "), (run / "model/README.md").read_text()
    assert f"of {done.metrics['test']['n']} test recordings right" in page
    assert "picture" not in page.split("<main")[1].split("no picture")[0]
    assert "pipeline_tag: audio-classification" in card and "Recordings at 8000 samples per second" in card
    assert bool(list((run / "pictures").glob("*.jpg"))) == (done.metrics["test"]["accuracy"] < 1)


def test_words_and_pairs_of_words_are_counted():
    texts = ["not good", "not bad", "good", "bad", "it is not good", "it is not bad", "so good", "so bad"] * 3
    labels = np.array([0, 1, 1, 0] * 6)
    assert (word_counts(texts, labels).predict(texts) == labels).all()
    assert word_counts(["a b", "c d"], np.array([0, 1])).predict(["a", "d"]).tolist() == [0, 1]  # too few for folds


def test_mel_bands_know_high_from_low_at_any_rate():
    def tone(hertz: float, rate: int) -> Sound:
        return Sound(np.sin(2 * np.pi * hertz * np.arange(rate) / rate).astype(np.float32), rate)

    low, high = (mean_bands(tone(hertz, 16000)) for hertz in (300, 3000))
    assert low.argmax() < high.argmax()
    assert mean_bands(tone(300, 44100)).argmax() == low.argmax() == mean_bands(tone(300, 8000)).argmax()
    picture = np.asarray(spectrogram(tone(300, 8000), 64, 64))
    assert picture.shape == (64, 64) and picture.mean(1).argmax() > 40  # low sounds are below


def test_what_is_kept_of_each_kind(tmp_path: Path):
    opened = {
        "a1": Image.new("RGB", (8, 8)),
        "b2": "a <b>text</b>\n" + "word " * 200,
        "c3": Sound(_tone(440, 0.5, np.random.default_rng(0)), RATE),
    }
    assert save_examples(tmp_path, [Answer(key, "", "x", "y", 1.0) for key in opened], opened.__getitem__) == 3
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"a1.jpg", "b2.txt", "c3.jpg"}
    text = (tmp_path / "pictures" / "b2.txt").read_text()
    assert text.startswith("a <b>text</b> word") and text.endswith("…") and len(text) <= 400


def test_near_copies_of_texts_and_recordings():
    random = np.random.default_rng(3)
    story = "the quick brown fox jumps over the lazy dog and runs away into the dark old forest"
    assert nearly_same(story, story.replace("dark ", "dark,  ").upper())
    assert not nearly_same(story, "a slow grey wolf sleeps under the busy cat and stays at home in the bright new town")
    one, other = (Sound(_tone(hertz, 0.5, random), RATE) for hertz in (400, 700))
    quieter = Sound(one.samples * np.float32(0.5), RATE)
    assert nearly_same(one, quieter)
    assert not nearly_same(one, other)
    assert not nearly_same(one, Sound(one.samples[: len(one.samples) // 2], RATE))
