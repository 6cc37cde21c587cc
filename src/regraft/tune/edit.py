"""Blocks made anew: the `replace` of a recipe carried out on a traced network.

Shape letters: C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import nn

from regraft.cut import Cut, Traced, around, replaced
from regraft.errors import RecipeError
from regraft.tune.recipe import Recipe


def edited(traced: Traced, recipe: Recipe, *, seed: int = 0) -> Traced:
    """A network with the recipe's new layers in the place of its blocks.

    Below the lowest of them nothing changes, so cached activations of the source serve both.

    Args:
        traced: the source's graph.
        recipe: whose `replace` says which blocks and by what.
        seed: of the new layers; the same seed gives the same ones.

    Raises:
        CutError: a block cannot be taken out.
        RecipeError: what is above a block does not fit what replaces it.

    Example:
        >>> from regraft.cut import trace
        >>> from regraft.testing import tiny_source
        >>> traced = trace(tiny_source().model, torch.zeros(2, 3, 32, 32))
        >>> edited(traced, Recipe("narrow", head="fresh", replace={"block3": "conv:8"})).cut("block3").shape
        (8, 8, 8)
    """
    blocks = sorted(recipe.replace, key=lambda block: traced.cut(block).index)
    for i, block in enumerate(blocks):
        start, end = around(traced, block)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + i)
            layer = _layer(recipe.replace[block], block, start, end)
        traced = replaced(traced, block, layer)
        if i + 1 < len(blocks) and traced.cut(block).shape != end.shape:
            raise RecipeError(
                f"replace: {recipe.replace[block]!r} gives {traced.cut(block).shape} in the place of {block!r} "
                f"{end.shape}, so that {blocks[i + 1]!r} above it does not fit. Keep the width, or replace only "
                f"the lower one: recipe.with_(replace={{{block!r}: {recipe.replace[block]!r}}})."
            )
    return traced


def _layer(what: str, block: str, start: Cut, end: Cut) -> nn.Module:
    """The new layer; where the block made pictures smaller, so does a convolution."""
    kind, _, width = what.partition(":")
    if kind == "drop":
        return nn.Identity()
    if start.layout == "NCHW":
        side = end.shape[1] if end.layout == "NCHW" else 1
        stride = max(1, start.shape[1] // side)
        if kind == "linear":
            return nn.Conv2d(start.shape[0], int(width), 1, stride)
        return nn.Sequential(nn.Conv2d(start.shape[0], int(width), 3, stride, padding=1), nn.ReLU())
    if kind == "linear":
        return nn.Linear(start.shape[-1], int(width))
    raise RecipeError(
        f"replace: {what!r} needs pictures (C, H, W), but {block!r} reads {start.shape}. "
        f"Use a linear layer: recipe.with_(replace={{{block!r}: 'linear:{width}'}})."
    )
