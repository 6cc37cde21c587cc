"""Two-dimensional transfer: a network that was trained on pictures sees recordings as log-mel spectrograms.

Palanisamy, Singhania & Yao: Rethinking CNN Models for Audio Classification, 2020, arXiv 2007.11154.

Shape letters: C channels, H height, W width.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from regraft.data import Dataset
from regraft.data.audio import AudioTransform
from regraft.errors import SourceError
from regraft.source.source import Source
from regraft.spec import AudioSpec, InputSpec, MelSpec

# Chosen by probe accuracy on spoken digits: docs/audio.md has the table.
_MELS = 40
_WINDOW = 0.032  # seconds under one Hann window
_TOP_DB = 30.0
_FINER = 4  # so many times more points than samples in the Fourier transform: no filter falls between two bins
_HIGHEST_RATE = 32_000  # what lies above 16 kHz, few microphones record and few people hear
_LONGEST, _SHORTEST = 30.0, 0.1  # seconds of a window; Whisper hears 30
_STEP = 0.1  # windows are whole multiples: a few recordings more or less leave the input, and all caches, as they were
_MEASURED = 256  # recordings that tell mean and std well enough for the two digits that are kept


def for_sound(source: Source, data: Dataset) -> Source:
    """A source fitted to recordings: the same network with an input that prepares them for it.

    A network for pictures gets log-mel spectrograms of its own picture size. Its channels all hold the same
    spectrogram, as many as it has. Mean and std are measured, so that it sees values of mean 0 and variance 1.
    A network on samples keeps its rate and gets a window of the recordings' length. One with a feature extractor
    hears windows of the length that it was trained on, and stays as it is.

    Args:
        source: any but a network for text.
        data: recordings with their lengths and rates; the training split, or all if there is none, is measured.

    Returns:
        The source, with an AudioSpec as its input.

    Raises:
        SourceError: the network reads text, or the data are no recordings.
        MissingExtra: soundfile or soxr is not installed.
    """
    spec = source.input
    if data.modality != "audio" or not data.examples or spec.modality == "text":
        raise SourceError(
            f"{source.uri} takes input of the modality {spec.modality!r}, and {data.name} holds {data.modality!r}. "
            "Pass recordings, and a source that sees or hears: for_sound(load_source('timm:mobilenetv2_100'), data)"
        )
    if isinstance(spec, InputSpec):
        return replace(source, input=_on_pictures(spec, data))
    assert isinstance(spec, AudioSpec)
    fixed = spec.picture or spec.extractor
    return source if fixed else replace(source, input=replace(spec, samples=_samples(data, spec.rate)))


def mel_for(rate: int, samples: int, picture: InputSpec) -> MelSpec:
    """The spectrogram of a window, about as many frames long as the picture is wide.

    Args:
        rate: samples per second.
        samples: in the window.
        picture: that shows it.
    """
    window = round(_WINDOW * rate)
    _, height, width = picture.size
    return MelSpec(
        win_length=window,
        hop_length=max(1, min(samples // width, window // 2)),  # every sample lies under two windows
        n_fft=_FINER * 2 ** math.ceil(math.log2(window)),
        n_mels=min(_MELS, height),
        f_min=0.0,
        f_max=rate / 2,
        top_db=_TOP_DB,
    )


def _on_pictures(picture: InputSpec, data: Dataset) -> AudioSpec:
    rate = _rate(data)
    samples = _samples(data, rate)
    spec = AudioSpec(rate, samples, picture=picture, mel=mel_for(rate, samples, picture))
    mean, std = _measured(spec, data)
    channels = picture.size[0]
    return replace(spec, picture=replace(picture, mean=(mean,) * channels, std=(std,) * channels))


def _rate(data: Dataset) -> int:
    """The lowest rate that a tenth of the recordings have: where rates are mixed, the picture's upper part would tell
    them apart, and not what was recorded."""
    rates = np.array([example.height for example in data.examples])
    return min(int(np.quantile(rates, 0.1, method="lower")), _HIGHEST_RATE)


def _samples(data: Dataset, rate: int) -> int:
    """A window that 19 of 20 recordings fit into."""
    seconds = np.array([example.width / example.height for example in data.examples])
    steps = math.ceil(round(float(np.quantile(seconds, 0.95, method="lower")) / _STEP, 6))
    return round(min(max(steps * _STEP, _SHORTEST), _LONGEST) * rate)


def _measured(spec: AudioSpec, data: Dataset) -> tuple[float, float]:
    """Mean and std of the brightness, 0 to 1, over some recordings that their keys choose."""
    train = data.split("train")
    measured = train if train.examples else data
    order = sorted(range(len(measured)), key=lambda i: measured.examples[i].key)[:_MEASURED]
    prepare = AudioTransform(spec)
    pictures = np.stack([prepare(measured.open(i))[0] for i in order]) / np.float32(255)
    return round(float(pictures.mean()), 2), max(round(float(pictures.std()), 2), 0.01)
