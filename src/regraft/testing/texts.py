"""A text source and texts small enough for every test.

N examples, B batch, L tokens, D features.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from regraft.source import Source, build, expects, make_source
from regraft.spec import TextSpec

TINY_TEXT_ARCH = "python:regraft.testing.texts:tiny_text_net"
_TOPICS = (
    "sea wave ship harbour sail tide anchor coast",
    "forest tree leaf root moss bark pine fern",
    "city street tram crowd tower window traffic roof",
)
_FILLERS = "the a of and in on we saw near old new some that was with very"
WORDS = tuple(f"{' '.join(_TOPICS)} {_FILLERS}".split())
_WIDTH = 24


class TinyTextBlock(nn.Module):
    """Self-attention with one head, then two linear layers, each added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, L, D) and a mask (B, L) to (B, L, D)."""
        query, key, value = self.qkv(self.norm(x)).chunk(3, 2)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None].bool())
        x = x + self.out(seen)
        return x + self.down(F.gelu(self.up(x)))


class TinyTextNet(nn.Module):
    """A table of words, two blocks, the mean over the tokens that count."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(len(WORDS), _WIDTH)
        self.blocks = nn.ModuleList(TinyTextBlock(_WIDTH) for _ in range(2))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Ids and mask (B, L) to (B, D)."""
        x = self.table(ids)
        for block in self.blocks:
            x = block(x, mask)
        counts = mask[:, :, None].to(x.dtype)
        return (x * counts).sum(1) / counts.sum(1).clamp(min=1)


@expects(TextSpec("\n".join(WORDS), kind="words", length=32))
def tiny_text_net() -> TinyTextNet:
    """The architecture of `tiny_text_source`, importable as `regraft.testing.texts:tiny_text_net`."""
    return TinyTextNet()


def tiny_text_source(seed: int = 0) -> Source:
    """A small transformer with random weights that knows the words of `tiny_texts`.

    Args:
        seed: of the weights; the same seed gives the same digest.

    Example:
        >>> tiny_text_source().input.modality
        'text'
    """
    model, spec = build(TINY_TEXT_ARCH, seed=seed)
    assert spec is not None
    return make_source(f"testing:tiny-text-{seed}", TINY_TEXT_ARCH, {}, model, spec)


def tiny_texts(n_per_class: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Short texts on three topics, a few words of the topic among many of none.

    Args:
        n_per_class: texts of each topic.
        seed: the same seed gives the same texts.

    Returns:
        The texts and their labels ("sea", "forest", "city"), topics in turn.

    Example:
        >>> texts, labels = tiny_texts(2)
        >>> len(texts), labels
        (6, ['sea', 'forest', 'city', 'sea', 'forest', 'city'])
    """
    random = np.random.default_rng(seed)
    labels = [topic.split()[0] for topic in _TOPICS] * n_per_class
    return [_text(_TOPICS[i % len(_TOPICS)], random) for i in range(len(labels))], labels


def _text(topic: str, random: np.random.Generator) -> str:
    words = [*random.choice(topic.split(), 2), *random.choice(_FILLERS.split(), random.integers(3, 12))]
    return " ".join(random.permutation(words))
