"""Heads: what a probe fits, what fine-tuning starts from, what a delivered model ends in.

Every head takes one row of features for each example and ends in `weight` (K, F) and `bias` (K,). Layers on the places
of texts take as many places as an example has: (N, L, C), with NaN beyond its end.

Shape letters: N examples, D features, K classes, C channels, H height, W width, L places (pixels of an
activation, or tokens), F what the last layer reads.
"""

from __future__ import annotations

import math
import re

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

# Layers before the linear one, and how wide they are where a recipe does not say.
KINDS = {"linear": 0, "mlp": 256, "conv": 64, "lstm": 128, "attention": 0}
NEED_PLACES = ("conv", "lstm", "attention")


class LinearHead(nn.Module):
    """A linear classifier that standardises its features first: `((x - mean) / scale) @ weight.T + bias`.

    Mean and scale are buffers, so that they travel with the weights and are never trained.

    Args:
        n_features: D.
        n_classes: K.

    Example:
        >>> head = LinearHead.zeros(3, 2)
        >>> head(torch.ones(4, 3)).shape
        torch.Size([4, 2])
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.weight = nn.Parameter(torch.zeros(n_classes, n_features))
        self.bias = nn.Parameter(torch.zeros(n_classes))

    @classmethod
    def zeros(cls, n_features: int, n_classes: int) -> LinearHead:
        """A head that gives every class the same score."""
        return cls(n_features, n_classes)

    @classmethod
    def from_arrays(cls, weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> LinearHead:
        """A head with these values, as float32.

        Args:
            weight: (K, D), for standardised features.
            bias: (K,).
            mean: (D,), subtracted from the features.
            scale: (D,), divides the centred features; no zeros.
        """
        head = cls(weight.shape[1], weight.shape[0])
        values = {"weight": weight, "bias": bias, "mean": mean, "scale": scale}
        head.load_state_dict({name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()})
        return head

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Class scores (N, K) of features (N, D)."""
        return ((features - self.mean) / self.scale) @ self.weight.T + self.bias

    def extra_repr(self) -> str:
        """Sizes, for `print`."""
        return f"n_features={self.weight.shape[1]}, n_classes={self.weight.shape[0]}"


