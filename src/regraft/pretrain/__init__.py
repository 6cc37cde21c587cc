"""Pretrain: where no source exists, make one.

In: a big related set and an architecture. Out: a folder in regraft's source layout (config.json,
model.safetensors, README.md card), which `load_source` opens.
Laws: it trains by the same loop as `tune`; the test split is measured once, after the last epoch; the card
holds the command that makes the weights again.
"""

from regraft.pretrain.supervised import SUPERVISED, About, Pictures, Training, pretrain_pixels, pretrain_supervised

__all__ = ["SUPERVISED", "About", "Pictures", "Training", "pretrain_pixels", "pretrain_supervised"]
