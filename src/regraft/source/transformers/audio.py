"""Encoders of sound among transformers' networks: Wav2Vec2, HuBERT, WavLM, the Audio Spectrogram Transformer, Whisper.

Baevski et al.: wav2vec 2.0, 2020, arXiv 2006.11477. Hsu et al.: HuBERT, 2021, arXiv 2106.07447.
Gong et al.: AST, 2021, arXiv 2104.01778. Radford et al.: Whisper, 2022, arXiv 2212.04356.

B batch, T samples, M mel filters, F frames, L places in time, D features, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regraft.errors import SourceError
from regraft.source.files import read_json
from regraft.source.source import LoadReport, Source
from regraft.source.transformers.hub import fresh, kinds, library, with_classifier
from regraft.source.transformers.saved import Saved, mixed_in
from regraft.spec import AudioSpec

KINDS = (
    "audio-spectrogram-transformer",
    "data2vec-audio",
    "hubert",
    "sew",
    "unispeech",
    "unispeech-sat",
    "wav2vec2",
    "wavlm",
    "whisper",
)
_SECONDS = 10.0  # of a window on samples, until the recordings at hand say how long they are
_AST_FRAME, _AST_HOP = 0.025, 0.010  # seconds, of the spectrogram that AST was trained on
_NOT_SETTINGS = ("mel_filters", "processor_class", "_processor_class")  # computed from the rest, or someone else's
_TRAINING_ONLY = "masked_spec_embed"  # stands for masked sound while training; not every checkpoint has it
_WHISPER = ("model.encoder.", "encoder.", "")  # where its encoder lies in a checkpoint


def is_audio(fields: Mapping[str, Any]) -> bool:
    """Whether a config describes an encoder of sound.

    Example:
        >>> is_audio({"model_type": "hubert"}), is_audio({"model_type": "vit"})
        (True, False)
    """
    return fields["model_type"] in KINDS


def wants_mask(source: Source) -> bool:
    """Whether a network was trained with the silence that pads a recording masked out, as it is not here.

    Those with layer norm between their filters were, those with group norm were not (transformers' documentation of
    `Wav2Vec2Model`). A mask that follows from the recording would cross every place of the network beside the
    activation, so that no inner cut was left.

    Args:
        source: any.
    """
    config = source.arch_args.get("config", {})
    kind, norm = config.get("model_type"), config.get("feat_extract_norm")
    return kind == "data2vec-audio" or (kind in KINDS and norm == "layer")


def open_audio(saved: Saved) -> Source:
    """An encoder of sound of transformers as a source.

    Args:
        saved: what describes the input is its `preprocessor_config.json`.

    Raises:
        SourceError: no input is described, or the weights do not fit.
    """
    asked = saved.request.input
    if asked is not None and not isinstance(asked, AudioSpec):
        raise saved.request.wrong_input("audio")
    kind, arch_args = audio_class(saved.fields, str(saved.folder)), {"config": saved.fields}
    spec = asked or input_of(saved.folder, saved.fields)
    model, report = _filled(saved, kind) if saved.weights else (saved.built(kind, arch_args), None)
    return saved.source(kind, arch_args, model, spec, report)


def build_audio(kind: type[nn.Module], fields: dict[str, Any], arch_args: dict[str, Any]) -> nn.Module:
    """An encoder of sound with fresh weights."""
    return mixed_in(AudioEncoder, fresh(kind, fields))


def audio_class(fields: Mapping[str, Any], where: str) -> type[nn.Module]:
    """The class that a config describes: with its classifier if that is what was saved; of Whisper else the encoder."""
    classifier = with_classifier("AUDIO", fields, where)
    if classifier or fields["model_type"] != "whisper":
        return classifier or kinds("MODEL_MAPPING", fields, where)[0]
    return library().models.whisper.modeling_whisper.WhisperEncoder


class AudioEncoder(nn.Module):
    """Mixed into a class of transformers: prepared sound in, one tensor out; all names stay transformers' own."""

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        """(B, T), (B, F, M) or (B, M, F) to logits (B, K), or to features (B, D): AST's own, or the mean over L."""
        found = super().forward(sound)
        for name in ("logits", "pooler_output"):
            if getattr(found, name, None) is not None:
                return getattr(found, name)
        return found.last_hidden_state.mean(1)


def _filled(saved: Saved, kind: type[nn.Module]) -> tuple[nn.Module, LoadReport]:
    """The network with its weights, and what became of every tensor."""
    tensors = saved.tensors(kind)
    if kind.__name__ == "WhisperEncoder":
        tensors = _without_prefix(tensors)
    model, report = saved.loaded(kind, tensors)
    unused = tuple(name for name in report.missing if name.endswith(_TRAINING_ONLY))
    report = replace(report, missing=tuple(n for n in report.missing if n not in unused), harmless=unused)
    saved.check_fit(kind, report)
    return mixed_in(AudioEncoder, model), report


def _without_prefix(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Under the encoder's own names; the decoder keeps its names, and is reported as not used."""
    prefix = next((p for p in _WHISPER if f"{p}conv1.weight" in tensors), "")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def input_of(folder: Path, fields: Mapping[str, Any]) -> AudioSpec:
    """The input that a folder's `preprocessor_config.json` describes.

    Raises:
        SourceError: there is none, or it makes no sense.
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise SourceError(
            f"{folder} has no preprocessor_config.json, so recordings cannot be prepared for it. Copy it too, or say "
            "the input: load_source(uri, input=AudioSpec(rate=16000, samples=160000, normalise=True))"
        )
    settings = {name: value for name, value in read_json(path).items() if name not in _NOT_SETTINGS}
    try:
        return _input(settings, fields)
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{path} lacks something or has a wrong value: {error!r}. Copy it again, or say the input yourself: "
            "load_source(uri, input=AudioSpec(rate=16000, samples=160000, normalise=True))"
        ) from error


def _input(settings: dict[str, Any], fields: Mapping[str, Any]) -> AudioSpec:
    """As transformers' feature extractors read these fields."""
    rate = int(settings["sampling_rate"])
    if not 1000 <= rate <= 200_000:
        raise ValueError(f"sampling_rate {rate}")
    kind = fields["model_type"]
    if kind == "whisper":
        return _whisper_input(settings, fields, rate)
    if kind == "audio-spectrogram-transformer":
        frames, mels = int(settings.get("max_length", 1024)), int(settings.get("num_mel_bins", 128))
        _agree((frames, mels), (fields.get("max_length", 1024), fields.get("num_mel_bins", 128)))
        samples = round(rate * (_AST_FRAME + (frames - 1) * _AST_HOP))
        return AudioSpec(rate, samples, extractor=_json(settings), features=(frames, mels))
    return AudioSpec(rate, round(_SECONDS * rate), normalise=bool(settings.get("do_normalize", True)))


def _whisper_input(settings: dict[str, Any], fields: Mapping[str, Any], rate: int) -> AudioSpec:
    samples = rate * int(settings.get("chunk_length", 30))
    mels, frames = int(settings.get("feature_size", 80)), samples // int(settings.get("hop_length", 160))
    _agree((mels, frames), (fields.get("num_mel_bins", 80), 2 * fields.get("max_source_positions", 1500)))
    return AudioSpec(rate, samples, extractor=_json(settings), features=(mels, frames))


def _agree(prepared: tuple[int, int], wanted: tuple[Any, Any]) -> None:
    if prepared != wanted:
        raise ValueError(f"it prepares {prepared}, and config.json wants {wanted}")


def _json(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
