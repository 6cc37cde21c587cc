"""Encoders of sound of transformers, from folders that transformers itself wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from regraft.errors import SourceError
from regraft.source import build, front, load_source, with_random_weights
from regraft.spec import AudioSpec, InputSpec

transformers = pytest.importorskip("transformers")
pytest.importorskip("soundfile")

WAVES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8, 8),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 8,
}
PLACES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
AST = PLACES | {"num_mel_bins": 32, "max_length": 48}
WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_mel_bins": 80,
    "max_source_positions": 50,
    "max_target_positions": 8,
    "vocab_size": 30,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "classifier_proj_size": 8,
}
# What was saved, and the class that opens it.
NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Wav2Vec2Model": ("Wav2Vec2Model", "wav2vec2", WAVES),
    "Wav2Vec2ForPreTraining": ("Wav2Vec2Model", "wav2vec2", WAVES),
    "Wav2Vec2ForCTC": ("Wav2Vec2Model", "wav2vec2", WAVES | {"vocab_size": 9}),
    "Wav2Vec2ForSequenceClassification": ("Wav2Vec2ForSequenceClassification", "wav2vec2", WAVES),
    "HubertModel": ("HubertModel", "hubert", WAVES),
    "WavLMModel": ("WavLMModel", "wavlm", WAVES),
    "ASTModel": ("ASTModel", "audio-spectrogram-transformer", AST),
    "ASTForAudioClassification": ("ASTForAudioClassification", "audio-spectrogram-transformer", AST),
    "WhisperModel": ("WhisperEncoder", "whisper", WHISPER),
    "WhisperForConditionalGeneration": ("WhisperEncoder", "whisper", WHISPER),
    "WhisperForAudioClassification": ("WhisperForAudioClassification", "whisper", WHISPER),
}


def extractor(name: str) -> Any:
    if name.startswith("Whisper"):
        return transformers.WhisperFeatureExtractor(chunk_length=1)
    if name.startswith("AST"):
        return transformers.ASTFeatureExtractor(num_mel_bins=32, max_length=48)
    return transformers.Wav2Vec2FeatureExtractor()


def saved(folder: Path, name: str) -> Any:
    """A folder as transformers writes it; returns the network."""
    _, kind, settings = NETWORKS[name]
    model = getattr(transformers, name)(transformers.AutoConfig.for_model(kind, **settings)).eval()
    model.save_pretrained(folder)
    extractor(name).save_pretrained(folder)
    return model


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(autouse=True)
def _silent() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def pooled(model: Any, rows: torch.Tensor) -> torch.Tensor:
    """What transformers gives, as one row per recording."""
    name = type(model).__name__
    if "Classification" in name:
        return model(rows).logits
    if name.startswith("Whisper"):
        return getattr(model, "model", model).encoder(rows).last_hidden_state.mean(1)
    base = getattr(model, "wav2vec2", model)
    found = base(rows)
    return found.pooler_output if "pooler_output" in found else found.last_hidden_state.mean(1)


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_a_folder_gives_transformers_outputs_and_is_rebuilt(name: str, tmp_path: Path) -> None:
    theirs = saved(tmp_path, name)
    source = load_source(f"hf:{tmp_path}")
    assert isinstance(source.input, AudioSpec) and source.arch == f"hf:{NETWORKS[name][0]}"
    rows = torch.randn(2, *(source.input.features or (4000,)))
    assert torch.equal(source.model(*front(source.input)(rows)), pooled(theirs, rows))
    assert source.report is not None and not source.report.missing and not source.report.mismatched
    again, _ = build(source.arch, json.loads(json.dumps(source.arch_args)))
    again.load_state_dict(source.model.state_dict())
    assert torch.equal(again(rows), source.model(rows))


@torch.no_grad()
@pytest.mark.parametrize("name", ["Wav2Vec2Model", "ASTModel", "WhisperModel"])
def test_a_recording_is_prepared_as_transformers_does_it(name: str, tmp_path: Path) -> None:
    from regraft.data.audio import AudioTransform, Sound

    saved(tmp_path, name)
    spec = load_source(str(tmp_path)).input
    assert isinstance(spec, AudioSpec)
    samples = np.random.default_rng(0).standard_normal(spec.samples).astype(np.float32)
    theirs = extractor(name)(samples, sampling_rate=16000, return_tensors="np")
    ours = AudioTransform(spec)(Sound(samples, 16000))
    assert ours.shape == spec.size
    np.testing.assert_allclose(ours, next(iter(theirs.values()))[0], atol=1e-5)


def test_what_is_not_used_of_a_checkpoint_is_reported(tmp_path: Path) -> None:
    saved(tmp_path, "WhisperModel")
    report = load_source(str(tmp_path)).report
    assert report is not None and report.unexpected and all("decoder" in name for name in report.unexpected)


def test_a_checkpoint_without_the_embedding_of_masked_sound_is_whole(tmp_path: Path) -> None:
    saved(tmp_path, "HubertModel")
    path = tmp_path / "model.safetensors"
    kept = {k: v for k, v in safetensors.torch.load_file(path).items() if k != "masked_spec_embed"}
    safetensors.torch.save_file(kept, path, metadata={"format": "pt"})
    report = load_source(str(tmp_path)).report
    assert report is not None and report.harmless == ("masked_spec_embed",) and report.complete


def test_random_weights_and_a_twin(tmp_path: Path) -> None:
    saved(tmp_path, "HubertModel")
    fresh = load_source(str(tmp_path), random_weights=True, seed=3)
    assert fresh.report is None and fresh.input == load_source(str(tmp_path)).input
    assert with_random_weights(fresh, seed=4).weights_digest != fresh.weights_digest


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("HubertModel", {"sampling_rate": None}, "sampling_rate|int"),
        ("HubertModel", {"sampling_rate": 10**9}, "sampling_rate 1000000000"),
        ("ASTModel", {"max_length": 999}, r"prepares \(999, 32\), and config.json wants \(48, 32\)"),
        ("WhisperModel", {"chunk_length": 30}, r"prepares \(80, 3000\), and config.json wants \(80, 100\)"),
    ],
)
def test_a_preprocessor_that_makes_no_sense(name: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    saved(tmp_path, name)
    edit(tmp_path / "preprocessor_config.json", **changes)
    with pytest.raises(SourceError, match=message):
        load_source(str(tmp_path))


def test_no_preprocessor_asks_for_the_input(tmp_path: Path) -> None:
    saved(tmp_path, "HubertModel")
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(SourceError, match=r"no preprocessor_config\.json.*input=AudioSpec"):
        load_source(str(tmp_path))
    spec = AudioSpec(rate=16000, samples=8000)
    assert load_source(str(tmp_path), input=spec).input == spec


def test_an_input_of_pictures_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "HubertModel")
    with pytest.raises(SourceError, match="modality 'audio'"):
        load_source(str(tmp_path), input=InputSpec((3, 32, 32)))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "one", "HubertModel")
    saved(tmp_path / "other", "ASTModel")
    (tmp_path / "other" / "model.safetensors").replace(tmp_path / "one" / "model.safetensors")
    with pytest.raises(SourceError, match="does not fit"):
        load_source(str(tmp_path / "one"))
