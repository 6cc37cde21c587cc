"""Does the data suit what a source expects? Said by its kind and size, then measured on a few dozen examples.

A batch norm remembers the mean and variance of what it saw in training. Under the right preprocessing the new
pictures' statistics are near those, in the first layers whatever the pictures show; under a wrong mean, scale or order
of colours they are far off. So the declared preprocessing is compared with the usual alternatives: a warning is due
where another one fits several times better.

Shape letters: N examples, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import fx

from regraft.cache import recall, remember
from regraft.cut import Traced
from regraft.data import Dataset, Transform, load_pixels
from regraft.digest import digest_package
from regraft.search.features import Means
from regraft.source import Source
from regraft.spec import IMAGENET_MEAN, IMAGENET_STD, ChannelOrder, InputSpec

Verdict = Literal["fits", "warns", "refuses"]

_EXAMPLES = 16
_LAYERS = 6  # batch norms looked at, from the input on: deeper ones follow the task more than the preprocessing
_FAR = 2.5  # times better that another mean or scale must fit; right ones were up to 2.2 times worse on odd pictures
_SWAPPED = 1.15  # the same for the order of colours, where all else is equal
_NEAR = 0.02  # nats; nearer than that, no mean or scale is wrong that could be seen
_ENLARGED = 4.0
# Mean and std of every channel, for pixels scaled to 0..1.
_USUAL: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "ImageNet's mean and std": (IMAGENET_MEAN, IMAGENET_STD),
    "mean 0.5, std 0.5 (pixels from -1 to 1)": ((0.5,) * 3, (0.5,) * 3),
    "mean 0, std 1 (pixels from 0 to 1)": ((0.0,) * 3, (1.0,) * 3),
    "mean 0, std 1/255 (pixels from 0 to 255)": ((0.0,) * 3, (1 / 255,) * 3),
}


@dataclass(frozen=True)
class Fitness:
    """Whether a dataset suits a source.

    Args:
        verdict: "fits", "warns", or "refuses".
        reasons: with the remedy, one sentence each.
        distances: of each preprocessing from what the network saw in training, in nats; empty without batch norms.
    """

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    distances: tuple[tuple[str, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def check(data: Dataset, source: Source, traced: Traced, means: Means) -> Fitness:
    """Compare a dataset with what a source expects.

    Args:
        data: whose training examples are looked at.
        source: the network.
        traced: its graph.
        means: its cache keeps what was measured.
    """
    if data.modality != source.input.modality:
        return Fitness("refuses", (_other_kind(data, source),))
    if data.modality != "image":
        return Fitness("fits")
    few = _few(data)
    key = [source.weights_digest, source.arch, source.arch_args, source.input.to_dict(), few.keys]
    key.append(digest_package("regraft.search"))
    if (found := recall(means.root, "distances", key)) is None:
        found = _distances(few, source, traced), {}
        remember(means.root, "distances", key, *found)
    distances = tuple((name, float(value)) for name, value in found[0])
    reasons = [reason for reason in (_too_small(few, source), _misread(source, dict(distances))) if reason]
    return Fitness("warns" if reasons else "fits", tuple(reasons), distances)


def _few(data: Dataset) -> Dataset:
    """Training examples spread evenly over the dataset's order, which goes by class."""
    train = data.split("train")
    places = np.unique(np.linspace(0, len(train) - 1, min(_EXAMPLES, len(train))).round().astype(int))
    return replace(train, examples=tuple(train.examples[i] for i in places))


def _other_kind(data: Dataset, source: Source) -> str:
    return (
        f"{source.uri} expects {source.input.modality}, and {data.name} holds {data.modality}. "
        f"Take a source for {data.modality}: --source URI"
    )


def _too_small(few: Dataset, source: Source) -> str:
    sides = [min(few.open(i).size) for i in range(min(8, len(few)))]
    wanted, median = min(source.input.size[1:]), float(np.median(sides))
    if wanted <= _ENLARGED * median:
        return ""
    return (
        f"pictures of {median:.0f} pixels are enlarged {wanted / median:.0f} times for {source.uri}; details that it "
        "looks for are not there. A source that was trained on small pictures may do better: rank several with "
        "regraft rank"
    )


