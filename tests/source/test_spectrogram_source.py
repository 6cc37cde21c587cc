"""Networks for pictures and for samples fitted to recordings.

N examples, C channels, H height, W width.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("soundfile")
pytest.importorskip("soxr")

import soundfile

from regraft.data import Dataset, read
from regraft.data.audio import AudioTransform
from regraft.data.audio.mel import mel_filters
from regraft.errors import SourceError
from regraft.source import Source, front
from regraft.source.spectrogram import for_sound, mel_for
from regraft.spec import AudioSpec, InputSpec, TextSpec, spec_from_dict
from regraft.testing import tiny_source


@pytest.fixture
def recordings(tmp_path: Path) -> Callable[..., Dataset]:
    """Two classes, high and low tones, of given seconds and rates."""

    def write(seconds: list[float], rates: list[int] | None = None) -> Dataset:
        for i, (length, rate) in enumerate(zip(seconds, rates or [8000] * len(seconds), strict=True)):
            time = np.arange(round(length * rate)) / rate
            folder = tmp_path / "tones" / ("low" if i % 2 else "high")
            folder.mkdir(parents=True, exist_ok=True)
            wave = 0.5 * np.sin(2 * np.pi * (400 + 10 * i + 1000 * (i % 2 == 0)) * time)
            soundfile.write(folder / f"{i:02}.wav", wave, rate)
        return read(str(tmp_path / "tones"))

    return write


def fitted(source: Source, data: Dataset) -> AudioSpec:
    spec = for_sound(source, data).input
    assert isinstance(spec, AudioSpec)
    return spec


def test_a_network_for_pictures_sees_recordings(recordings: Callable[..., Dataset]) -> None:
    data, source = recordings([0.3] * 12), tiny_source()
    adapted = for_sound(source, data)
    assert adapted.model is source.model and adapted.weights_digest == source.weights_digest
    assert isinstance(adapted.input, AudioSpec) and adapted.input.size == source.input.size
    rows = torch.from_numpy(np.stack([AudioTransform(adapted.input)(data.open(i)) for i in range(3)]))
    assert rows.dtype == torch.uint8 and torch.equal(rows[:, 0], rows[:, 1])
    assert torch.isfinite(adapted.model(*front(adapted.input)(rows))).all()
    assert spec_from_dict(json.loads(json.dumps(adapted.input.to_dict()))) == adapted.input


def test_it_sees_values_of_mean_0_and_variance_1(recordings: Callable[..., Dataset]) -> None:
    data = recordings([0.3, 0.2] * 8)
    spec = fitted(tiny_source(), data)
    train = data.split("train")
    rows = torch.from_numpy(np.stack([AudioTransform(spec)(train.open(i)) for i in range(len(train))]))
    (seen,) = front(spec)(rows)
    assert abs(float(seen.mean())) < 0.05 and abs(float(seen.std()) - 1) < 0.05


def test_a_network_for_grey_pictures_gets_one_channel(recordings: Callable[..., Dataset]) -> None:
    grey = replace(tiny_source(), input=InputSpec((1, 32, 48), (0.5,), (0.5,)))
    spec = fitted(grey, recordings([0.3] * 12))
    assert spec.size == (1, 32, 48) and spec.picture is not None and len(spec.picture.mean) == 1


def test_nineteen_of_twenty_recordings_fit_the_window(recordings: Callable[..., Dataset]) -> None:
    spec = fitted(tiny_source(), recordings([0.2] * 10 + [0.33] * 9 + [2.0]))
    assert spec.samples == 0.4 * 8000


@pytest.mark.parametrize(
    ("rates", "rate"),
    [([8000] * 12, 8000), ([44100] * 12, 32000), ([16000] * 9 + [8000] * 3, 8000), ([16000] * 19 + [8000], 16000)],
)
def test_the_rate_is_one_that_nearly_all_recordings_reach(
    rates: list[int], rate: int, recordings: Callable[..., Dataset]
) -> None:
    assert fitted(tiny_source(), recordings([0.1] * len(rates), rates)).rate == rate


def test_the_input_stays_when_a_few_recordings_join(recordings: Callable[..., Dataset]) -> None:
    few = fitted(tiny_source(), recordings([0.3] * 20))
    assert fitted(tiny_source(), recordings([0.3] * 22)) == few


def test_a_network_on_samples_gets_a_window_and_keeps_its_rate(recordings: Callable[..., Dataset]) -> None:
    listening = replace(tiny_source(), input=AudioSpec(rate=16000, samples=160000, normalise=True))
    assert fitted(listening, recordings([0.3] * 12)) == AudioSpec(rate=16000, samples=4800, normalise=True)


def test_a_feature_extractor_keeps_the_window_it_was_trained_on(recordings: Callable[..., Dataset]) -> None:
    heard = AudioSpec(
        16000, 480000, extractor='{"feature_extractor_type": "WhisperFeatureExtractor"}', features=(80, 3000)
    )
    assert fitted(replace(tiny_source(), input=heard), recordings([0.3] * 12)) == heard


def test_fitting_twice_changes_nothing(recordings: Callable[..., Dataset]) -> None:
    data = recordings([0.3] * 12)
    once = for_sound(tiny_source(), data)
    assert for_sound(once, data) == once


def test_what_does_not_fit_is_refused(recordings: Callable[..., Dataset]) -> None:
    with pytest.raises(SourceError, match=r"'image', and digits holds 'image'.*for_sound\("):
        for_sound(tiny_source(), read("digits"))
    with pytest.raises(SourceError, match="modality 'text'"):
        for_sound(replace(tiny_source(), input=TextSpec("a", kind="words")), recordings([0.3] * 12))


@pytest.mark.parametrize("rate", [4000, 8000, 22050, 32000])
@pytest.mark.parametrize("size", [(3, 224, 224), (3, 32, 32), (1, 28, 28), (3, 512, 64)])
@pytest.mark.parametrize("seconds", [0.1, 1.0, 30.0])
def test_every_filter_hears_something_and_every_sample_is_heard(
    rate: int, size: tuple[int, int, int], seconds: float
) -> None:
    picture = InputSpec(size, (0.5,) * size[0], (0.5,) * size[0])
    mel = mel_for(rate, round(seconds * rate), picture)
    filters = mel_filters(rate, mel)
    assert (filters.max(1) > 0.5).all()
    assert mel.hop_length <= mel.win_length // 2 and mel.n_fft >= mel.win_length and mel.n_mels <= size[1]
