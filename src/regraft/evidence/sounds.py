"""Recordings as people look at them and as a linear model hears them: log-mel spectrograms.

Letters: T samples, M mel filters, F frames, H and W pixels.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from regraft.data.audio import Sound
from regraft.data.audio.mel import as_picture, log_mel
from regraft.spec import MelSpec

MELS, WINDOW, HOP, HIGHEST = 40, 0.025, 0.01, 8000  # what recognisers of speech look at, in seconds and Hz


def mel_bands(sound: Sound) -> np.ndarray:
    """Decibels below the loudest place, float32 (M, F); bands that the recording's rate does not reach are silent."""
    return log_mel(sound.samples, sound.rate, _mel(sound.rate, HIGHEST))


def mean_bands(sound: Sound) -> np.ndarray:
    """How loud each band is on average over a recording, float32 (M,).

    Example:
        >>> tone = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000).astype(np.float32)
        >>> int(mean_bands(Sound(tone, 8000)).argmax())
        7
    """
    return mel_bands(sound).mean(1, dtype=np.float32)


def spectrogram(sound: Sound, height: int, width: int) -> Image.Image:
    """A picture (H, W) for people: time to the right, high sounds above, loud ones bright."""
    mel = _mel(sound.rate, min(HIGHEST, sound.rate / 2))
    return Image.fromarray(as_picture(log_mel(sound.samples, sound.rate, mel), mel.top_db, height, width))


def _mel(rate: int, highest: float) -> MelSpec:
    window = round(WINDOW * rate)
    n_fft = 1 << max(9, (window - 1).bit_length())  # bins fine enough that no low filter is empty
    return MelSpec(window, max(1, round(HOP * rate)), n_fft, MELS, 0.0, highest)