def _misread(source: Source, distances: dict[str, float]) -> str:
    """What another preprocessing would explain so much better that the declared one is in doubt."""
    if not distances:
        return ""
    declared = distances["as declared"]
    others = {name: declared / max(distance, 1e-9) for name, distance in distances.items() if name != "as declared"}
    doubtful = {name: times for name, times in others.items() if times > _enough(name, declared)}
    if not doubtful:
        return ""
    best = max(doubtful, key=lambda name: doubtful[name])
    return (
        f"with its declared preprocessing the pictures are {doubtful[best]:.1f} times further from what {source.uri} "
        f"was trained on than with {best}. If that is right, say so: {_flags(best, source)}"
    )


def _enough(name: str, declared: float) -> float:
    if "instead of" in name:
        return _SWAPPED
    return _FAR if declared > _NEAR else float("inf")


def _flags(name: str, source: Source) -> str:
    spec = dict(alternatives(source.input))[name]
    size, mean, std = (",".join(f"{value:.4g}" for value in values) for values in (spec.size, spec.mean, spec.std))
    order = f" --channel-order {spec.channel_order}" if spec.channel_order != source.input.channel_order else ""
    return f"--input-size {size} --mean {mean} --std {std}{order}"


def alternatives(spec: InputSpec) -> Iterator[tuple[str, InputSpec]]:
    """The declared input, and what else it may be."""
    yield "as declared", spec
    channels = spec.size[0]
    for name, (mean, std) in _USUAL.items():
        other = replace(spec, mean=mean[:channels], std=std[:channels])
        if not np.allclose((*other.mean, *other.std), (*spec.mean, *spec.std), atol=0.02):
            yield name, other
    if channels == 3:
        order: ChannelOrder = "RGB" if spec.channel_order == "BGR" else "BGR"
        yield f"{order} instead of {spec.channel_order}", replace(spec, channel_order=order)


def _distances(few: Dataset, source: Source, traced: Traced) -> list[tuple[str, float]]:
    pixels = torch.from_numpy(load_pixels(few, Transform(source.input))).float() / 255
    found = []
    for name, spec in alternatives(source.input):
        ordered = pixels if spec.channel_order == source.input.channel_order else pixels.flip(1)
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (spec.mean, spec.std))
        distance = _distance(traced, (ordered - mean) / std)
        if distance is None:
            return []
        found.append((name, distance))
    return found


def _distance(traced: Traced, x: torch.Tensor) -> float | None:
    """The mean divergence of a batch (N, C, H, W) from what the first batch norms remember; None without any."""
    watch = _Watch(traced.graph)
    with torch.no_grad():
        watch.until_enough(x)
    return float(np.mean(watch.divergences)) if watch.divergences else None


class _Enough(Exception):  # noqa: N818  (it reads as what it is)
    """The batch norms that are looked at have been passed."""


class _Watch(fx.Interpreter):
    """Runs a graph up to its first batch norms and compares their inputs with what they remember."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.divergences: list[float] = []

    def until_enough(self, x: torch.Tensor) -> None:
        with suppress(_Enough):
            self.run(x)

    def run_node(self, n: fx.Node) -> Any:
        if "batch_norm" in str(n.target):
            values: Any = self.map_nodes_to_values(n.args[:5], n)
            x, _, _, mean, variance = values
            self.divergences.append(_divergence(x, mean, variance))
            if len(self.divergences) == _LAYERS:
                raise _Enough
        return super().run_node(n)


def _divergence(x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> float:
    """The median over channels of the divergence of the Gaussian seen from the one remembered, in nats."""
    others = [axis for axis in range(x.ndim) if axis != 1]
    seen_mean, seen, known = x.mean(others), x.var(others) + 1e-5, variance + 1e-5
    ratio = seen / known
    return float((0.5 * (ratio + (seen_mean - mean) ** 2 / known - 1 - ratio.log())).median())
