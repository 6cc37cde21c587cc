"""Pretrain: where no source exists, make one.

In: many pictures, with labels or without, and an architecture. Out: a folder in regraft's source layout (config.json,
model.safetensors, README.md card), which `load_source` opens.
Laws: it trains by the same loop as `tune`; the test split is measured once, after the last epoch; the card
holds the command that makes the weights again.
"""

from regraft.pretrain.objectives import OBJECTIVES, Objective, Pretext
from regraft.pretrain.training import ONE_CYCLE, Training, pretrain

__all__ = ["OBJECTIVES", "ONE_CYCLE", "Objective", "Pretext", "Training", "pretrain"]
