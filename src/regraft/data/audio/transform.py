"""From a decoded recording to the row that a network's AudioSpec asks for.

Shape letters: T samples, C channels, H height, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np

from regraft.data.audio.extractor import extract
from regraft.data.audio.mel import as_picture, log_mel
from regraft.data.audio.sound import Sound
from regraft.data.audio.views import louder_and_noisy, masked, seeded, shifted
from regraft.data.audio.windows import window_start
from regraft.data.from_spec import FromSpec
from regraft.errors import MissingExtra
from regraft.spec import AudioSpec


@dataclass(frozen=True)
class AudioTransform(FromSpec[AudioSpec]):
    """Cuts or pads, resamples and lays out as the source was trained; the same recording always gives the same row.

    View 0 is plain: of a recording that is longer than the window its middle, since recordings tend to begin and end
    in silence. A shorter one lies in the middle of a picture, which aligns recordings better than their beginnings do
    (docs/audio.md has figures), and before the silence for other networks, as those were trained. Views 1 to 4 of a
    longer recording are its other windows, plain: the beginning, the end, and between them. All other views shift the
    recording in time, change its gain, add noise, and mask bands of frequency and stretches of time in pictures
    (SpecAugment: Park et al., 2019, arXiv:1904.08779, without warping).

    Args:
        spec: what the network expects.
        view: 0 plain, k > 0 the k-th window or augmented version, fixed by the example's key and k.

    Example:
        >>> hum = Sound(np.sin(np.arange(16000) / 20).astype(np.float32), rate=16000)
        >>> AudioTransform(AudioSpec(rate=8000, samples=12000))(hum).shape
        (12000,)
    """

    name = "audio"
    views_version = 2

    @property
    def dtype(self) -> np.dtype:
        """Of a row."""
        return np.dtype(np.uint8 if self.spec.picture else np.float32)

    def __call__(self, sound: Sound, key: str = "") -> np.ndarray:
        """One row: float32 (T,), uint8 (C, H, W), or float32 of the extractor's shape.

        Args:
            sound: the recording.
            key: the example's content key; views above 0 depend on it.
        """
        window, spare = self._window(sound)
        start = window_start(spare, window, self.view)
        if start is not None:
            return self._row(sound, start, None)
        if not self.view:
            return self._row(sound, spare // 2 if self.spec.picture else max(0, spare // 2), None)
        chosen = seeded(key, self.view)
        return self._row(sound, shifted(spare, window, chosen), chosen)

    def windows(self, sound: Sound) -> np.ndarray:
        """The whole of a recording, plain: as few windows as cover it, evenly spread.

        Views give at most five of them, for training and predictions; here are all.

        Args:
            sound: the recording.

        Returns:
            Rows (W, *size); of a recording that fits into one window, the one row of view 0.

        Example:
            >>> minute = Sound(np.zeros(480_000, np.float32), rate=8000)
            >>> AudioTransform(AudioSpec(rate=8000, samples=80_000)).windows(minute).shape
            (6, 80000)
        """
        window, spare = self._window(sound)
        if spare <= 0:
            return replace(self, view=0)(sound)[None]
        starts = np.linspace(0, spare, 1 + math.ceil(spare / window)).round().astype(int).tolist()
        return np.stack([self._row(sound, start, None) for start in starts])

    def _window(self, sound: Sound) -> tuple[int, int]:
        """Its samples at the recording's rate, and how many more the recording has; negative if it is shorter."""
        window = round(self.spec.samples * sound.rate / self.spec.rate)
        return window, len(sound.samples) - window

    def _row(self, sound: Sound, start: int, chosen: np.random.Generator | None) -> np.ndarray:
        samples = self._cut(sound, start)
        if chosen:
            samples = louder_and_noisy(samples, chosen)
        if self.spec.normalise:
            samples = _normalised(samples)
        row = self._laid_out(samples)
        return masked(row, chosen) if chosen and self.spec.picture else row

    def _cut(self, sound: Sound, start: int) -> np.ndarray:
        """The part under the window, at the network's rate; where it begins before the sound, silence comes first."""
        window, _ = self._window(sound)
        part = sound.samples[max(0, start) : start + window]
        before = np.zeros(max(0, -start), np.float32)
        return _resampled(np.concatenate([before, part]), sound.rate, self.spec.rate)[: self.spec.samples]

    def _laid_out(self, samples: np.ndarray) -> np.ndarray:
        spec = self.spec
        if spec.extractor:
            return extract(spec.extractor, samples, spec.rate)
        samples = np.pad(samples, (0, spec.samples - len(samples)))
        if spec.picture is None or spec.mel is None:
            return samples
        channels, height, width = spec.picture.size
        grey = as_picture(log_mel(samples, spec.rate, spec.mel), spec.mel.top_db, height, width)
        return np.repeat(grey[None], channels, axis=0)


def _normalised(samples: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 over the sound itself, not over the silence that pads it, as Wav2Vec2 was trained."""
    return (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)


def _resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    return samples if rate == wanted else _soxr().resample(samples, rate, wanted).astype(np.float32, copy=False)


def _soxr() -> ModuleType:
    try:
        import soxr
    except ImportError as error:
        raise MissingExtra("soxr", "audio", "resample recordings to the source's rate") from error
    return soxr
