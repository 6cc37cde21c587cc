"""What views of a recording differ in; every choice is fixed by the example's key and the view's number.

Shape letters: T samples, C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np

from regraft.digest import digest_bytes

_SHIFT = 0.1  # of the window, beyond where all of the sound is seen
_GAIN_DB = (-6.0, 6.0)
_SNR_DB = (15.0, 45.0)  # of the recording to the noise
_MASKS = 2  # of each kind
_MASKED = 0.15  # of the height or the width, at most, under one mask


def seeded(key: str, view: int) -> np.random.Generator:
    """Random numbers of one view of one example, the same on every machine."""
    return np.random.default_rng(int(digest_bytes(f"{key}:{view}".encode())[:32], 16))


def shifted(spare: int, window: int, chosen: np.random.Generator) -> int:
    """Where a window of a recording begins; below 0, there is silence before it.

    Args:
        spare: samples that the recording has more than the window; negative if it is shorter.
        window: samples of the window.
        chosen: random numbers.
    """
    slack = round(_SHIFT * min(window, window + spare))
    return int(chosen.integers(min(0, spare) - slack, max(0, spare) + slack, endpoint=True))


def louder_and_noisy(samples: np.ndarray, chosen: np.random.Generator) -> np.ndarray:
    """Another gain, and white noise a random number of decibels below the sound: float32 (T,)."""
    gain, snr = (10 ** (chosen.uniform(*decibels) / 20) for decibels in (_GAIN_DB, _SNR_DB))
    noise = chosen.standard_normal(len(samples), np.float32)
    level = float(np.sqrt(np.mean(np.square(samples)))) / snr if len(samples) else 0.0
    return (np.float32(gain) * (samples + np.float32(level) * noise)).astype(np.float32)


def masked(picture: np.ndarray, chosen: np.random.Generator) -> np.ndarray:
    """Bands of frequency and stretches of time at the picture's mean: uint8 (C, H, W)."""
    masked, fill = picture.copy(), np.uint8(round(float(picture.mean())))
    for axis in (1, 2):
        for start, stop in (_span(picture.shape[axis], chosen) for _ in range(_MASKS)):
            masked.swapaxes(0, axis)[start:stop] = fill
    return masked


def _span(length: int, chosen: np.random.Generator) -> tuple[int, int]:
    width = int(chosen.integers(0, round(_MASKED * length), endpoint=True))
    start = int(chosen.integers(0, length - width, endpoint=True))
    return start, start + width
