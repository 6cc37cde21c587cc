"""Encoded recordings become samples, or one error that says what is the matter."""

from __future__ import annotations

import struct
import sys

import numpy as np
import pytest

pytest.importorskip("soundfile")

from sounds import encoded, tone

from regraft.data.audio import Quality, Sound, open_sound, quality
from regraft.data.bad import BadExample
from regraft.errors import MissingExtra

HUM = tone()
WAVE = encoded(HUM.samples)
HEADER = 44  # bytes before the samples of a plain WAV file


def claiming(place: int, form: str, value: int) -> bytes:
    """The WAV file with another number in its header."""
    changed = bytearray(WAVE)
    struct.pack_into(form, changed, place, value)
    return bytes(changed)


@pytest.mark.parametrize(
    ("format", "subtype", "error"),
    [
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-6),
        ("WAV", "FLOAT", 0),
        ("WAV", "DOUBLE", 0),
        ("WAVEX", "PCM_16", 1e-4),
        ("FLAC", "PCM_16", 1e-4),
        ("AIFF", "PCM_16", 1e-4),
        ("AU", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 0.1),
        ("MP3", "MPEG_LAYER_III", 0.1),
    ],
)
def test_every_format_gives_the_samples_back(format: str, subtype: str, error: float) -> None:
    sound = open_sound(encoded(HUM.samples, format=format, subtype=subtype))
    assert (sound.rate, sound.samples.dtype, len(sound.samples)) == (8000, np.float32, len(HUM.samples))
    middle = slice(800, -800)  # lossy formats swing in and out
    assert np.abs(sound.samples - HUM.samples)[middle].max() <= error


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 96000])
def test_rates_are_kept(rate: int) -> None:
    sound = open_sound(encoded(tone(rate=rate).samples, rate))
    assert sound.rate == rate and sound.seconds == pytest.approx(0.5, abs=1e-3)


def test_stereo_becomes_the_mean_of_its_channels() -> None:
    left, right = HUM.samples, tone(1000).samples
    sound = open_sound(encoded(np.stack([left, right], 1), subtype="FLOAT"))
    assert np.allclose(sound.samples, (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize(
    ("content", "kind", "detail"),
    [
        (b"", "empty file", "no bytes"),
        (encoded(HUM.samples[:0]), "empty file", "no samples"),
        (b"once upon a time\n" * 100, "unreadable", "not a recording"),
        (b"\0\0\0\x18ftypmp42" + bytes(2000), "unreadable", "not a recording"),
        (bytes(2000), "unreadable", "not a recording"),
        (WAVE[: HEADER // 2], "unreadable", "end is missing"),
        (WAVE[:-2], "truncated", "7,998 of the 8,000 bytes"),
        (WAVE[: HEADER + 8], "truncated", "8 of the 8,000 bytes"),
        (encoded(HUM.samples, format="WAVEX")[:-100], "truncated", "7,900 of the 8,000 bytes"),
        (encoded(HUM.samples, format="AIFF")[:-100], "truncated", "bytes that its header claims"),
        (encoded(HUM.samples, format="AU")[:-100], "truncated", "7,900 of the 8,000 bytes"),
        (b"RIFF\0\0\0\0WAVE" + bytes(10_000_000), "unreadable", "damaged"),
        (encoded(HUM.samples, format="FLAC")[:-40], "unreadable", "end is missing"),
        (encoded(HUM.samples, format="OGG")[:2000], "unreadable", "end is missing"),
        (encoded(HUM.samples, format="MP3")[:-400], "truncated", "of 4,000 samples"),
        (claiming(HEADER - 4, "<I", 1 << 30), "truncated", "1,073,741,824 bytes"),
        (claiming(22, "<H", 60_000), "unreadable", "damaged"),
        (claiming(24, "<I", 1 << 30), "unreadable", "1073741824 samples per second"),
        (claiming(24, "<I", 0), "unreadable", "damaged"),
        (encoded(np.full(100, np.nan), subtype="FLOAT"), "unreadable", "no finite numbers"),
        (encoded(np.full(100, np.inf), subtype="DOUBLE"), "unreadable", "no finite numbers"),
    ],
)
def test_what_is_no_recording_says_so(content: bytes, kind: str, detail: str) -> None:
    with pytest.raises(BadExample) as raised:
        open_sound(content)
    assert raised.value.kind == kind and detail in raised.value.detail


def test_a_header_cannot_ask_for_more_than_anybody_records() -> None:
    flac = bytearray(encoded(HUM.samples, format="FLAC"))
    flac[21] |= 0x0F  # the highest four of the 36 bits that count samples
    with pytest.raises(BadExample, match="64,4"):
        open_sound(bytes(flac))


def test_streams_whose_writer_did_not_know_their_length_are_read_to_the_end() -> None:
    assert len(open_sound(claiming(HEADER - 4, "<I", 0xFFFFFFFF)).samples) == 4000


@pytest.mark.parametrize("seed", range(20))
def test_damage_never_raises_anything_else(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for format in ("WAV", "FLAC", "OGG"):
        content = bytearray(encoded(HUM.samples, format=format))
        for place in rng.integers(0, min(200, len(content)), 8):
            content[place] = rng.integers(256)
        try:
            assert np.isfinite(open_sound(bytes(content)).samples).all()
        except BadExample as error:
            assert error.kind in ("unreadable", "truncated", "too large", "empty file")


def test_without_the_decoder_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingExtra, match=r"soundfile is needed to open recordings.*regraft\[audio\]"):
        open_sound(WAVE)


def test_silence_and_clipping_are_measured() -> None:
    assert quality(Sound(np.zeros(100, np.float32), 8000)) == Quality(silent=True, clipped=0)
    assert quality(Sound(np.full(100, 0.1, np.float32), 8000)).silent  # a constant is not heard
    assert quality(HUM) == Quality(silent=False, clipped=0)
    driven = Sound(np.clip(4 * HUM.samples, -1, 1), 8000)
    assert quality(open_sound(encoded(driven.samples))).clipped == pytest.approx(2 / 3, abs=0.02)
