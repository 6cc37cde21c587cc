"""The join law on encoders of sound: taken apart at any legal cut and joined again they are the network, bit for bit.

B recordings.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from regraft.cache.pool import pooled
from regraft.cut import join, split, trace
from regraft.source import build

transformers = pytest.importorskip("transformers")

WAVES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8, 8],
    "conv_stride": [5, 4],
    "conv_kernel": [10, 8],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}  # what the larger Wav2Vec2 and WavLM are
WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "num_mel_bins": 8,
    "max_source_positions": 20,
}
AST = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_mel_bins": 32,
    "max_length": 48,
}
# Class, kind of config, its settings, shape of a row, blocks.
ENCODERS = [
    ("Wav2Vec2Model", "wav2vec2", WAVES, (1000,), "encoder.layers"),
    ("Wav2Vec2Model", "wav2vec2", WAVES | LARGE, (1000,), "encoder.layers"),
    ("HubertModel", "hubert", WAVES, (1000,), "encoder.layers"),
    ("ASTModel", "audio-spectrogram-transformer", AST, (48, 32), "layers"),
    ("WhisperEncoder", "whisper", WHISPER, (8, 40), "layers"),
]


@torch.no_grad()
@pytest.mark.parametrize(("name", "kind", "settings", "shape", "blocks"), ENCODERS)
def test_every_cut(name: str, kind: str, settings: dict[str, Any], shape: tuple[int, ...], blocks: str) -> None:
    model, _ = build(f"hf:{name}", {"config": {"model_type": kind, **settings}})
    traced = trace(model, torch.zeros(2, *shape), name=name)
    assert not traced.fallback_reason
    names = [cut.name for cut in traced.cuts]
    assert sum(f"{blocks}." in cut for cut in names) >= 4, names
    for n in (1, 3):
        rows = torch.randn(n, *shape)
        wanted = model(rows)
        for cut in traced.cuts:
            assert torch.equal(join(*split(traced, cut))(rows), wanted), cut
    assert traced.feature.shape == (16,)


@pytest.mark.parametrize(("name", "kind", "settings", "shape", "blocks"), ENCODERS[:3])
def test_pooled_features_do_not_depend_on_how_long_the_recordings_are(
    name: str, kind: str, settings: dict[str, Any], shape: tuple[int, ...], blocks: str
) -> None:
    """Means are taken over time, and never over channels."""
    model, _ = build(f"hf:{name}", {"config": {"model_type": kind, **settings}})
    short, long = (trace(model, torch.zeros(2, n)).cuts[2:] for n in (1000, 1403))  # the first two hold samples
    for one, other in zip(short, long, strict=True):
        widths = {pooled(cut.shape, cut.layout, 1).channels for cut in (one, other)}
        assert len(widths) == 1, (one, other)


def test_gradients_reach_what_lies_above_a_cut() -> None:
    name, kind, settings, shape, _ = ENCODERS[0]
    model, _ = build(f"hf:{name}", {"config": {"model_type": kind, **settings}})
    traced = trace(model, torch.zeros(2, *shape), name=name)
    middle = traced.stages[len(traced.stages) // 2]
    _, suffix = split(traced, middle)
    suffix(torch.randn(2, *middle.shape)).sum().backward()
    own = dict(model.named_parameters())
    parameters = dict(suffix.named_parameters())
    assert parameters and all(p.grad is not None and p is own[n] for n, p in parameters.items())
