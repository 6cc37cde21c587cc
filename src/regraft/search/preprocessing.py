"""Is a source's declared preprocessing the one that it was trained with? Measured against the usual alternatives.

A batch norm remembers the mean and variance of what it saw in training. Under the right preprocessing the new
pictures' statistics are near those, in the first layers whatever the pictures show; under a wrong mean, scale or order
of colours they are far off. A network without batch norms remembers nothing of the kind: there a linear head on its
last layer is fitted under every preprocessing, and scored by leave-one-out.

Shape letters: N examples, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import fx

from regraft.cache import Tap, TapModel
from regraft.cut import Traced, batch_norms
from regraft.data import Dataset, Transform, load_pixels
from regraft.probe import lda
from regraft.source import Source, front
from regraft.spec import IMAGENET_MEAN, IMAGENET_STD, ChannelOrder, InputSpec

_EXAMPLES = 16
_WHOLE = 96  # pixels of a side: of larger pictures a quarter tells as much in a quarter of the time
_LAYERS = 6  # batch norms looked at, from the input on: deeper ones follow the task more than the preprocessing
_FAR = 2.2  # times better that another mean or scale must fit; right ones were up to 2.0 times worse on odd pictures
_SWAPPED = 1.15  # the same for the order of colours, where all else is equal
_NEAR = 0.02  # nats; nearer than that, no mean or scale is wrong that could be seen
_PROBED, _CLASSES, _FEWEST = 60, 10, 3  # examples of the probe, most classes among them, fewest examples of each
# By how much another preprocessing's probe must be better. Wrong ones were up to 0.15 and 2.4 standard errors better
# than right ones, over seven networks and four sets of pictures.
_BETTER, _SURE = 0.15, 3.0
_MOST_PARAMETERS = 30_000_000  # the probe takes some 300 passes in PyTorch, which are not worth it for larger ones
_BATCH = 20
# Mean and std of every channel, for pixels scaled to 0..1.
_USUAL: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "ImageNet's mean and std": (IMAGENET_MEAN, IMAGENET_STD),
    "mean 0.5, std 0.5 (pixels from -1 to 1)": ((0.5,) * 3, (0.5,) * 3),
    "mean 0, std 1 (pixels from 0 to 1)": ((0.0,) * 3, (1.0,) * 3),
    "mean 0, std 1/255 (pixels from 0 to 255)": ((0.0,) * 3, (1 / 255,) * 3),
}


@dataclass(frozen=True)
class Reading:
    """How the usual ways to prepare pictures compare for one source.

    Args:
        by: "batch norm" or "probe"; "" where neither says anything.
        values: of each preprocessing; the distance from what the network saw in training, in nats, or the accuracy
            of the probe.
        doubt: how much worse the declared one is than another, in words; "" where it is not.
        best: the name of that other.
    """

    by: str = ""
    values: tuple[tuple[str, float], ...] = ()
    doubt: str = ""
    best: str = ""


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


def reading(data: Dataset, source: Source, traced: Traced) -> Reading:
    """Compare a source's declared preprocessing with the usual others, on pictures.

    Args:
        data: whose training examples are looked at.
        source: the network.
        traced: its graph.
    """
    if has_batch_norm(traced):
        return _by_distance(_each(_spread(data), source, lambda spec, rows: _distance(traced, spec, rows)))
    if not data.task.one_of or source.n_params > _MOST_PARAMETERS or (right := probed(data, source, traced)) is None:
        return Reading()
    return by_probe(right)


def has_batch_norm(traced: Traced) -> bool:
    """Whether a network remembers what it saw."""
    return bool(batch_norms(traced.graph))


def probed(data: Dataset, source: Source, traced: Traced) -> dict[str, np.ndarray] | None:
    """Which examples (N,) a probe on the last layer gets right under each preprocessing; None with too few examples."""
    some = _of_some_classes(data)
    if np.bincount(some.labels, minlength=2).min() < _FEWEST:
        return None
    return _each(some, source, lambda spec, rows: _right(traced, spec, rows, some.labels))


def by_probe(right: dict[str, np.ndarray], declared: str = "as declared") -> Reading:
    """What `probed` says of one of its preprocessings.

    Args:
        right: which examples (N,) were right under each.
        declared: the one that is judged.
    """
    values = tuple((name, float(hits.mean())) for name, hits in right.items())
    best = max(right, key=lambda name: right[name].mean())
    differences = right[best].astype(float) - right[declared]
    gain, se = float(differences.mean()), float(differences.std() / np.sqrt(len(differences)))
    if gain <= max(_BETTER, _SURE * se):
        return Reading("probe", values)
    return Reading("probe", values, f"a linear probe gets {100 * gain:.0f} % more of the pictures wrong", best)


def _each(few: Dataset, source: Source, measure: Callable[[InputSpec, torch.Tensor], Any]) -> dict[str, Any]:
    """What is measured of the same pixels (N, C, H, W), prepared in every usual way."""
    assert isinstance(source.input, InputSpec)
    rows = torch.from_numpy(load_pixels(few, Transform(source.input)))
    found = {}
    for name, spec in alternatives(source.input):
        found[name] = measure(spec, rows if spec.channel_order == source.input.channel_order else rows.flip(1))
    return found


def _spread(data: Dataset) -> Dataset:
    """Training examples spread evenly over the dataset's order, which goes by class."""
    train = data.split("train")
    places = np.unique(np.linspace(0, len(train) - 1, min(_EXAMPLES, len(train))).round().astype(int))
    return replace(train, examples=tuple(train.examples[i] for i in places))


