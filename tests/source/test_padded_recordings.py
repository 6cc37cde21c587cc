"""Short recordings under networks on samples: silence pads them, which some were trained to hear and some were not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("soxr")
pytest.importorskip("soundfile")
pytest.importorskip("transformers")

import soundfile
import transformers

from regraft.data import Dataset, read
from regraft.data.audio import AudioTransform, Sound
from regraft.search import Means, check, traced_source
from regraft.source import Source, load_source
from regraft.source.transformers.audio import wants_mask
from regraft.spec import AudioSpec
from regraft.testing import tiny_source

RATE, WINDOW = 16000, 2000
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
WAVES: dict[str, Any] = SMALL | {
    "conv_dim": (8, 8),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
SPEC = AudioSpec(RATE, WINDOW, normalise=True)


@pytest.fixture(autouse=True)
def _silent() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def opened(folder: Path, kind: str = "wav2vec2", **changes: Any) -> tuple[Source, Any]:
    """A source with random weights, and transformers' own network."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **WAVES | changes)
    model = transformers.AutoModel.from_config(config).eval()
    model.save_pretrained(folder)
    return load_source(str(folder), input=SPEC), model


@torch.no_grad()
def test_those_that_were_trained_without_a_mask_give_transformers_outputs(tmp_path: Path) -> None:
    source, theirs = opened(tmp_path)
    assert not wants_mask(source)
    samples = np.random.default_rng(0).standard_normal(700).astype(np.float32)
    # Called with padding and without a mask, the extractor counts the silence into mean and variance.
    alone = transformers.Wav2Vec2FeatureExtractor()(samples, sampling_rate=RATE, return_tensors="pt").input_values
    padded = torch.nn.functional.pad(alone, (0, WINDOW - 700))
    row = torch.from_numpy(AudioTransform(SPEC)(Sound(samples, RATE)))[None]
    torch.testing.assert_close(source.model(row), theirs(padded).last_hidden_state.mean(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "changes", "wanted"),
    [
        ("wav2vec2", {}, False),
        ("wav2vec2", LAYER, True),
        ("hubert", {}, False),
        ("hubert", LAYER, True),
        ("wavlm", LAYER, True),
        ("data2vec-audio", {}, True),
    ],
)
def test_which_were_trained_with_a_mask(kind: str, changes: dict[str, Any], wanted: bool, tmp_path: Path) -> None:
    assert wants_mask(opened(tmp_path, kind, **changes)[0]) == wanted


def test_other_networks_have_no_mask() -> None:
    assert not wants_mask(tiny_source())


def recordings(root: Path, n_samples: int) -> Dataset:
    random = np.random.default_rng(n_samples)
    for i in range(20):
        (root / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        soundfile.write(root / "ab"[i % 2] / f"{i}.wav", 0.1 * random.standard_normal(n_samples), RATE)
    return read(root)


def test_much_silence_is_warned_of_where_it_was_masked_in_training(tmp_path: Path) -> None:
    short, long = (recordings(tmp_path / str(n), n) for n in (700, 1500))
    means = Means(tmp_path / "cache")
    masked, plain = (opened(tmp_path / name, **changes)[0] for name, changes in (("layer", LAYER), ("group", {})))
    traced = {source.uri: traced_source(source) for source in (masked, plain)}
    (reason,) = check(short, masked, traced[masked.uri], means).reasons
    assert "100 % of the recordings fill less than half of the 0.1 seconds" in reason and "feat_extract_norm" in reason
    assert not check(long, masked, traced[masked.uri], means).reasons
    assert not check(short, plain, traced[plain.uri], means).reasons
