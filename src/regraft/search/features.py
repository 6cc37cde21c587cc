"""A dataset seen through one frozen network, with the cache between them.

Shape letters: N examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from regraft.cache import FeatureCache, PassReport, Tap, default_root, frozen_pass
from regraft.cut import Traced
from regraft.data import SPLITS, Dataset, Problem, transform_for
from regraft.data.text import padded_length
from regraft.probe import derived
from regraft.run import Engine, Here, Listener, Silent
from regraft.source import Source
from regraft.spec import TextSpec
from regraft.tune import CacheRows


@dataclass(frozen=True)
class Means:
    """What the work is done with.

    Args:
        root: folder of the feature caches.
        runtime: of frozen layers: "auto", "torch" or "openvino".
        device: of everything that PyTorch does.
        seed: of all that is drawn.
        skip_bad: leave out examples that turn out to be unreadable, instead of raising.
        listener: who is told.
        engine: where pieces of work run that do not need each other.
    """

    root: Path = field(default_factory=default_root)
    runtime: str = "auto"
    device: str = "cpu"
    seed: int = 0
    skip_bad: bool = False
    listener: Listener = field(default_factory=Silent)
    engine: Engine = field(default_factory=Here)

    def __getstate__(self) -> dict[str, Any]:
        """Elsewhere nobody listens, and a piece of work is not parted further."""
        return vars(self) | {"listener": Silent(), "engine": Here()}


@dataclass(frozen=True)
class Tally:
    """What the frozen passes of a run came to: examples computed and found, seconds, bytes written."""

    computed: int = 0
    hits: int = 0
    seconds: float = 0.0
    bytes: int = 0
    runtime: str = "none"

    @property
    def seconds_each(self) -> float:
        """Of an example that was computed; 0 where all were found."""
        return self.seconds / self.computed if self.computed else 0.0

    def plus(self, report: PassReport) -> Tally:
        """The sum with one more pass."""
        return Tally(
            self.computed + report.computed,
            self.hits + report.hits,
            self.seconds + report.seconds,
            self.bytes + report.bytes,
            report.runtime if report.computed else self.runtime,
        )


class Features:
    """Rows of a dataset at any tap of a source: from the cache where they are, else computed once.

    Args:
        data: the examples of all splits.
        source: the network.
        traced: its graph.
        means: cache folder, runtime, device, listener.
    """

    def __init__(self, data: Dataset, source: Source, traced: Traced, means: Means) -> None:
        self.data = data
        self.tally = Tally()
        self.source = source
        self.traced = traced
        self.means = means
        self._caches: dict[tuple[Tap, int], FeatureCache] = {}  # of each tap in each view
        self._derived = derived(self._stored, traced, len(self.labels("train")))

    def __call__(self, tap: Tap, split: str, view: int = 0) -> np.ndarray:
        """Rows of one split in the dataset's order, (N, D); coarse grids follow from the stored fine ones."""
        if not view:
            return self._derived(tap, split)
        if (tap, view) not in self._caches:
            self.fill([tap], (split,), view)
        return self._caches[tap, view].rows(self.data.split(split).keys)

    def labels(self, split: str) -> np.ndarray:
        """What heads learn, of one split: class indices (N,), or labels or standardised numbers (N, K)."""
        return self.data.split(split).y

    @cached_property
    def length(self) -> int | None:
        """Of texts, the tokens that a batch for training is padded to; None where all rows are of one shape."""
        spec = self.source.input
        return padded_length(self.data.split("train"), spec) if isinstance(spec, TextSpec) else None

    def fill(self, taps: Sequence[Tap], splits: Sequence[str] = SPLITS, view: int = 0) -> None:
        """Compute what is missing at some taps, in one pass over one view of the examples of some splits.

        Raises:
            CacheError: the disk is full. Finished rows stay.
            DataError: some examples cannot be read. All other rows stay.
        """
        listener, what = self.means.listener, f"frozen layers, view {view}" if view else "frozen layers"
        bad: list[Problem] = []
        wanted = tuple(example for example in self.data.examples if example.split in splits)
        caches, report = frozen_pass(
            replace(self.data, examples=wanted),
            self.source,
            self.traced,
            taps,
            root=self.means.root,
            transform=transform_for(self.source.input, view),
            runtime=self.means.runtime,
            device=self.means.device,
            progress=lambda done, total: listener.progress(what, done, total),
            on_bad=bad.append if self.means.skip_bad else None,
        )
        self.data = _without(self.data, bad)
        self._caches |= {(tap, view): cache for tap, cache in caches.items()}
        self.tally = self.tally.plus(report)
        if report.computed and view:
            cost = f"{report.seconds:.1f} s of frozen layers, {report.bytes / 1e6:.1f} MB"
            listener.say(f"View {view} of {report.computed} examples: {cost}.")
        if report.computed and report.fallback_reason:
            listener.say(f"Frozen layers ran on {report.runtime}: {report.fallback_reason}")

    def identity(self, taps: Sequence[Tap]) -> list[Any]:
        """What the rows of some taps and their labels depend on, as plain values."""
        splits = [self.data.split(split) for split in ("train", "val")]
        return [[self._cache(tap).key.digest for tap in taps], [[part.keys, part.y.tolist()] for part in splits]]

    def activations(self, tap: Tap, split: str, view: int = 0) -> CacheRows:
        """The rows of a tap for one split in one view, read from disk as they are needed."""
        place, keys = (tap, view), self.data.split(split).keys
        if place not in self._caches or not self._caches[place].keys() >= set(keys):
            # Most trials never come to the test split, and views are for training.
            self.fill([tap], (split,) if view or split == "test" else ("train", "val"), view)
        return CacheRows(self._caches[place], self.data.split(split).keys, self.labels(split))

    def _stored(self, tap: Tap, split: str) -> np.ndarray:
        return self._cache(tap).rows(self.data.split(split).keys)

    def _cache(self, tap: Tap) -> FeatureCache:
        if (tap, 0) not in self._caches:
            self.fill([tap])
        return self._caches[tap, 0]


def _without(data: Dataset, bad: Sequence[Problem]) -> Dataset:
    if not bad:
        return data
    names = {problem.name for problem in bad}
    kept = tuple(example for example in data.examples if example.name not in names)
    return replace(data, examples=kept, problems=(*data.problems, *bad))
