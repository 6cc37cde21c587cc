"""Small recordings, made and encoded here."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import soundfile

from regraft.data.audio import Sound


def tone(hertz: float = 440, seconds: float = 0.5, rate: int = 8000, loud: float = 0.5) -> Sound:
    """A sine wave."""
    time = np.arange(round(seconds * rate)) / rate
    return Sound((loud * np.sin(2 * np.pi * hertz * time)).astype(np.float32), rate)


def encoded(samples: np.ndarray, rate: int = 8000, format: str = "WAV", **options: Any) -> bytes:
    """As a file holds them; samples are (T,) or (T, K)."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, **options)
    return file.getvalue()
