"""Log-mel spectrograms (Davis and Mermelstein, 1980, doi:10.1109/TASSP.1980.1163420), and pictures of them.

Shape letters: T samples, F frames, B bins of the Fourier transform, M mel filters, H height, W width.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from regraft.spec import MelSpec

_SILENCE = 1e-10  # power: a hundred decibels below full scale


def log_mel(samples: np.ndarray, rate: int, mel: MelSpec) -> np.ndarray:
    """Decibels below the loudest place: float32 (M, F), from -top_db to 0; all -top_db where there is no sound.

    Args:
        samples: float32 (T,).
        rate: samples per second.
        mel: windows, filters and range.
    """
    power = mel_filters(rate, mel) @ _power(samples, mel)
    loudest = float(power.max())
    if loudest < _SILENCE:
        return np.full(power.shape, -mel.top_db, np.float32)
    return 10 * np.log10(np.maximum(power / loudest, np.float32(10 ** (-mel.top_db / 10))))


def as_picture(decibels: np.ndarray, top_db: float, height: int, width: int) -> np.ndarray:
    """A spectrogram as uint8 (H, W): high frequencies above, early frames left, the loudest place white.

    Args:
        decibels: (M, F), from -top_db to 0.
        top_db: what is black.
        height: of the picture.
        width: of the picture.
    """
    bright = Image.fromarray((decibels[::-1] / top_db + 1) * 255)
    resized = bright.resize((width, height), Image.Resampling.BILINEAR)
    return np.rint(np.asarray(resized)).clip(0, 255).astype(np.uint8)


@lru_cache(maxsize=16)
def mel_filters(rate: int, mel: MelSpec) -> np.ndarray:
    """Triangles that overlap by half on the mel scale, of height 1: float32 (M, B).

    The scale is 2595 log10(1 + f / 700), the one of HTK.
    """
    low, high = (2595 * np.log10(1 + f / 700) for f in (mel.f_min, mel.f_max))
    corners = 700 * (10 ** (np.linspace(low, high, mel.n_mels + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(mel.n_fft, 1 / rate)
    left, peak, right = (corners[i : i + mel.n_mels, None] for i in range(3))
    rising, falling = (bins - left) / (peak - left), (right - bins) / (right - peak)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def _power(samples: np.ndarray, mel: MelSpec) -> np.ndarray:
    """|STFT|² under Hann windows that are centred on multiples of the hop: (B, F)."""
    padded = np.pad(samples, (mel.win_length // 2, mel.win_length))
    count = 1 + len(samples) // mel.hop_length
    frames = np.lib.stride_tricks.sliding_window_view(padded, mel.win_length)[:: mel.hop_length][:count]
    window = np.hanning(mel.win_length + 1)[:-1].astype(np.float32)  # periodic
    return np.square(np.abs(np.fft.rfft(frames * window, mel.n_fft))).T
