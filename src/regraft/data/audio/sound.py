"""Opening encoded recordings that nobody vouches for.

Shape letters: T samples, K channels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from regraft.data.bad import BadExample
from regraft.errors import MissingExtra

SOUND_SUFFIXES = frozenset((".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au"))
_FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3", "AIFF", "AU")
# A header is a stranger's: an hour and a half at 48 kHz is more than anybody labels as one example.
_MOST_VALUES, _MOST_CHANNELS, _RATES = 1 << 28, 64, (100, 1 << 20)
_FULL_SCALE = 0.999  # 16-bit sound reaches 0.99997; lossy formats come a little below what they were given
_MOST_CHUNKS = 1000  # of a WAV file, before its samples
_OPEN_END = (0, 0x7FFFFFFF, 0xFFFFFFFF)  # sizes in headers of those who write to a pipe: until the end


@dataclass(frozen=True, eq=False)
class Sound:
    """One decoded recording.

    Args:
        samples: float32 (T,), mono, full scale is -1 to 1.
        rate: samples per second.
    """

    samples: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.rate


@dataclass(frozen=True)
class Quality:
    """What a person should know of one recording.

    Args:
        silent: every sample is the same.
        clipped: share of the samples at full scale, where the microphone or the mix was driven too hard.
    """

    silent: bool
    clipped: float


def open_sound(content: bytes) -> Sound:
    """A whole recording, decoded; stereo becomes the mean of its channels.

    Args:
        content: WAV, FLAC, OGG (Vorbis, Opus), MP3, AIFF or AU; integers or floats.

    Raises:
        BadExample: nothing there, no sound, an end that is missing, a header that claims too much, or samples that
            are no numbers.
        MissingExtra: soundfile is not installed.
    """
    with _opened(content) as file:
        claimed = file.frames
        channels = file.read(dtype="float32", always_2d=True)  # (T, K)
    if len(channels) < claimed:
        raise BadExample("truncated", f"it ends after {len(channels):,} of {claimed:,} samples")
    if not np.isfinite(channels).all():
        raise BadExample("unreadable", "some of its samples are no finite numbers")
    return Sound(np.ascontiguousarray(channels.mean(1, dtype=np.float32)), file.samplerate)


def quality(sound: Sound) -> Quality:
    """Whether a recording is silent or clipped.

    Example:
        >>> quality(Sound(np.zeros(8000, np.float32), rate=8000))
        Quality(silent=True, clipped=0.0)
    """
    loud = np.abs(sound.samples) >= _FULL_SCALE
    return Quality(bool(np.ptp(sound.samples) == 0), float(loud.mean()))


def _soundfile() -> ModuleType:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package without its library
        raise MissingExtra("soundfile", "audio", "open recordings") from error
    return soundfile


@contextmanager
def _opened(content: bytes) -> Iterator[Any]:
    """The decoder behind a header that makes sense; its errors become ours."""
    if not content:
        raise BadExample("empty file", "it has no bytes")
    soundfile = _soundfile()
    _check_end(content)
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            _check_header(file)
            yield file
    except soundfile.LibsndfileError as error:
        known = content.startswith((b"RIFF", b"fLaC", b"OggS", b"FORM", b".snd", b"ID3"))
        detail = "it is damaged, or its end is missing" if known else "it is not a recording in a known format"
        raise BadExample("unreadable", detail) from error


def _check_header(file: Any) -> None:
    if file.format not in _FORMATS:
        raise BadExample("unreadable", f"it is {file.format}, expected one of {', '.join(_FORMATS)}")
    if file.frames * file.channels > _MOST_VALUES or file.channels > _MOST_CHANNELS:
        detail = (
            f"its header claims {file.frames:,} samples of {file.channels} channels; at most {_MOST_VALUES:,} are read"
        )
        raise BadExample("too large", detail)
    if not _RATES[0] <= file.samplerate < _RATES[1]:
        raise BadExample("unreadable", f"its header claims {file.samplerate} samples per second")
    if file.frames < 1:
        raise BadExample("empty file", "it has no samples")


def _check_end(content: bytes) -> None:
    """An uncompressed file whose end is missing: the decoder would take what is left for the whole."""
    begin, claimed = _samples_of(content)
    have = len(content) - begin
    if claimed not in _OPEN_END and claimed > have:
        raise BadExample("truncated", f"it holds {have:,} of the {claimed:,} bytes that its header claims")


def _samples_of(content: bytes) -> tuple[int, int]:
    """Where the samples begin and how many bytes of them the header claims; (0, 0) where it does not say so."""
    if len(content) < 12:
        return 0, 0
    if content[:4] == b"FORM":
        return 8, int.from_bytes(content[4:8], "big")
    if content[:4] == b".snd":
        return int.from_bytes(content[4:8], "big"), int.from_bytes(content[8:12], "big")
    return _data_chunk(content) if content[:4] == b"RIFF" else (0, 0)


def _data_chunk(content: bytes) -> tuple[int, int]:
    place = 12
    for _ in range(_MOST_CHUNKS):
        name, size = content[place : place + 4], int.from_bytes(content[place + 4 : place + 8], "little")
        if name == b"data":
            return place + 8, size
        place += 8 + size + size % 2
    return 0, 0