def _of_some_classes(data: Dataset) -> Dataset:
    """As many training examples of each of the first classes."""
    n = min(len(data.classes), _CLASSES)
    some = data.per_class(_PROBED // n, seed=0).split("train")
    return replace(some, examples=tuple(e for e in some.examples if e.label < n))


def _by_distance(distances: dict[str, float]) -> Reading:
    values, declared = tuple(distances.items()), distances["as declared"]
    times = {name: declared / max(distance, 1e-9) for name, distance in values}
    doubtful = [name for name in distances if times[name] > _enough(name, declared)]
    if not doubtful:
        return Reading("batch norm", values)
    best = max(doubtful, key=lambda name: times[name])
    doubt = f"the pictures are {times[best]:.1f} times further from what it was trained on"
    return Reading("batch norm", values, doubt, best)


def _enough(name: str, declared: float) -> float:
    if "instead of" in name:
        return _SWAPPED
    return _FAR if declared > _NEAR else float("inf")


def _right(traced: Traced, spec: InputSpec, rows: torch.Tensor, y: np.ndarray) -> np.ndarray:
    """Which examples (N,) a probe on the last layer gets right, each left out in turn."""
    model = TapModel(traced, [Tap(traced.feature.name, 1)], spec).eval()
    with torch.no_grad():
        X = torch.cat([model(rows[i : i + _BATCH])[0] for i in range(0, len(rows), _BATCH)])
    scores = lda(np.nan_to_num(X.double().numpy()), y, int(y.max()) + 1).cv_scores
    assert scores is not None
    return scores.argmax(1) == y


def _distance(traced: Traced, spec: InputSpec, rows: torch.Tensor) -> float:
    """The mean divergence of pixels (N, C, H, W) from what the first batch norms remember."""
    first = batch_norms(traced.graph)[:_LAYERS]
    # Behind a flattening no part of a picture will do, even where it raises nothing: view(-1, n) mixes the pictures.
    on_maps = all(node.all_input_nodes[0].meta["val"].ndim == 4 for node in first)
    try:
        return _Watch(traced.graph, first).distance(front(spec)(_quarters(rows) if on_maps else rows)[0])
    except RuntimeError:  # one size only: positions that are added, maps that are flattened on the way
        return _Watch(traced.graph, first).distance(front(spec)(rows)[0])


def _quarters(rows: torch.Tensor) -> torch.Tensor:
    """One corner of each large picture (N, C, H, W), another one of the next; (N, C, H/2, W/2)."""
    height, width = rows.shape[2] // 2, rows.shape[3] // 2
    if min(rows.shape[2:]) <= _WHOLE:
        return rows
    corners = [(i // 2 % 2 * height, i % 2 * width) for i in range(len(rows))]
    pairs = zip(rows, corners, strict=True)
    return torch.stack([row[:, top : top + height, left : left + width] for row, (top, left) in pairs])


class _Enough(Exception):  # noqa: N818  (it reads as what it is)
    """The batch norms that are looked at have been passed."""


class _Watch(fx.Interpreter):
    """Runs a graph up to its first batch norms and compares their inputs with what they remember."""

    def __init__(self, graph: fx.GraphModule, first: tuple[fx.Node, ...]) -> None:
        super().__init__(graph)
        self.first = first
        self.divergences: list[float] = []

    def distance(self, x: torch.Tensor) -> float:
        with torch.no_grad(), suppress(_Enough):
            self.run(x)
        return float(np.mean(self.divergences))

    def run_node(self, n: fx.Node) -> Any:
        if n in self.first:
            values: Any = self.map_nodes_to_values(n.args[:5], n)
            x, _, _, mean, variance = values
            self.divergences.append(_divergence(x, mean, variance))
        if n is self.first[-1]:
            raise _Enough
        return super().run_node(n)


def _divergence(x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> float:
    """The median over channels of the divergence of the Gaussian seen from the one remembered, in nats."""
    others = [axis for axis in range(x.ndim) if axis != 1]
    seen_mean, seen, known = x.mean(others), x.var(others) + 1e-5, variance + 1e-5
    ratio = seen / known
    return float((0.5 * (ratio + (seen_mean - mean) ** 2 / known - 1 - ratio.log())).median())
