"""One source looked at on one dataset: its cuts, its cached features, and what each depth holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft import cut, probe
from regraft.cache import Tap, recall, remember
from regraft.cut import Traced, trace_source
from regraft.data import Dataset
from regraft.digest import digest_package
from regraft.errors import DataError
from regraft.probe import DepthProfile, depth_profile, taps_wanted
from regraft.search.features import Features, Means
from regraft.source import Source, code_of, with_random_weights


@dataclass(frozen=True)
class Prospect:
    """A source that could be reused.

    Args:
        source: the network.
        traced: its graph and legal cuts.
        features: the dataset's rows at its taps.
        profile: heads fitted at every stage.
    """

    source: Source
    traced: Traced
    features: Features
    profile: DepthProfile

    def __reduce__(self) -> tuple[Any, ...]:
        """Elsewhere the source is traced again: a graph that is copied by `pickle` gets new names for its nodes."""
        return _again, (self.source, self.features.data, self.features.means, self.profile)


def _again(source: Source, data: Dataset, means: Means, profile: DepthProfile) -> Prospect:
    traced = traced_source(source, means.root)
    return Prospect(source, traced, Features(data, source, traced, means), profile)


def traced_source(source: Source, root: Path | None = None) -> Traced:
    """The graph of a source, exported on an input of the size it expects.

    Args:
        source: the network.
        root: folder of the caches, where the cuts of architectures of released code are kept; their graph is then
            exported only if it is needed. Other people's code is always exported: it may change under the same name.
    """

    def whole() -> Traced:
        return trace_source(source)

    if root is None or (code := code_of(source.arch)) is None:
        return whole()
    kind = [source.input.modality, source.input.size]
    key = [source.arch, source.arch_args, kind, code, digest_package("regraft.cut")]
    if (found := recall(root, "cuts", key)) is not None:
        return cut.from_plain(found[0], lambda: whole().graph, source.uri)
    traced = whole()
    remember(root, "cuts", key, cut.to_plain(traced))
    return traced


def look_at(data: Dataset, source: Source, means: Means, traced: Traced | None = None) -> Prospect:
    """One frozen pass over a dataset, then heads on every stage.

    Args:
        data: labelled examples with train and val splits.
        source: the network.
        means: cache folder, runtime, device, seed, listener.
        traced: the source's graph, where it is at hand.

    Raises:
        DataError: there is nothing to validate on.
    """
    check_splits(data)
    traced = traced or traced_source(source, means.root)
    features = Features(data, source, traced, means)
    taps = taps_wanted(traced, len(features.labels("train")))
    features.fill(taps)
    check_splits(features.data)  # some examples may turn out to be unreadable only now
    return Prospect(source, traced, features, _profile(features, taps, traced, len(data.classes), means))


def check_splits(data: Dataset) -> None:
    """Refuse a dataset with nothing to validate on.

    Raises:
        DataError: it has no validation examples.
    """
    if not data.split("val").examples:
        raise DataError(
            f"{data.name} has no validation examples, by which heads and depths are chosen: with two of a class, one "
            "goes to training and one to the test. Give each class three or more, or a split of your own: val/CLASS/..."
        )


def _profile(features: Features, taps: Sequence[Tap], traced: Traced, n_classes: int, means: Means) -> DepthProfile:
    """The depth profile; one that was drawn before from the same rows is not drawn again."""
    task = features.data.task
    key = [features.identity(taps), n_classes, task.to_dict(), means.seed, digest_package("regraft.probe")]
    if (found := recall(means.root, "profile", key)) is not None:
        return probe.from_plain(*found)
    y_train, y_val = features.labels("train"), features.labels("val")
    profile = depth_profile(features, y_train, y_val, traced, n_classes, seed=means.seed, task=task)
    remember(means.root, "profile", key, *probe.to_plain(profile))
    return profile


def randomised(prospect: Prospect, means: Means) -> Prospect:
    """The same architecture with fresh weights on the same data; its profile is not taken again."""
    source = with_random_weights(prospect.source, means.seed)
    traced = traced_source(source)
    features = Features(prospect.features.data, source, traced, means)
    features.tally = prospect.features.tally  # what the run has computed so far
    return Prospect(source, traced, features, prospect.profile)
