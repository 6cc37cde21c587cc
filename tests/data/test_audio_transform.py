"""Recordings become the row that the AudioSpec asks for.

T samples, C channels, H height, W width.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("soundfile")
pytest.importorskip("soxr")

from sounds import tone

from regraft.data.audio import AudioTransform, Sound
from regraft.data.audio.mel import log_mel, mel_filters
from regraft.errors import MissingExtra, SourceError
from regraft.spec import AudioSpec, InputSpec, MelSpec, spec_from_dict

RATE = 8000
MEL = MelSpec(win_length=256, hop_length=80, n_fft=512, n_mels=40, f_min=0, f_max=4000)
SAMPLES = AudioSpec(rate=RATE, samples=RATE)
PICTURE = replace(SAMPLES, picture=InputSpec((3, 64, 100)), mel=MEL)
WHISPER = json.dumps({"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 80, "chunk_length": 1})
AST = json.dumps({"feature_extractor_type": "ASTFeatureExtractor", "num_mel_bins": 32, "max_length": 98})
EXTRACTED = {
    "WhisperFeatureExtractor": AudioSpec(16000, 16000, extractor=WHISPER, features=(80, 100)),
    "ASTFeatureExtractor": AudioSpec(16000, 15920, extractor=AST, features=(98, 32)),
}


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> Sound:
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))
    return Sound(samples.astype(np.float32), rate)


def test_a_recording_as_long_as_the_window_is_left_alone() -> None:
    sound = noise(1.0)
    assert np.array_equal(AudioTransform(SAMPLES)(sound), sound.samples)


def test_short_ones_are_followed_by_silence_and_long_ones_cut_to_their_middle() -> None:
    short, long = noise(0.25), noise(3.0)
    row = AudioTransform(SAMPLES)(short)
    assert np.array_equal(row[:2000], short.samples) and not row[2000:].any()
    assert np.array_equal(AudioTransform(SAMPLES)(long), long.samples[8000:16000])


def test_in_a_picture_a_short_recording_lies_in_the_middle() -> None:
    shown = AudioTransform(PICTURE)(noise(0.25))[0].max(0) > 0
    columns = np.flatnonzero(shown)
    assert columns.min() > 30 and columns.max() < 70 and abs(columns.mean() - 49.5) < 2


@pytest.mark.parametrize("rate", [4000, 11025, 44100, 96000])
def test_every_rate_becomes_the_sources(rate: int) -> None:
    spec = AudioSpec(rate=RATE, samples=4000)
    row = AudioTransform(spec)(tone(440, 1.0, rate))
    spectrum = np.abs(np.fft.rfft(row[500:3500] * np.hanning(3000)))
    assert row.shape == (4000,) and row.dtype == np.float32
    assert np.argmax(spectrum) * RATE / 3000 == pytest.approx(440, abs=3)
    assert np.abs(row[500:3500]).max() == pytest.approx(0.5, abs=0.01)


def test_what_the_new_rate_cannot_carry_is_taken_out() -> None:
    high = AudioTransform(SAMPLES)(tone(6000, 1.0, 44100))
    assert np.abs(high[100:-100]).max() < 0.005  # an alias would be as loud as the tone


def test_normalised_rows_have_mean_0_and_variance_1_over_the_sound() -> None:
    sound = noise(0.5)
    row = AudioTransform(replace(SAMPLES, normalise=True))(replace_samples(sound, 0.3 + sound.samples))
    assert row[:4000].mean() == pytest.approx(0, abs=1e-5) and row[:4000].std() == pytest.approx(1, abs=1e-3)
    assert not row[4000:].any()
    silent = AudioTransform(replace(SAMPLES, normalise=True))(Sound(np.zeros(100, np.float32), RATE))
    assert not silent.any()


def replace_samples(sound: Sound, samples: np.ndarray) -> Sound:
    return Sound(samples.astype(np.float32), sound.rate)


def test_normalised_rows_equal_wav2vec2s() -> None:
    transformers = pytest.importorskip("transformers")
    sound = noise(0.7, rate=16000)
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    theirs = extractor(sound.samples, sampling_rate=16000, padding="max_length", max_length=16000, return_tensors="np")
    ours = AudioTransform(AudioSpec(16000, 16000, normalise=True))(sound)
    np.testing.assert_allclose(ours, theirs["input_values"][0], atol=1e-5)


@pytest.mark.parametrize("kind", EXTRACTED)
@pytest.mark.parametrize("seconds", [0.5, 1.0])
def test_extracted_rows_are_transformers_own(kind: str, seconds: float) -> None:
    extractor = getattr(pytest.importorskip("transformers"), kind)
    spec = EXTRACTED[kind]
    samples = noise(seconds, rate=16000).samples[: spec.samples]
    theirs = extractor.from_dict(json.loads(spec.extractor))(samples, sampling_rate=16000, return_tensors="np")
    ours = AudioTransform(spec)(Sound(samples, 16000))
    assert ours.shape == spec.size and ours.dtype == np.float32
    assert np.array_equal(ours, next(iter(theirs.values()))[0])


@pytest.mark.parametrize("kind", EXTRACTED)
def test_even_one_sample_is_extracted(kind: str) -> None:
    pytest.importorskip("transformers")
    assert AudioTransform(EXTRACTED[kind])(Sound(np.ones(1, np.float32), 16000)).shape == EXTRACTED[kind].size


def test_a_strangers_extractor_runs_no_other_class() -> None:
    spec = AudioSpec(16000, 16000, extractor='{"feature_extractor_type": "Trainer"}', features=(1, 1))
    with pytest.raises(SourceError, match=r"'Trainer', expected one of AST.*load_source"):
        AudioTransform(spec)(noise(0.1))


@pytest.mark.parametrize(("package", "extra"), [("soxr", "audio"), ("transformers", "hf")])
def test_a_missing_package_is_named_with_its_extra(package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    other = '{"feature_extractor_type": "ASTFeatureExtractor", "max_length": 3}'
    spec = SAMPLES if package == "soxr" else AudioSpec(16000, 16000, extractor=other, features=(3, 128))
    with pytest.raises(MissingExtra, match=rf"{package} is needed to .*regraft\[{extra}\]"):
        AudioTransform(spec)(noise(0.1, rate=16000))


@pytest.mark.parametrize(("n_mels", "f_max", "n_fft"), [(40, 4000, 512), (64, 3800, 1024), (20, 2000, 256)])
def test_filters_equal_transformers(n_mels: int, f_max: float, n_fft: int) -> None:
    audio_utils = pytest.importorskip("transformers.audio_utils")
    theirs = audio_utils.mel_filter_bank(n_fft // 2 + 1, n_mels, 50.0, f_max, RATE, norm=None, mel_scale="htk")
    mel = replace(MEL, n_mels=n_mels, f_min=50.0, f_max=f_max, n_fft=n_fft)
    np.testing.assert_allclose(mel_filters(RATE, mel), theirs.T, atol=1e-6)


def test_spectrograms_equal_transformers() -> None:
    audio_utils = pytest.importorskip("transformers.audio_utils")
    sound = replace_samples(noise(1.0), noise(1.0).samples + tone(700, 1.0).samples)
    theirs = audio_utils.spectrogram(
        sound.samples,
        audio_utils.window_function(256, "hann"),
        frame_length=256,
        hop_length=80,
        fft_length=512,
        power=2.0,
        pad_mode="constant",
        mel_filters=mel_filters(RATE, MEL).T,
        log_mel="dB",
        db_range=80,
    )
    ours = log_mel(sound.samples, RATE, MEL)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs - theirs.max(), atol=0.02)


@pytest.mark.parametrize("hertz", [300, 1000, 3000])
def test_pictures_show_pitch_upwards(hertz: float) -> None:
    picture = AudioTransform(PICTURE)(tone(hertz, 1.0))
    assert picture.dtype == np.uint8 and picture.shape == (3, 64, 100)
    assert np.array_equal(picture[0], picture[1]) and np.array_equal(picture[0], picture[2])
    top, place = 2595 * np.log10(1 + 4000 / 700), 2595 * np.log10(1 + hertz / 700)
    assert picture[0, :, 50].argmax() == pytest.approx(64 * (1 - place / top), abs=3)
    assert picture.max() >= 250


def test_pictures_show_time_to_the_right_and_do_not_depend_on_gain() -> None:
    sound = tone(1000, 1.0)
    late = replace_samples(sound, sound.samples * (np.arange(8000) >= 4000))
    picture = AudioTransform(PICTURE)(late)[0]
    assert picture[:, 55:].max() > 250 and picture[:, :45].max() == 0
    quiet = AudioTransform(PICTURE)(replace_samples(late, late.samples / 100))[0]
    assert np.abs(picture.astype(int) - quiet).max() <= 1


def test_a_network_for_grey_pictures_gets_one_channel() -> None:
    grey = replace(PICTURE, picture=InputSpec((1, 64, 100), (0.5,), (0.5,)))
    assert np.array_equal(AudioTransform(grey)(tone()), AudioTransform(PICTURE)(tone())[:1])


@pytest.mark.parametrize("length", [1, 7, 300])
@pytest.mark.parametrize("spec", [SAMPLES, PICTURE], ids=["samples", "picture"])
def test_silence_and_next_to_nothing_have_rows(spec: AudioSpec, length: int) -> None:
    for view in (0, 1):
        row = AudioTransform(spec, view)(Sound(np.zeros(length, np.float32), 44100), "key")
        assert row.shape == spec.size and not row.any()


@pytest.mark.parametrize("spec", [SAMPLES, PICTURE], ids=["samples", "picture"])
def test_views_are_fixed_by_key_and_number(spec: AudioSpec) -> None:
    sound = noise(0.6)
    views = [AudioTransform(spec, v)(sound, key) for v in (0, 1, 2) for key in "ab"]
    again = [AudioTransform(spec, v)(sound, key) for v in (0, 1, 2) for key in "ab"]
    assert all(np.array_equal(*pair) for pair in zip(views, again, strict=True))
    assert np.array_equal(views[0], views[1])  # the plain view does not depend on the key
    assert len({view.tobytes() for view in views}) == 5
    assert {(view.shape, view.dtype) for view in views} == {(spec.size, AudioTransform(spec).dtype)}


def test_views_shift_and_change_the_gain_but_keep_the_sound() -> None:
    sound = tone(500, 0.5)
    rows = [AudioTransform(SAMPLES, v)(sound, "k") for v in range(1, 30)]
    onsets = [int(np.flatnonzero(np.abs(row) > 0.1)[0]) for row in rows]
    peaks = [float(np.abs(row).max()) for row in rows]
    assert min(onsets) < 500 and max(onsets) > 3000  # samples, of 4000 that are free
    assert min(peaks) < 0.4 and max(peaks) > 0.6 and max(peaks) < 1.5
    assert all(np.abs(np.fft.rfft(row)).argmax() == 500 for row in rows)


def test_views_of_a_long_recording_show_other_parts() -> None:
    steps = np.repeat(np.arange(10, dtype=np.float32) / 10, 8000)
    shown = {round(float(np.median(AudioTransform(SAMPLES, v)(Sound(steps, RATE), "k"))), 1) for v in range(1, 20)}
    assert len(shown) > 4


@pytest.mark.parametrize(("seconds", "count"), [(0.3, 1), (1.0, 1), (1.01, 2), (2.0, 2), (2.5, 3)])
def test_windows_cover_the_whole_recording(seconds: float, count: int) -> None:
    sound = noise(seconds)
    rows = AudioTransform(SAMPLES, view=3).windows(sound)
    assert rows.shape == (count, RATE)
    seen = {float(sample) for row in rows for sample in row}
    assert seen >= {float(sample) for sample in sound.samples}
    if count == 1:
        assert np.array_equal(rows[0], AudioTransform(SAMPLES)(sound))
    else:
        assert np.array_equal(rows[0], sound.samples[:RATE]) and np.array_equal(rows[-1], sound.samples[-RATE:])


def test_windows_of_pictures_are_pictures() -> None:
    assert AudioTransform(PICTURE).windows(noise(2.2)).shape == (3, *PICTURE.size)


def test_views_of_pictures_have_masks() -> None:
    views = [AudioTransform(PICTURE, v)(noise(1.0), "k")[0] for v in range(1, 20)]
    bands = sum(bool((view.std(1) == 0).any()) for view in views)
    stretches = sum(bool((view.std(0) == 0).any()) for view in views)
    assert bands > 10 and stretches > 10
    assert all((view.std(1) == 0).mean() < 0.35 for view in views)


def test_the_digest_names_everything_the_input_depends_on() -> None:
    base = AudioTransform(PICTURE)
    others = [
        AudioTransform(PICTURE, view=1),
        AudioTransform(SAMPLES),
        AudioTransform(replace(SAMPLES, normalise=True)),
        AudioTransform(replace(SAMPLES, rate=16000)),
        AudioTransform(replace(SAMPLES, samples=100)),
        AudioTransform(replace(PICTURE, mel=replace(MEL, top_db=40))),
        AudioTransform(replace(PICTURE, picture=InputSpec((3, 32, 32)))),
        *(AudioTransform(spec) for spec in EXTRACTED.values()),
    ]
    assert base.digest == AudioTransform(spec_from_dict(json.loads(json.dumps(PICTURE.to_dict())))).digest
    assert len({t.digest for t in (base, *others)}) == 10


def test_a_picture_needs_its_spectrogram() -> None:
    with pytest.raises(ValueError, match="go together"):
        replace(SAMPLES, picture=InputSpec((3, 8, 8)))