class LayeredHead(nn.Module):
    """A head with layers of its own before the linear one, which starts at zero: all classes score alike.

    Args:
        layers: from features (N, D) to (N, F).
        n_features: F.
        n_classes: K.
    """

    def __init__(self, layers: nn.Module, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.layers = layers
        self.weight = nn.Parameter(torch.zeros(n_classes, n_features))
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Class scores (N, K) of features (N, D)."""
        return F.linear(self.layers(features), self.weight, self.bias)


class Places(nn.Module):
    """Rows of features as what they were: (N, D) to places (N, L, C), or to a map (N, C, H, W).

    Args:
        shape: of one example's activation.
        layout: "NCHW", "NHWC" or "NLC".
        as_map: whether to give a map; tokens become one of width 1.
    """

    def __init__(self, shape: tuple[int, ...], layout: str, *, as_map: bool = False) -> None:
        super().__init__()
        self.shape, self.layout, self.as_map = shape, layout, as_map

    @property
    def channels(self) -> int:
        """C."""
        return self.shape[0] if self.layout == "NCHW" else self.shape[-1]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, D) to (N, L, C) or (N, C, H, W)."""
        x = features.reshape(-1, *self.shape)
        if self.layout == "NLC":
            x = x[:, :, None]
        if self.layout != "NCHW":
            x = x.permute(0, 3, 1, 2)
        return x.contiguous() if self.as_map else x.flatten(2).transpose(1, 2)


class AttentionPool(nn.Module):
    """A weighted mean of places, the weights by one learned query; at the start all places count alike.

    Places that hold NaN have no weight.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(channels))

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        """(N, L, C) to (N, C)."""
        beyond, places = places[..., 0].isnan(), places.nan_to_num(0.0)
        scores = places @ self.query / places.shape[2] ** 0.5  # (N, L)
        return (scores.masked_fill(beyond, -torch.inf).softmax(1)[:, None] @ places)[:, 0]


class LastState(nn.Module):
    """The state of an LSTM (Hochreiter and Schmidhuber, 1997) after the last step of a sequence.

    Tokens are a sequence as they are, up to the first that holds NaN; of a picture, each line from top to bottom is a
    step.

    Args:
        step: numbers in a step.
        width: F.
    """

    def __init__(self, step: int, width: int) -> None:
        super().__init__()
        self.step = step
        self.lstm = nn.LSTM(step, width, batch_first=True)

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        """(N, L, C) to (N, F)."""
        sequences = places.reshape(len(places), -1, self.step)
        counts = (~sequences[..., 0].isnan()).sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(sequences.nan_to_num(0.0), counts, batch_first=True, enforce_sorted=False)
        return self.lstm(packed)[1][0][-1]


class TokenFilters(nn.Module):
    """Filters over three neighbouring tokens, and the strongest answer of each (Kim, 2014, arXiv:1408.5882).

    Args:
        channels: C.
        width: F, number of filters.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.filters = nn.Conv1d(channels, width, 3, padding=1)

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        """(N, L, C), with NaN beyond an example's end, to (N, F)."""
        beyond = places[..., 0].isnan()[:, None]
        answers = self.filters(places.nan_to_num(0.0).transpose(1, 2)).relu()  # (N, F, L)
        return answers.masked_fill(beyond, 0.0).amax(2)


def has_places(shape: tuple[int, ...], layout: str) -> bool:
    """Whether an activation holds several places; what is pooled but not yet flattened holds one.

    Args:
        shape: of one example's activation.
        layout: what its axes are; a free length is several places, whatever the traced example has.

    Example:
        >>> has_places((7, 32), "ragged"), has_places((1, 32), "NLC"), has_places((64, 1, 1), "NCHW")
        (True, False, False)
    """
    if layout == "ragged":
        return len(shape) > 1
    places = {"NCHW": shape[1:], "NHWC": shape[:-1], "NLC": shape[:-1]}
    return math.prod(places.get(layout, ())) > 1


def parse_layers(text: object) -> tuple[str, int] | None:
    """Kind and width of a head's layers; None if the text names none.

    Example:
        >>> parse_layers("mlp:64"), parse_layers("lstm"), parse_layers("attention:3")
        (('mlp', 64), ('lstm', 128), None)
    """
    match = re.fullmatch(r"([a-z]+)(?::([1-9]\d{0,4}))?", text) if isinstance(text, str) else None
    if match is None or match[1] not in KINDS or (match[2] and not KINDS[match[1]]):
        return None
    return match[1], int(match[2] or KINDS[match[1]])


def make_head(layers: str, shape: tuple[int, ...], layout: str, n_classes: int, *, seed: int = 0) -> nn.Module:
    """A head that gives every class the same score.

    Args:
        layers: "linear", "mlp:256", "conv:64", "lstm:128" or "attention".
        shape: of one example's features: (D,), or of the activation that they are the rows of.
        layout: "NC", "NCHW", "NHWC", "NLC" or "ragged"; all but the first two kinds need places.
        n_classes: K.
        seed: of the layers' initialisation; the global random state is left as it was.

    Example:
        >>> make_head("attention", (32, 8, 8), "NCHW", 3)(torch.ones(4, 2048)).shape
        torch.Size([4, 3])
    """
    parsed = parse_layers(layers)
    if parsed is None or (parsed[0] in NEED_PLACES and len(shape) == 1):
        raise ValueError(f"no head {layers!r} for features of the shape {shape}")
    kind, width = parsed
    if kind == "linear":
        return LinearHead.zeros(int(np.prod(shape)), n_classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inner, n_features = _layers(kind, width, shape, layout)
    return LayeredHead(inner, n_features, n_classes)


def _layers(kind: str, width: int, shape: tuple[int, ...], layout: str) -> tuple[nn.Module, int]:
    if kind == "mlp":
        return nn.Sequential(nn.Linear(int(np.prod(shape)), width), nn.ReLU()), width
    if layout == "ragged":
        return _on_tokens(kind, width, shape[-1])
    places = Places(shape, layout, as_map=kind == "conv")
    if kind == "attention":
        return nn.Sequential(places, AttentionPool(places.channels)), places.channels
    if kind == "lstm":
        across = {"NCHW": shape[-1], "NHWC": shape[-2], "NLC": 1}[layout]
        return nn.Sequential(places, LastState(across * places.channels, width)), width
    taken = nn.Conv2d(places.channels, width, 3, padding=1)
    return nn.Sequential(places, taken, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), width


def _on_tokens(kind: str, width: int, channels: int) -> tuple[nn.Module, int]:
    """Layers on as many places as an example has, and how many numbers they give."""
    if kind == "attention":
        return AttentionPool(channels), channels
    return (LastState(channels, width) if kind == "lstm" else TokenFilters(channels, width)), width
