"""ONNX's operators of transformers that came with operator set 23.

N examples, L tokens, H heads, D features of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, past_key: Tensor | None = None,
              past_value: Tensor | None = None, lengths: Tensor | None = None, *, is_causal: int = 0,
              q_num_heads: int = 0, kv_num_heads: int = 0, scale: float | None = None, softcap: float = 0.0,
              qk_matmul_output_mode: int = 0, softmax_precision: int = 1, left_window_size: int = -1,
              right_window_size: int = -1) -> Tensor:  # fmt: skip
    """Of (N, H, L, D), or of (N, L, H * D) where the numbers of heads are given; without a cache of earlier tokens."""
    if any(given is not None for given in (past_key, past_value, lengths)):
        raise ValueError("attention with a cache of keys and values")
    if (left_window_size, right_window_size) != (-1, -1):
        raise ValueError("attention within a window")
    packed = query.dim() == 3
    if packed:
        query, key, value = _heads(query, q_num_heads), _heads(key, kv_num_heads), _heads(value, kv_num_heads)
    if mask is not None and not mask.is_floating_point() and mask.dtype != torch.bool:
        raise ValueError("a mask of whole numbers")
    causal = bool(is_causal)
    if causal and (mask is not None or softcap):  # PyTorch takes one mask
        mask, causal = _causal(mask, query, key), False
    grouped = query.shape[1] != key.shape[1]
    if softcap:
        found = _capped(query, key, value, mask, scale, softcap)
    else:
        found = F.scaled_dot_product_attention(query, key, value, mask, 0.0, causal, scale=scale, enable_gqa=grouped)
    return found.transpose(1, 2).flatten(2) if packed else found


def _heads(x: Tensor, count: int) -> Tensor:
    if x.dim() != 3 or count < 1:
        raise ValueError("attention without a number of heads")
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def _causal(mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor:
    """A mask that also hides what comes later."""
    earlier = query.new_ones((query.shape[-2], key.shape[-2]), dtype=torch.bool).tril()
    if mask is None or mask.dtype == torch.bool:
        return earlier if mask is None else mask & earlier
    return mask.masked_fill(~earlier, -math.inf)


def _capped(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None,
            softcap: float) -> Tensor:  # fmt: skip
    """With scores that stay between -softcap and softcap, which PyTorch's attention does not have."""
    groups = query.shape[1] // key.shape[1]
    key, value = (key, value) if groups == 1 else (x.repeat_interleave(groups, 1) for x in (key, value))
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        return torch.softmax(scores, -1) @ value
    scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    blind = (scores == -math.inf).all(-1, keepdim=True)  # a row that sees nothing gives zeros, and no NaN backwards
    return torch.softmax(scores.masked_fill(blind, 0.0), -1).masked_fill(blind, 0.0) @ value


def rms_norm(x: Tensor, weight: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Tensor:
    """Over all axes from `axis` on."""
    return F.rms_norm(x, tuple(x.shape[axis:]), None, epsilon) * weight


def rotary_embedding(x: Tensor, cosines: Tensor, sines: Tensor, places: Tensor | None = None, *, interleaved: int = 0,
                     num_heads: int = 0, rotary_embedding_dim: int = 0) -> Tensor:  # fmt: skip
    """Pairs of a head's features turned by an angle for each token; x is (N, H, L, D) or (N, L, H * D)."""
    if places is not None:
        cosines, sines = cosines[places], sines[places]
    heads = _heads(x, num_heads) if x.dim() == 3 else x
    turned = rotary_embedding_dim or heads.shape[-1]
    cosines, sines = cosines.unsqueeze(-3), sines.unsqueeze(-3)  # the same for every head
    pairs = heads[..., :turned].unflatten(-1, (-1, 2) if interleaved else (2, -1))
    first, second = pairs.unbind(-1 if interleaved else -2)
    parts = (cosines * first - sines * second, sines * first + cosines * second)
    done = torch.stack(parts, -1 if interleaved else -2).flatten(-2)
    whole = torch.cat([done, heads[..., turned:]], -1) if turned < heads.shape[-1] else done
    return whole.transpose(1, 2).flatten(2) if x.dim() == 3 else whole
